# Draws what every rank of a pipeline does in the first step, in virtual time, from a trace that a program wrote with
# --trace and --cluster, as text:
#
#   awk -f docs/pipeline.awk TRACE.json...
#
# F forward, B backward, I and W its halves, each with its micro-batch where there is room; '.' idle. All of the step is
# 96 characters wide.

BEGIN { columns = 96 }

# The event's value of this key, without quotes.
function value(key,   rest) {
  if (!match($0, "\"" key "\":")) return ""
  rest = substr($0, RSTART + RLENGTH)
  if (rest ~ /^"/) return substr(rest, 2, index(substr(rest, 2), "\"") - 1)
  match(rest, /^[-0-9.]+/)
  return substr(rest, 1, RLENGTH)
}

# The action "2F5" as "F5---", so wide, or as a letter where there is no room for more.
function text(action, width,   short, i) {
  short = action
  sub(/^[0-9]+/, "", short)
  if (length(short) > width) short = substr(short, 1, 1)
  for (i = length(short); i < width; ++i) short = short "-"
  return substr(short, 1, width)
}

# Rounded to whole characters, so that neighbours share none.
function place(time) { return int((time - first) / (last - first) * columns + 0.5) }

function finish(   rank, i, line, at, from, to) {
  if (file == "") return
  print file
  for (rank = 0; rank in count; ++rank) {
    line = ""
    at = 0
    for (i = 1; i <= count[rank]; ++i) {
      from = place(begin[rank, i])
      to = place(end[rank, i])
      for (; at < from; ++at) line = line "."
      if (to > at) line = line text(action[rank, i], to - at)
      at = to > at ? to : at
    }
    for (; at < columns; ++at) line = line "."
    printf "  rank %-2d |%s|\n", rank, line
  }
  split("", rank_of)
  split("", until)
  split("", count)
  first = last = ""
}

FNR == 1 {
  finish()
  file = FILENAME
  sub(/\.json$/, "", file)
}
/"process_name"/ && /, virtual time"/ {
  name = value("pid")
  rank_of[name] = $0
  sub(/.*"rank /, "", rank_of[name])
  rank_of[name] += 0
}
value("ph") != "X" || !(value("pid") in rank_of) { next }
{
  pid = value("pid")
  from = value("ts") + 0
  to = from + value("dur")
}
value("name") == "step 0: gradients" { until[pid] = to }
value("cat") == "pipeline" && (!(pid in until) || from < until[pid]) {
  rank = rank_of[pid]
  ++count[rank]
  action[rank, count[rank]] = value("name")
  begin[rank, count[rank]] = from
  end[rank, count[rank]] = to
  if (first == "" || from < first) first = from
  if (last == "" || to > last) last = to
}
END { finish() }
