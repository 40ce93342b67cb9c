#!/usr/bin/env bash
# Several machines with eight GPUs each, under Slurm: one torchrun on each machine, eight processes under it.
#   sbatch --nodes=8 launch/slurm.sh run.json        (give account and partition as your cluster wants them)
# A job that is killed, or preempted and queued again, goes on from its last checkpoint: the folder of the run has to
# lie where all machines can read and write it. Set "processes" in run.json to nodes x 8, so that fewer are refused.
#SBATCH --job-name=reward-model
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --exclusive
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail
run=${1:?usage: sbatch --nodes=N launch/slurm.sh run.json}
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed -n 1p)  # reads on: a broken pipe would end this script
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-8}
exec srun --kill-on-bad-exit=1 "${PYTHON:-python}" -m torch.distributed.run \
  --nnodes="$SLURM_NNODES" --nproc_per_node="${GPUS:-8}" \
  --rdzv_id="$SLURM_JOB_ID" --rdzv_backend=c10d --rdzv_endpoint="$first:${PORT:-29500}" \
  -m rmlib.training "$run"
