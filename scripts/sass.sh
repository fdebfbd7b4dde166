#!/usr/bin/env bash
# Judges the kernels as machine code, without a GPU; fails on any warning and on any spilled register.
#
# scripts/sass.sh            the shipped PTX through ptxas 13 for every GPU generation, with a table of registers; and
#                            kernels/*.cu through nvcc 13 for compute_80, sm_80 and sm_90
# scripts/sass.sh --facts FILE    the same, and what scripts/facts.py says about every kernel into FILE
# scripts/sass.sh STEM SM    print the machine code of one kernel: scripts/sass.sh gather sm_90
set -euo pipefail
cd "$(dirname "$0")/.."
paths="$(scripts/cuda-tools.sh)"
eval "$paths"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT

# The architectures that run a shipped file.
generations() {
    case "$1" in
        *.compute_90a.ptx) echo sm_90a ;;
        *) echo sm_80 sm_86 sm_89 sm_90 sm_100 sm_120 ;;
    esac
}

facts="$work/facts"
if [ "${1:-}" = --facts ] && [ $# -eq 2 ]; then
    facts="$2"
elif [ $# -eq 2 ]; then
    arch=compute_80
    [ "$2" != sm_90a ] || arch=compute_90a
    "$PTXAS" -arch="$2" -o "$work/cubin" "kernels/ptx/$1.$arch.ptx"
    "$NVDISASM" -c "$work/cubin"
    exit
elif [ $# -ne 0 ]; then
    echo "sass: expected no argument, --facts FILE, or STEM and SM" >&2
    exit 2
fi

bad=0
complain() {
    echo "sass: $1" >&2
    cat "$work/log" >&2
    bad=1
}

: >"$facts"
for ptx in kernels/ptx/*.ptx; do
    for sm in $(generations "$ptx"); do
        if ! "$PTXAS" -v --warn-on-spills --warning-as-error -arch="$sm" -o "$work/cubin" "$ptx" >"$work/log" 2>&1; then
            complain "ptxas refuses $ptx for $sm"
        elif grep -qvE "^ptxas info |^ +[0-9]+ bytes stack frame, 0 bytes spill stores, 0 bytes spill loads$" "$work/log"
        then
            # Beside the report that -v asks for there is something else.
            complain "ptxas on $ptx for $sm is not clean"
        fi
        "$NVDISASM" -c "$work/cubin" >"$work/sass"
        python3 scripts/facts.py "$work/log" "$work/sass" "$sm" >>"$facts"
    done
done

for source in kernels/*.cu; do
    targets="-ptx:compute_80 -cubin:sm_80 -cubin:sm_90"
    case "$source" in *_sm90a.cu) targets="-ptx:compute_90a -cubin:sm_90a" ;; esac
    for target in $targets; do
        # The options of build.rs, and every warning an error.
        if ! "$NVCC" "${target%%:*}" --gpu-architecture="${target#*:}" --std=c++17 --fmad=false -I kernels \
            -Werror all-warnings -Xptxas --warn-on-spills,--warning-as-error -o "$work/out" "$source" \
            >"$work/log" 2>&1 || [ -s "$work/log" ]; then
            complain "nvcc on $source for ${target#*:} is not clean"
        fi
    done
done

echo "registers (and bytes of static shared memory) of every entry of the shipped PTX:"
awk '
    !($1 in seen) { seen[$1] = 1; order[++count] = $1 }
    { row[$1] = row[$1] sprintf("  %s %d (%d)", $2, $3, $4) }
    END { for (i = 1; i <= count; i++) printf "%-32s%s\n", order[i], row[order[i]] }' "$facts"
[ "$bad" -eq 0 ]
echo "sass: no spill, no warning"
