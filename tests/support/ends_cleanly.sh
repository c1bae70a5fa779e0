#!/bin/bash
# Runs a command that is expected to fail, with its own exit code, and reports a process that it left behind:
#   ends_cleanly.sh mpirun -n 3 program arguments...
# The command gets one argument more, by which its processes are recognised.
marker="ends-cleanly-$$-$RANDOM"
timeout 60 "$@" "$marker" 2>&1 | sort  # ranks print in any order
code=${PIPESTATUS[0]}
for _ in {1..30}; do
  left=$(grep -lsa -- "[e]${marker#e}" /proc/[0-9]*/cmdline)  # the brackets: not grep itself
  [ -z "$left" ] && exit $code
  sleep 0.1
done
echo "processes left behind: $left"
exit 99
