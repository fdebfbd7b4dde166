#!/usr/bin/env bash
# Rebuilds the shipped PTX in kernels/ptx/ from kernels/*.cu. The bytes depend on the sources alone, not on the folder
# or the machine.
#
# scripts/ptx.sh          rebuild
# scripts/ptx.sh --check  change nothing; fail where the shipped files are not what a rebuild gives
set -euo pipefail
cd "$(dirname "$0")/.."
mode="${1:-}"
case "$mode" in
    "" | --check) ;;
    *)
        echo "ptx: unknown argument $mode; there is only --check" >&2
        exit 2
        ;;
esac

paths="$(scripts/cuda-tools.sh)"
eval "$paths"
new="$(mktemp -d)"
trap 'rm -rf "$new"' EXIT
python3 scripts/nvrtc.py "$NVRTC" "$NVRTC_INCLUDE" kernels "$new"

if [ "$mode" = --check ]; then
    if ! diff -rq "$new" kernels/ptx; then
        echo "ptx: kernels/ptx is not what kernels/*.cu give; run scripts/ptx.sh and commit the result" >&2
        exit 1
    fi
    echo "ptx: $(ls kernels/ptx | wc -l) shipped files are fresh"
else
    mkdir -p kernels/ptx
    rm -f kernels/ptx/*.ptx
    cp "$new"/*.ptx kernels/ptx/
    ls -l kernels/ptx
fi
