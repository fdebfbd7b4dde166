#!/usr/bin/env bash
# How many instructions the CPU's operations take, by callgrind: a count that no busy machine changes, where a time tells
# nothing. One thread, AVX2 (callgrind knows no AVX-512). Writes benches/INSTRUCTIONS.md, with the hot loops of the filter
# kernels from the machine code, those of AVX-512 too (scripts/hot_loops.py).
#
# scripts/instructions.sh --check    writes nothing; fails where a count is more than 3 percent from the file's
#
# Needs Rust, Python, valgrind and objdump (Debian: apt install valgrind binutils) on x86-64.
set -euo pipefail
cd "$(dirname "$0")/.."
table=benches/INSTRUCTIONS.md

operations=(
    "assign 2000 4 1024" "assign 2000 8 256" "assign 2000 16 256" "assign 2000 24 256" "assign 1000 128 256"
    "assign 500 256 1024" "top_k 500 64 256" "pairwise_sq_l2 500 128 256" "decode 5000 64 256" "metrics 5000 64 256"
    "accumulate 5000 64 256" "prepare 1 64 1024" "search 200000 8 256"
    "rotate 500 128 128" "start 5000 16 64"
)

command -v valgrind >/dev/null || {
    echo "instructions: valgrind is missing (Debian: apt install valgrind)" >&2
    exit 1
}
program="$(cargo bench --bench instructions --no-run --message-format=json |
    sed -n 's/.*"name":"instructions".*"executable":"\([^"]*\)".*/\1/p')"
export CODEWORD_ISA=avx2 RAYON_NUM_THREADS=1

count() { # OPERATION N D K REPEATS
    valgrind --tool=callgrind --callgrind-out-file=/dev/null "$program" "$@" 2>&1 | sed -n 's/.*Collected : \([0-9]*\).*/\1/p'
}

made="$(mktemp)"
trap 'rm -f "$made"' EXIT
{
    cat <<'HEAD'
# Instructions of the CPU's operations

Written by `scripts/instructions.sh`: AVX2, one thread, by callgrind; the operation alone, on random data. A product is
one of the n d k of the scores, or of the n d numbers where no scores are made; of `search`, which looks up the codes of
n vectors, d bytes each, for 64 queries, one of these lookups; `start` is k-means++ with the labels after it. f32 FMA in 8 lanes makes at best 0.125 a
product, and so do pairs of integers, which more units of a processor multiply and add.

| operation | n x d x k | instructions | a product |
|---|---|---|---|
HEAD
    for operation in "${operations[@]}"; do
        read -r name n d k <<<"$operation"
        once="$(count "$name" "$n" "$d" "$k" 1)" twice="$(count "$name" "$n" "$d" "$k" 2)"
        case "$name" in
            decode | metrics | accumulate) products=$((n * d)) ;;
            prepare) products=$((k * d)) ;;
            search) products=$((n * d * 64)) ;;
            *) products=$((n * d * k)) ;;
        esac
        awk -v name="$name" -v shape="$n x $d x $k" -v taken=$((twice - once)) -v products="$products" \
            'BEGIN { printf "| `%s` | %s | %d | %.3f |\n", name, shape, taken, taken / products }'
    done
    cat <<'LOOPS'

## Hot loops

Innermost loops of the filter kernels, from the machine code of the same program; no check compares them. A multiply-add is
16 f32 products with AVX-512, 8 with AVX2, 32 of bf16 with AVX-512 BF16, 32 of 16-bit integers with AVX-512 VNNI; 16 of these
with AVX2, whose sums take an addition each.

LOOPS
    scripts/hot_loops.py "$program"
} >"$made"

if [ "${1:-}" != --check ]; then
    cp "$made" "$table"
    echo "instructions: written to $table"
    exit
fi
# The compiler may place things a little differently; more than that is a change of the code.
paste -d'|' <(grep '^| `' "$table") <(grep '^| `' "$made") | awk -F'|' '
    { share = $10 / $4; if (share > 1.03 || share < 0.97) { printf "instructions:%s%s: %d, was %d\n", $2, $3, $10, $4; bad = 1 } }
    END { exit bad }' || {
    echo "instructions: not what $table says; if that is meant, run scripts/instructions.sh" >&2
    exit 1
}
echo "instructions: as $table says"
