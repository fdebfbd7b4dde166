#!/usr/bin/env bash
# Registers, shared memory, stack, wide loads and hot loop of every kernel, from the machine code: kernels/BUDGET.md.
#
# scripts/budget.sh          write it
# scripts/budget.sh --check  change nothing; fail where it is not what the shipped PTX gives
#
# Runs scripts/sass.sh, and fails where that does.
set -euo pipefail
cd "$(dirname "$0")/.."
mode="${1:-}"
case "$mode" in
    "" | --check) ;;
    *)
        echo "budget: unknown argument $mode; there is only --check" >&2
        exit 2
        ;;
esac

paths="$(scripts/cuda-tools.sh)"
eval "$paths"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
scripts/sass.sh --facts "$work/facts"
version="$("$PTXAS" --version | sed -n 's/.*release \([0-9.]*\).*/\1/p')"
python3 scripts/facts.py --table "$work/facts" "CUDA $version" >"$work/BUDGET.md"

if [ "$mode" = --check ]; then
    if ! diff -u kernels/BUDGET.md "$work/BUDGET.md"; then
        echo "budget: kernels/BUDGET.md is not what the kernels take; run scripts/budget.sh and look at what changed" >&2
        exit 1
    fi
    echo "budget: kernels/BUDGET.md is true"
else
    cp "$work/BUDGET.md" kernels/BUDGET.md
fi
