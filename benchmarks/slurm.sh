#!/usr/bin/env bash
# The runs of a plan as a Slurm job array. From the repository's folder:
#
#   mkdir -p logs
#   id=$(sbatch --parsable --array=0-7 benchmarks/slurm.sh benchmarks/plans/comparison.toml --budget paper)
#   sbatch --dependency=afterany:$id --wrap "scribbleseg bench benchmarks/plans/comparison.toml --budget paper --table-only"
#
# The size of the array is the number of GPUs to use; it need not be the number of runs. Every task gives the same
# command. It does the runs that are neither done nor locked by another task, one after another. All words after the plan
# are options of `scribbleseg bench`. Three minutes before its time limit a task stops its run at a checkpoint and
# requeues itself. A task exits with 1 if a run failed or if other tasks still have runs. The exit code of the table job
# says whether all runs are done.
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
