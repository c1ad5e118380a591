#!/usr/bin/env bash
# What a CUDA machine is asked first, in order of value:
#
#   bash benchmarks/gpu.sh OUT tests|speed|results [MINUTES]
#
# tests    the tests that need a GPU, then a short run trained, predicted and scored
# speed    time of a step of EFFDNet and SCN, recorded and compiled, then of the other methods
# results  MINUTES (8) of the queue of benchmarks/results.py at budget paper, as many runs at once as JOBS says (1)
#
# What to keep lies in OUT afterwards. PYTHON names the interpreter; datasets/ and runs/ are where they always are (benchmarks/pack.py carries a
# data set to a machine without network). Every part can be given again: results carries on with what is not done.
set -euo pipefail
out=$1 part=$2 minutes=${3:-8}
python=${PYTHON:-python3}
export PYTHONPATH=src${PYTHONPATH:+:$PYTHONPATH}
mkdir -p "$out"
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv || true

case $part in
tests)
    "$python" -m pytest -q tests/test_step.py tests/test_train.py tests/test_methods.py 2>&1 | tee "$out/tests.log" || true
    rm -rf "$out/phantom" "$out/run"
    "$python" -m scribbleseg phantom "$out/phantom"
    "$python" -m scribbleseg train "$out/phantom" "$out/run" --iterations 2000 --size 128
    "$python" -m scribbleseg predict "$out/run" "$out/phantom" "$out/run/predictions"
    "$python" -m scribbleseg evaluate "$out/run/predictions" "$out/phantom/labelsTr_dense" | tee "$out/evaluate.txt"
    cp "$out/run/log.jsonl" "$out/run/environment.json" "$out/"
    rm -rf "$out/phantom" "$out/run"
    ;;
speed)
    "$python" benchmarks/speed.py --methods effdnet scn --compile --results "$out" 2>&1 | tee "$out/speed.log" || true
    "$python" benchmarks/speed.py --results "$out/all" 2>&1 | tee -a "$out/speed.log"
    ;;
results)
    "$python" benchmarks/results.py --budget paper --minutes "$minutes" --jobs "${JOBS:-1}" 2>&1 | tee "$out/results.log" || true
    tar -czf "$out/results.tar.gz" docs/results.md benchmarks/results/paper benchmarks/models 2>/dev/null || true
    ;;
*)
    echo "$part: expected tests, speed or results" >&2
    exit 1
    ;;
esac
