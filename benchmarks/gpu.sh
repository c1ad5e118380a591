#!/usr/bin/env bash
# What a CUDA machine is asked, in one command that ends in time:
#
#   bash benchmarks/gpu.sh OUT SECONDS
#
# 1. Step rates of SCN and EFFDNet, unless runs/gpu/rates.log is there.
# 2. Training at the papers' length: SCN on MSCMR, then EFFDNet on fold 0 of ACDC. EFFDNet reads and compiles beside SCN and then waits for it.
#    A run that was cut off is carried on by the same command, or on a CPU by `make papers`.
# 3. OUT gets gpu.tar.gz (rates and logs) and the run folders in pieces of 15 MiB: cat OUT/runs.tar.gz.* | tar xz
#
# PYTHON names the interpreter, SCRIBBLESEG_COMMIT the commit where there is no .git. Where datasets/ lacks a data set, it is unpacked from
# packed/mscmr*.zip or packed/acdc*.zip, which benchmarks/pack.py makes. A data set that is in neither place is passed over.
set -uo pipefail
out=$1 limit=$2
python=${PYTHON:-python3}
export PYTHONPATH=src${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1
logs=runs/gpu
mkdir -p "$out" $logs
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv || true

data() {  # whether the data set is there
    if [ ! -f "datasets/$1/dataset.json" ] && ls packed/"$1"*.zip >/dev/null 2>&1; then
        "$python" benchmarks/pack.py unpack packed/"$1"*.zip "datasets/$1" >"$logs/$1-unpack.log" 2>&1
    fi
    [ -f "datasets/$1/dataset.json" ]
}

train() {  # RUN DATASET OPTIONS...: in the background; its process is $!
    local run=$1 data=$2
    shift 2
    # bash lets processes in the background ignore Ctrl-C
    if [ -f "$run/config.json" ]; then
        env --default-signal=INT "$python" -m scribbleseg train "$run" --resume >>"$logs/$(basename "$run").log" 2>&1 &
    else
        env --default-signal=INT "$python" -m scribbleseg train "$data" "$run" "$@" >>"$logs/$(basename "$run").log" 2>&1 &
    fi
}

left() { echo $((limit - 25 - SECONDS)); }  # 25 s: checkpoints, and packing what is kept

running() { [ -n "$1" ] && kill -0 "$1" 2>/dev/null; }

data mscmr &
data acdc
wait
if [ ! -f $logs/rates.log ]; then
    timeout -s INT 100 "$python" benchmarks/timing/speed.py --methods scn effdnet --steps 5 --results $logs 2>&1 | tee $logs/rates.log
fi

scn='' effdnet='' waits=''
scn_run=runs/paper/mscmr/25-5-15-0/scn-s0 effdnet_run=runs/paper/acdc/cv5-0/effdnet-s0
if data mscmr; then
    train $scn_run datasets/mscmr --method scn --split 25-5-15
    scn=$!
fi
if data acdc; then
    train $effdnet_run datasets/acdc --method effdnet --split cv5
    effdnet=$!
fi
while [ "$(left)" -gt 0 ] && { running "$scn" || running "$effdnet"; }; do
    if running "$scn" && running "$effdnet" && [ -z "$waits" ] && grep -q "compiled in" $logs/effdnet-s0.log; then
        kill -STOP "$effdnet" && waits=yes
    elif [ "$waits" = yes ] && ! running "$scn"; then
        kill -CONT "$effdnet" && waits=over
    fi
    sleep 1
done
for process in $scn $effdnet; do
    kill -CONT "$process" 2>/dev/null && kill -INT "$process"
done
for _ in {1..15}; do
    running "$scn" || running "$effdnet" || break
    sleep 1
done
kill -KILL $scn $effdnet 2>/dev/null

tail -n 3 $logs/*-s0.log
tail -qn 1 $scn_run/log.jsonl $effdnet_run/log.jsonl | cut -c 1-400
cp $scn_run/log.jsonl $logs/scn-s0.jsonl
cp $effdnet_run/log.jsonl $logs/effdnet-s0.jsonl
tar -czf "$out/gpu.tar.gz" $logs
tar -cz --exclude pictures $(ls -d $scn_run $effdnet_run) | split -b 15m - "$out/runs.tar.gz."
