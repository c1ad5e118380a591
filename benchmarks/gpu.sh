#!/usr/bin/env bash
# What a CUDA machine is asked, in one command that ends in time:
#
#   bash benchmarks/gpu.sh OUT [SECONDS]     (540 if none is named)
#
# 1. Step rates of SCN and EFFDNet, recorded as a graph and eager, unless runs/gpu/rates.log is there.
# 2. Training at the papers' length: SCN on MSCMR, SCN on ACDC's split 622, EFFDNet on fold 0 of ACDC, in this order. All of them read and compile
#    at once, then each waits for the one before. The two of SCN run side by side if the measured rate says that both end in time. EFFDNet is
#    begun if it needs less than 80 % of the time that they leave, and carried on in any case: `make papers MINUTES=0` makes a run folder of a
#    committed state. A run that was cut off is carried on by the same command, or on a CPU by `make papers`. One whose scores are committed is
#    passed over.
# 3. The same rates compiled, if 200 s are left.
#    Then the queue of results.py at budget quick, in the time that they leave. Its last minute is for what it has begun: unfinished runs are lost.
# 4. OUT gets gpu.tar.gz (rates, logs, and runs/gpu/results with the scores of the queue), each run as a packed model (weights in half
#    precision), such as acdc-effdnet-s0.zip, and the run folders in pieces of 15 MiB: cat OUT/runs.tar.gz.* | tar xz
#
# Before, on a machine with the data: python benchmarks/pack.py pack datasets/acdc packed/acdc.zip, and the same for mscmr.
# PYTHON names the interpreter, SCRIBBLESEG_COMMIT the commit where there is no .git. Where datasets/ lacks a data set, it is unpacked from
# packed/mscmr*.zip or packed/acdc*.zip, which benchmarks/pack.py makes. A data set that is in neither place is passed over.
set -uo pipefail
out=$1 limit=${2:-540}
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

runs=() processes=() waits=() kept=()

log_of() { echo "$logs/$(cut -d / -f 3 <<<"$1")-$(basename "$1").log"; }  # runs/paper/mscmr/25-5-15-0/scn-s0: mscmr-scn-s0.log

scored() { grep -qs "^${1#runs/paper/}," benchmarks/results/paper/runs.csv; }  # RUN: whether its scores are committed

missing() {  # RUN TOTAL: the iterations that it lacks
    local reached
    if scored "$1"; then
        echo 0
        return
    fi
    reached=$(tail -qn 1 "$1/log.jsonl" 2>/dev/null | grep -o '"iteration": [0-9]*' | grep -o '[0-9]*')
    echo $(($2 - ${reached:-0}))
}

train() {  # RUN TOTAL DATA OPTIONS...: in the background
    local run=$1 total=$2 data=$3
    shift 3
    if scored "$run"; then
        echo "$run: its scores are committed"
        return
    fi
    data "$data" || return
    kept+=("$run")
    if [ "$(missing "$run" "$total")" -le 0 ]; then return; fi
    # bash lets processes in the background ignore Ctrl-C
    if [ -f "$run/config.json" ]; then
        env --default-signal=INT "$python" -m scribbleseg train "$run" --resume >>"$(log_of "$run")" 2>&1 &
    else
        env --default-signal=INT "$python" -m scribbleseg train "datasets/$data" "$run" "$@" >>"$(log_of "$run")" 2>&1 &
    fi
    runs+=("$run") processes+=($!) waits+=('')
}

left() { echo $((limit - 40 - SECONDS)); }  # 40 s: checkpoints, and packing what is kept

running() { kill -0 "$1" 2>/dev/null; }

any_running() { for process in "${processes[@]}"; do running "$process" && return; done; return 1; }

data mscmr &
data acdc
wait
if [ ! -f $logs/rates.log ]; then
    timeout -k 5 -s INT 100 "$python" benchmarks/timing/speed.py --methods scn effdnet --steps 5 --results $logs 2>&1 | tee $logs/rates.log
fi

rate() {  # METHOD: seconds of a step, as measured; very many where it was not
    cat $logs/speed-[!p]*.csv 2>/dev/null | awk -F , -v method="$1" \
        'NR == 1 { for (i = 1; i <= NF; i++) at[$i] = i } $at["method"] == method { found = $at["seconds"] } END { print found ? found : 1e6 }'
}

needs() {  # METHOD ITERATIONS: seconds, a fifth of them for start and validation
    awk -v n="$2" -v s="$(rate "$1")" 'BEGIN { printf "%.0f", 1.2 * n * s }'
}

mscmr=runs/paper/mscmr/25-5-15-0/scn-s0 acdc=runs/paper/acdc/622-0/scn-s0 effdnet=runs/paper/acdc/cv5-0/effdnet-s0
# side by side they take turns on the GPU: the time of both is that of all their steps
both=$(needs scn $(($(missing $mscmr 30000) + $(missing $acdc 30000))))
beside=1
if [ "$both" -lt "$(left)" ]; then beside=2; fi
echo "both runs of SCN: $both s, $(left) s are left, $beside at once"

train $mscmr 30000 mscmr --method scn --split 25-5-15
train $acdc 30000 acdc --method scn --split 622
last=$(needs effdnet $(missing $effdnet 60000))
if [ -f $effdnet/config.json ] || [ $((10 * last)) -lt $((8 * ($(left) - both))) ]; then
    train $effdnet 60000 acdc --method effdnet --split cv5
else
    echo "EFFDNet: $last s, more than 80 % of what the runs of SCN leave; it is not begun"
fi

if ! data mscmr && ! data acdc; then
    echo "neither datasets/mscmr nor datasets/acdc is there, nor packed/*.zip" >&2
    exit 1
fi

while [ "$(left)" -gt 0 ] && any_running; do
    active=0
    for i in "${!processes[@]}"; do
        running "${processes[i]}" || { beside=1; continue; }
        if [ "$active" -lt $beside ]; then
            if [ -n "${waits[i]}" ]; then kill -CONT "${processes[i]}" && waits[i]=''; fi
        elif [ -z "${waits[i]}" ] && grep -q "compiled in" "$(log_of "${runs[i]}")"; then
            kill -STOP "${processes[i]}" && waits[i]=yes
        fi
        active=$((active + 1))
    done
    sleep 1
done

end() {  # PROCESS...: as Ctrl-C does; after 15 s for good
    local process
    for process; do
        kill -CONT "$process" 2>/dev/null && kill -INT "$process"
    done
    for _ in {1..15}; do
        kill -0 "$@" 2>/dev/null || return
        sleep 1
    done
    kill -KILL "$@" 2>/dev/null
}

end "${processes[@]}"
if [ "$(left)" -gt 200 ]; then
    timeout -k 5 -s INT 100 "$python" benchmarks/timing/speed.py --methods scn effdnet --steps 5 --compile --results $logs >>$logs/rates.log 2>&1
fi
if [ "$(left)" -gt 120 ]; then
    [ -d $logs/results ] || cp -r benchmarks/results docs/results.md $logs/
    timeout -s KILL "$(left)" "$python" benchmarks/studies/results.py --budget quick --minutes $((($(left) - 60) / 60)) \
        --jobs $(($(env -u OMP_NUM_THREADS nproc) / 2 + 1)) --results $logs/results --page $logs/results.md >>$logs/queue.log 2>&1
fi

for run in "${kept[@]}"; do
    tail -n 3 "$(log_of "$run")"
    tail -qn 1 "$run/log.jsonl" | cut -c 1-400
    cp "$run/log.jsonl" "$(log_of "$run")l"
    timeout 20 "$python" -m scribbleseg pack "$run" "$out/$(basename "$(log_of "$run")" .log).zip" >>"$(log_of "$run")" 2>&1 || echo "$run: not packed" &
done
wait
tar -czf "$out/gpu.tar.gz" $logs
if [ ${#kept[@]} -gt 0 ]; then tar -cz --exclude pictures "${kept[@]}" | split -b 15m - "$out/runs.tar.gz."; fi
