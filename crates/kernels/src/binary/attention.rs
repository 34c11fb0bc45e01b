//! Attention of bits (Qin et al. 2022, <https://arxiv.org/abs/2203.06390>, section 3.2): a query attends to the keys whose
//! signs agree with its own in more than half of the places, with a weight of 1 and without a softmax.
//!
//! Scores, weights and values never are floats: with bits `a` of the keys attended to and bits `v` of a value over the
//! keys, the sum of the signs is `2·popcount(a and v) − popcount(a)`.

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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attends {
    /// Those with a score above 0, as BiBERT's code has it.
    Positive,
    /// Those with a score of 0 too.
    NotNegative,
    /// All: what the signs of a softmax come to.
    All,
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
            pack_signs(row(token, 1), dim, bits);
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
        for token in 0..keys {
            pack_signs(row(token, 0), dim, &mut query);
            attended.fill(0);
            for (key, bits) in key_bits.chunks_exact(words.max(1)).enumerate() {
                let pairs = query.iter().zip(bits);
                let differing: u32 = pairs.map(|(q, k)| (q ^ k).count_ones()).sum();
                // The score is dim − 2·differing.
                let twice = 2 * differing as usize;
                let attends = match self.shape.attends {
                    Attends::Positive => twice < dim,
                    Attends::NotNegative => twice <= dim,
                    Attends::All => true,
                };
                attended[key / WORD] |= u64::from(attends) << (key % WORD);
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
