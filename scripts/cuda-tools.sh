#!/usr/bin/env bash
# Installs the pinned CUDA compilers into a folder that git ignores; no root, no driver, no GPU. Does nothing where they
# are there already. Prints where things are, as lines that a shell can read: eval "$(scripts/cuda-tools.sh)".
#
# CODEWORD_CUDA_TOOLS  the folder (default .cuda in the repository)
set -euo pipefail
cd "$(dirname "$0")/.."
tools="${CODEWORD_CUDA_TOOLS:-$PWD/.cuda}"

# NVRTC 12.0 writes the PTX that is shipped: ISA 8.0, which every driver of CUDA 12 and later reads.
# nvcc 13.0 stands for a user's toolkit, and its ptxas knows every GPU from sm_75 to sm_121.
pins=(
    nvidia-cuda-nvrtc-cu12==12.0.140
    nvidia-cuda-runtime-cu12==12.0.146
    nvidia-cuda-nvcc==13.0.88
    nvidia-nvvm==13.0.88
    nvidia-cuda-crt==13.0.88
    nvidia-cuda-runtime==13.0.96
    nvidia-cuda-cccl==13.0.85
    nvidia-cuda-cuobjdump==13.2.86
    nvidia-cuda-nvdisasm==13.2.86
)

case "$(uname -sm)" in
    "Linux x86_64" | "Linux aarch64") ;;
    *)
        echo "cuda-tools: these packages are published for Linux on x86_64 and aarch64, not for $(uname -sm)" >&2
        exit 1
        ;;
esac

# The list is written last: a folder that an interrupted run left behind has none and is made anew.
if [ "$(cat "$tools/pins" 2>/dev/null)" != "${pins[*]}" ]; then
    # Beside the folder first, so that what is there is whole.
    rm -rf "$tools.new"
    if ! python3 -m pip --version >/dev/null 2>&1; then
        echo "cuda-tools: needs python3 with pip (Debian: apt install python3-pip)" >&2
        exit 1
    fi
    PIP_ROOT_USER_ACTION=ignore python3 -m pip install --quiet --disable-pip-version-check --no-deps --no-compile --only-binary :all: \
        --target "$tools.new" "${pins[@]}" >&2
    echo "${pins[*]}" >"$tools.new/pins"
    rm -rf "$tools"
    mv "$tools.new" "$tools"
fi

show() {
    printf '%s=%q\n' "$1" "$tools/nvidia/$2"
}
show NVCC cu13/bin/nvcc
show PTXAS cu13/bin/ptxas
show CUOBJDUMP cu13/bin/cuobjdump
show NVDISASM cu13/bin/nvdisasm
show NVRTC cuda_nvrtc/lib/libnvrtc.so.12
show NVRTC_INCLUDE cuda_runtime/include
