//! Few rows and many codewords: where blocks of rows are fewer than threads, a pass shares out its panels, and what the shares
//! found is merged as if one thread had seen the panels in their order.

use std::ops::Range;

/// Words of panels times rows that are worth a thread's attention: some tens of microseconds.
const LEAST: usize = 1 << 21;

/// Threads for each block of `rows`, `block` rows each: where blocks are fewer than threads, several.
pub(super) fn threads_of_a_block(rows: usize, block: usize) -> usize {
    (rayon::current_num_threads() / rows.div_ceil(block).max(1)).max(1)
}

/// Ranges of `panels` for up to `threads` threads: whole multiples of `step` but for the last, and no less work than pays, where
/// `words` are those of a panel times the rows that meet it.
pub(super) fn shares(threads: usize, panels: usize, step: usize, words: usize) -> Vec<Range<usize>> {
    let least = LEAST.div_ceil(words.max(1));
    let share = panels.div_ceil(threads.max(1)).max(least).next_multiple_of(step);
    (0..panels).step_by(share).map(|first| first..panels.min(first + share)).collect()
}

/// Runs of the panels of a share, `panel` words each, of about `words` words and whole multiples of `step` panels, with the number
/// of their first, counted from the beginning of the share.
pub(super) fn runs<'a, Word>(
    packed: &'a [Word],
    panel: usize,
    share: &Range<usize>,
    words: usize,
    step: usize,
) -> impl Iterator<Item = (usize, &'a [Word])> + use<'a, Word> {
    let per_run = (words / panel).max(1).next_multiple_of(step);
    let runs = packed[share.start * panel..share.end * panel].chunks(per_run * panel);
    runs.enumerate().map(move |(run, panels)| (run * per_run, panels))
}

/// Merges states `[3][lanes]`, each lane's best score, the second best and the number of what had the best, with those of a later
/// share, whose numbers begin at `first`. The lower number stays among equal scores.
pub(super) fn merge_scores(states: &mut [f32], later: &[f32], lanes: usize, first: u32) {
    for (state, later) in states.chunks_exact_mut(3 * lanes).zip(later.chunks_exact(3 * lanes)) {
        for lane in 0..lanes {
            let [best, second, number] = [0, 1, 2].map(|line| line * lanes + lane);
            let rival = if later[best] > state[best] {
                state[number] = f32::from_bits(later[number].to_bits() + first);
                std::mem::replace(&mut state[best], later[best])
            } else {
                later[best]
            };
            state[second] = state[second].max(later[second]).max(rival);
        }
    }
}

/// The same for keys, `[2][lanes]`, which carry the number in their low bits, with room for `first`.
pub(super) fn merge_keys(states: &mut [i32], later: &[i32], lanes: usize, first: i32) {
    for (state, later) in states.chunks_exact_mut(2 * lanes).zip(later.chunks_exact(2 * lanes)) {
        let ((best, second), (later_best, later_second)) = (state.split_at_mut(lanes), later.split_at(lanes));
        for lane in 0..lanes {
            // Before the first panel a key is the least number of all, and has room as well.
            let (key, runner_up) = (later_best[lane] + first, later_second[lane] + first);
            second[lane] = second[lane].max(runner_up).max(key.min(best[lane]));
            best[lane] = best[lane].max(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_all_panels_in_order() {
        for (threads, panels, step, words) in
            [(1, 9, 4, 1), (2, 1000, 1, LEAST), (7, 1001, 8, LEAST), (64, 100, 4, LEAST / 3), (3, 1, 2, 0)]
        {
            let shares = shares(threads, panels, step, words);
            assert!(shares.len() <= threads);
            assert!(shares.iter().flat_map(Clone::clone).eq(0..panels), "{shares:?}");
            assert!(
                shares
                    .iter()
                    .all(|share| share.start % step == 0 && (words * share.len() >= LEAST || share.end == panels))
            );
        }
    }

    #[test]
    fn merged_states_are_those_of_one_pass() {
        // Few values, so that many are equal.
        let scores: Vec<u32> = (0..40).map(|i: u32| i.wrapping_mul(2_654_435_761) >> 29).collect();
        let of_scores = |from: Range<usize>| {
            let mut state = [f32::NEG_INFINITY, f32::NEG_INFINITY, 0.0];
            for (number, &score) in scores[from].iter().enumerate() {
                let score = score as f32;
                state[1] = state[1].max(score.min(state[0]));
                if score > state[0] {
                    (state[0], state[2]) = (score, f32::from_bits(number as u32));
                }
            }
            state
        };
        let of_keys = |from: Range<usize>| {
            let mut state = [i32::MIN; 2];
            for (number, &score) in scores[from].iter().enumerate() {
                let key = (score as i32 - 4) << 16 | number as i32;
                state[1] = state[1].max(key.min(state[0]));
                state[0] = state[0].max(key);
            }
            state
        };
        for split in 1..39 {
            let mut merged = of_scores(0..split);
            merge_scores(&mut merged, &of_scores(split..40), 1, split as u32);
            assert_eq!(merged.map(f32::to_bits), of_scores(0..40).map(f32::to_bits), "split at {split}");
            let mut merged = of_keys(0..split);
            merge_keys(&mut merged, &of_keys(split..40), 1, split as i32);
            assert_eq!(merged, of_keys(0..40), "split at {split}");
        }
    }
}
