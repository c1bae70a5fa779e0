#!/bin/bash
# A training run under Slurm: two nodes, eight ranks on each, a pipeline between the nodes. From the repository, which all
# nodes see at the same path:
#
#   sbatch examples/slurm.sh
#
# Two minutes before the time is up, or when `scancel --signal=TERM --batch` asks, all ranks write a checkpoint and end with
# 0. Submitted again, or requeued after a machine has failed, the run goes on from its newest checkpoint.
#SBATCH --job-name=ninefold
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --cpus-per-task=1
#SBATCH --time=04:00:00
#SBATCH --signal=B:TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=ninefold-%j.log
set -euo pipefail

# The network of the machines, if the first guess is wrong, as a name or as a range of addresses:
# export OMPI_MCA_btl_tcp_if_include=10.0.0.0/8 OMPI_MCA_oob_tcp_if_include=10.0.0.0/8

program=build/release/09_combined_3d/train
options=(--pp 2 --dp-shard 4 --tp 2 --steps 2000 --checkpoint "runs/$SLURM_JOB_NAME" --every 200 --keep 2 --resume)

# srun starts the ranks itself where Slurm was built with PMIx. Elsewhere mpirun does; it learns nodes and slots from Slurm
# and needs neither a hostfile nor -n. Both pass SIGTERM on to the ranks, and mpirun would kill them a second later. `exec`,
# because Slurm signals the process of this script.
if srun --mpi=list 2>&1 | grep -qw pmix; then
  exec srun --mpi=pmix --cpu-bind=cores "$program" "${options[@]}"
else
  exec mpirun --bind-to core --mca odls_base_sigkill_timeout 100 "$program" "${options[@]}"
fi
