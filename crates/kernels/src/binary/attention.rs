//! Attention of bits (Qin et al. 2022, <https://arxiv.org/abs/2203.06390>, section 3.2): a query attends to the keys whose
//! signs agree with its own in more than half of the places, with a weight of 1 and without a softmax.
//!
//! Scores, weights and values never are floats: with bits `a` of the keys attended to and bits `v` of a value over the
//! keys, the sum of the signs is `2·popcount(a and v) − popcount(a)`.
//!
//! Or, as BiT has it (Liu et al. 2022, <https://arxiv.org/abs/2205.13016>), a query attends to keys whose weight in a softmax
//! is not below a threshold. A score of D places is one of D + 1 whole numbers: keys are counted by their scores, the D + 1
//! exponentials are made once for a head, and what is left is in how many places a key may differ, as without a softmax.

use super::{WORD, pack_signs};
use crate::Exec;
use crate::exec::SharedMut;
use crate::simd::{Kernel, Simd};

/// What attention of bits works on.
#[derive(Clone, Copy, Debug)]
pub struct BinaryAttentionShape {
    /// Attention heads (H).
    pub heads: usize,
    /// Width of a head (D).
    pub head_dim: usize,
    /// Which keys a query attends to.
    pub attends: Attends,
}

/// Which keys a query attends to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Attends {
    /// Those with a score above 0, as BiBERT's code has it.
    Positive,
    /// Those with a score of 0 too.
    NotNegative,
    /// All: what the signs of a softmax come to.
    All,
    /// Those whose softmax is not below a threshold.
    Softmax {
        /// What scores are multiplied by.
        scale: f32,
        /// The least weight that counts.
        threshold: f32,
    },
}

/// `out[T,H·D]`: for each query the sum of the signs of the values of the keys of its sequence that it attends to.
///
/// `qkv[T,3·H·D]` holds queries, keys and values side by side, of which signs count; sequences are
/// `cu_seqlens[i]..cu_seqlens[i+1]`.
///
/// # Panics
/// When a slice has another length.
pub fn binary_attention(
    exec: &Exec,
    qkv: &[f32],
    cu_seqlens: &[u32],
    shape: BinaryAttentionShape,
    out: &mut [f32],
) {
    let width = shape.heads * shape.head_dim;
    let tokens = cu_seqlens.last().map_or(0, |&end| end as usize);
    assert_eq!(
        qkv.len(),
        tokens * 3 * width,
        "qkv is [{tokens}, {}]",
        3 * width
    );
    assert_eq!(out.len(), tokens * width, "out is [{tokens}, {width}]");
    let sequences = cu_seqlens.len().saturating_sub(1);
    let shared = SharedMut::new(out);
    exec.parallel(sequences * shape.heads, |task| {
        let (sequence, head) = (task / shape.heads, task % shape.heads);
        let rows = cu_seqlens[sequence] as usize..cu_seqlens[sequence + 1] as usize;
        exec.isa().run(Head {
            qkv,
            rows,
            head,
            shape,
            out: &shared,
        });
    });
}

/// One head of one sequence.
struct Head<'a> {
    qkv: &'a [f32],
    rows: std::ops::Range<usize>,
    head: usize,
    shape: BinaryAttentionShape,
    out: &'a SharedMut<'a>,
}

impl Kernel for Head<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _simd: S) {
        let (heads, dim) = (self.shape.heads, self.shape.head_dim);
        let (width, keys) = (heads * dim, self.rows.len());
        let words = dim.div_ceil(WORD);
        let row = |token: usize, which: usize| {
            let first = (self.rows.start + token) * 3 * width + which * width + self.head * dim;
            &self.qkv[first..first + dim]
        };
        let mut key_bits = vec![0u64; keys * words];
        for (token, bits) in key_bits.chunks_exact_mut(words.max(1)).enumerate() {
            pack_signs(row(token, 1), dim, None, bits);
        }
        // The bits of each place of the values, over the keys.
        let of_keys = keys.div_ceil(WORD);
        let mut value_bits = vec![0u64; dim * of_keys];
        for token in 0..keys {
            for (place, &value) in row(token, 2).iter().enumerate() {
                let bit = u64::from(value >= 0.0) << (token % WORD);
                value_bits[place * of_keys + token / WORD] |= bit;
            }
        }
        let mut query = vec![0u64; words];
        let mut attended = vec![0u64; of_keys];
        let mut differing = vec![0u32; keys];
        let mut reach = Reach::new(self.shape);
        for token in 0..keys {
            pack_signs(row(token, 0), dim, None, &mut query);
            let pairs = differing
                .iter_mut()
                .zip(key_bits.chunks_exact(words.max(1)));
            for (differing, bits) in pairs {
                let pairs = query.iter().zip(bits);
                *differing = pairs.map(|(q, k)| (q ^ k).count_ones()).sum();
            }
            let most = reach.of(&differing);
            for (attended, differing) in attended.iter_mut().zip(differing.chunks(WORD)) {
                *attended = 0;
                for (key, differing) in differing.iter().enumerate() {
                    *attended |= u64::from(most.is_some_and(|most| *differing <= most)) << key;
                }
            }
            let count: u32 = attended.iter().map(|bits| bits.count_ones()).sum();
            let first = (self.rows.start + token) * width + self.head * dim;
            // SAFETY: tasks write the columns of different heads or the rows of different sequences.
            let out = unsafe { self.out.slice(first..first + dim) };
            for (out, bits) in out.iter_mut().zip(value_bits.chunks_exact(of_keys.max(1))) {
                let pairs = attended.iter().zip(bits);
                let positive: u32 = pairs.map(|(a, v)| (a & v).count_ones()).sum();
                *out = (2 * positive as i32 - count as i32) as f32;
            }
        }
    }
}

/// In how many places a key may differ from a query that attends to it; nothing where no key is attended to.
struct Reach {
    attends: Attends,
    dim: usize,
    /// How many keys differ in so many places.
    counts: Vec<u32>,
    /// `e^(−2·scale·i)`: what a score that differs in i places more weighs less.
    less: Vec<f32>,
}

impl Reach {
    fn new(shape: BinaryAttentionShape) -> Self {
        let dim = shape.head_dim;
        let (counts, less) = match shape.attends {
            Attends::Softmax { scale, .. } => (vec![0; dim + 1], softmax_steps(scale, dim)),
            _ => (Vec::new(), Vec::new()),
        };
        Self {
            attends: shape.attends,
            dim,
            counts,
            less,
        }
    }

    fn of(&mut self, differing: &[u32]) -> Option<u32> {
        // The score is dim − 2·differing.
        let threshold = match self.attends {
            Attends::Positive => return self.dim.checked_sub(1).map(|most| (most / 2) as u32),
            Attends::NotNegative => return Some((self.dim / 2) as u32),
            Attends::All => return Some(self.dim as u32),
            Attends::Softmax { threshold, .. } => threshold,
        };
        self.counts.fill(0);
        for &places in differing {
            self.counts[places as usize] += 1;
        }
        furthest(&self.counts, &self.less, threshold)
    }
}

/// The largest number of differing places whose softmax is not below a threshold, by how many keys differ in so many.
pub(super) fn furthest(counts: &[u32], less: &[f32], threshold: f32) -> Option<u32> {
    let nearest = counts.iter().position(|&count| count > 0)?;
    let weighted = counts[nearest..].iter().zip(less);
    let sum: f32 = weighted.map(|(&count, less)| count as f32 * less).sum();
    // They fall.
    let reaching = less.iter().take_while(|less| **less >= threshold * sum);
    let reaching = reaching.count().min(counts.len() - nearest);
    (reaching > 0).then(|| (nearest + reaching - 1) as u32)
}

/// `e^(−2·scale·i)` for `i` of 0 to `dim`, of a scale that is not negative.
pub(super) fn softmax_steps(scale: f32, dim: usize) -> Vec<f32> {
    (0..=dim).map(|i| (-2.0 * scale * i as f32).exp()).collect()
}
