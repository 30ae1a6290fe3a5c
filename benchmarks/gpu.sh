#!/usr/bin/env bash
# All tests and benchmarks that need a GPU, in about ten minutes, as one table:
#
#     benchmarks/gpu.sh [MODEL.onnx]
#
# Without a GPU it runs the parts that work on the CPU. Details go to *.log in a new folder below $OUT, else $TMPDIR, else /tmp.
set -u
cd "$(dirname "$0")/.."
python=${PYTHON:-python}
model=${1:-}
log=${OUT:-${TMPDIR:-/tmp}}/reidkit-gpu-$(date +%Y%m%d-%H%M%S)
mkdir -p "$log"
export PYTHONPATH=$PWD

# has_gpu: whether this machine has a CUDA device
has_gpu() { "$python" -c 'from reidkit.device import cuda_device_count as n; raise SystemExit(not n())'; }

# step NAME SECONDS COMMAND...: runs a command with a time limit and adds a row to the table
step() {
    local name=$1 limit=$2 started=$SECONDS status
    shift 2
    timeout "$limit" "$@" >"$log/$name.log" 2>&1
    status=$?
    case $status in
        0) status=passed ;;
        5) status="no tests" ;;
        124) status="cut off" ;;
        *) status="failed ($status)" ;;
    esac
    printf '%-22s %-12s %5d s  %s\n' "$name" "$status" $((SECONDS - started)) "$log/$name.log"
}

printf '%-22s %-12s %7s  %s\n' step result time log
if has_gpu; then
    nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv >"$log/device.log" 2>&1
    step gpu-tests 240 "$python" -m pytest -q -m gpu
    step speed-cuda 180 "$python" benchmarks/extraction.py --device cuda ${model:+"$model"}
else
    printf '%-22s %-12s\n' gpu-tests "no GPU"
fi
step runtime-tests 240 "$python" -m pytest -q tests/runtime/test_runtime.py tests/runtime/test_onnx_contract.py
step speed-cpu 180 "$python" benchmarks/extraction.py --images 64 --rounds 2 ${model:+"$model"}
echo
grep -h 'images/s\|images, ' "$log"/speed-*.log
