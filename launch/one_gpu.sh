#!/usr/bin/env bash
# One GPU. The same command again goes on from the last checkpoint.
#   launch/one_gpu.sh run.json
set -euo pipefail
exec "${PYTHON:-python}" -m rmlib.training "${1:?usage: launch/one_gpu.sh run.json}"
