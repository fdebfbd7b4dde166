#!/usr/bin/env bash
# Feeds headers to the .npy reader for a number of seconds (default 60), from one process. Needs a nightly toolchain.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds="${1:-60}"

if ! cargo +nightly --version >/dev/null 2>&1; then
    rustup toolchain install nightly --profile minimal
fi
if ! cargo fuzz --version >/dev/null 2>&1; then
    cargo install cargo-fuzz --locked
fi
# The passes over the whole program at the end of a build take longer here than what they gain.
export CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16
# What the fuzzer finds worth keeping goes into the first folder; the second is read only.
mkdir -p fuzz/corpus/npy_header
cargo +nightly fuzz run npy_header fuzz/corpus/npy_header fuzz/seeds/npy_header -- \
    -max_len=512 -max_total_time="$seconds" -print_final_stats=1
