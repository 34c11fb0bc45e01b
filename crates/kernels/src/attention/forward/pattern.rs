//! Attention under any mask and with a bias by distance, on the tiles of the dense kernel.
//!
//! A task lays out the keys that any of its queries sees, in *slots*: global tokens, then the span of the window; or the
//! blocks of a plan, one after the other, each as often as it counts. A tile of queries walks over the slots
//! that it may see; of those, slots that a query does not see score −∞. A slot that stands for no key is dead.

use std::cell::RefCell;
use std::ops::Range;

use super::super::dropout::AttentionDropout;
use super::super::{AttentionShape, Mask, RelativeBias, Segments, Strided, check, row};
use super::{BLOCK_KEYS, Scratch, TASK_QUERIES, Tile};
use crate::Exec;
use crate::exec::SharedMut;
use crate::gemm::pack::pack_strip;
use crate::gemm::tile::{MOST_COLUMNS, tile_columns, tile_rows, tile_vectors};
use crate::simd::{Kernel, Simd};

/// A slot without a key.
const DEAD: u32 = u32::MAX;

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
    let AttentionInputs { q, k, v, shape, .. } = inputs;
    let width = shape.heads * shape.head_dim;
    let tokens = inputs.queries.tokens();
    assert_eq!(out.len(), tokens * width, "out is [{tokens}, {width}]");
    check(inputs.queries, [("q", q), ("q", q), ("q", q)], width);
    check(inputs.keys, [("k", k), ("k", k), ("v", v)], width);
    let (queries, keys) = (inputs.queries.cu_seqlens, inputs.keys.cu_seqlens);
    assert_eq!(
        queries.len(),
        keys.len(),
        "queries and keys of as many sequences"
    );
    assert!(
        queries == keys || (*inputs.mask == Mask::Full && inputs.bias.is_none()),
        "queries without a place among the keys see all of them"
    );
    if let Err(wrong) = inputs.mask.check(keys, shape.heads) {
        panic!("{wrong}");
    }
    if let Some(bias) = inputs.bias {
        let len = shape.heads * (2 * bias.reach + 1);
        assert_eq!(bias.values.len(), len, "the bias is [H, 2·reach + 1]");
    }
    if let Some(lse) = &lse {
        assert_eq!(lse.len(), tokens * shape.heads, "lse is [Tq, H]");
    }
    if let Some(dropout) = dropout {
        dropout.check(tokens.max(inputs.keys.tokens()), shape.heads);
    }
    if out.is_empty() {
        return;
    }
    let mut chunks = Vec::new();
    let sequences = inputs.queries.ranges().zip(inputs.keys.ranges());
    for (sequence, (queries, keys)) in sequences.enumerate() {
        let step = match inputs.mask {
            Mask::Blocks(plans) => plans[sequence].block,
            _ => TASK_QUERIES,
        };
        for first in queries.clone().step_by(step) {
            chunks.push(Chunk {
                sequence,
                place: first - queries.start,
                queries: first..queries.end.min(first + step),
                keys: keys.clone(),
            });
        }
    }
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
    static SCRATCH: RefCell<(Scratch, Vec<u32>)> = RefCell::new((Scratch::new(), Vec::new()));
}

/// Some queries of a sequence.
struct Chunk {
    sequence: usize,
    /// The first query's place in its sequence.
    place: usize,
    /// Rows of queries.
    queries: Range<usize>,
    /// Rows of the sequence's keys.
    keys: Range<usize>,
}

struct Task<'a> {
    inputs: AttentionInputs<'a>,
    chunk: &'a Chunk,
    head: usize,
    dropout: Option<&'a AttentionDropout<'a>>,
    out: &'a SharedMut<'a>,
    lse: Option<&'a SharedMut<'a>>,
    scratch: &'a mut Scratch,
    slots: &'a mut Vec<u32>,
}

/// Where a window's keys are among the slots.
#[derive(Clone, Copy)]
struct Window {
    left: usize,
    right: usize,
    /// Slots before it, a whole number of strips.
    slots: usize,
    /// The place of the first of its keys.
    base: usize,
}

/// Fills the slots of a chunk.
fn lay_out(
    inputs: &AttentionInputs<'_>,
    chunk: &Chunk,
    head: usize,
    rows: usize,
    slots: &mut Vec<u32>,
) -> Option<Window> {
    slots.clear();
    let len = chunk.keys.len();
    let (left, right, tokens) = match inputs.mask {
        Mask::Full => {
            slots.extend(0..len as u32);
            return None;
        }
        Mask::Blocks(plans) => {
            let plan = &plans[chunk.sequence];
            for &block in plan.keys(head, chunk.place / plan.block) {
                let first = (block as usize).saturating_mul(plan.block).min(len);
                slots.extend(first as u32..len.min(first + plan.block) as u32);
            }
            return None;
        }
        &Mask::Window { left, right } => (left, right, &[][..]),
        Mask::Global {
            left,
            right,
            tokens,
        } => (*left, *right, &tokens[chunk.sequence][..]),
    };
    slots.extend(tokens);
    slots.resize(slots.len().next_multiple_of(rows), DEAD);
    let window = Window {
        left,
        right,
        slots: slots.len(),
        base: chunk.place.saturating_sub(left),
    };
    let end = (chunk.place + chunk.queries.len()).saturating_add(right);
    slots.extend((window.base..end.min(len)).map(
        |key| match tokens.binary_search(&(key as u32)) {
            Ok(_) => DEAD,
            Err(_) => key as u32,
        },
    ));
    Some(window)
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
        let window = lay_out(inputs, chunk, self.head, rows, self.slots);
        let slots = &self.slots[..];

        let strips = scratch
            .keys
            .at_least(slots.len().div_ceil(rows) * dim * rows);
        for (slots, strip) in slots.chunks(rows).zip(strips.chunks_exact_mut(dim * rows)) {
            let first = slots[0];
            let together = first != DEAD
                && (slots.iter().enumerate()).all(|(i, &slot)| slot - first.min(slot) == i as u32);
            if together {
                let from = row(inputs.k, column, chunk.keys.start + first as usize);
                pack_strip(from, inputs.k.stride, slots.len(), strip, rows, 0);
                continue;
            }
            strip.fill(0.0);
            for (at, &slot) in slots.iter().enumerate().filter(|&(_, &slot)| slot != DEAD) {
                let from = row(inputs.k, column, chunk.keys.start + slot as usize);
                pack_strip(from, inputs.k.stride, 1, strip, rows, at);
            }
        }
        let values = scratch.values.at_least(slots.len() * padded);
        for (&slot, to) in slots.iter().zip(values.chunks_exact_mut(padded)) {
            to.fill(0.0);
            if slot != DEAD {
                let from = row(inputs.v, column, chunk.keys.start + slot as usize);
                to[..dim].copy_from_slice(&from[..dim]);
            }
        }

        let mut tile = Tile {
            keys: strips,
            values,
            queries: scratch.queries.at_least(dim * columns),
            scores: scratch.scores.at_least(BLOCK_KEYS * columns),
            sums: scratch.sums.at_least(columns * padded),
            count: slots.len(),
            dim,
            // Scores are scaled where they are masked.
            scale: 1.0,
            head: self.head,
            dropout: None,
            names: [0; MOST_COLUMNS],
            factors: &mut [],
        };
        let width = inputs.shape.heads * dim;
        for first in chunk.queries.clone().step_by(columns) {
            let count = columns.min(chunk.queries.end - first);
            let from = row(inputs.q, column, first);
            pack_strip(from, inputs.q.stride, count, tile.queries, columns, 0);
            let walk = Walk {
                inputs,
                slots,
                window,
                first,
                place: chunk.place + first - chunk.queries.start,
                count,
                head: self.head,
                dropout: self.dropout,
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
    inputs: &'a AttentionInputs<'a>,
    slots: &'a [u32],
    window: Option<Window>,
    /// The first query's row, and its place in its sequence.
    first: usize,
    place: usize,
    count: usize,
    head: usize,
    dropout: Option<&'a AttentionDropout<'a>>,
}

impl Walk<'_> {
    #[inline(always)]
    fn run<S: Simd, const V: usize>(
        &self,
        simd: S,
        tile: &mut Tile<'_>,
    ) -> ([f32; MOST_COLUMNS], [f32; MOST_COLUMNS]) {
        let padded = tile.dim.next_multiple_of(S::LANES);
        let mut max = [simd.splat(LOWEST); V];
        let mut total = [simd.zero(); V];
        tile.sums[..V * S::LANES * padded].fill(0.0);
        for span in self.spans(tile_rows::<S>()) {
            for first in span.clone().step_by(BLOCK_KEYS) {
                let keys = BLOCK_KEYS.min(span.end - first);
                tile.score::<S, V>(simd, first, keys);
                let scores = &mut tile.scores[..keys * V * S::LANES];
                self.mask(first, V * S::LANES, scores);
                let rescale = tile.exponentiate::<S, V>(simd, keys, &mut max, &mut total);
                let scores = &mut tile.scores[..keys * V * S::LANES];
                self.drop(first, V * S::LANES, scores);
                tile.add_values(simd, V * S::LANES, first, keys, &rescale);
            }
        }
        let (mut maxima, mut totals) = ([0.0; MOST_COLUMNS], [0.0; MOST_COLUMNS]);
        for v in 0..V {
            simd.store(&mut maxima[v * S::LANES..], max[v]);
            simd.store(&mut totals[v * S::LANES..], total[v]);
        }
        (maxima, totals)
    }

    /// The slots that any of the queries may see, from whole strips on.
    #[inline(always)]
    fn spans(&self, rows: usize) -> [Range<usize>; 2] {
        let Some(window) = self.window else {
            return [0..self.slots.len(), 0..0];
        };
        let low = self.place.saturating_sub(window.left) - window.base;
        let high = (self.place + self.count).saturating_add(window.right) - window.base;
        let low = window.slots + low / rows * rows;
        let high = window.slots.saturating_add(high).min(self.slots.len());
        [0..window.slots, low.min(high)..high]
    }

    /// Scales a block's scores, adds the bias, and hides what a query does not see.
    #[inline(always)]
    fn mask(&self, first: usize, columns: usize, scores: &mut [f32]) {
        let scale = self.inputs.shape.scale;
        for (i, scores) in scores.chunks_exact_mut(columns).enumerate() {
            let slot = self.slots[first + i];
            if slot == DEAD {
                scores.fill(f32::NEG_INFINITY);
                continue;
            }
            for score in scores.iter_mut() {
                *score *= scale;
            }
            let key = slot as usize;
            if let Some(bias) = self.inputs.bias {
                for (query, score) in scores[..self.count].iter_mut().enumerate() {
                    *score += bias.values[bias.at(self.head, self.place + query, key)];
                }
            }
            let Some(window) = self.window.filter(|window| first + i >= window.slots) else {
                continue;
            };
            // Queries from `low` to `high` see the key.
            let low = key.saturating_sub(window.right).saturating_sub(self.place);
            let high = key.saturating_add(window.left).saturating_add(1);
            let high = high.saturating_sub(self.place).min(columns);
            let low = low.min(columns);
            scores[..low].fill(f32::NEG_INFINITY);
            scores[high..].fill(f32::NEG_INFINITY);
        }
    }

    /// Drops powers of a block of slots, whose sums are already taken.
    #[inline(always)]
    fn drop(&self, first: usize, columns: usize, powers: &mut [f32]) {
        let Some(dropout) = self.dropout else {
            return;
        };
        for (i, powers) in powers.chunks_exact_mut(columns).enumerate() {
            let slot = self.slots[first + i];
            for (query, power) in powers[..self.count].iter_mut().enumerate() {
                if *power != 0.0 {
                    let row = self.first + query;
                    *power *= dropout.factor(row, self.head, slot as usize) as f32;
                }
            }
        }
    }
}
