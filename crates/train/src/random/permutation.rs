//! A random order of `0..len` that can be read at any place, without being stored.

use super::{Seed, Stream, philox4x32};

/// Rounds of the Feistel network; each of the two halves is changed by half of them.
const ROUNDS: u32 = 12;

/// A permutation of `0..len`, a function of seed, epoch and length alone: [`Permutation::get`] takes
/// constant time and memory, so that an interrupted pass over data is resumed by its cursor.
///
/// A Feistel network over the smallest power of two that holds `len` (Luby and Rackoff 1988), walked
/// until it lands inside (Black and Rogaway 2002, "cycle walking"), Philox being its round function.
///
/// ```
/// use bertha_train::random::{Permutation, Seed};
///
/// let order = Permutation::new(Seed::new(7), 0, 10);
/// let mut all: Vec<u64> = (0..10).map(|i| order.get(i)).collect();
/// all.sort();
/// assert_eq!(all, (0..10).collect::<Vec<u64>>());
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Permutation {
    len: u64,
    epoch: u32,
    key: [u32; 2],
    left_bits: u32,
    right_bits: u32,
}

impl Permutation {
    /// The order of epoch `epoch` over `len` things, from the seed's stream of shuffles.
    pub fn new(seed: Seed, epoch: u32, len: u64) -> Self {
        let bits = (u64::BITS - len.saturating_sub(1).leading_zeros()).max(2);
        Self {
            len,
            epoch,
            key: seed.key(Stream::Shuffle),
            left_bits: bits / 2,
            right_bits: bits - bits / 2,
        }
    }

    /// Number of things.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there is nothing to order.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The thing at `place`.
    ///
    /// # Panics
    /// When `place` is not below the length.
    pub fn get(&self, place: u64) -> u64 {
        assert!(place < self.len, "place {place} of {}", self.len);
        let mut value = self.scramble(place);
        while value >= self.len {
            value = self.scramble(value);
        }
        value
    }

    /// One pass of the network over the power of two.
    fn scramble(&self, value: u64) -> u64 {
        let (left_mask, right_mask) = (mask(self.left_bits), mask(self.right_bits));
        let (mut left, mut right) = (value >> self.right_bits, value & right_mask);
        for round in 0..ROUNDS {
            if round % 2 == 0 {
                left ^= self.round(round, right) & left_mask;
            } else {
                right ^= self.round(round, left) & right_mask;
            }
        }
        left << self.right_bits | right
    }

    fn round(&self, round: u32, half: u64) -> u64 {
        // A half has at most 32 bits.
        let words = philox4x32([half as u32, round, self.epoch, 0], self.key);
        u64::from(words[0])
    }
}

fn mask(bits: u32) -> u64 {
    (1 << bits) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(seed: u64, epoch: u32, len: u64) -> Vec<u64> {
        let permutation = Permutation::new(Seed::new(seed), epoch, len);
        (0..len).map(|place| permutation.get(place)).collect()
    }

    #[test]
    fn everything_comes_once() {
        for len in [0, 1, 2, 3, 4, 5, 7, 8, 9, 31, 64, 65, 1000, 4097] {
            let mut all = order(3, 1, len);
            all.sort_unstable();
            assert_eq!(all, (0..len).collect::<Vec<_>>(), "{len}");
        }
    }

    #[test]
    fn seeds_and_epochs_have_their_own_orders() {
        let first = order(1, 0, 100);
        assert_eq!(first, order(1, 0, 100));
        assert_ne!(first, order(1, 1, 100));
        assert_ne!(first, order(2, 0, 100));
        assert_ne!(first, (0..100).collect::<Vec<_>>());
    }

    /// Every thing comes to every place about equally often.
    #[test]
    fn places_are_even() {
        let (len, seeds) = (6usize, 6000u64);
        let mut counts = vec![0u64; len * len];
        for seed in 0..seeds {
            for (place, value) in order(seed, 0, len as u64).into_iter().enumerate() {
                counts[place * len + value as usize] += 1;
            }
        }
        let expected = seeds as f64 / len as f64;
        // Each count is binomial; five standard deviations cover 36 of them.
        let bound = 5.0 * (expected * (1.0 - 1.0 / len as f64)).sqrt();
        for count in counts {
            assert!((count as f64 - expected).abs() < bound, "{count}");
        }
    }

    #[test]
    fn large_orders_are_read_anywhere() {
        let len = 3_000_000_000_000;
        let order = Permutation::new(Seed::new(5), 0, len);
        assert!(order.get(len - 1) < len);
        assert_ne!(order.get(0), order.get(1));
    }
}
