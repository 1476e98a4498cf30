#!/usr/bin/env bash
# A study on a Slurm allocation:  sbatch clusters/slurm.sh run --space vat_grid --replicates 20 --root /shared/runs
#
# Ray is started on every node of the allocation, the study runs on the first, and Ray ends with the job. When the time
# is up, submit the same line again: what is finished is kept, what was running goes on from its checkpoint.
# --root must be a folder that all nodes see. Submit from the checkout, with the package installed for $PYTHON.

#SBATCH --job-name=d2l_study
#SBATCH --nodes=2                 # CHANGE
#SBATCH --exclusive
#SBATCH --ntasks-per-node=1       # one Ray per node; it shares the node out among trials
#SBATCH --cpus-per-task=16        # CHANGE
#SBATCH --gpus-per-task=1         # CHANGE; leave out without GPUs
#SBATCH --time=08:00:00           # CHANGE
#SBATCH --signal=B:USR1@120       # two minutes before the end: stop cleanly

set -euo pipefail
PYTHON=${PYTHON:-.venv/bin/python}
case $PYTHON in /*) ;; *) PYTHON=$PWD/$PYTHON ;; esac
[ $# -gt 0 ] || { echo "usage: sbatch clusters/slurm.sh run --space NAME --root SHARED_FOLDER" >&2; exit 2; }
[ -x "$PYTHON" ] || { echo "error: no Python at $PYTHON (set PYTHON, or submit from the checkout)" >&2; exit 2; }

export PATH="$(dirname "$PYTHON"):$PATH"  # symmetric-run calls `ray`, and ends with `ray stop`: this login's Ray on
                                         # these nodes, so let two jobs share no node (--exclusive)

# A token of this job's own, handed on in the environment and written nowhere: others on the same nodes cannot use or
# disturb this Ray.
RAY_AUTH_TOKEN=$("$PYTHON" -c 'import secrets; print(secrets.token_hex(32))')
export RAY_AUTH_TOKEN RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0 OMP_NUM_THREADS=1

head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
address=$(getent ahostsv4 "$head" | awk 'NR == 1 {print $1}')
port=$((20000 + SLURM_JOB_ID % 20000))

# At the signal the driver itself is told to end, on this node, the allocation's first: srun would end everything at once.
# srun takes the job's CPUs for a task from a variable of its own since Slurm 22.05.
export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK
driver=$(mktemp)
srun --export=ALL ray symmetric-run \
  --address "$address:$port" --min-nodes "$SLURM_JOB_NUM_NODES" --num-cpus "$SLURM_CPUS_PER_TASK" \
  -- bash -c 'echo $$ > "$0"; exec "$@"' "$driver" "$PYTHON" -m d2l_study "$@" --address "$address:$port" &
job=$!
trap 'kill -TERM "$(cat "$driver")"' USR1  # not INT: a shell that was started without it cannot trap it
status=0
wait $job || status=$?
while kill -0 $job 2>/dev/null; do wait $job || status=$?; done  # a wait ends at the signal, the study a little later
rm -f "$driver"
exit $status
