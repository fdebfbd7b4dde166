#!/usr/bin/env bash
# Everything a change must pass beside scripts/test.sh. Prints one line with the time of every step and stops at the
# first that fails. `scripts/check.sh NAME...` runs only the named steps, and is how the step `avx512` is run.
#
# FUZZ_SECONDS  how long the fuzzer runs (default 60)
set -euo pipefail
cd "$(dirname "$0")/.."

feature_sets=("" "--no-default-features" "--no-default-features --features cli" "--no-default-features --features cuda")

format() {
    cargo fmt --check
}

lint() {
    local set
    for set in "${feature_sets[@]}"; do
        # shellcheck disable=SC2086 # a set is several words
        cargo clippy --all-targets $set -- -D warnings
    done
}

docs() {
    RUSTDOCFLAGS="-D warnings" cargo doc --no-deps
    RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --no-default-features
}

# The oldest Rust that Cargo.toml promises.
msrv() {
    local wanted current
    wanted="$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)"
    current="$(rustc --version | cut -d' ' -f2)"
    case "$current" in
        "$wanted" | "$wanted".*)
            echo "Rust $current is the oldest that is promised, and the lints above compiled everything with it"
            ;;
        *)
            rustc "+$wanted.0" --version >/dev/null 2>&1 || rustup toolchain install "$wanted.0" --profile minimal
            # A target folder of its own: the two compilers would throw away each other's work.
            cargo "+$wanted.0" check --all-targets --target-dir "$target/msrv"
            cargo "+$wanted.0" check --no-default-features --target-dir "$target/msrv"
            ;;
    esac
}

# scripts/test.sh ran the widest set of this processor; the same test programs again with every narrower one.
every_isa() {
    local isas=(portable) isa
    if [ "$(uname -m)" = x86_64 ]; then
        if grep -qw avx512f /proc/cpuinfo; then isas=(avx2 portable); fi
        if grep -qw avx512_vnni /proc/cpuinfo; then isas=(avx512 avx2 portable); fi
        if grep -qw avx512_bf16 /proc/cpuinfo; then isas=(avx512vnni avx512 avx2 portable); fi
    fi
    for isa in "${isas[@]}"; do
        echo "CODEWORD_ISA=$isa"
        CODEWORD_ISA="$isa" cargo test --test exactness --test properties --test filter_terms \
            --test small_d --test refusals --test bounds
    done
}

# What a program that only wants the library on the CPU gets.
library_only() {
    cargo test --no-default-features --lib --test exactness --test every_isa
}

# The shipped PTX is what the kernels give, machine code of every generation has no spilled register, and BUDGET.md tells
# what it takes.
kernels() {
    scripts/ptx.sh --check
    scripts/budget.sh --check
}

# The crate as the registry would hand it out: packed, unpacked elsewhere, built without the network and without nvcc.
# What it builds holds every kernel.
package() (
    local dirty=()
    [ -z "$(git status --porcelain)" ] || dirty=(--allow-dirty)
    cargo package --offline --no-verify "${dirty[@]}"
    packed="$target/package/codeword-$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1).crate"
    size="$(stat -c %s "$packed" 2>/dev/null || stat -f %z "$packed")"
    echo "package: $packed has $size bytes"
    if [ "$size" -ge 10000000 ]; then
        echo "package: it must stay below 10 MB, the registry's limit" >&2
        exit 1
    fi
    folder="$(mktemp -d)"
    trap 'rm -rf "$folder"' EXIT
    tar -xzf "$packed" -C "$folder"
    # An nvcc that fails in place of one that may be there: the shipped PTX alone has to do. How fast the program is does
    # not matter here.
    NVCC=false CARGO_TARGET_DIR="$target/packed" CARGO_PROFILE_DEV_OPT_LEVEL=0 CARGO_PROFILE_DEV_DEBUG=false \
        cargo build --offline --locked --manifest-path "$folder"/codeword-*/Cargo.toml
    program="$target/packed/debug/codeword"
    "$program" --version
    # The first line of every PTX names the kernel and the hash of its sources.
    for file in kernels/ptx/*.ptx; do
        if ! grep -aqF "$(head -1 "$file")" "$program"; then
            echo "package: the program does not hold $file" >&2
            exit 1
        fi
    done
    echo "package: the program holds all $(ls kernels/ptx | wc -l) kernels"
)

# The README's main job; and the sample it works on is, byte for byte, what its program makes. How fast the programs are does
# not matter here, and linked as they are for users they take a minute longer.
sample() (
    export CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_TARGET_DIR="$target/sample"
    examples/run.sh
    folder="$(mktemp -d)"
    trap 'rm -rf "$folder"' EXIT
    "$CARGO_TARGET_DIR/release/examples/picture" render "$folder"
    cmp "$folder/patches.npy" examples/sample/patches.npy
    cmp "$folder/codebook.npy" examples/sample/codebook.npy
)

fuzz() {
    scripts/fuzz.sh "${FUZZ_SECONDS:-60}"
}

aarch64() {
    scripts/aarch64.sh
}

# Not among the default steps: it builds an emulator first, and changes to kernels of AVX-512 alone need it.
avx512() {
    scripts/avx512.sh
}

# In one tree with another crate that uses cudarc.
coexist() {
    scripts/coexist.sh
}

steps=("$@")
[ ${#steps[@]} -gt 0 ] || steps=(format lint docs msrv every_isa library_only kernels package coexist sample fuzz aarch64)
target="$(cargo metadata --no-deps --format-version 1 | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')"
trap '[ $? -eq 0 ] || echo "check: $step FAILED after $((SECONDS - start)) s" >&2' EXIT
for step in "${steps[@]}"; do
    start=$SECONDS
    # A plain call: in `if "$step"` or `"$step" ||` bash would go on after a failed command inside the step.
    "$step"
    echo "check: $step passed in $((SECONDS - start)) s"
done
