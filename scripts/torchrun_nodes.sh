#!/usr/bin/env bash
# Train on several machines: run this on each of them, with the same arguments and a RUN that all of them see.
#
#   HEAD=node-a:29500 NODES=2 scripts/torchrun_nodes.sh RECIPE.toml RUN [options of torchrun]
#
# HEAD is any one of the machines and a free port there; PROCESSES a machine are as many as it has GPUs, if not set.
# A worker that dies, with its machine or without, makes all start again, at most RESTARTS (3) times, from the newest
# checkpoint in RUN. So does running this again.
set -euo pipefail
: "${HEAD:?is the address and port where the machines meet, such as node-a:29500}"
: "${NODES:?is the number of machines}"
recipe=${1:?is the recipe}
run=${2:?is the run directory}
shift 2

exec python -m torch.distributed.run --nnodes="$NODES" --nproc-per-node="${PROCESSES:-gpu}" \
  --rdzv-backend=c10d --rdzv-endpoint="$HEAD" --rdzv-id="$(basename "$run")" --max-restarts="${RESTARTS:-3}" "$@" \
  -m zoo train "$recipe" --out "$run"
