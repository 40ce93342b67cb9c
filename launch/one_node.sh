#!/usr/bin/env bash
# One machine with several GPUs (eight, or GPUS=4); without a GPU, as many processes on the CPU.
#   launch/one_node.sh run.json
set -euo pipefail
run=${1:?usage: launch/one_node.sh run.json}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-8}
exec "${PYTHON:-python}" -m torch.distributed.run --standalone --nproc_per_node="${GPUS:-8}" -m rmlib.training "$run"
