# Compares a lesson with what its commands print now:   awk -f same_lesson.awk README.md RENEWED.md
#
# Everything must be the same but for what this file names: times and rates, which are of the machine and the moment;
# words and sizes that tell the machine; and losses and rounding errors, which depend on the processor's way to add.
# Virtual time is none of these: it is computed, and compared.

BEGIN {
  number = "[0-9][0-9.]*"

  # Columns of times and rates, by their head, and of what routers chose: another rounding sends a token elsewhere.
  # (Heads of two words are joined by join_heads.)
  split("ms wall_ms tokens/s images/s GFLOP/s %_peak time algbw busbw x_mpi imbalance dropped_% balance", names, " ")
  for (i in names) is_rate[names[i]] = 1

  # Columns, and figures after these words, of results in floating point: equal to within 1 part in 1000.
  split("loss grad_norm accuracy", names, " ")
  for (i in names) is_result[names[i]] = 1
  tolerance = 1e-3

  # Figures before these units are times and rates.
  units = "(ms|us|ns|s|min|tokens/s|images/s|GFLOP/s|TFLOP/s|GB/s|MB/s|% of the matmul peak|% of the peak)"

  # Rows of the table of memory that depend on what the matmul library asks for on this processor.
  machine_rows = "^ *(workspace|reserved from the system) "

  # Rows of the tokens that each expert got.
  load_rows = "^layer [0-9]+ "
}

# "#    size  count ... x mpi" and "step  loss  grad norm ... % peak" as one word a column.
function join_heads(line) {
  sub(/^ *#/, "", line)
  gsub(/grad norm/, "grad_norm", line)
  gsub(/wall ms/, "wall_ms", line)
  gsub(/virtual ms/, "virtual_ms", line)
  gsub(/% peak/, "%_peak", line)
  gsub(/dropped %/, "dropped_%", line)
  gsub(/x mpi/, "x_mpi", line)
  return line
}

# Takes the heads of a table's columns from a line without figures that names at least two of those above.
function read_heads(line,   i, count, words, known) {
  if (line ~ /^ *$/) columns = 0
  if (line ~ /[0-9]/) return
  count = split(join_heads(line), words, " ")
  for (i = 1; i <= count; ++i) known += (words[i] in is_rate) || (words[i] in is_result)
  if (known < 2) return
  columns = count
  for (i = 1; i <= count; ++i) head[i] = words[i]
}

# The line with ~ for each word that may differ. Spaces are narrowed: columns are as wide as their figures.
function comparable(line,   i, count, words, text) {
  sub(/bubble: .* measured in wall time/, "bubble: ~ measured in wall time", line)
  gsub("oneDNN " number, "oneDNN ~", line)
  gsub(/[0-9]+-bit vectors/, "~-bit vectors", line)
  gsub(/bf16 (native|emulated)/, "bf16 ~", line)
  sub(/^ *# copies between processes: .*/, "# copies between processes: ~", line)
  gsub(/within [0-9.e-]+ of its scale [(][a-z0-9_.]+[)]/, "within ~ of its scale", line)
  gsub(/off by [0-9.e-]+ of their norm/, "off by ~ of their norm", line)
  sub(/is [0-9.e-]+ of its norm away from f32's, the loss [0-9.e-]+/, "is ~ of its norm away from f32's, the loss ~", line)
  gsub(/by at most [0-9.e-]+/, "by at most ~", line)
  if (line ~ load_rows) gsub(" +" number, " ~", line)
  if (line ~ machine_rows) gsub(number " ([kMGT]B|B)", "~", line)
  count = split(line, words, " ")
  for (i = 1; i <= count; ++i) {
    if (!is_virtual && count == columns && words[1] ~ /^[0-9]+$/ && (head[i] in is_rate)) words[i] = "~"
    text = text (i > 1 ? " " : "") words[i]
  }
  return line ~ /virtual/ ? text : without_times(text)
}

# Figures before a unit of time or rate.
function without_times(text,   done) {
  while (match(text, number " " units "[ ,;:.)]") || match(text, number " " units "$")) {
    done = done substr(text, 1, RSTART - 1) "~"
    text = substr(text, RSTART)
    sub(number, "", text)
  }
  return done text
}

function is_number(word) { return word ~ /^[0-9]+[.][0-9]+[,;]?$/ }

function is_close(a, b,   larger) {
  larger = a + 0 > b + 0 ? a + 0 : b + 0
  return (a - b) * (a - b) <= (tolerance * larger) * (tolerance * larger)
}

# Lines are the same word by word; results may be close.
function same(old, new,   i, count, of_old, of_new, may_be_close) {
  old = comparable(old)
  new = comparable(new)
  if (old == new) return 1
  count = split(old, of_old, " ")
  if (count != split(new, of_new, " ")) return 0
  for (i = 1; i <= count; ++i) {
    if (of_old[i] == of_new[i]) continue
    may_be_close = (count == columns && (head[i] in is_result)) || (i > 1 && (of_old[i - 1] in is_result))
    if (!may_be_close || !is_number(of_old[i]) || !is_number(of_new[i])) return 0
    gsub(/[,;]/, "", of_old[i])
    gsub(/[,;]/, "", of_new[i])
    if (!is_close(of_old[i], of_new[i])) return 0
  }
  return 1
}

FNR == 1 { ++file }
file == 1 { expected[++expected_lines] = $0; next }
{ found[++found_lines] = $0 }

END {
  lines = expected_lines > found_lines ? expected_lines : found_lines
  for (i = 1; i <= lines; ++i) {
    # The columns of a benchmark on a described cluster hold virtual time.
    if (expected[i] ~ /<!-- captured.*bench.*--cluster/) is_virtual = 1
    if (expected[i] ~ /<!-- end -->/) is_virtual = 0
    read_heads(expected[i])
    if (same(expected[i], found[i])) continue
    printf "line %d of the lesson is\n  %s\nbut its command prints now\n  %s\n", i, expected[i], found[i]
    if (++differences == 10) break
  }
  if (expected_lines != found_lines) printf "%d lines, but now %d\n", expected_lines, found_lines
  exit differences > 0 || expected_lines != found_lines
}
