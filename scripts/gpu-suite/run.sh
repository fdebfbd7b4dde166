#!/usr/bin/env bash
# Runs what is packed here on the GPU of this machine, whatever fails on the way, and ends with what failed.
#
#   run.sh [PART...]    facts, tests, sanitizers (or one of them: memcheck, racecheck, initcheck, synccheck), benches;
#                       default: all
#
# CODEWORD_SUITE_SECONDS  what a part may take (default 540; each sanitizer is one part)
# CODEWORD_SUITE_THREADS  tests at a time (default: as many as there are processors)
# CODEWORD_SUITE_TESTS    words: sanitizers take only tests whose names hold one, all in one process for each tool, and the
#                         tools of `sanitizers` run side by side; for a machine that is lent for minutes
# CODEWORD_BENCH_SHAPES   shapes of the benches, as in results.py; default: all. More variables are told there
set -uo pipefail
cd "$(dirname "$0")"
seconds="${CODEWORD_SUITE_SECONDS:-540}"
threads="${CODEWORD_SUITE_THREADS:-$(nproc)}"
failed=()
open=()

# Where the driver library's loader does not look by itself: toolkits and pip wheels. Last, so that nothing else changes.
libraries=()
for folder in /usr/local/cuda*/lib64 $(python3 -c '
import os, site, sys
for path in dict.fromkeys([*site.getsitepackages(), site.getusersitepackages(), *sys.path]):
    for part in ("nvidia", "torch"):
        for folder, _, files in os.walk(os.path.join(path, part)):
            if os.path.basename(folder) in ("lib", "lib64") and any(name.startswith("libcublas.so") for name in files):
                print(folder)
' 2>/dev/null); do
    compgen -G "$folder/libcublas.so*" >/dev/null && libraries+=("$folder")
done
for folder in ${libraries[@]+"${libraries[@]}"}; do
    export LD_LIBRARY_PATH="${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$folder"
done

export CODEWORD_TEST_REQUIRE=cuda
CARGO_BIN_EXE_codeword="$PWD/codeword"
export CARGO_BIN_EXE_codeword

# step NAME COMMAND...: runs it for as long as its part has left.
step() {
    local name="$1" left=$((deadline - SECONDS)) status=0
    shift
    echo
    echo "== $name"
    if [ "$left" -le 0 ]; then
        failed+=("$name (no time left)")
        return
    fi
    timeout "$left" "$@" || status=$?
    [ "$status" -ne 124 ] || echo "no time left after $left s"
    [ "$status" -eq 0 ] || failed+=("$name (exit status $status)")
}

facts() {
    {
        echo "date: $(date -u +%Y-%m-%dT%H:%MZ)"
        echo "commit: $(cat commit)"
        if command -v nvidia-smi >/dev/null; then
            nvidia-smi --query-gpu=name,driver_version,compute_cap,memory.total,clocks.max.sm,power.limit --format=csv,noheader |
                sed 's/^/GPU, driver, capability, memory, clock, power: /'
        else
            echo "GPU: no nvidia-smi"
        fi
        echo "cuBLAS in: ${libraries[*]:-nowhere beside the loader path}"
        echo "host: $(nproc) x $(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -1)"
        command -v compute-sanitizer >/dev/null && compute-sanitizer --version | sed -n 's/^/sanitizer: /p' | head -1
    } >facts.txt
    cat facts.txt
    step "the chain from library to kernels" ./codeword doctor --device cuda
}

# The sample encoded and decoded by both devices, byte for byte the same.
sample() {
    local folder device
    folder="$(mktemp -d)" || return
    for device in cpu cuda; do
        ./codeword encode patches.npy -c codebook.npy -o "$folder/codes-$device.npy" \
            --distances "$folder/distances-$device.npy" --device "$device" -q || return
        ./codeword decode "$folder/codes-$device.npy" -c codebook.npy -o "$folder/decoded-$device.npy" \
            --device "$device" -q || return
    done
    for file in codes distances decoded; do
        cmp "$folder/$file-cpu.npy" "$folder/$file-cuda.npy" || return
    done
    rm -r "$folder"
}
export -f sample

tests() {
    local program
    for program in tests/*; do
        step "$program" "$program" --test-threads="$threads"
    done
    step "the sample, byte for byte as on the CPU" bash -c sample
}

# The chosen tests in one process, as far as its part of the time goes.
chosen() {
    local tool="$1" program status=0
    for program in tests/*; do
        # shellcheck disable=SC2086 # words
        timeout "$seconds" compute-sanitizer --tool "$tool" --target-processes all --error-exitcode 9 \
            "$program" ${CODEWORD_SUITE_TESTS:-} --test-threads="$threads" >"$tool.log" 2>&1 || status=$?
        echo "$tool: exit status $status of $program ${CODEWORD_SUITE_TESTS:-}:" \
            "$(grep -c ' \.\.\. ok$' "$tool.log") tests passed," \
            "$(grep -h 'ERROR SUMMARY\|RACECHECK SUMMARY' "$tool.log" | sort | uniq -c | tr -s ' \n' ' ')"
        grep -q ' \.\.\. ok$' "$tool.log" || status=1  # Words that no test has.
        [ "$status" -eq 0 ] || tail -30 "$tool.log"
    done
    return "$status"
}

# Every test by itself, each for a share of the time: a sanitizer slows kernels down by ten to a hundred times, and the
# test that does not finish is told and hides no other.
sanitizer() {
    local tool="$1" program test each left status=0
    echo
    echo "== $tool"
    if ! command -v compute-sanitizer >/dev/null; then
        echo "skipped: no compute-sanitizer"
        open+=("$tool: there is no compute-sanitizer")
        return
    fi
    each=$((seconds / 4))
    for program in tests/*; do
        while read -r test; do
            left=$((deadline - SECONDS))
            if [ "$left" -le 0 ]; then
                echo "$tool: not started: $program $test"
                open+=("$tool: not started: $program $test")
                continue
            fi
            status=0
            timeout "$((left < each ? left : each))" compute-sanitizer --tool "$tool" --target-processes all \
                --error-exitcode 9 "$program" --exact "$test" --test-threads=1 >"$tool.log" 2>&1 || status=$?
            case "$status" in
                0) echo "$tool: clean: $program $test" ;;
                124)
                    echo "$tool: not finished: $program $test"
                    open+=("$tool: not finished: $program $test")
                    ;;
                *)
                    echo "$tool: FOUND, exit status $status: $program $test"
                    tail -40 "$tool.log"
                    failed+=("$tool $program $test")
                    ;;
            esac
        done < <("$program" --list --format terse | sed -n 's/: test$//p')
    done
}

benches() {
    if ! command -v python3 >/dev/null; then
        echo "no python3: our own lines alone, and no table"
        step "benches, product codes" ./bench-cuda codes
        # shellcheck disable=SC2086 # a shape is a word
        step "benches" ./bench-cuda ${CODEWORD_BENCH_SHAPES:-}
        return
    fi
    [ -e facts.txt ] || facts
    step "benches, product codes" python3 results.py codes
    step "benches, ours and peers" python3 results.py
    cat results.md
}

parts=("$@")
[ ${#parts[@]} -gt 0 ] || parts=(facts tests sanitizers benches)
for part in "${parts[@]}"; do
    deadline=$((SECONDS + seconds))
    case "$part" in
        facts | tests | benches) "$part" ;;
        memcheck | racecheck | initcheck | synccheck)
            if [ -n "${CODEWORD_SUITE_TESTS:-}" ] && command -v compute-sanitizer >/dev/null; then
                chosen "$part" || failed+=("$part of tests with ${CODEWORD_SUITE_TESTS}")
            else
                sanitizer "$part"
            fi
            ;;
        sanitizers)
            if [ -n "${CODEWORD_SUITE_TESTS:-}" ] && command -v compute-sanitizer >/dev/null; then
                tools=(memcheck racecheck initcheck synccheck)
                pids=()
                for tool in "${tools[@]}"; do
                    chosen "$tool" &
                    pids+=($!)
                done
                for i in "${!tools[@]}"; do
                    wait "${pids[$i]}" || failed+=("${tools[$i]} of tests with ${CODEWORD_SUITE_TESTS}")
                done
                continue
            fi
            for tool in memcheck racecheck initcheck synccheck; do
                deadline=$((SECONDS + seconds))
                sanitizer "$tool"
            done
            ;;
        *)
            echo "run: unknown part $part; there are facts, tests, sanitizers, memcheck, racecheck, initcheck, synccheck, benches" >&2
            exit 2
            ;;
    esac
done
echo
[ ${#open[@]} -eq 0 ] || printf 'gpu-suite: NOT DONE %s\n' "${open[@]}"
[ ${#failed[@]} -eq 0 ] && echo "gpu-suite: nothing failed; ${#open[@]} parts not done" && exit
printf 'gpu-suite: FAILED %s\n' "${failed[@]}"
exit 1
