//! Gradients of attention under any mask and with a bias by distance, on the blocks of the dense kernel.
//!
//! A task is a head of a sequence. It walks over chunks of its queries; the keys that a chunk sees are laid out in
//! slots (`layout.rs`), whose dK and dV are added to those of their keys. Time is linear in what is seen, memory in the
//! length.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::ops::Range;

use super::super::dropout::AttentionDropout;
use super::super::layout::{Chunk, DEAD, Rule, Slots, chunks};
use super::super::rows::{Rows, Source};
use super::super::{AttentionInputs, Strided, reference::MaskedGradients};
use super::blocks::Blocks;
use super::{AttentionKept, BLOCK, Scratch, Statistics};
use crate::Exec;
use crate::buffer::AlignedFloats;
use crate::exec::SharedMut;
use crate::gemm::PackedFormat;
use crate::gemm::tile::{Bf16Pair, Dot, F32Word, tile_rows};
use crate::simd::{Kernel, Simd};

/// Rows of a buffer that tasks share: row t's part starts at `t·stride + column`.
#[derive(Clone, Copy)]
pub(super) struct SharedRows<'a> {
    pub(super) data: &'a SharedMut<'a>,
    pub(super) stride: usize,
    pub(super) column: usize,
}

/// The gradients of [`attention`](crate::attention()) for `dout[Tq, H·D]`, that of the bias among them; the other arguments must be
/// the same as there.
///
/// Time is linear in what is seen, memory in the length. A sequence's gradients have the same bits whatever other sequences
/// there are and however many threads run.
///
/// # Panics
/// As [`attention`](crate::attention()), and when what was kept or `dout` has another length.
pub fn masked_attention_backward(
    exec: &Exec,
    precision: PackedFormat,
    inputs: AttentionInputs<'_>,
    dropout: Option<&AttentionDropout<'_>>,
    kept: AttentionKept<'_>,
    dout: &[f32],
) -> MaskedGradients<f32> {
    let width = inputs.shape.heads * inputs.shape.head_dim;
    let (queries, keys) = (inputs.queries.tokens(), inputs.keys.tokens());
    inputs.check();
    kept.check(&inputs, dout);
    if let Some(dropout) = dropout {
        dropout.check(queries, keys, inputs.shape.heads);
    }
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
    let bias = run(exec, precision, inputs, dropout, kept, dout, to);
    found.bias = bias;
    found
}

/// Writes dq, dk and dv; gives the gradient of the bias. Everything is checked.
pub(super) fn run(
    exec: &Exec,
    precision: PackedFormat,
    inputs: AttentionInputs<'_>,
    dropout: Option<&AttentionDropout<'_>>,
    kept: AttentionKept<'_>,
    dout: &[f32],
    to: [SharedRows<'_>; 3],
) -> Vec<f32> {
    let heads = inputs.shape.heads;
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
            let head = Head {
                inputs: &inputs,
                chunks: &chunks[start..end],
                keys: sequences[sequence].clone(),
                head,
                dropout,
                kept,
                dout,
                to,
                dbias,
                scratch,
                own,
            };
            let isa = exec.isa();
            match precision {
                PackedFormat::Bf16 if isa.multiplies_bf16() => {
                    isa.run_bf16(Task::<Bf16Pair>(head, PhantomData));
                }
                _ => isa.run(Task::<F32Word>(head, PhantomData)),
            }
        });
    });
    let mut sums = vec![0.0f64; heads * entries];
    for task in biases.chunks_exact((heads * entries).max(1)) {
        // Tasks have them by how far the query is behind the key.
        let sums = sums.chunks_exact_mut(entries);
        for (sums, task) in sums.zip(task.chunks_exact(entries)) {
            // And those of scores before their scale.
            for (sum, &value) in sums.iter_mut().rev().zip(task) {
                *sum += value / f64::from(inputs.shape.scale);
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

/// A head of a sequence.
struct Head<'a> {
    inputs: &'a AttentionInputs<'a>,
    /// The sequence's.
    chunks: &'a [Chunk],
    /// Its rows of keys.
    keys: Range<usize>,
    head: usize,
    dropout: Option<&'a AttentionDropout<'a>>,
    kept: AttentionKept<'a>,
    dout: &'a [f32],
    to: [SharedRows<'a>; 3],
    /// `[2·reach + 1]` by how far the query is behind the key, empty without a bias.
    dbias: &'a mut [f64],
    scratch: &'a mut Scratch,
    own: &'a mut Own,
}

/// A head by vectors.
struct Task<'a, D>(Head<'a>, PhantomData<D>);

impl<D: Dot> Kernel for Task<'_, D> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let head = self.0;
        let inputs = head.inputs;
        let dim = inputs.shape.head_dim;
        let column = head.head * dim;
        let padded = dim.next_multiple_of(S::LANES);
        let dout = Strided {
            data: head.dout,
            stride: inputs.shape.heads * dim,
        };
        let statistics = Statistics {
            kept: head.kept,
            dout: head.dout,
            heads: inputs.shape.heads,
            head: head.head,
        };
        // The sequence's first row is that of its keys.
        let turns = inputs.rotary.map(|table| (table, head.keys.start));
        let turned = |of| Source { of, column, turns };
        let (k, v) = (turned(inputs.k), Source::plain(inputs.v, column));
        let (q, dout) = (turned(inputs.q), Source::plain(dout, column));
        // SAFETY: tasks have different rows or heads, and each part of a row is in one slice at a time.
        let write = |which: usize, row: usize, from: &[f32]| unsafe {
            let to = head.to[which];
            let at = row * to.stride + to.column + column;
            to.data.slice(at..at + dim).copy_from_slice(&from[..dim]);
        };
        let Own { slots, dk, dv } = head.own;
        let dk = dk.at_least(head.keys.len() * padded);
        let dv = dv.at_least(head.keys.len() * padded);
        dk.fill(0.0);
        dv.fill(0.0);
        for chunk in head.chunks {
            let window = slots.lay_out(inputs, chunk, head.head, tile_rows::<S>());
            let rule = Rule { slots, window };
            let keys = &rule.slots.keys[..];
            let (start, count) = (chunk.queries.start, chunk.queries.len());
            let scratch = &mut *head.scratch;
            let rows = Rows::Slots(chunk.keys.start, keys);
            scratch.pack_keys::<S, D>(simd, (k, v), rows, keys.len(), dim);
            let rows = Rows::of(&chunk.queries);
            scratch.pack_queries::<S, D>(simd, (q, dout), rows, count, dim);
            scratch.take_statistics(simd, &statistics, start, count, dim);
            let mut blocks = Blocks::<D>::new(simd, scratch, count, dim, head.dropout);
            blocks.head = head.head;
            blocks.first = start;
            blocks.scale = inputs.shape.scale;
            blocks.rule = Some((&rule, chunk.place, &mut *head.dbias));
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
                if let Some(table) = inputs.rotary {
                    table.turn_back(chunk.place + t, dq);
                }
                write(0, start + t, dq);
            }
        }
        for (t, row) in head.keys.enumerate() {
            let dk = &mut dk[t * padded..][..dim];
            if let Some(table) = inputs.rotary {
                table.turn_back(t, dk);
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
