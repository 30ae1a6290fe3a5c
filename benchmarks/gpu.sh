#!/usr/bin/env bash
# All tests and benchmarks that need a GPU, in about ten minutes, as one table:
#
#     benchmarks/gpu.sh [MODEL.onnx]
#
# Without a GPU it runs the parts that work on the CPU. Details go to *.log in a new folder below
# $OUT, else $TMPDIR, else /tmp.
set -u
cd "$(dirname "$0")/.."
python=${PYTHON:-python}
model=${1:-}
log=${OUT:-${TMPDIR:-/tmp}}/reidkit-gpu-$(date +%Y%m%d-%H%M%S)
models=$(mktemp -d)
trap 'rm -rf "$models"' EXIT
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

# results TITLE NAME: what a benchmark printed, below a title
results() {
    test -s "$log/$2.log" || return
    printf '\n%s\n' "$1"
    grep -v 'WARNING\|Warning\|^loading\|^warning\|no preprocessing' "$log/$2.log"
}

printf '%-22s %-12s %7s  %s\n' step result time log
if has_gpu; then
    nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv >"$log/device.log" 2>&1
    step models 60 "$python" benchmarks/models.py "$models"
    step gpu-tests 150 "$python" -m pytest -q -m gpu
    # The network alone and from files on, float32 and float16, pixels normalised here or there
    step extraction-cuda 110 "$python" benchmarks/extraction.py --device cuda --images 2048 --rounds 3 \
        "$models"/iaunet-fp32.onnx "$models"/iaunet-fp16.onnx "$models"/iaunet-fp16-uint8.onnx ${model:+"$model"}
    # Latency by batch size; iaunet-fp32-batch8.onnx is a CUDA graph; PyTorch in float32 and bfloat16
    step bench-cuda 110 "$python" -m reidkit bench --device cuda --seconds 50 \
        "$models"/iaunet.safetensors "$models"/*.onnx ${model:+"$model"}
    step compilation-cuda 90 "$python" benchmarks/compilation.py --device cuda "$models"/iaunet.safetensors
    step training-cuda 90 "$python" benchmarks/training.py --device cuda --compile --batch 64 --workers 8
else
    printf '%-22s %-12s\n' gpu-tests "no GPU"
    step runtime-tests 240 "$python" -m pytest -q tests/runtime/test_onnx_binding.py tests/runtime/test_runtime.py
    step extraction-cpu 300 "$python" benchmarks/extraction.py --images 64 --rounds 2 ${model:+"$model"}
fi
results 'Device' device
results 'GPU tests' gpu-tests
results 'Extraction: bare sessions and end to end' extraction-cuda
results 'Latency and throughput: reidkit bench' bench-cuda
results 'torch.compile of iaunet' compilation-cuda
results 'Training' training-cuda
results 'Extraction on the CPU: bare sessions and end to end' extraction-cpu
exit 0
