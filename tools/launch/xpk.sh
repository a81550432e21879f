#!/usr/bin/env bash
# A run on a GKE cluster through XPK: one pod a host, started anew and gone on with after failures and preemptions.
#
#   tools/launch/xpk.sh CLUSTER NAME v5litepod-256 IMAGE --config configs/FILE.py --workdir /mnt/shared/DIR \
#       --config.run.parallel.kind=mesh
#
# IMAGE is a container with the repository as its working directory, installed with the extras train and tpu. DIR is on
# a volume that every pod mounts (xpk storage attach). 75, told to stop, is no failure: the pods are started again.
set -eu
if (($# < 5)); then
    echo "usage: $0 CLUSTER NAME TPU_TYPE IMAGE FLAGS..." >&2
    exit 2
fi
cluster=$1
name=$2
type=$3
image=$4
shift 4
exec xpk workload create --cluster="$cluster" --workload="$name" --tpu-type="$type" --docker-image="$image" \
    --max-restarts="${RESTARTS:-100}" --restart-on-exit-codes=75 --termination-grace-period-seconds=300 \
    --command="python tools/train.py --distributed $(printf '%q ' "$@")"
