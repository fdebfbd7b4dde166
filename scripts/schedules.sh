#!/usr/bin/env bash
# Kernels under many schedules: the quick tests of tests/cuda/, which launch every kernel, with blocks and threads in the
# random order of seeds 1 to 15, and with seed 0, where they come in turn. The simulated driver finds nothing, and no bit
# changes.
#
# scripts/schedules.sh [SEEDS]    SEEDS: how many, 16 by default
#
# Tests whose subject is the order choose seeds themselves and run as they are. Left out, for time, are those below: they
# run the same kernels on more rows or more data sets, or one allocation after the other. Less than ten minutes for 16
# seeds on two cores.
set -euo pipefail
cd "$(dirname "$0")/.."
seeds="${1:-16}"
slow=(
    # more rows than a card holds, or than are summed at once
    an_input_ more_rows_than_are_summed_at_once more_rows_than_are_sorted_at_once our_own_kernel_takes_several_tiles
    a_codebook_larger_than_the_card rows_that_are_not_finite_are_refused codewords_of_several_runs_are_joined
    # a process per allocation or per kind of card
    each_refused_allocation each_allocation tensor_cores_are_used_where a_card_too_small_for_one_row
    # the program, whose kernels are those of the library
    cli:: driver::
    # numbers: rounding, bounds, data made to mislead. The same kernels in the same grids as the tests of sizes
    adversarial_data most_ordinary_rows_are_certified a_sum_that_loses sums_that_lose sums_of_f64 products_that_underflow
    scales_from_subnormal scores_have_the_bits sums_of_products_are_those_of_the_model codewords_of_every_kind
    rows_are_counted_by more_equidistant_codewords_than_asked_for every_small_dimension
    # what runs the kernels of assignment from above
    a_rotation_is_learned a_residual_quantizer cublas_is_used_where the_r_nearest_codewords_are_those_of_the_cpu
    copies_of_one_block_run_beside
    labels_and_distances_are_those_of_exact_arithmetic_in_blocks_of_any_size
    usage_of_few_codewords_and_of_more_than_a_block_can_hold
    # training: its kernels are those of accumulate.rs and of assignment
    a_device_learns_the_bytes rows_of_any_type_and_with_gaps metrics_on_the_device_are_those_of_the_cpu
    # several tiles of every kind of kernel: sizes_around_every_tile has two
    a_block_takes_several_tiles_of_codewords
    # seeds of its own
    the_order_in_which_threads_run_changes_nothing
)

skips=()
for name in "${slow[@]}"; do skips+=(--skip "$name"); done

start=$SECONDS
cargo test --no-run --test cuda
echo "schedules: built in $((SECONDS - start)) s"

# The tests of one seed.
run_seed() {
    local seed="$1" began=$SECONDS here="target/schedules/$1" never tests
    mkdir -p "$here"
    touch "$here/start"
    if ! CODEWORD_SIM_SEED="$seed" cargo test --quiet --test cuda -- --test-threads 2 "${skips[@]}" >"$here/log" 2>&1; then
        cat "$here/log"
        echo "schedules: FAILED with CODEWORD_SIM_SEED=$seed" >&2
        return 1
    fi
    # Entry points of the kernels without a record (tests/common/simulated/launched.rs) since this began: the
    # seed beside it runs the same tests.
    never="$(comm -23 <(sed -n 's/^\.visible \.entry \(\w*\).*/\1/p' kernels/ptx/*.ptx | sort -u) \
        <(find target/emulator/launched -type f -newer "$here/start" -exec cat {} + | sort -u))"
    if [ -n "$never" ]; then
        echo "schedules: not launched with CODEWORD_SIM_SEED=$seed: $never" >&2
        return 1
    fi
    tests="$(sed -n 's/^test result: ok. \([0-9]*\) passed.*/\1/p' "$here/log" | paste -sd+ | bc)"
    echo "schedules: seed $seed, $tests tests, $((SECONDS - began)) s"
}

start=$SECONDS
# Two at a time: what one leaves of the cores, at the end of a program of tests, the other takes.
for ((seed = 0; seed < seeds; seed += 2)); do
    run_seed "$seed" &
    if ((seed + 1 < seeds)) && ! run_seed $((seed + 1)); then
        wait $! || true
        exit 1
    fi
    wait $!
done
echo "schedules: $seeds seeds in $((SECONDS - start)) s, nothing found"
