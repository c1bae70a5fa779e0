#!/usr/bin/env bash
# monitoring.sh MPIEXEC RANKS PROGRAM NAME
# The bytes that the program's ledger books for each rank are those that Open MPI's component pml_monitoring has counted.
# What MPI sends on its own account, to start and to end, is taken off: it is what the program sends when it runs nothing.
set -euo pipefail
mpiexec=$1 ranks=$2 program=$3 name=$4
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

run() { # name: prints the ledger's books, leaves a file for each rank
  "$mpiexec" -n "$ranks" --mca pml_monitoring_enable 1 --mca pml_monitoring_enable_output 3 \
    --mca pml_monitoring_filename "$folder/$1" "$program" "$1"
}

counted() { # name rank: bytes to all peers. Lines are: kind, rank, peer, "N bytes", ...
  awk -v rank="$2" '/^[EI]\t/ && $2 == rank { sum += $4 } END { printf "%d", sum }' "$folder/$1.$2.prof"
}

run nothing >"$folder/nothing.txt"
run "$name" >"$folder/books.txt"
for ((rank = 0; rank < ranks; ++rank)); do
  booked=$(sed -n "s/^rank $rank books //p" "$folder/books.txt")
  sent=$(($(counted "$name" "$rank") - $(counted nothing "$rank")))
  echo "rank $rank: the ledger books $booked bytes, Open MPI has counted $sent"
  ((booked == sent && booked > 0)) || exit 1
done
