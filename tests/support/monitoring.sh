#!/usr/bin/env bash
# monitoring.sh MPIEXEC RANKS PROGRAM NAME
# The bytes and messages that the program's ledger books from each rank to each other one are those that Open MPI's
# component pml_monitoring has counted.
# What MPI sends on its own account, to start and to end, is taken off: it is what the program sends when it runs nothing.
set -euo pipefail
mpiexec=$1 ranks=$2 program=$3 name=$4
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

run() { # name: prints the ledger's books, leaves a file for each rank
  "$mpiexec" -n "$ranks" --mca pml_monitoring_enable 1 --mca pml_monitoring_enable_output 3 \
    --mca pml_monitoring_filename "$folder/$1" "$program" "$1"
}

counted() { # name rank peer: "BYTES MESSAGES". Lines are: kind, rank, peer, "N bytes", "M msgs sent", ...
  awk -v rank="$2" -v peer="$3" '/^[EI]\t/ && $2 == rank && $3 == peer { bytes += $4; messages += $6 }
    END { printf "%d %d\n", bytes, messages }' "$folder/$1.$2.prof"
}

run nothing >"$folder/nothing.txt"
run "$name" >"$folder/books.txt"
for ((rank = 0; rank < ranks; ++rank)); do
  total=0
  for ((peer = 0; peer < ranks; ++peer)); do
    ((peer == rank)) && continue
    booked=$(sed -n "s/^rank $rank to $peer: //p" "$folder/books.txt")
    read -r bytes messages < <(counted "$name" "$rank" "$peer")
    read -r other_bytes other_messages < <(counted nothing "$rank" "$peer")
    sent="$((bytes - other_bytes)) bytes in $((messages - other_messages)) messages"
    echo "rank $rank to $peer: the ledger books ${booked:=0 bytes in 0 messages}, Open MPI has counted $sent"
    [[ $booked == "$sent" ]] || exit 1
    total=$((total + bytes - other_bytes))
  done
  ((total > 0)) || exit 1
done
