#!/usr/bin/env bash
# A run on several nodes of a SLURM cluster, one process a node. Submit it; submitted again, the run goes on.
#
#   sbatch --nodes=4 --gpus-per-node=8 tools/launch/slurm.sh --config configs/NAME.py --workdir DIR \
#       --config.run.parallel.kind=mesh
#
# The repository and DIR lie on a file system that all nodes share. SLURM tells JAX which process is which.
#SBATCH --ntasks-per-node=1
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%x-%j.log
# Five minutes before the time is up, SIGTERM to each process: it saves and exits with 75.
#SBATCH --signal=TERM@300
set -u

# By itself JAX takes one GPU a SLURM task; here a task has all of its node's.
export JAX_LOCAL_DEVICE_IDS=${JAX_LOCAL_DEVICE_IDS:-$(seq -s, 0 $((${SLURM_GPUS_ON_NODE:-1} - 1)))}
srun --kill-on-bad-exit=1 python tools/train.py --distributed "$@"
code=$?
# Told to stop before the end: in the queue again, where the cluster allows it. srun gives the highest exit code.
((code == 75)) && scontrol requeue "$SLURM_JOB_ID"
exit "$code"
