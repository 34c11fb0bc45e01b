//! Dropout of attention's weights, regenerated wherever it is needed.

use super::layout::DEAD;
use crate::dropout::Dropout;
use crate::gemm::tile::MOST_COLUMNS;
use crate::random::{LANES, philox_lanes, philox4x32, uniform};
use crate::simd::{Kernel, Simd};

/// Keys that one block of counters serves.
pub(super) const KEYS: usize = 4;

/// Heads that a counter can tell from each other, and blocks of keys.
const HEAD_SHIFT: u32 = 20;

/// Dropout of the weights `softmax(scale·Q·Kᵀ)`, after normalisation.
///
/// The mask of a weight depends on the query's name, the head and the key's place in its sequence, beside the
/// stream of [`Dropout`]: on neither threads nor company.
#[derive(Clone, Copy, Debug)]
pub struct AttentionDropout<'a> {
    /// The share of weights that are dropped, and the place in the random stream.
    pub dropout: Dropout,
    /// The names of the T rows of queries, by default their numbers.
    pub rows: Option<&'a [u32]>,
}

impl AttentionDropout<'_> {
    /// # Panics
    /// When the probability is out of range, a row lacks a name, or heads or keys are more than a counter holds.
    pub(super) fn check(&self, queries: usize, keys: usize, heads: usize) {
        self.dropout.check();
        if let Some(rows) = self.rows {
            assert_eq!(rows.len(), queries, "a name for each of the queries");
        }
        assert!(heads <= 1 << (32 - HEAD_SHIFT), "at most 4096 heads");
        assert!(keys <= KEYS << HEAD_SHIFT, "at most 4,194,304 tokens");
    }

    /// The name of a row of queries.
    #[inline(always)]
    pub(super) fn name(&self, row: usize) -> u32 {
        match self.rows {
            Some(rows) => rows[row],
            None => row as u32,
        }
    }

    /// What the weight of a key is multiplied by: 0 or `1/(1 − p)`.
    pub(super) fn factor(&self, row: usize, head: usize, key: usize) -> f64 {
        let Dropout { site, step, .. } = self.dropout;
        let counter = [block(head, key / KEYS), self.name(row), site, step];
        let bits = philox4x32(counter, self.dropout.key())[key % KEYS];
        let kept = uniform(bits) >= self.dropout.probability;
        if kept {
            1.0 / (1.0 - f64::from(self.dropout.probability))
        } else {
            0.0
        }
    }

    /// The factors of four keys (block `keys` of the sequence) for as many queries as `names`: `[key][query]`.
    #[inline(always)]
    pub(super) fn factors(
        &self,
        head: usize,
        keys: usize,
        names: &[u32; LANES],
    ) -> [[f32; LANES]; KEYS] {
        let Dropout {
            site,
            step,
            probability,
            ..
        } = self.dropout;
        let counter = [
            [block(head, keys); LANES],
            *names,
            [site; LANES],
            [step; LANES],
        ];
        let words = philox_lanes(counter, self.dropout.key());
        let scale = self.dropout.scale();
        let mut factors = [[0.0; LANES]; KEYS];
        for (factors, words) in factors.iter_mut().zip(&words) {
            for (factor, &bits) in factors.iter_mut().zip(words) {
                *factor = if uniform(bits) >= probability {
                    scale
                } else {
                    0.0
                };
            }
        }
        factors
    }
}

#[inline(always)]
fn block(head: usize, keys: usize) -> u32 {
    (head << HEAD_SHIFT) as u32 + keys as u32
}

/// Writes the factors of some keys for the queries of a tile, `mask[key][columns]`.
pub(super) struct Factors<'a> {
    pub(super) dropout: &'a AttentionDropout<'a>,
    pub(super) head: usize,
    /// The first key, a multiple of [`KEYS`].
    pub(super) first: usize,
    /// The queries' names.
    pub(super) names: &'a [u32; MOST_COLUMNS],
    /// A multiple of [`LANES`].
    pub(super) columns: usize,
    /// As many rows as keys.
    pub(super) mask: &'a mut [f32],
}

impl Kernel for Factors<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _simd: S) {
        let columns = self.columns;
        for (i, rows) in self.mask.chunks_mut(KEYS * columns).enumerate() {
            for at in (0..columns).step_by(LANES) {
                let mut names = [0; LANES];
                names.copy_from_slice(&self.names[at..at + LANES]);
                let factors = self
                    .dropout
                    .factors(self.head, self.first / KEYS + i, &names);
                for (row, factors) in rows.chunks_exact_mut(columns).zip(&factors) {
                    row[at..at + LANES].copy_from_slice(factors);
                }
            }
        }
    }
}

/// [`Factors`] of slots, whose keys come in any order; a dead slot's are 0.
pub(super) struct SlotFactors<'a> {
    pub(super) dropout: &'a AttentionDropout<'a>,
    pub(super) head: usize,
    /// The slots' keys.
    pub(super) slots: &'a [u32],
    /// The queries' names.
    pub(super) names: &'a [u32; MOST_COLUMNS],
    /// A multiple of [`LANES`].
    pub(super) columns: usize,
    /// As many rows as slots.
    pub(super) mask: &'a mut [f32],
}

impl Kernel for SlotFactors<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _simd: S) {
        // Of the four keys that were asked for last, which mostly stand together.
        let mut known = [[[0.0; LANES]; KEYS]; MOST_COLUMNS / LANES];
        let mut of = None;
        let rows = self.mask.chunks_exact_mut(self.columns);
        for (&slot, row) in self.slots.iter().zip(rows) {
            if slot == DEAD {
                row.fill(0.0);
                continue;
            }
            let (keys, key) = (slot as usize / KEYS, slot as usize % KEYS);
            let pieces = self.names[..self.columns].chunks_exact(LANES);
            if of != Some(keys) {
                for (piece, known) in pieces.zip(&mut known) {
                    let mut names = [0; LANES];
                    names.copy_from_slice(piece);
                    *known = self.dropout.factors(self.head, keys, &names);
                }
                of = Some(keys);
            }
            for (to, known) in row.chunks_exact_mut(LANES).zip(&known) {
                to.copy_from_slice(&known[key]);
            }
        }
    }
}
