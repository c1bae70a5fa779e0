# Draws the first step of rank 0 in virtual time, from a trace that a program wrote with --trace and --cluster, as text:
#
#   awk -f docs/timeline.awk TRACE.json...                  a character is 2 ms
#   awk -v scale=1000 -f docs/timeline.awk TRACE.json...    or so many microseconds
#
# Computing: > forward, < backward, . a layer that waits; communicating: the last digit of the bucket, or, where there are
# no buckets, g all_gather, r reduce_scatter, = anything else.

BEGIN { if (!scale) scale = 2000 }

# The event's value of this key, without quotes.
function value(key,   rest) {
  if (!match($0, "\"" key "\":")) return ""
  rest = substr($0, RSTART + RLENGTH)
  if (rest ~ /^"/) return substr(rest, 2, index(substr(rest, 2), "\"") - 1)
  match(rest, /^[-0-9.]+/)
  return substr(rest, 1, RLENGTH)
}

function mark(name) {
  if (name ~ / forward$/) return ">"
  if (name ~ / backward$/) return "<"
  if (name ~ / bucket [0-9]+$/) return substr(name, length(name))
  if (name ~ /^all_gather /) return "g"
  if (name ~ /^reduce_scatter /) return "r"
  return "="
}

# Rounded to whole characters, so that neighbours share none.
function draw(row, name, begin, end,   i) {
  for (i = int(begin / scale + 0.5); i < int(end / scale + 0.5); ++i) cell[row, i] = mark(name)
  if (i > width) width = i
}

# Only within a layer: elsewhere nothing is drawn for the time.
function draw_wait(begin, end,   i) {
  for (i = int(begin / scale + 0.5); i < int(end / scale + 0.5); ++i) if (("compute", i) in cell) cell["compute", i] = "."
}

function print_row(row,   i, text) {
  for (i = 0; i < width; ++i) text = text ((row, i) in cell ? cell[row, i] : " ")
  sub(/ +$/, "", text)
  printf "  %-13s |%s\n", row, text
}

function finish(   key) {
  if (file == "") return
  print file
  print_row("compute")
  print_row("communication")
  for (key in cell) delete cell[key]
  pid = ""
  end = 0
  width = 0
}

FNR == 1 {
  finish()
  file = FILENAME
  sub(/\.json$/, "", file)
}
/"rank 0, virtual time"/ { pid = value("pid") }
pid == "" || value("pid") != pid || value("ph") != "X" { next }
{
  name = value("name")
  begin = value("ts") + 0
  row = value("cat")
  if (name == "step 0: gradients") {
    origin = begin
    end = begin + value("dur")
  }
  if (begin >= end) next # events are in the order in which they began
  if (row == "wait") draw_wait(begin - origin, begin - origin + value("dur"))
  if (row == "compute" || row == "communication") draw(row, name, begin - origin, begin - origin + value("dur"))
}
END { finish() }
