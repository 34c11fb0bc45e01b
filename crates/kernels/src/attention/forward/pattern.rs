//! Attention under any mask and with a bias by distance, on the tiles of the dense kernel, over the slots that a chunk of
//! queries has its keys in (`layout.rs`). A tile of queries walks over the slots that it may see; of those, slots that a
//! query does not see score −∞.

use std::cell::RefCell;

use super::super::dropout::{AttentionDropout, SlotFactors};
use super::super::layout::{Chunk, Rule, Slots, check_masked, chunks, copy_slots, pack_slots};
use super::super::{AttentionShape, Mask, RelativeBias, Segments, Strided, row};
use super::{BLOCK_KEYS, Scratch, TASK_QUERIES, Tile};
use crate::Exec;
use crate::exec::SharedMut;
use crate::gemm::pack::pack_strip;
use crate::gemm::tile::{F32Word, MOST_COLUMNS, tile_columns, tile_rows, tile_vectors};
use crate::simd::{Kernel, Simd};

/// Below any score: a maximum to start from whose difference to −∞ is no NaN.
const LOWEST: f32 = -1e30;

/// What a masked attention reads.
#[derive(Clone, Copy, Debug)]
pub struct AttentionInputs<'a, F = f32> {
    /// Tq rows of queries.
    pub q: Strided<'a, F>,
    /// Tk rows of keys.
    pub k: Strided<'a, F>,
    /// Tk rows of values.
    pub v: Strided<'a, F>,
    /// Whose queries see whose keys: as many sequences as `keys` has.
    pub queries: Segments<'a>,
    /// The sequences of keys and values. A query's place counts only where both are the same: under other masks than
    /// [`Mask::Full`] they must be, and with a bias.
    pub keys: Segments<'a>,
    /// Which keys of its sequence a query sees.
    pub mask: &'a Mask,
    /// What is added to scores.
    pub bias: Option<RelativeBias<'a, F>>,
    /// The heads.
    pub shape: AttentionShape,
}

/// `softmax(scale·Q·Kᵀ + bias)·V` over the keys that the mask lets each query see, for each head of each sequence:
/// `out[Tq, H·D]`. A query that sees no key gives zeros. Also writes `lse[Tq, H]`, the logarithm of each softmax's sum,
/// when it is there.
///
/// Time and memory are linear in the length for any mask but [`Mask::Full`]. A sequence's result has the same bits
/// whatever other sequences there are and however many threads run.
///
/// # Panics
/// When a buffer is shorter than the sequences say, offsets do not ascend, or the mask, bias or dropout does not fit.
pub fn masked_attention(
    exec: &Exec,
    inputs: AttentionInputs<'_>,
    dropout: Option<&AttentionDropout<'_>>,
    out: &mut [f32],
    lse: Option<&mut [f32]>,
) {
    let shape = inputs.shape;
    let width = shape.heads * shape.head_dim;
    let tokens = inputs.queries.tokens();
    assert_eq!(out.len(), tokens * width, "out is [{tokens}, {width}]");
    check_masked(&inputs);
    if let Some(lse) = &lse {
        assert_eq!(lse.len(), tokens * shape.heads, "lse is [Tq, H]");
    }
    if let Some(dropout) = dropout {
        dropout.check(tokens.max(inputs.keys.tokens()), shape.heads);
    }
    if out.is_empty() {
        return;
    }
    let chunks = chunks(&inputs, TASK_QUERIES);
    let shared = SharedMut::new(out);
    let lse = lse.map(SharedMut::new);
    exec.parallel(chunks.len() * shape.heads, |task| {
        SCRATCH.with_borrow_mut(|(scratch, slots)| {
            exec.isa().run(Task {
                inputs,
                chunk: &chunks[task / shape.heads],
                head: task % shape.heads,
                dropout,
                out: &shared,
                lse: lse.as_ref(),
                scratch,
                slots,
            });
        });
    });
}

thread_local! {
    static SCRATCH: RefCell<(Scratch, Slots)> =
        RefCell::new((Scratch::new(), Slots::default()));
}

struct Task<'a> {
    inputs: AttentionInputs<'a>,
    chunk: &'a Chunk,
    head: usize,
    dropout: Option<&'a AttentionDropout<'a>>,
    out: &'a SharedMut<'a>,
    lse: Option<&'a SharedMut<'a>>,
    scratch: &'a mut Scratch,
    slots: &'a mut Slots,
}

impl Kernel for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (inputs, chunk, scratch) = (&self.inputs, self.chunk, &mut *self.scratch);
        let dim = inputs.shape.head_dim;
        let column = self.head * dim;
        let padded = dim.next_multiple_of(S::LANES);
        let (rows, columns) = (tile_rows::<S>(), tile_columns::<S>());
        let window = self.slots.lay_out(inputs, chunk, self.head, rows);
        let rule = Rule {
            slots: self.slots,
            window,
        };
        let slots = &rule.slots.keys[..];

        let strips = scratch
            .keys
            .at_least(slots.len().div_ceil(rows) * dim * rows);
        let first = chunk.keys.start;
        pack_slots(simd, inputs.k, column, first, slots, (dim, rows), strips);
        let values = scratch.values.at_least(slots.len() * padded);
        copy_slots(simd, inputs.v, column, first, slots, dim, values);

        let mut tile = Tile {
            keys: strips,
            values,
            queries: scratch.queries.at_least(dim * columns),
            scores: scratch.scores.at_least(BLOCK_KEYS * columns),
            sums: scratch.sums.at_least(columns * padded),
            count: slots.len(),
            dim,
            // Queries are scaled instead.
            scale: 1.0,
            head: self.head,
            dropout: self.dropout,
            names: [0; MOST_COLUMNS],
            factors: match self.dropout {
                Some(_) => scratch.factors.at_least(BLOCK_KEYS * columns),
                None => &mut [],
            },
        };
        let width = inputs.shape.heads * dim;
        for first in chunk.queries.clone().step_by(columns) {
            let count = columns.min(chunk.queries.end - first);
            let from = row(inputs.q, column, first);
            pack_strip(simd, from, inputs.q.stride, count, tile.queries, columns, 0);
            for query in tile.queries.iter_mut() {
                *query *= inputs.shape.scale;
            }
            if let Some(dropout) = self.dropout {
                for (i, name) in tile.names[..count].iter_mut().enumerate() {
                    *name = dropout.name(first + i);
                }
            }
            let walk = Walk {
                rule: &rule,
                place: chunk.place + first - chunk.queries.start,
                count,
            };
            let (max, totals) = match count.div_ceil(S::LANES) {
                1 => walk.run::<S, 1>(simd, &mut tile),
                2 => walk.run::<S, 2>(simd, &mut tile),
                _ if const { tile_vectors::<S>() >= 3 } => walk.run::<S, 3>(simd, &mut tile),
                count => unreachable!("{count} vectors of queries"),
            };
            for (query, &total) in totals[..count].iter().enumerate() {
                let at = (first + query) * width + column;
                // SAFETY: tasks have different queries or heads, so their rows' parts of `out`
                // do not overlap, and each is in one slice at a time.
                let out = unsafe { self.out.slice(at..at + dim) };
                let sums = &tile.sums[query * padded..][..dim];
                for (out, &sum) in out.iter_mut().zip(sums) {
                    *out = if total == 0.0 { 0.0 } else { sum / total };
                }
                if let Some(lse) = self.lse {
                    let at = (first + query) * inputs.shape.heads + self.head;
                    // SAFETY: as for `out`.
                    let lse = unsafe { lse.slice(at..at + 1) };
                    lse[0] = max[query] + total.ln();
                }
            }
        }
    }
}

/// A tile of queries on its way over the slots.
struct Walk<'a> {
    rule: &'a Rule<'a>,
    /// The first query's place in its sequence.
    place: usize,
    count: usize,
}

impl Walk<'_> {
    #[inline(always)]
    fn run<S: Simd, const V: usize>(
        &self,
        simd: S,
        tile: &mut Tile<'_>,
    ) -> ([f32; MOST_COLUMNS], [f32; MOST_COLUMNS]) {
        let (place, count, columns) = (self.place, self.count, V * S::LANES);
        let padded = tile.dim.next_multiple_of(S::LANES);
        let mut max = [simd.splat(LOWEST); V];
        let mut total = [simd.zero(); V];
        tile.sums[..columns * padded].fill(0.0);
        for part in self.rule.parts() {
            let span = self.rule.seen(part, place, count, tile_rows::<S>());
            for first in span.clone().step_by(BLOCK_KEYS) {
                let keys = BLOCK_KEYS.min(span.end - first);
                tile.score::<S, F32Word, V>(simd, first, keys);
                let scores = &mut tile.scores[..keys * columns];
                self.rule.mask(first, place, count, columns, scores);
                let rescale = tile.exponentiate::<S, V>(simd, keys, &mut max, &mut total);
                self.drop::<S, V>(simd, first, keys, tile);
                tile.add_values::<S, F32Word>(simd, columns, first..first + keys, &rescale);
            }
        }
        let (mut maxima, mut totals) = ([0.0; MOST_COLUMNS], [0.0; MOST_COLUMNS]);
        for v in 0..V {
            simd.store(&mut maxima[v * S::LANES..], max[v]);
            simd.store(&mut totals[v * S::LANES..], total[v]);
        }
        (maxima, totals)
    }

    /// Drops powers of a block of slots, whose sums are already taken.
    #[inline(always)]
    fn drop<S: Simd, const V: usize>(
        &self,
        simd: S,
        first: usize,
        keys: usize,
        tile: &mut Tile<'_>,
    ) {
        let Some(dropout) = tile.dropout else {
            return;
        };
        let len = keys * V * S::LANES;
        let factors = &mut tile.factors[..len];
        simd.vectorize(SlotFactors {
            dropout,
            head: tile.head,
            slots: &self.rule.slots.keys[first..first + keys],
            names: &tile.names,
            columns: V * S::LANES,
            mask: &mut *factors,
        });
        for (power, factor) in tile.scores[..len].iter_mut().zip(&*factors) {
            *power *= factor;
        }
    }
}
