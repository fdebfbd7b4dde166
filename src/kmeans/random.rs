//! The random numbers of training, the same on every machine and in every version: ChaCha of 8 rounds with a 64-bit
//! counter. The key is the seed, 8 bytes little-endian, and 24 bytes of zeros; the stream is the number of the run.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// The stream of one run.
pub(super) struct Random(ChaCha8Rng);

impl Random {
    pub fn new(seed: u64, run: u64) -> Random {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        let mut stream = ChaCha8Rng::from_seed(key);
        stream.set_stream(run);
        Random(stream)
    }

    /// Any number below `bound`, each as likely: the upper half of a product of 128 bits, drawn again where the lower
    /// half is below 2^64 mod bound (Lemire 2019).
    pub fn below(&mut self, bound: u64) -> u64 {
        let surplus = bound.wrapping_neg() % bound;
        loop {
            let product = u128::from(self.0.next_u64()) * u128::from(bound);
            if product as u64 >= surplus {
                return (product >> 64) as u64;
            }
        }
    }

    /// A seed for a training within this one.
    pub fn seed(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A multiple of 2^-53 in [0, 1).
    pub fn unit(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 / 9_007_199_254_740_992.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_is_the_published_one() {
        // The keystream of ChaCha8 for a key and a nonce of zeros: 3e00ef2f895f40d6 7f5bb8e81f09a5a1 …
        let mut random = Random::new(0, 0);
        assert_eq!(random.0.next_u64(), 0xd640_5f89_2fef_003e);
        assert_eq!(random.unit(), (0xa1a5_091f_e8b8_5b7fu64 >> 11) as f64 / 9_007_199_254_740_992.0);
        assert_ne!(Random::new(1, 0).0.next_u64(), Random::new(0, 1).0.next_u64());
    }

    #[test]
    fn numbers_below_a_bound_are_all_met_about_equally() {
        let mut random = Random::new(5, 0);
        let mut met = [0; 7];
        (0..7000).for_each(|_| met[random.below(7) as usize] += 1);
        assert!(met.iter().all(|&times| (850..1150).contains(&times)), "{met:?}");
        assert_eq!(random.below(1), 0);
    }
}
