#!/usr/bin/env bash
# Packs the CUDA tests, the program and the sample into target/gpu-suite, for a machine with an NVIDIA driver and
# without Rust. There: ./run.sh (what it runs: docs/gpu-results.md).
set -euo pipefail
cd "$(dirname "$0")/.."
suite=target/gpu-suite
rm -rf "$suite"
mkdir -p "$suite"

# The name of a test program holds a hash; cargo tells it as `Executable tests/cuda.rs (path)`.
program="$(cargo test --no-run --test cuda 2>&1 | tee /dev/stderr | sed -n 's/.*Executable tests\/cuda.rs (\(.*\))$/\1/p')"
cargo build --release --bin codeword
folder="$(cargo metadata --no-deps --format-version 1 | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')"
strip -o "$suite/tests-cuda" "$program"
strip -o "$suite/codeword" "$folder/release/codeword"
cp examples/sample/patches.npy examples/sample/codebook.npy "$suite/"
git rev-parse HEAD >"$suite/commit"

cat >"$suite/run.sh" <<'RUN'
#!/usr/bin/env bash
# Runs everything, whatever fails on the way, and ends with what failed.
set -uo pipefail
cd "$(dirname "$0")"
failed=()
step() {
    echo
    echo "== $1"
    shift
    "$@" || failed+=("$*")
}
same() {
    local device
    for device in cpu cuda; do
        ./codeword encode patches.npy -c codebook.npy -o "codes-$device.npy" --distances "distances-$device.npy" \
            --device "$device" --force || return
        ./codeword decode "codes-$device.npy" -c codebook.npy -o "decoded-$device.npy" --device "$device" --force || return
    done
    cmp codes-cpu.npy codes-cuda.npy && cmp distances-cpu.npy distances-cuda.npy && cmp decoded-cpu.npy decoded-cuda.npy
}
large() {
    python3 -c '
import numpy
r = numpy.random.default_rng(1)
numpy.save("x.npy", r.standard_normal((1_000_000, 256), dtype=numpy.float32))
numpy.save("e.npy", r.standard_normal((1024, 256), dtype=numpy.float32))' || return
    local device
    for device in cpu cuda cuda cuda; do
        ./codeword encode x.npy -c e.npy -o "large-$device.npy" --device "$device" --force --json || return
    done
    cmp large-cpu.npy large-cuda.npy
}

echo "commit $(cat commit)"
command -v nvidia-smi >/dev/null && nvidia-smi --query-gpu=name,driver_version,compute_cap,memory.total --format=csv
step "the chain from library to kernels" ./codeword doctor
export CODEWORD_TEST_REQUIRE=cuda
step "tests on the device" ./tests-cuda --test-threads=1
if command -v compute-sanitizer >/dev/null; then
    for tool in memcheck racecheck initcheck synccheck; do
        step "$tool" compute-sanitizer --tool "$tool" --error-exitcode 1 ./tests-cuda --test-threads=1 \
            sizes_around_every_tile more_equidistant_codewords_than_a_block_can_list
    done
else
    echo "skipped: no compute-sanitizer"
fi
step "the sample, byte for byte as on the CPU" same
if python3 -c 'import numpy' 2>/dev/null; then
    step "1,000,000 x 256, k = 1024" large
else
    echo "skipped: no NumPy to make large data with"
fi
echo
[ ${#failed[@]} -eq 0 ] && echo "gpu-suite: all passed" && exit
printf 'gpu-suite: FAILED %s\n' "${failed[@]}"
exit 1
RUN
chmod +x "$suite/run.sh"
du -sh "$suite"
echo "Copy $suite to the machine and start its run.sh."
