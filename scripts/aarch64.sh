#!/usr/bin/env bash
# The exactness tests on 64-bit Arm: built by a cross compiler, run under qemu. Installs what is missing, which needs
# Debian's packages and rustup.
set -euo pipefail
cd "$(dirname "$0")/.."
target=aarch64-unknown-linux-gnu

if ! { command -v qemu-aarch64 && command -v aarch64-linux-gnu-gcc && [ -e /usr/aarch64-linux-gnu/lib/crt1.o ]; } >/dev/null; then
    sudo=""
    [ "$(id -u)" -eq 0 ] || sudo=sudo
    $sudo apt-get update -q
    $sudo apt-get install -qy --no-install-recommends qemu-user gcc-aarch64-linux-gnu libc6-dev-arm64-cross
fi
if [ ! -d "$(rustc --print sysroot)/lib/rustlib/$target" ]; then
    rustup target add "$target"
fi

export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64 -L /usr/aarch64-linux-gnu"
# For tests that start themselves again.
export CODEWORD_TEST_RUNNER="$CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER"
export CODEWORD_TEST_SCALE=small
export CODEWORD_TEST_REQUIRE=neon
# The real data was tested natively; under emulation it takes too long. CODEWORD_ISA would name an x86-64 set.
unset CODEWORD_DATA CODEWORD_ISA
cargo test --target "$target" --no-default-features --lib \
    --test every_isa --test exactness --test properties --test reference --test bounds "$@"
