#!/usr/bin/env bash
# Packs the CUDA tests, the benches, the program and the sample into target/gpu-suite, for a machine with an NVIDIA
# driver and without Rust. There: ./run.sh (what it runs: docs/gpu-results.md).
#
# What is packed holds no path of this machine: it is built with such paths replaced, in a folder of its own, and looked
# through afterwards.
set -euo pipefail
cd "$(dirname "$0")/.."
target="$(cargo metadata --no-deps --format-version 1 | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')"
suite="$target/gpu-suite"
rm -rf "$suite"
mkdir -p "$suite/tests"

cargo_home="${CARGO_HOME:-$HOME/.cargo}"
flags=("--remap-path-prefix=$(rustc --print sysroot)=rust" "--remap-path-prefix=$cargo_home=cargo" "--remap-path-prefix=$PWD=.")
export CARGO_ENCODED_RUSTFLAGS
CARGO_ENCODED_RUSTFLAGS="$(printf '%s\x1f' "${flags[@]}")"
CARGO_ENCODED_RUSTFLAGS="${CARGO_ENCODED_RUSTFLAGS%$'\x1f'}"
# The host only starts kernels here: linking without LTO, or every test program would take as long as a release.
export CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_STRIP=symbols
# One target folder for all of it; cargo tells the programs as `Executable tests/cuda/main.rs (path)`.
log="$target/gpu-suite.log"
cargo test --release --target-dir "$target/gpu" --no-run --test cuda --bench cuda 2>&1 | tee "$log" >&2
while read -r source program; do
    case "$source" in
        tests/cuda/*) cp "$program" "$suite/tests/cuda" ;;
        benches/*) cp "$program" "$suite/bench-cuda" ;;
    esac
done < <(sed -n 's/^ *Executable \([^ ]*\) (\(.*\))$/\1 \2/p' "$log")
cp "$target/gpu/release/codeword" examples/sample/patches.npy examples/sample/codebook.npy \
    scripts/gpu-suite/run.sh scripts/gpu-suite/results.py "$suite/"
git describe --always --abbrev=40 --dirty >"$suite/commit"

for path in "$PWD" "$target" "$HOME" "$cargo_home" "$(rustc --print sysroot)"; do
    # A home folder that is / would be found everywhere.
    if [ ${#path} -gt 1 ] && grep -raFl -- "$path" "$suite"; then
        echo "gpu-suite: the files above hold the path $path of this machine" >&2
        exit 1
    fi
done
[ -x "$suite/tests/cuda" ] || {
    echo "gpu-suite: tests/cuda is not packed" >&2
    exit 1
}
size="$(du -s --apparent-size -B 1000000 "$suite" | cut -f1)"
if [ "$size" -gt 60 ]; then
    echo "gpu-suite: $size MB, more than 60" >&2
    exit 1
fi
echo "gpu-suite: $suite: $size MB, no path of this machine inside."
echo "Copy it to the machine and start its run.sh."
