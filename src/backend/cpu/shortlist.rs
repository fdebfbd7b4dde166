//! The positions that can still be among the r best of a row, for [`super::top_k`]: a list that takes in scores run by run, and
//! is cut back whenever it has doubled. What a row has seen so far tells scores that need no place in it from then on. A list that
//! grows nevertheless, for many codewords are too close to tell them apart, is given up: there is one for every row of a block.

use super::kernels::Kernels;

/// Keys below which a list is not worth cutting.
const ROOM: usize = 64;
/// A list is given up when it is so many times as long as it begins with.
const GROWTH: usize = 4;

/// Scores and positions as numbers: ascending keys are descending scores, ascending positions where these are equal.
pub(super) fn key(score: f32, position: u32) -> u64 {
    // As `f32::total_cmp`; its order of signed integers is that of unsigned ones with the sign bit turned.
    let bits = score.to_bits() as i32;
    let ascending = (bits ^ ((bits >> 31) as u32 >> 1) as i32) as u32 ^ 1 << 31;
    u64::from(!ascending) << 32 | u64::from(position)
}

/// The score of a key and its position.
pub(super) fn of_key(key: u64) -> (f32, u32) {
    let signed = (!(key >> 32) as u32 ^ 1 << 31) as i32;
    (f32::from_bits((signed ^ ((signed >> 31) as u32 >> 1) as i32) as u32), key as u32)
}

#[derive(Clone, Default)]
pub(super) struct Shortlist {
    pub keys: Vec<u64>,
    /// No score below this is of use.
    least: f32,
    /// Keys at which the list is cut.
    room: usize,
    /// Keys at which it is given up.
    most: usize,
    pub given_up: bool,
}

impl Shortlist {
    /// An empty list for the `r` best.
    pub fn reset(&mut self, r: usize) {
        self.keys.clear();
        let room = r.saturating_mul(2).max(ROOM);
        (self.least, self.room, self.most, self.given_up) =
            (f32::NEG_INFINITY, room, room.saturating_mul(GROWTH), false);
    }

    /// Takes in the scores of positions from `first` on; `least_of` says which scores are of use besides the r best, given these.
    pub fn offer(
        &mut self,
        kernels: &Kernels,
        scores: &[f32],
        first: u32,
        r: usize,
        least_of: impl FnOnce(&[u64]) -> f32,
    ) {
        if self.given_up {
            return;
        }
        if self.least == f32::NEG_INFINITY {
            self.keys.extend(scores.iter().zip(first..).map(|(&score, position)| key(score, position)));
        } else {
            kernels.at_least(scores, self.least, first, &mut self.keys);
        }
        if self.keys.len() >= self.room {
            self.cut(r, least_of);
            self.room = self.room.max(2 * self.keys.len());
            if self.keys.len() > self.most {
                (self.keys, self.given_up) = (Vec::new(), true);
            }
        }
    }

    /// Keeps what can be among the r best: these come first.
    pub fn cut(&mut self, r: usize, least_of: impl FnOnce(&[u64]) -> f32) {
        if r > self.keys.len() {
            return;
        }
        self.keys.select_nth_unstable(r - 1);
        // Both zeros count as one.
        let least = match least_of(&self.keys[..r]) {
            0.0 => -0.0,
            least => least,
        };
        self.least = self.least.max(least);
        let last = key(self.least, u32::MAX);
        // The order of what stays does not change.
        self.keys.retain(|&key| key <= last);
    }
}

/// Adds the keys of scores that are `least` or more.
#[inline(always)]
pub(super) fn at_least(scores: &[f32], least: f32, first: u32, keys: &mut Vec<u64>) {
    for (scores, first) in scores.chunks(32).zip((first..).step_by(32)) {
        // Seldom is one.
        if scores.iter().fold(false, |any, &score| any | (score >= least)) {
            let found = scores.iter().zip(first..).filter(|&(&score, _)| score >= least);
            keys.extend(found.map(|(&score, position)| key(score, position)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_order_scores_and_give_them_back() {
        let scores =
            [f32::INFINITY, 3.5, 1.0, f32::MIN_POSITIVE, 1e-45, 0.0, -0.0, -1e-45, -2.0, f32::MIN, f32::NEG_INFINITY];
        let keys: Vec<u64> = scores.iter().map(|&score| key(score, 7)).collect();
        assert!(keys.is_sorted());
        for (&key, score) in keys.iter().zip(scores) {
            assert_eq!(of_key(key).0.to_bits(), score.to_bits());
            assert_eq!(of_key(key).1, 7);
        }
        assert!(key(1.0, 3) < key(1.0, 4));
    }

    #[test]
    fn a_list_cut_again_and_again_has_the_r_best() {
        let kernels = Kernels::of(super::super::isa::Isa::Portable);
        let scores: Vec<f32> = (0..5000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 20) as f32 - 2000.0).collect();
        for (r, run) in [(1, 7), (3, 100), (100, 256), (500, 33), (5000, 512)] {
            let mut list = Shortlist::default();
            list.reset(r);
            let last = |keys: &[u64]| of_key(keys[r - 1]).0;
            for (some, first) in scores.chunks(run).zip((0..).step_by(run)) {
                list.offer(kernels, some, first, r, last);
            }
            list.cut(r, last);
            let mut all: Vec<u64> = scores.iter().zip(0..).map(|(&score, position)| key(score, position)).collect();
            all.sort_unstable();
            let mut best = list.keys[..r].to_vec();
            best.sort_unstable();
            assert_eq!(best, all[..r], "{r} best, {run} at a time");
            // All that are as good as the last, and nothing else.
            let as_good = all.iter().filter(|&&key| of_key(key).0 >= of_key(all[r - 1]).0).count();
            assert_eq!((list.keys.len(), list.given_up), (as_good, false));
        }
    }

    #[test]
    fn a_list_of_what_cannot_be_told_apart_is_given_up() {
        let kernels = Kernels::of(super::super::isa::Isa::Portable);
        let mut list = Shortlist::default();
        list.reset(3);
        (0..100).for_each(|i| list.offer(kernels, &[1.0; 100], 100 * i, 3, |_| 1.0));
        assert!(list.given_up && list.keys.capacity() == 0);
        list.reset(3);
        list.offer(kernels, &[1.0; 100], 0, 3, |_| 1.0);
        assert!(!list.given_up && list.keys.len() == 100);
    }
}
