#!/usr/bin/env bash
# The captured output, the quoted code and the pictures of a lesson. A chapter's README holds them between markers, which
# a rendered page does not show:
#
#   <!-- captured head=6 tail=12: ./run 02 -n 2 -->
#   ```
#   $ ./run 02 -n 2
#   ...
#   ```
#   <!-- end -->
#
#   captured: COMMAND               what the command prints; with head=N, tail=N or both only its first and last lines
#   quoted FILE: BEGINNING          the file's lines from the first with that beginning to the next that begins with }
#   picture FILE.svg: COMMAND       the link to a file that the command writes; it is kept beside the README
#
#   lessons.sh renew README [BUILD]   runs the commands and writes the blocks anew; all other text stays as it is
#   lessons.sh check README [BUILD]   runs them and compares; same_lesson.awk says what may differ
#
# Commands run in a folder that looks like the repository, so that the files they write do no harm there. With BUILD the
# programs of that build folder are run and nothing is built.
set -euo pipefail

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
root=$(dirname "$here")

fail() {
  printf 'lessons: %s\n' "$*" >&2
  exit 1
}

# ---- what stands between the markers --------------------------------------------------------------------------------

make_stage() { # [build folder]
  stage=$(mktemp -d)
  trap 'rm -rf "$stage"' EXIT
  ln -s "$root"/* "$stage"
  rm "$stage/run"
  printf '#!/bin/sh\nexec %q %s "$@"\n' "$root/run" "${1:+--built $(printf %q "$(realpath "$1")")}" >"$stage/run"
  chmod +x "$stage/run"
}

run_staged() { # command
  printf 'lessons: %s\n' "$1" >&2
  (cd "$stage" && bash -o pipefail -c "$1" </dev/null) || fail "$readme: exit code $? from: $1"
}

# All lines of standard input, or the first and the last ones with ... between them.
selected() { # head tail, empty for all
  [[ -n $1$2 ]] || { cat && return; }
  awk -v head="${1:-0}" -v tail="${2:-0}" '
    { line[NR] = $0 }
    END {
      for (i = 1; i <= NR; ++i) {
        if (i <= head || i > NR - tail) print line[i]
        else if (i == head + 1) print "..."
      }
    }'
}

captured() { # settings command
  local setting head= tail=
  for setting in $1; do
    [[ $setting =~ ^(head|tail)=([1-9][0-9]*)$ ]] || fail "$readme: unknown setting '$setting' of a captured block"
    declare "${BASH_REMATCH[1]}=${BASH_REMATCH[2]}"
  done
  run_staged "$2" >"$stage/.output"
  printf '```\n$ %s\n' "$2"
  selected "$head" "$tail" <"$stage/.output" | sed 's/[[:blank:]]*$//'
  printf '```\n'
}

quoted() { # file beginning
  [[ -f $root/$1 ]] || fail "$readme quotes $1, which does not exist"
  printf '```cpp\n'
  awk -v beginning="$2" '
    !inside && index($0, beginning) == 1 { inside = found = 1 }
    inside
    inside && /^}/ { exit }
    END { exit !found }' "$root/$1" || fail "$readme: no line of $1 begins with: $2"
  printf '```\n'
}

picture() { # file command
  rm -f "$stage/$1"
  run_staged "$2" >/dev/null
  [[ -f $stage/$1 ]] || fail "$readme: the picture $1 was not written by: $2"
  pictures+=("$1")
}

# ---- a whole README -------------------------------------------------------------------------------------------------

marker='^( *)<!-- (captured|quoted|picture) ?([^:]*): (.*) -->$'

# The README with every block written anew; its pictures are left in $stage.
renewed() {
  local line kind settings argument indent
  while IFS= read -r line <&3; do
    printf '%s\n' "$line"
    [[ $line == *'<!--'* ]] || continue
    [[ $line =~ $marker ]] || fail "$readme: not a marker: $line"
    indent=${BASH_REMATCH[1]} kind=${BASH_REMATCH[2]} settings=${BASH_REMATCH[3]} argument=${BASH_REMATCH[4]}
    ((++blocks))
    if [[ $kind == picture ]]; then
      picture "$settings" "$argument" # its link belongs to the text
      continue
    fi
    "$kind" "$settings" "$argument" >"$stage/.block"
    sed "s/^\(.\)/$indent\1/" "$stage/.block"
    until [[ $line == "$indent<!-- end -->" ]]; do
      IFS= read -r line <&3 || fail "$readme: no <!-- end --> after: $kind $settings: $argument"
    done
    printf '%s\n' "$line"
  done 3<"$readme"
}

renew() {
  local picture
  renewed >"$stage/.README.md"
  for picture in "${pictures[@]}"; do
    cp "$stage/$picture" "$folder/$picture.part" && mv "$folder/$picture.part" "$folder/$picture"
  done
  cmp -s "$stage/.README.md" "$readme" && return
  cp "$stage/.README.md" "$readme.part" && mv "$readme.part" "$readme"
}

check() {
  local picture
  renewed >"$stage/.README.md"
  ((blocks > 0)) || fail "$readme has no block between markers: nothing was tested"
  awk -f "$here/same_lesson.awk" "$readme" "$stage/.README.md"
  for picture in "${pictures[@]}"; do
    cmp "$folder/$picture" "$stage/$picture" || fail "$readme: the picture $picture has changed"
  done
  printf '%s: %d blocks come out again\n' "$readme" "$blocks"
}

[[ $# -ge 2 && $1 =~ ^(renew|check)$ ]] || fail "usage: lessons.sh renew|check README [BUILD]"
readme=$(realpath --relative-to=. "$2")
folder=$(dirname "$readme")
blocks=0 pictures=()
make_stage "${3:-}"
"$1"
