//! Randomness that depends on a seed and a place, never on what ran before or on how many threads.
//!
//! One [`Seed`] gives independent [`Stream`]s, and each stream gives a generator per item and epoch:
//! masks of sample 17 in epoch 2 are the same whether it is computed first, last, alone, or after a
//! resume. The generator is Philox4x32-10 with counter (block, item low, item high, epoch).

mod permutation;
mod philox;

pub use permutation::Permutation;
pub use philox::philox4x32;

use serde::{Deserialize, Serialize};

/// What random numbers are for. Two streams of a seed share nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Stream {
    /// Initial weights.
    Init,
    /// The order of data.
    Shuffle,
    /// Which tokens are masked, and by what.
    Mask,
    /// Which activations are dropped.
    Dropout,
    /// Samples drawn in evaluation, which must not disturb training.
    Eval,
    /// Pairs of sentences.
    Pairs,
}

impl Stream {
    /// The stream's number; it goes into the key and never changes.
    fn number(self) -> u32 {
        match self {
            Self::Init => 0,
            Self::Shuffle => 1,
            Self::Mask => 2,
            Self::Dropout => 3,
            Self::Eval => 4,
            Self::Pairs => 5,
        }
    }
}

/// The one number that a training run's randomness follows from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seed(u64);

impl Seed {
    /// A seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The number.
    pub const fn value(self) -> u64 {
        self.0
    }

    /// The Philox key of a stream: itself drawn from Philox, with the seed and the stream as counter.
    pub fn key(self, stream: Stream) -> [u32; 2] {
        let counter = [self.0 as u32, (self.0 >> 32) as u32, stream.number(), 0];
        // The key spells "bertha".
        let words = philox4x32(counter, [0x6265_7274, 0x6861]);
        [words[0], words[1]]
    }

    /// The generator of an item (a sample, a document, a tensor) in an epoch.
    pub fn rng(self, stream: Stream, item: u64, epoch: u32) -> Rng {
        Rng {
            key: self.key(stream),
            counter: [0, item as u32, (item >> 32) as u32, epoch],
            block: [0; 4],
            left: 0,
        }
    }
}

/// A sequence of random numbers of its own; made by [`Seed::rng`]. It repeats after 2³⁴ words.
#[derive(Clone, Debug)]
pub struct Rng {
    key: [u32; 2],
    counter: [u32; 4],
    block: [u32; 4],
    left: usize,
}

impl Rng {
    /// 32 random bits.
    pub fn next_u32(&mut self) -> u32 {
        if self.left == 0 {
            self.block = philox4x32(self.counter, self.key);
            self.counter[0] = self.counter[0].wrapping_add(1);
            self.left = 4;
        }
        self.left -= 1;
        self.block[3 - self.left]
    }

    /// 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        let low = u64::from(self.next_u32());
        u64::from(self.next_u32()) << 32 | low
    }

    /// A number from 0 (included) to 1 (excluded), a multiple of 2⁻⁵³.
    pub fn uniform(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// True with probability `p`.
    pub fn chance(&mut self, p: f64) -> bool {
        self.uniform() < p
    }

    /// A whole number below `n`, each equally likely (Lemire 2019, with rejection).
    ///
    /// # Panics
    /// When `n` is 0.
    pub fn below(&mut self, n: u64) -> u64 {
        assert!(n > 0, "there is no number below 0");
        let unfair = n.wrapping_neg() % n;
        loop {
            let wide = u128::from(self.next_u64()) * u128::from(n);
            if wide as u64 >= unfair {
                return (wide >> 64) as u64;
            }
        }
    }

    /// An index into something of `len` elements.
    ///
    /// # Panics
    /// When `len` is 0.
    pub fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }

    /// A number of the standard normal distribution (Box and Muller).
    pub fn normal(&mut self) -> f64 {
        // 1 - uniform is never 0, whose logarithm is infinite.
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// Puts a slice into a random order, each equally likely (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.index(last + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(stream: Stream, item: u64, epoch: u32) -> Vec<u32> {
        let mut rng = Seed::new(1).rng(stream, item, epoch);
        (0..8).map(|_| rng.next_u32()).collect()
    }

    #[test]
    fn streams_items_and_epochs_differ_and_repeat() {
        let base = words(Stream::Mask, 3, 0);
        assert_eq!(base, words(Stream::Mask, 3, 0));
        for other in [
            words(Stream::Dropout, 3, 0),
            words(Stream::Mask, 4, 0),
            words(Stream::Mask, 3 + (1 << 32), 0),
            words(Stream::Mask, 3, 1),
        ] {
            assert!(base.iter().zip(&other).all(|(a, b)| a != b));
        }
    }

    #[test]
    fn numbers_below_are_even() {
        let mut rng = Seed::new(2).rng(Stream::Eval, 0, 0);
        let mut counts = [0u32; 5];
        for _ in 0..50_000 {
            counts[rng.index(5)] += 1;
        }
        let bound = 5.0 * (50_000.0 * 0.2 * 0.8f64).sqrt();
        for count in counts {
            assert!((f64::from(count) - 10_000.0).abs() < bound, "{counts:?}");
        }
    }

    #[test]
    fn the_normal_distribution_has_mean_0_and_variance_1() {
        let mut rng = Seed::new(3).rng(Stream::Init, 0, 0);
        let n = 100_000;
        let values: Vec<f64> = (0..n).map(|_| rng.normal()).collect();
        let mean = values.iter().sum::<f64>() / f64::from(n);
        let variance = values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / f64::from(n);
        assert!(mean.abs() < 0.016, "{mean}");
        assert!((variance - 1.0).abs() < 0.023, "{variance}");
    }

    #[test]
    fn a_shuffle_keeps_everything() {
        let mut rng = Seed::new(4).rng(Stream::Shuffle, 0, 0);
        let mut items: Vec<u32> = (0..50).collect();
        rng.shuffle(&mut items);
        assert_ne!(items, (0..50).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..50).collect::<Vec<_>>());
    }
}
