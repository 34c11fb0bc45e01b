//! Gradients of attention under any mask and with a bias by distance, on the blocks of the dense kernel.
//!
//! A task is a head of a sequence. It walks over chunks of its queries; the keys that a chunk sees are laid out in
//! slots (`layout.rs`), whose dK and dV are added to those of their keys. Time is linear in what is seen, memory in the
//! length.

use std::cell::RefCell;
use std::ops::Range;

use super::super::dropout::AttentionDropout;
use super::super::layout::{
    Chunk, DEAD, Rule, Slots, check_masked, chunks, copy_slots, pack_slots,
};
use super::super::{AttentionInputs, Strided, reference::MaskedGradients};
use super::blocks::Blocks;
use super::{BLOCK, Scratch, dot, pack_panels};
use crate::Exec;
use crate::buffer::AlignedFloats;
use crate::exec::SharedMut;
use crate::gemm::tile::{tile_columns, tile_rows};
use crate::simd::{Kernel, Simd};

/// Rows of a buffer that tasks share: row t's part starts at `t·stride + column`.
#[derive(Clone, Copy)]
pub(super) struct SharedRows<'a> {
    pub(super) data: &'a SharedMut<'a>,
    pub(super) stride: usize,
    pub(super) column: usize,
}

/// The gradients of [`masked_attention`](crate::masked_attention()), whose `out[Tq, H·D]` and `lse[Tq, H]` these are, for
/// `dout[Tq, H·D]`; the other arguments must be the same as there.
///
/// Time and memory are linear in the length for any mask but [`Mask::Full`](crate::Mask::Full). A sequence's gradients have the same bits
/// whatever other sequences there are and however many threads run.
///
/// # Panics
/// As [`masked_attention`](crate::masked_attention()), and when `out`, `lse` or `dout` has another length.
pub fn masked_attention_backward(
    exec: &Exec,
    inputs: AttentionInputs<'_>,
    dropout: Option<&AttentionDropout<'_>>,
    out: &[f32],
    lse: &[f32],
    dout: &[f32],
) -> MaskedGradients<f32> {
    let width = inputs.shape.heads * inputs.shape.head_dim;
    let (queries, keys) = (inputs.queries.tokens(), inputs.keys.tokens());
    let mut found = MaskedGradients {
        q: vec![0.0; queries * width],
        k: vec![0.0; keys * width],
        v: vec![0.0; keys * width],
        bias: Vec::new(),
    };
    let [q, k, v] = [&mut found.q, &mut found.k, &mut found.v].map(|to| SharedMut::new(to));
    let to = [&q, &k, &v].map(|data| SharedRows {
        data,
        stride: width,
        column: 0,
    });
    let bias = run(exec, inputs, dropout, out, lse, dout, to);
    found.bias = bias;
    found
}

/// Writes dq, dk and dv; gives the gradient of the bias.
pub(super) fn run(
    exec: &Exec,
    inputs: AttentionInputs<'_>,
    dropout: Option<&AttentionDropout<'_>>,
    out: &[f32],
    lse: &[f32],
    dout: &[f32],
    to: [SharedRows<'_>; 3],
) -> Vec<f32> {
    let heads = inputs.shape.heads;
    let width = heads * inputs.shape.head_dim;
    let rows = inputs.queries.tokens();
    assert_eq!(out.len(), rows * width, "out is [{rows}, {width}]");
    assert_eq!(dout.len(), rows * width, "dout is [{rows}, {width}]");
    assert_eq!(lse.len(), rows * heads, "lse is [Tq, H]");
    check_masked(&inputs);
    if let Some(dropout) = dropout {
        dropout.check(rows.max(inputs.keys.tokens()), heads);
    }
    let chunks = chunks(&inputs, BLOCK);
    let sequences: Vec<Range<usize>> = inputs.keys.ranges().collect();
    let entries = inputs.bias.map_or(0, |bias| 2 * bias.reach + 1);
    let tasks = sequences.len() * heads;
    // A task's own, so that the sum over sequences has one order.
    let mut biases = vec![0.0; tasks * entries];
    let shared = SharedMut::new(&mut biases);
    exec.parallel(tasks, |task| {
        let (sequence, head) = (task / heads, task % heads);
        let start = chunks.partition_point(|chunk| chunk.sequence < sequence);
        let end = chunks.partition_point(|chunk| chunk.sequence <= sequence);
        // SAFETY: a part for each task.
        let dbias = unsafe { shared.slice(task * entries..(task + 1) * entries) };
        SCRATCH.with_borrow_mut(|(scratch, own)| {
            exec.isa().run(Task {
                inputs: &inputs,
                chunks: &chunks[start..end],
                keys: sequences[sequence].clone(),
                head,
                dropout,
                out,
                lse,
                dout,
                to,
                dbias,
                scratch,
                own,
            });
        });
    });
    let mut sums = vec![0.0f64; heads * entries];
    for task in biases.chunks_exact((heads * entries).max(1)) {
        // Tasks have them by how far the query is behind the key.
        let sums = sums.chunks_exact_mut(entries);
        for (sums, task) in sums.zip(task.chunks_exact(entries)) {
            for (sum, &value) in sums.iter_mut().rev().zip(task) {
                *sum += value;
            }
        }
    }
    sums.into_iter().map(|sum| sum as f32).collect()
}

thread_local! {
    static SCRATCH: RefCell<(Scratch, Own)> = RefCell::default();
}

/// What a task keeps beside a chunk's.
#[derive(Default)]
struct Own {
    slots: Slots,
    /// Of all keys of the sequence: `[key][D]`.
    dk: AlignedFloats,
    dv: AlignedFloats,
}

struct Task<'a> {
    inputs: &'a AttentionInputs<'a>,
    /// The sequence's.
    chunks: &'a [Chunk],
    /// Its rows of keys.
    keys: Range<usize>,
    head: usize,
    dropout: Option<&'a AttentionDropout<'a>>,
    out: &'a [f32],
    lse: &'a [f32],
    dout: &'a [f32],
    to: [SharedRows<'a>; 3],
    /// `[2·reach + 1]` by how far the query is behind the key, empty without a bias.
    dbias: &'a mut [f64],
    scratch: &'a mut Scratch,
    own: &'a mut Own,
}

impl Kernel for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let inputs = self.inputs;
        let dim = inputs.shape.head_dim;
        let column = self.head * dim;
        let padded = dim.next_multiple_of(S::LANES);
        let (height, width) = (tile_rows::<S>(), tile_columns::<S>());
        let dout = Strided {
            data: self.dout,
            stride: inputs.shape.heads * dim,
        };
        // SAFETY: tasks have different rows or heads, and each part of a row is in one slice at a time.
        let write = |which: usize, row: usize, from: &[f32]| unsafe {
            let to = self.to[which];
            let at = row * to.stride + to.column + column;
            to.data.slice(at..at + dim).copy_from_slice(&from[..dim]);
        };
        let Own { slots, dk, dv } = self.own;
        let dk = dk.at_least(self.keys.len() * padded);
        let dv = dv.at_least(self.keys.len() * padded);
        dk.fill(0.0);
        dv.fill(0.0);
        for chunk in self.chunks {
            let window = slots.lay_out(inputs, chunk, self.head, height);
            let rule = Rule { slots, window };
            let keys = &rule.slots.keys[..];
            let (count, first) = (chunk.queries.len(), chunk.keys.start);
            let scratch = &mut *self.scratch;
            let strips = keys.len().div_ceil(height) * dim * height;
            for (of, to) in [
                (inputs.k, &mut scratch.key_strips),
                (inputs.v, &mut scratch.value_strips),
            ] {
                pack_slots(
                    simd,
                    of,
                    column,
                    first,
                    keys,
                    (dim, height),
                    to.at_least(strips),
                );
            }
            let key_rows = scratch.key_rows.at_least(keys.len() * padded);
            copy_slots(simd, inputs.k, column, first, keys, dim, key_rows);
            let panels = count.div_ceil(width);
            let start = chunk.queries.start;
            for (of, panel, rows) in [
                (inputs.q, &mut scratch.query_panels, &mut scratch.query_rows),
                (dout, &mut scratch.dout_panels, &mut scratch.dout_rows),
            ] {
                let panel = panel.at_least(panels * dim * width);
                pack_panels(simd, of, column, start..start + count, dim, panel);
                let rows = rows.at_least(count * padded);
                for (t, to) in rows.chunks_exact_mut(padded).enumerate() {
                    let from = &of.data[(start + t) * of.stride + column..][..dim];
                    to[..dim].copy_from_slice(from);
                    to[dim..].fill(0.0);
                }
            }
            let scale = inputs.shape.scale;
            for query in scratch.query_panels.at_least(panels * dim * width) {
                *query *= scale;
            }
            let lse = scratch.lse.at_least(panels * width);
            let delta = scratch.delta.at_least(panels * width);
            lse.fill(0.0);
            delta.fill(0.0);
            for t in 0..count {
                let row = start + t;
                let sum = self.lse[row * inputs.shape.heads + self.head];
                // A query that sees no key has weights of 0, not 0/0.
                lse[t] = if sum == f32::NEG_INFINITY {
                    f32::MAX
                } else {
                    sum
                };
                let at = row * dout.stride + column;
                delta[t] = dot(simd, &self.out[at..][..dim], &self.dout[at..][..dim]);
            }
            let dq = scratch.dq.at_least(count * padded);
            dq.fill(0.0);
            let mut blocks = Blocks {
                head: self.head,
                first: start,
                count,
                dim,
                padded,
                // Queries are scaled before their products, and sums of their gradients and the keys' after.
                scale: 1.0,
                dropout: self.dropout,
                rule: Some((&rule, chunk.place, self.dbias)),
                key_strips: &scratch.key_strips,
                value_strips: &scratch.value_strips,
                query_panels: &scratch.query_panels,
                dout_panels: &scratch.dout_panels,
                key_rows: &scratch.key_rows,
                query_rows: &scratch.query_rows,
                dout_rows: &scratch.dout_rows,
                lse: &scratch.lse,
                delta: &scratch.delta,
                dq,
                dk: scratch.dk.at_least(BLOCK * padded),
                dv: scratch.dv.at_least(BLOCK * padded),
                weights: scratch.weights.at_least(BLOCK * BLOCK),
                ds: scratch.ds.at_least(BLOCK * BLOCK),
                factors: match self.dropout {
                    Some(_) => scratch.factors.at_least(BLOCK * width),
                    None => &mut [],
                },
                strip: scratch.strip.at_least(BLOCK * height),
            };
            for part in rule.parts() {
                for slot in part.clone().step_by(BLOCK) {
                    let block = slot..part.end.min(slot + BLOCK);
                    blocks.dk.fill(0.0);
                    blocks.dv.fill(0.0);
                    // A block of a plan may be longer than ours.
                    for query in (0..count).step_by(BLOCK) {
                        blocks.add(simd, block.clone(), query..count.min(query + BLOCK));
                    }
                    let found = blocks.dk.chunks_exact(padded);
                    let found = found.zip(blocks.dv.chunks_exact(padded));
                    for (&key, (from_k, from_v)) in keys[block].iter().zip(found) {
                        if key != DEAD {
                            let at = key as usize * padded;
                            add(simd, &mut dk[at..at + padded], from_k);
                            add(simd, &mut dv[at..at + padded], from_v);
                        }
                    }
                }
            }
            for t in 0..count {
                let dq = &mut blocks.dq[t * padded..][..dim];
                for value in dq.iter_mut() {
                    *value *= scale;
                }
                write(0, start + t, dq);
            }
        }
        for (t, row) in self.keys.enumerate() {
            let dk = &mut dk[t * padded..][..dim];
            for value in dk.iter_mut() {
                *value *= inputs.shape.scale;
            }
            write(1, row, dk);
            write(2, row, &dv[t * padded..]);
        }
    }
}

/// `to += from`, whole vectors.
#[inline(always)]
fn add<S: Simd>(simd: S, to: &mut [f32], from: &[f32]) {
    for (to, from) in to
        .chunks_exact_mut(S::LANES)
        .zip(from.chunks_exact(S::LANES))
    {
        let sum = simd.add(simd.load(to), simd.load(from));
        simd.store(to, sum);
    }
}
