//! Where the keys are that queries see under a mask: what the forward and the backward pass share.
//!
//! Keys that any query of a chunk sees are laid out in *slots*: global tokens, then the span of the window; or the blocks of
//! a plan, one after the other, each as often as it counts. A slot that stands for no key is dead.

use std::ops::Range;

use super::{AttentionInputs, Mask, Strided, check, row};
use crate::gemm::pack::pack_strip;

/// A slot without a key.
pub(super) const DEAD: u32 = u32::MAX;

/// Some queries of a sequence.
pub(super) struct Chunk {
    pub(super) sequence: usize,
    /// The first query's place in its sequence.
    pub(super) place: usize,
    /// Rows of queries.
    pub(super) queries: Range<usize>,
    /// Rows of the sequence's keys.
    pub(super) keys: Range<usize>,
}

/// The queries of each sequence, `most` at a time; under a plan of blocks, a block at a time.
pub(super) fn chunks(inputs: &AttentionInputs<'_>, most: usize) -> Vec<Chunk> {
    let mut chunks = Vec::new();
    let sequences = inputs.queries.ranges().zip(inputs.keys.ranges());
    for (sequence, (queries, keys)) in sequences.enumerate() {
        let step = match inputs.mask {
            Mask::Blocks(plans) => plans[sequence].block,
            _ => most,
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
    chunks
}

/// Where a window's keys are among the slots.
#[derive(Clone, Copy)]
pub(super) struct Window {
    pub(super) left: usize,
    pub(super) right: usize,
    /// Slots before it, a whole number of strips.
    pub(super) slots: usize,
    /// The place of the first of its keys.
    pub(super) base: usize,
}

/// Fills the slots of a chunk.
pub(super) fn lay_out(
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

/// Lays out rows of slots in strips of `rows`, `[strip][D][rows]`; `first` is the row of the sequence's first key.
#[inline(always)]
pub(super) fn pack_slots(
    of: Strided<'_>,
    column: usize,
    first: usize,
    slots: &[u32],
    dim: usize,
    rows: usize,
    strips: &mut [f32],
) {
    for (slots, strip) in slots.chunks(rows).zip(strips.chunks_exact_mut(dim * rows)) {
        let start = slots[0];
        let together = start != DEAD
            && (slots.iter().enumerate()).all(|(i, &slot)| slot - start.min(slot) == i as u32);
        if together {
            let from = row(of, column, first + start as usize);
            pack_strip(from, of.stride, slots.len(), strip, rows, 0);
            continue;
        }
        strip.fill(0.0);
        for (at, &slot) in slots.iter().enumerate().filter(|&(_, &slot)| slot != DEAD) {
            let from = row(of, column, first + slot as usize);
            pack_strip(from, of.stride, 1, strip, rows, at);
        }
    }
}

/// Copies the rows of slots, `[slot][D up to whole vectors]`.
#[inline(always)]
pub(super) fn copy_slots(
    of: Strided<'_>,
    column: usize,
    first: usize,
    slots: &[u32],
    dim: usize,
    to: &mut [f32],
) {
    let padded = to.len() / slots.len().max(1);
    for (&slot, to) in slots.iter().zip(to.chunks_exact_mut(padded.max(1))) {
        to.fill(0.0);
        if slot != DEAD {
            let from = row(of, column, first + slot as usize);
            to[..dim].copy_from_slice(&from[..dim]);
        }
    }
}

/// Which slots the queries of a chunk see, and what their scores are.
pub(super) struct Rule<'a> {
    pub(super) inputs: &'a AttentionInputs<'a>,
    pub(super) slots: &'a [u32],
    pub(super) window: Option<Window>,
    pub(super) head: usize,
}

impl Rule<'_> {
    /// Scales scores `[slot][columns]` of the slots from `first` on and of `count` queries from `place` in their sequence on,
    /// adds the bias, and hides what a query does not see.
    #[inline(always)]
    pub(super) fn mask(
        &self,
        first: usize,
        place: usize,
        count: usize,
        columns: usize,
        scores: &mut [f32],
    ) {
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
                for (query, score) in scores[..count].iter_mut().enumerate() {
                    *score += bias.values[bias.at(self.head, place + query, key)];
                }
            }
            let Some(window) = self.window.filter(|window| first + i >= window.slots) else {
                continue;
            };
            // Queries from `low` to `high` see the key.
            let low = key.saturating_sub(window.right).saturating_sub(place);
            let high = key.saturating_add(window.left).saturating_add(1);
            let high = high.saturating_sub(place).min(columns);
            let low = low.min(columns);
            scores[..low].fill(f32::NEG_INFINITY);
            scores[high..].fill(f32::NEG_INFINITY);
        }
    }
}

/// # Panics
/// When a buffer is shorter than the sequences say, offsets do not ascend, or the mask or bias does not fit.
pub(super) fn check_masked(inputs: &AttentionInputs<'_>) {
    let AttentionInputs { q, k, v, shape, .. } = *inputs;
    let width = shape.heads * shape.head_dim;
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
}
