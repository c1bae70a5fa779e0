#!/bin/bash
# Runs a command that is expected to fail, with its own exit code, and reports a process that it left behind:
#   ends_cleanly.sh mpirun -n 3 program arguments...
# The command gets one argument more, by which its processes are recognised.
marker="ends-cleanly-$$-$RANDOM"
timeout 60 "$@" "$marker"
code=$?
for _ in 1 2 3 4 5 6 7 8 9 10; do
  left=$(grep -lsa -- "[e]${marker#e}" /proc/[0-9]*/cmdline)  # the brackets: not grep itself
  [ -z "$left" ] && exit $code
  sleep 0.3
done
echo "processes left behind: $left"
exit 99
