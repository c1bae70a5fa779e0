# Draws a column of what programs print of their steps as curves: one letter a file, the first of its name; means of
# equally many steps a place.
#
# awk -v field=8 -f docs/curves.awk none.txt auxiliary.txt bias.txt
BEGIN { width = 60; height = 12 }

FNR == 1 { files++; letter[files] = substr(FILENAME, match(FILENAME, /[^\/]*$/), 1) }
$1 ~ /^[0-9]+$/ && $field ~ /^[0-9.]+$/ && $2 ~ /^[0-9]+\.[0-9]+$/ {
  value[files, $1] = $field
  if ($1 > last) last = $1
}

END {
  least = 1e30
  for (file = 1; file <= files; ++file) {
    for (place = 0; place < width; ++place) {
      sum = count = 0
      for (step = int(place * (last + 1) / width); step < (place + 1) * (last + 1) / width; ++step) {
        if ((file, step) in value) { sum += value[file, step]; ++count }
      }
      if (!count) continue
      mean[file, place] = sum / count
      if (sum / count > most) most = sum / count
      if (sum / count < least) least = sum / count
    }
  }
  for (row = height; row >= 0; --row) {
    line = ""
    for (place = 0; place < width; ++place) {
      mark = " "
      for (file = 1; file <= files; ++file) {
        if ((file, place) in mean && int((mean[file, place] - least) / (most - least) * height + 0.5) == row) mark = letter[file]
      }
      line = line mark
    }
    sub(/ +$/, "", line)
    printf "%6.2f |%s\n", least + (most - least) * row / height, line
  }
  printf "       +"
  for (place = 0; place < width; ++place) printf "-"
  printf "\n        step 0%*s\n", width - 6, "step " last
}
