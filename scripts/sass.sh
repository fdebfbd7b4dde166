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

# One task per file and architecture, as many at a time as there are processors. Each has files of its own: what facts.py
# says, and what there is to complain about.
from_ptx() { # PTX SM FILE
    if ! "$PTXAS" -v --warn-on-spills --warning-as-error -arch="$2" -o "$3.cubin" "$1" >"$3.log" 2>&1; then
        cat <(echo "sass: ptxas refuses $1 for $2") "$3.log" >"$3.bad"
    elif grep -qvE "^ptxas info |^ +[0-9]+ bytes stack frame, 0 bytes spill stores, 0 bytes spill loads$" "$3.log"; then
        # Beside the report that -v asks for there is something else.
        cat <(echo "sass: ptxas on $1 for $2 is not clean") "$3.log" >"$3.bad"
    fi
    "$NVDISASM" -c "$3.cubin" >"$3.sass"
    python3 scripts/facts.py "$3.log" "$3.sass" "$2" >"$3.facts"
}

from_source() { # SOURCE KIND:ARCHITECTURE FILE
    # The options of build.rs, and every warning an error.
    if ! "$NVCC" "${2%%:*}" --gpu-architecture="${2#*:}" --std=c++17 --fmad=false -I kernels \
        -Werror all-warnings -Xptxas --warn-on-spills,--warning-as-error -o "$3.out" "$1" >"$3.log" 2>&1 ||
        [ -s "$3.log" ]; then
        cat <(echo "sass: nvcc on $1 for ${2#*:} is not clean") "$3.log" >"$3.bad"
    fi
}
export PTXAS NVCC NVDISASM
export -f from_ptx from_source

count=0
tasks="$work/tasks"
task() { # FUNCTION FILE TARGET
    count=$((count + 1))
    echo "$1 $2 $3 $work/$(printf %04d "$count")" >>"$tasks"
}
for ptx in kernels/ptx/*.ptx; do
    for sm in $(generations "$ptx"); do task from_ptx "$ptx" "$sm"; done
done
for source in kernels/*.cu; do
    targets="-ptx:compute_80 -cubin:sm_80 -cubin:sm_90"
    case "$source" in *_sm90a.cu) targets="-ptx:compute_90a -cubin:sm_90a" ;; esac
    for target in $targets; do task from_source "$source" "$target"; done
done
if ! xargs -P "$(nproc)" -L 1 bash -euo pipefail -c '"$@"' _ <"$tasks"; then
    touch "$work/some.bad" # A task that could not be done at all has said so.
fi
cat "$work"/*.facts >"$facts"

echo "registers (and bytes of static shared memory) of every entry of the shipped PTX:"
awk '
    !($1 in seen) { seen[$1] = 1; order[++count] = $1 }
    { row[$1] = row[$1] sprintf("  %s %d (%d)", $2, $3, $4) }
    END { for (i = 1; i <= count; i++) printf "%-32s%s\n", order[i], row[order[i]] }' "$facts"
if cat "$work"/*.bad >&2 2>/dev/null; then exit 1; fi
echo "sass: no spill, no warning"
