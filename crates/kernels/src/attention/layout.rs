//! Where the keys are that queries see under a mask: what the forward and the backward pass share.
//!
//! Keys that any query of a chunk sees are laid out in *slots*: global tokens, then the span of the window; or the blocks of
//! a plan, one after the other. A block that counts m times has its slots once, and `ln m` is added to their scores. A slot
//! that stands for no key is dead.

use std::ops::Range;

use super::{AttentionInputs, Mask};

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

/// The keys that a chunk sees.
#[derive(Default)]
pub(super) struct Slots {
    /// Their places in the sequence, or [`DEAD`].
    pub(super) keys: Vec<u32>,
    /// The logarithm of how often each counts, by the scale; empty where each counts once.
    logs: Vec<f32>,
    /// The head's bias, by the scale, by how far the query is behind the key: `[2·reach + 1]`, or empty.
    bias: Vec<f32>,
}

impl Slots {
    /// Fills the slots of a chunk.
    pub(super) fn lay_out(
        &mut self,
        inputs: &AttentionInputs<'_>,
        chunk: &Chunk,
        head: usize,
        rows: usize,
    ) -> Option<Window> {
        let Self { keys, logs, bias } = self;
        keys.clear();
        logs.clear();
        bias.clear();
        if let Some(of) = inputs.bias {
            let entries = 2 * of.reach + 1;
            let of = of.values[head * entries..][..entries].iter().rev();
            bias.extend(of.map(|value| value / inputs.shape.scale));
        }
        let len = chunk.keys.len();
        let (left, right, tokens) = match inputs.mask {
            Mask::Full => {
                keys.extend(0..len as u32);
                return None;
            }
            Mask::Blocks(plans) => {
                let plan = &plans[chunk.sequence];
                self.lay_out_blocks(plan.keys(head, chunk.place / plan.block), plan.block, len);
                for log in &mut self.logs {
                    *log /= inputs.shape.scale;
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
        keys.extend(tokens);
        keys.resize(keys.len().next_multiple_of(rows), DEAD);
        let window = Window {
            left,
            right,
            slots: keys.len(),
            base: chunk.place.saturating_sub(left),
        };
        let end = (chunk.place + chunk.queries.len()).saturating_add(right);
        keys.extend((window.base..end.min(len)).map(
            |key| match tokens.binary_search(&(key as u32)) {
                Ok(_) => DEAD,
                Err(_) => key as u32,
            },
        ));
        Some(window)
    }

    /// Fills the slots of blocks, in the order in which they are named first.
    fn lay_out_blocks(&mut self, blocks: &[u32], block: usize, len: usize) {
        let mut sorted = blocks.to_vec();
        sorted.sort_unstable();
        let twice = sorted.windows(2).any(|pair| pair[0] == pair[1]);
        for (i, &name) in blocks.iter().enumerate() {
            let first = (name as usize).saturating_mul(block).min(len);
            let slots = first as u32..len.min(first + block) as u32;
            if !twice {
                self.keys.extend(slots);
                continue;
            }
            if blocks[..i].contains(&name) {
                continue;
            }
            let start = sorted.partition_point(|&other| other < name);
            let end = sorted.partition_point(|&other| other <= name);
            self.keys.extend(slots);
            let log = ((end - start) as f32).ln();
            self.logs.resize(self.keys.len(), log);
        }
    }
}

/// Which slots the queries of a chunk see, and what their scores are.
pub(super) struct Rule<'a> {
    pub(super) slots: &'a Slots,
    pub(super) window: Option<Window>,
}

impl Rule<'_> {
    /// Completes scores `[slot][columns]`, which are not scaled yet, of the slots from `first` on and of `count` queries from
    /// `place` in their sequence on: adds the bias, and hides what a query does not see.
    #[inline(always)]
    pub(super) fn mask(
        &self,
        first: usize,
        place: usize,
        count: usize,
        columns: usize,
        scores: &mut [f32],
    ) {
        let Slots { keys, logs, bias } = self.slots;
        for (i, scores) in scores.chunks_exact_mut(columns).enumerate() {
            let slot = keys[first + i];
            if slot == DEAD {
                scores.fill(f32::NEG_INFINITY);
                continue;
            }
            let key = slot as usize;
            if let Some(&log) = logs.get(first + i).filter(|&&log| log != 0.0) {
                for score in scores.iter_mut() {
                    *score += log;
                }
            }
            if !bias.is_empty() {
                let Along {
                    lead,
                    middle,
                    entries,
                } = Along::new(place, key, count, bias.len());
                let (before, rest) = scores[..count].split_at_mut(lead);
                let (within, after) = rest.split_at_mut(middle - lead);
                for score in before {
                    *score += bias[0];
                }
                for (score, bias) in within.iter_mut().zip(&bias[entries..]) {
                    *score += bias;
                }
                for score in after {
                    *score += bias[bias.len() - 1];
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

    /// Adds gradients of scores `[slot][columns]`, as [`Rule::mask`] takes them, to that of what it adds, by how far the query is
    /// behind the key.
    #[inline(always)]
    pub(super) fn add_bias_gradient(
        &self,
        first: usize,
        place: usize,
        count: usize,
        columns: usize,
        gradients: &[f32],
        dbias: &mut [f64],
    ) {
        if dbias.is_empty() {
            return;
        }
        for (i, gradients) in gradients.chunks_exact(columns).enumerate() {
            let slot = self.slots.keys[first + i];
            if slot == DEAD {
                continue;
            }
            let Along {
                lead,
                middle,
                entries,
            } = Along::new(place, slot as usize, count, dbias.len());
            dbias[0] += sum(&gradients[..lead]);
            let last = dbias.len() - 1;
            dbias[last] += sum(&gradients[middle..count]);
            for (sum, &gradient) in dbias[entries..].iter_mut().zip(&gradients[lead..middle]) {
                *sum += f64::from(gradient);
            }
        }
    }

    /// The slots of `slots` that any of `count` queries from `place` in their sequence on may see, in whole strips of `rows`.
    /// `slots` starts at a whole strip, and lies before the window's slots or among them.
    #[inline(always)]
    pub(super) fn seen(
        &self,
        slots: Range<usize>,
        place: usize,
        count: usize,
        rows: usize,
    ) -> Range<usize> {
        let Some(window) = self.window.filter(|window| slots.start >= window.slots) else {
            return slots;
        };
        let low = window.slots + place.saturating_sub(window.left) - window.base;
        let high = (place + count).saturating_add(window.right) - window.base;
        let high = window.slots.saturating_add(high).min(slots.end);
        let low = low.clamp(slots.start, slots.end) - slots.start;
        let high = high.saturating_sub(slots.start).next_multiple_of(rows);
        let low = slots.start + low / rows * rows;
        low..(slots.start + high).clamp(low, slots.end)
    }

    /// Ranges that make up all slots, none with slots both before the window's and among them.
    pub(super) fn parts(&self) -> [Range<usize>; 2] {
        let end = self.slots.keys.len();
        let between = self.window.map_or(end, |window| window.slots);
        [0..between, between..end]
    }
}

/// The sum of some values, four at a time.
#[inline(always)]
fn sum(values: &[f32]) -> f64 {
    let mut sums = [0.0; 4];
    let pieces = values.chunks_exact(sums.len());
    let rest = pieces.remainder();
    for piece in pieces {
        for (sum, &value) in sums.iter_mut().zip(piece) {
            *sum += f64::from(value);
        }
    }
    for (sum, &value) in sums.iter_mut().zip(rest) {
        *sum += f64::from(value);
    }
    (sums[0] + sums[1]) + (sums[2] + sums[3])
}

/// Where the biases of successive queries with one key are in a table of `len`: those before `lead` have its first, those
/// from `middle` on its last, and those between have it from `entries` on.
struct Along {
    lead: usize,
    middle: usize,
    entries: usize,
}

impl Along {
    #[inline(always)]
    fn new(place: usize, key: usize, count: usize, len: usize) -> Self {
        let start = place as isize - key as isize + (len / 2) as isize;
        let lead = (-start).clamp(0, count as isize);
        let middle = (len as isize - start).clamp(lead, count as isize);
        Self {
            lead: lead as usize,
            middle: middle as usize,
            // Beyond the table where nothing lies between.
            entries: (start + lead).clamp(0, len as isize) as usize,
        }
    }
}
