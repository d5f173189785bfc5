#!/usr/bin/env bash
# Everything that is to be measured on a GPU, in order, into one file. A check that fails does not stop the others; the status
# says whether any did.
#   gpu_checks.sh RESULTS [PART...]
# parts: tests tiny attention transfer lora fp8 models sanitizer  (default: all, in this order)
# Run it where tools/build_gpu_checks.sh put it and the programs. LOLCATS_CUBLAS and LOLCATS_NCCL name the
# directories of libcublasLt and libnccl if they are not found. docs/gpu_checks.md says how long each part takes.
set -uo pipefail
results=$(realpath -m "${1:?usage: gpu_checks.sh RESULTS [PART...]}")
shift
here=$(cd "$(dirname "$0")" && pwd)
failed=0

log() { echo "$*" | tee -a "$results"; }

# check SECONDS COMMAND...: runs it with that limit.
check() {
    local limit=$1 start=$SECONDS status
    shift
    log "" && log "\$ ${*/#$here\//}"
    timeout "$limit" "$@" 2>&1 | tee -a "$results"
    status=${PIPESTATUS[0]}
    log "# status $status, $((SECONDS - start)) s"
    [ "$status" -eq 0 ] || failed=1
}

# find_library NAME DIRECTORY PROGRAM...: lets programs find a library, CUDA's own or a Python package's. DIRECTORY may be empty.
find_library() {
    local name=$1 given=$2 libraries wanted directory
    shift 2
    libraries=$(ldd "$@" 2>/dev/null)
    wanted=$(awk -v name="$name" 'index($1, name ".so") == 1 { print $1; exit }' <<<"$libraries")
    [ -n "$wanted" ] || return 0
    ! grep -q "$wanted => /" <<<"$libraries" || return 0
    for directory in "$given" /usr/local/cuda*/lib64 /usr/local/cuda*/targets/*/lib \
        $(python3 -c 'import sysconfig; print(sysconfig.get_path("purelib"))' 2>/dev/null)/nvidia/*/lib; do
        if [ -e "$directory/$wanted" ]; then
            export LD_LIBRARY_PATH=$directory${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
            log "# $wanted from $directory"
            return 0
        fi
    done
    log "# $wanted is not found: set $([ "$name" = libnccl ] && echo LOLCATS_NCCL || echo LOLCATS_CUBLAS) to its directory"
    return 1
}

# unpack ARCHIVE DIRECTORY: by Python where there is no xz.
unpack() {
    if command -v xz >/dev/null; then
        tar -C "$2" -xJf "$1"
    else
        python3 -c 'import sys, tarfile; tarfile.open(sys.argv[1]).extractall(sys.argv[2])' "$1" "$2"
    fi
}

tests() {
    check 120 "$here/test_cuda_kernels"
    check 240 "$here/test_kernels"
}

# What goes between ranks, as far as one GPU shows it; then the programs on the tiny teacher, beside what a CPU got: scores, and
# losses step by step.
tiny() {
    local files
    files=$(mktemp -d)
    if ! unpack "$here/tiny.tar.xz" "$files" ||
        ! find_library libcublasLt "${LOLCATS_CUBLAS:-}" "$files/programs/bin/lolcats_block" ||
        ! find_library libnccl "${LOLCATS_NCCL:-}" "$files/programs/bin/test_comm"; then
        log "# the tiny conversion is left out"
        failed=1
        rm -rf "$files"
        return
    fi
    check 120 "$files/programs/run" test_comm '--gtest_filter=-*WeightBroadcast*' # whose files stay where it was built
    export LOLCATS_BIN=. LOLCATS_LAUNCHER=$files/programs/run LOLCATS_PYTHON=python3
    check 300 "$files/tools/bench/tiny_run.sh" "$files/gpu"
    check 20 python3 "$files/tools/bench/compare_tiny.py" "$files/cpu" "$files/gpu"
    rm -rf "$files"
}

transfer() {
    check 120 "$here/block_405b" --stage transfer
    check 120 "$here/block_405b" --stage transfer --micro-batch 4
    check 120 "$here/block_405b" --stage transfer --xent-factor 1
}

lora() {
    check 180 "$here/block_405b" --stage lora --steps 1
    check 180 "$here/block_405b" --stage lora --steps 1 --micro-batch 2
}

fp8() {
    check 120 "$here/block_405b" --stage transfer --dtype fp8 --gemm fp8
    check 120 "$here/block_405b" --stage transfer --dtype fp8 --gemm bf16
}

models() {
    check 60 "$here/block_405b" --model 8b --stage transfer
    check 60 "$here/block_405b" --model 8b --stage transfer --micro-batch 8
    check 60 "$here/block_405b" --model 8b --stage lora
    check 60 "$here/block_405b" --model 8b --stage lora --micro-batch 8
    check 60 "$here/block_405b" --model 70b --stage transfer --micro-batch 4
}

attention() {
    check 120 "$here/attention_cuda" heads=32
    check 60 "$here/attention_cuda" heads=32 near=sliding longest=16384
    check 60 "$here/attention_cuda" heads=32 head_dim=64 feature_dim=32 longest=16384
    check 60 "$here/attention_cuda" heads=128 longest=16384
    if python3 -c 'import torch' 2>/dev/null; then
        check 180 python3 "$here/attention_torch.py"
    else
        log "# no PyTorch here: attention_torch.py is left out"
    fi
}

sanitizer() {
    if ! command -v compute-sanitizer >/dev/null; then
        log "# no compute-sanitizer here"
        failed=1
        return
    fi
    local refusal
    refusal=$(timeout 60 compute-sanitizer "$here/test_cuda_kernels" --gtest_filter=None 2>&1 | grep -i 'not supported')
    if [ -n "$refusal" ]; then
        log "# compute-sanitizer does not work on this machine: $refusal"
        failed=1
        return
    fi
    check 240 compute-sanitizer --tool memcheck --error-exitcode 9 "$here/test_cuda_kernels"
    check 240 compute-sanitizer --tool racecheck --error-exitcode 9 "$here/test_cuda_kernels"
}

PATH=$PATH:/usr/local/cuda/bin
log "# $(date -u '+%Y-%m-%d %H:%M UTC'), $(nproc) cores"
find_library libcublasLt "${LOLCATS_CUBLAS:-}" "$here/block_405b" "$here/test_kernels" || exit 1
check 20 nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.sm,clocks.max.sm --format=csv
for part in "${@:-tests tiny attention transfer lora fp8 models sanitizer}"; do
    for name in $part; do
        case $name in
            tests | tiny | attention | transfer | lora | fp8 | models | sanitizer) "$name" ;;
            *) log "# $name is no part: use tests, tiny, attention, transfer, lora, fp8, models or sanitizer" && failed=1 ;;
        esac
    done
done
log "# $([ $failed -eq 0 ] && echo 'all passed' || echo 'something failed'), $SECONDS s in all"
exit $failed
