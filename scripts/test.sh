#!/usr/bin/env bash
# All tests, those in the documentation included. Needs Rust; where g++ is missing, the tests of the CUDA path say that
# they were skipped. Prints the kernel entry points that the tests ran, and fails on one that none did (tests/kernels.rs).
# Arguments go to cargo test.
#
# CODEWORD_DATA          a folder of real data; without it the tests that need it say that they were skipped
# CODEWORD_TEST_REQUIRE  what must not be skipped, joined by commas: data, simulated, avx512bf16, avx512vnni,
#                        avx512, avx2, neon; cuda: a real device
set -euo pipefail
cd "$(dirname "$0")/.."
exec cargo test "$@"
