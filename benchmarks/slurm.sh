#!/usr/bin/env bash
# The runs of a plan as a Slurm job array. From the repository's folder:
#
#   mkdir -p logs
#   id=$(sbatch --parsable --array=0-7 benchmarks/slurm.sh benchmarks/plans/comparison.toml --budget paper)
#   sbatch --dependency=afterany:$id --wrap "scribbleseg bench benchmarks/plans/comparison.toml --budget paper --table-only"
#
# The size of the array is how many GPUs work at once; it need not be the number of runs. Every task gives the same command: it takes the runs that are
# neither done nor locked by another task, one after another. What is given after the plan goes to `scribbleseg bench`.
# Three minutes before its time is over a task stops its run at a checkpoint and puts itself back into the queue.
# A task also ends with exit code 1 when runs are left that other tasks are still at; the table job's exit code says whether all are done.
#
#SBATCH --job-name=scribbleseg
#SBATCH --gpus-per-task=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=4
#SBATCH --mem=32G
#SBATCH --time=08:00:00
#SBATCH --signal=B:TERM@180
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=logs/%x-%A_%a.txt
set -uo pipefail

scribbleseg bench "$@" --jobs 1 &
bench=$!
trap 'kill -TERM $bench' TERM
while kill -0 $bench 2>/dev/null; do # a signal ends `wait` before the bench has ended
    wait $bench
done
wait $bench
code=$?
if [ $code -eq 130 ]; then
    scontrol requeue "${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}"
fi
exit $code
