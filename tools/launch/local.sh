#!/usr/bin/env bash
# Several processes of one run on this machine, told of each other by environment variables.
#
#   tools/launch/local.sh 2 python tools/train.py --config configs/NAME.py --workdir DIR \
#       --config.run.parallel.kind=mesh
#
# Exit code: 0 when all are done, 75 when they were told to stop (SIGTERM or Ctrl-C here) and have saved. When one
# fails the others are ended, and its code is this one's.
set -u
if (($# < 2)) || ! [[ $1 =~ ^[1-9][0-9]*$ ]]; then
    echo "usage: $0 NUMBER COMMAND..." >&2
    exit 2
fi
export NUM_PROCESSES=$1
shift
port=$(python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
export JAX_COORDINATOR_ADDRESS=${JAX_COORDINATOR_ADDRESS:-127.0.0.1:$port}

processes=()
trap 'kill -TERM "${processes[@]}" 2>/dev/null' TERM INT
trap 'kill -KILL "${processes[@]}" 2>/dev/null' EXIT # nothing less ends a process that waits for a dead one
for ((i = 0; i < NUM_PROCESSES; i++)); do
    PROCESS_ID=$i setsid "$@" & # Ctrl-C is for this script, which passes it on
    processes+=($!)
done

status=0
left=$NUM_PROCESSES
while ((left > 0)); do
    ended=
    wait -n -p ended "${processes[@]}"
    code=$?
    [[ -n ${ended:-} ]] || continue # a signal was passed on
    left=$((left - 1))
    for i in "${!processes[@]}"; do
        [[ ${processes[i]} == "$ended" ]] && unset "processes[i]"
    done
    ((code > status)) && status=$code
    ((code == 0 || code == 75)) || exit "$code"
done
trap - EXIT
exit "$status"
