#!/usr/bin/env bash
# A run on all hosts of a Cloud TPU slice. Each has the repository at ~/ldm_jax, installed with the extras train and tpu.
#
#   tools/launch/tpu_pod.sh TPU_NAME ZONE --config configs/NAME.py --workdir /mnt/shared/DIR \
#       --config.run.parallel.kind=mesh
#
# DIR is on a file system that all hosts mount (Filestore, or a bucket by Cloud Storage FUSE). The slice tells JAX which
# process is which. The run goes on when this machine's connection ends, and its output is in ~/ldm_jax/train.log of
# each host; told to stop, it exits with 75, and the same command goes on.
set -eu
if (($# < 3)); then
    echo "usage: $0 TPU_NAME ZONE FLAGS..." >&2
    exit 2
fi
name=$1
zone=$2
shift 2
command="cd ldm_jax && nohup python tools/train.py --distributed $(printf '%q ' "$@") >> train.log 2>&1 & wait \$!"
exec gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker=all --command="$command"
