#!/usr/bin/env bash
# What a CUDA machine is asked, in order of value, in parts of about ten minutes or less; what is to be kept lies in OUT:
#
#   bash benchmarks/gpu.sh OUT check              a short run on CUDA, predicted there and on the CPU; then the tests that need a GPU
#   bash benchmarks/gpu.sh OUT speed              a step of EFFDNet and SCN: recorded, compiled, and what its time goes into; then the other methods
#   bash benchmarks/gpu.sh OUT fold               EFFDNet on ACDC's fold 0 at the paper's length: training, prediction and scoring against the clock
#   bash benchmarks/gpu.sh OUT together           iterations a second of one run and of five at once
#   bash benchmarks/gpu.sh OUT mps                five at once under NVIDIA's MPS, where that is installed
#   bash benchmarks/gpu.sh OUT precision          bfloat16 against float32 without TF32, 6000 iterations, two seeds
#   bash benchmarks/gpu.sh OUT results [MINUTES]  MINUTES (7) of the queue of benchmarks/studies/results.py at budget paper, JOBS (1) runs at once
#
# PYTHON names the interpreter, SCRIBBLESEG_COMMIT the commit where there is no .git. datasets/ is where it always is; benchmarks/pack.py carries a
# data set to a machine without network. runs/ stays on the machine: given again there, fold and results carry on with what was cut off.
set -euo pipefail
out=$1 part=$2 minutes=${3:-7}
python=${PYTHON:-python3}
export PYTHONPATH=src${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1
mkdir -p "$out"
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv || true

folds() {
    "$python" benchmarks/studies/folds.py datasets/acdc --results "$out" "$@" 2>&1 | tee -a "$out/folds.log"
}

keep_results() {  # scores in one file, the weights of each run in one of its own
    tar -czf "$out/scores.tar.gz" docs/results.md benchmarks/results/paper 2>/dev/null || true
    for run in benchmarks/models/paper/*/*/*; do
        tar -czf "$out/model-$(echo "${run#benchmarks/models/paper/}" | tr / -).tar.gz" "$run" 2>/dev/null || true
    done
}

case $part in
check)
    rm -rf runs/check && mkdir -p runs/check
    "$python" -m scribbleseg phantom runs/check/phantom
    "$python" -m scribbleseg train runs/check/phantom runs/check/run --iterations 1000 --size 128
    for device in cuda cpu; do
        "$python" -m scribbleseg predict runs/check/run runs/check/phantom "runs/check/$device" --device $device
    done
    {
        "$python" -m scribbleseg evaluate runs/check/cuda runs/check/phantom/labelsTr_dense
        echo "the masks of CUDA against those of the CPU:"
        "$python" -m scribbleseg evaluate runs/check/cuda runs/check/cpu $("$python" -c 'import json; print(*(f"--class-name={name}" for name in list(json.load(open("runs/check/phantom/dataset.json"))["labels"])[1:-1]))')
    } | tee "$out/check.txt"
    cp runs/check/run/log.jsonl runs/check/run/environment.json "$out/"
    for chosen in "cuda or recorded and False" "recorded and True and (effdnet or scn or pce)"; do  # not compiled, compiled
        timeout -s INT 200 "$python" -m pytest -v tests/test_step.py -k "$chosen" 2>&1 | tee -a "$out/tests.log" || true
    done
    ;;
speed)
    "$python" benchmarks/timing/speed.py --methods effdnet scn --compile --kernels --results "$out" 2>&1 | tee "$out/speed.log" || true
    timeout -s INT 240 "$python" benchmarks/timing/speed.py --methods pce ustm dmpls rloss s2l scribformer --results "$out" 2>&1 | tee -a "$out/speed.log"
    ;;
fold)
    folds
    first=runs/paper/acdc/cv5-0/effdnet-s0  # of the queue: scored as such, it is not trained again
    mkdir -p "$(dirname $first)"
    [ -d $first ] || cp -r runs/folds/acdc-cv5-0-effdnet-auto-paper-paper-x1-s0 $first
    "$python" benchmarks/studies/results.py --budget paper --minutes 1 2>&1 | tee "$out/results.log" || true
    keep_results
    ;;
together)
    folds --iterations 6000
    folds --iterations 6000 --folds 0 1 2 3 4 --at-once 5
    ;;
mps)
    CUDA_MPS_PIPE_DIRECTORY=$(mktemp -d) CUDA_MPS_LOG_DIRECTORY=$(mktemp -d)
    export CUDA_MPS_PIPE_DIRECTORY CUDA_MPS_LOG_DIRECTORY
    nvidia-cuda-mps-control -d
    trap 'nvidia-cuda-mps-control <<<quit' EXIT
    folds --iterations 6000 --folds 0 1 2 3 4 --at-once 5 --runs runs/folds-mps
    ;;
precision)
    folds --iterations 6000 --seeds 0 1 --precisions bfloat16 float32 --at-once 2 --runs runs/folds-precision
    ;;
results)
    "$python" benchmarks/studies/results.py --budget paper --minutes "$minutes" --jobs "${JOBS:-1}" > "$out/results.log" 2>&1 &
    job=$!
    while kill -0 $job 2>/dev/null; do
        sleep 20
        keep_results
    done
    status=0
    wait $job || status=$?
    tail -n 5 "$out/results.log"
    exit $status
    ;;
*)
    echo "$part: expected check, speed, fold, together, mps, precision or results" >&2
    exit 1
    ;;
esac
