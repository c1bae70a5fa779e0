# Draws the efficiency of each technique over the number of ranks, a panel for each cluster, as SVG, from the table that
# compare writes:
#
#   ./run compare -- --scaling strong --csv docs/scaling_strong.csv
#   awk -f docs/scaling.awk docs/scaling_strong.csv > docs/scaling_strong.svg
BEGIN {
  FS = ","
  width = 380; height = 280; left = 52; top = 60
  count_of_colours = split("#3867c9 #13808a #218a54 #a2124a #c2700f #7a4fb5 #5c6068 #111111", colours, " ")
}

# The columns by their names; a technique that scales nothing, or has failed there, is not drawn.
FNR == 1 { for (i = 1; i <= NF; ++i) column[$i] = i; next }
$column["efficiency"] == "" || $column["technique"] == "serial" { next }
{
  cluster = $column["cluster"]; technique = $column["technique"]; ranks = $column["ranks"] + 0
  scaling = $column["scaling"]
  if (!(cluster in panel)) { panel[cluster] = ++panels; name_of[panels] = cluster }
  if (!(technique in line)) { line[technique] = ++lines; technique_of[lines] = technique }
  efficiency[panel[cluster], line[technique], ranks] = $column["efficiency"]
  if (ranks > most) most = ranks
}

function x_of(place, ranks) { return left + (place - 1) * (width + 70) + log(ranks) / log(most) * width }
function y_of(share) { return top + (1 - share) * height }
function text(x, y, anchor, words) {
  printf "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">%s</text>\n", x, y, anchor, words
}
function rule(x1, y1, x2, y2) {
  printf "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"#dcdcd8\"/>\n", x1, y1, x2, y2
}

function draw_axes(place,   share, ranks) {
  text(x_of(place, 1), top - 34, "start", name_of[place] ", " scaling " scaling: efficiency by ranks")
  for (share = 0; share <= 1.001; share += 0.25) {
    rule(x_of(place, 1), y_of(share), x_of(place, most), y_of(share))
    text(x_of(place, 1) - 6, y_of(share) + 4, "end", sprintf("%.0f %%", 100 * share))
  }
  for (ranks = 1; ranks <= most; ranks *= 2) text(x_of(place, ranks), top + height + 18, "middle", ranks)
}

function draw_curve(place, which,   ranks, points) {
  for (ranks = 1; ranks <= most; ranks *= 2) {
    if (!((place, which, ranks) in efficiency)) continue
    points = points sprintf("%.1f,%.1f ", x_of(place, ranks), y_of(efficiency[place, which, ranks]))
    printf "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3\" fill=\"%s\"/>\n", x_of(place, ranks),
           y_of(efficiency[place, which, ranks]), colours[which]
  }
  printf "<polyline points=\"%s\" fill=\"none\" stroke=\"%s\" stroke-width=\"2\"/>\n", points, colours[which]
}

END {
  if (lines > count_of_colours) { print "scaling.awk: too few colours" > "/dev/stderr"; exit 1 }
  full = left + panels * (width + 70)
  printf "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" ", full, top + height + 60
  printf "viewBox=\"0 0 %d %d\" font-family=\"sans-serif\" font-size=\"12\">\n", full, top + height + 60
  printf "<rect width=\"%d\" height=\"%d\" fill=\"white\"/>\n", full, top + height + 60
  for (place = 1; place <= panels; ++place) {
    draw_axes(place)
    for (which = 1; which <= lines; ++which) draw_curve(place, which)
  }
  for (which = 1; which <= lines; ++which) {
    x = left + (which - 1) * 128
    printf "<rect x=\"%d\" y=\"%d\" width=\"12\" height=\"12\" fill=\"%s\"/>\n", x, top + height + 34, colours[which]
    text(x + 18, top + height + 45, "start", technique_of[which])
  }
  print "</svg>"
}
