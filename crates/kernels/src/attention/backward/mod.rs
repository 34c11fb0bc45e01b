//! Gradients of attention without a matrix of weights (Dao et al. 2022, <https://arxiv.org/abs/2205.14135>, appendix B.4).
//!
//! The weights are computed again from scores and each query's `lse = log Σ e^score`. With `P = e^(score − lse)`, dropout
//! factors `M`, `dP = M∘(dO·Vᵀ)` and `δ = Σ dO·O` (which is `Σ P·dP` over the keys):
//!
//! ```text
//! dV = (M∘P)ᵀ·dO    dS = scale·P∘(dP − δ)    dQ = dS·K    dK = dSᵀ·Q
//! ```
//!
//! A task is a head of a sequence, so sums over queries and over keys have one order. It walks over blocks of
//! 144 keys by 144 queries: scores and `dO·Vᵀ` come as in the forward pass, keys down and queries across, which is the
//! strip that dQ takes; for dK and dV strips are turned.

mod blocks;
mod pattern;

pub use pattern::masked_attention_backward;

use std::cell::RefCell;
use std::marker::PhantomData;
use std::ops::Range;

use super::dropout::AttentionDropout;
use super::rows::{Rows, Source, copy_rows, pack_strips, room};
use super::{AttentionInputs, AttentionShape, Strided};
use crate::buffer::AlignedFloats;
use crate::exec::SharedMut;
use crate::gemm::PackedFormat;
use crate::gemm::tile::{Bf16Pair, Dot, F32Word, tile_columns, tile_rows};
use crate::simd::{Kernel, Simd};
use crate::{Exec, RotaryTable};
use blocks::Blocks;
use pattern::SharedRows;

/// Keys, and queries, in a block: whole tiles of every tier either way. Weights and their gradients take 83 KiB each.
const BLOCK: usize = 144;

/// Columns of the narrowest tile that there is, or fewer.
const MIN_COLUMNS: usize = 8;

/// Where the gradients of queries, keys and values go: rows of one buffer, as those of the inputs are.
#[derive(Debug)]
pub struct AttentionGradients<'a> {
    /// The buffer.
    pub data: &'a mut [f32],
    /// Values from one row to the next.
    pub stride: usize,
    /// The column of the first head's `dq`.
    pub q: usize,
    /// The column of the first head's `dk`.
    pub k: usize,
    /// The column of the first head's `dv`.
    pub v: usize,
}

/// What [`attention`](crate::attention()) gave.
#[derive(Clone, Copy, Debug)]
pub struct AttentionKept<'a> {
    /// `[Tq, H·D]`.
    pub out: &'a [f32],
    /// `[Tq, H]`.
    pub lse: &'a [f32],
}

impl AttentionKept<'_> {
    /// # Panics
    /// When these, or the gradient of the output, have other lengths than the inputs say.
    fn check(&self, inputs: &AttentionInputs<'_>, dout: &[f32]) {
        let (heads, rows) = (inputs.shape.heads, inputs.queries.tokens());
        let width = heads * inputs.shape.head_dim;
        assert_eq!(self.out.len(), rows * width, "out is [{rows}, {width}]");
        assert_eq!(dout.len(), rows * width, "dout is [{rows}, {width}]");
        assert_eq!(self.lse.len(), rows * heads, "lse is [Tq, H]");
    }
}

/// The gradients of [`attention`](crate::attention()) over a token's own queries, keys and values, for `dout[T, H·D]`; the other
/// arguments must be the same as there. Columns of `gradients` other than those of dq, dk and dv are left as they are.
///
/// Time is linear in what is seen, memory in the longest sequence. A sequence's gradients have the same bits whatever other
/// sequences there are and however many threads run.
///
/// # Panics
/// As [`attention`](crate::attention()); when there is a bias, or queries are not of the sequences of the keys; when gradients
/// overlap or lack rows.
pub fn attention_backward(
    exec: &Exec,
    precision: PackedFormat,
    inputs: AttentionInputs<'_>,
    dropout: Option<&AttentionDropout<'_>>,
    kept: AttentionKept<'_>,
    dout: &[f32],
    gradients: AttentionGradients<'_>,
) {
    let AttentionInputs { q, k, v, shape, .. } = inputs;
    let width = shape.heads * shape.head_dim;
    let tokens = inputs.queries.tokens();
    inputs.check();
    kept.check(&inputs, dout);
    assert!(
        inputs.bias.is_none() && inputs.queries.cu_seqlens == inputs.keys.cu_seqlens,
        "a token's own queries, and no bias"
    );
    if let Some(dropout) = dropout {
        dropout.check(tokens, tokens, shape.heads);
    }
    if dout.is_empty() {
        return;
    }
    let AttentionGradients { stride, .. } = gradients;
    let columns = [gradients.q, gradients.k, gradients.v];
    let mut sorted = columns;
    sorted.sort_unstable();
    assert!(
        sorted[0] + width <= sorted[1]
            && sorted[1] + width <= sorted[2]
            && sorted[2] + width <= stride,
        "dq, dk and dv lie side by side in a row"
    );
    let least = (tokens - 1) * stride + sorted[2] + width;
    assert!(
        gradients.data.len() >= least,
        "gradients have {tokens} rows"
    );
    let shared = SharedMut::new(gradients.data);
    if !inputs.is_dense() {
        let to = columns.map(|column| SharedRows {
            data: &shared,
            stride,
            column,
        });
        pattern::run(exec, precision, inputs, dropout, kept, dout, to);
        return;
    }
    let sequences: Vec<Range<usize>> = (inputs.keys)
        .ranges()
        .filter(|range| !range.is_empty())
        .collect();
    exec.parallel(sequences.len() * shape.heads, |task| {
        SCRATCH.with_borrow_mut(|scratch| {
            let head = Head {
                q,
                k,
                v,
                rotary: inputs.rotary,
                kept,
                dout,
                rows: sequences[task / shape.heads].clone(),
                head: task % shape.heads,
                shape,
                dropout,
                gradients: &shared,
                stride,
                columns,
                scratch,
            };
            let isa = exec.isa();
            match precision {
                PackedFormat::Bf16 if isa.multiplies_bf16() => {
                    isa.run_bf16(Dense::<Bf16Pair>(head, PhantomData));
                }
                _ => isa.run(Dense::<F32Word>(head, PhantomData)),
            }
        });
    });
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch::default());
}

/// What a task keeps. D is padded to whole vectors where a product is that wide; D, keys and queries that products sum over come in
/// words.
#[derive(Default)]
struct Scratch {
    /// Keys and values in strips of a tile's rows: `[strip][D][rows]`.
    key_strips: AlignedFloats,
    value_strips: AlignedFloats,
    /// Queries and gradients of the output in panels of a tile's columns: `[panel][D][columns]`.
    query_panels: AlignedFloats,
    dout_panels: AlignedFloats,
    /// `[row][D]`.
    key_rows: AlignedFloats,
    query_rows: AlignedFloats,
    dout_rows: AlignedFloats,
    dq: AlignedFloats,
    /// A value for each query.
    lse: AlignedFloats,
    delta: AlignedFloats,
    /// Of a block of keys: `[key][D]`.
    dk: AlignedFloats,
    dv: AlignedFloats,
    /// Of a block, panel by panel: `[key][queries]`.
    weights: AlignedFloats,
    ds: AlignedFloats,
    factors: AlignedFloats,
    /// A strip turned: `[query][rows]`.
    strip: AlignedFloats,
    /// Rows before they are laid out.
    room: AlignedFloats,
    /// A strip of pairs before it is turned, and a panel's gradients of scores as pairs of keys.
    rounded: AlignedFloats,
    paired: AlignedFloats,
}

/// A head of a sequence.
struct Head<'a> {
    q: Strided<'a>,
    k: Strided<'a>,
    v: Strided<'a>,
    rotary: Option<&'a RotaryTable>,
    kept: AttentionKept<'a>,
    dout: &'a [f32],
    rows: Range<usize>,
    head: usize,
    shape: AttentionShape,
    dropout: Option<&'a AttentionDropout<'a>>,
    gradients: &'a SharedMut<'a>,
    stride: usize,
    columns: [usize; 3],
    scratch: &'a mut Scratch,
}

/// A head by vectors.
struct Dense<'a, D>(Head<'a>, PhantomData<D>);

impl<D: Dot> Kernel for Dense<'_, D> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let head = self.0;
        let scratch = &mut *head.scratch;
        let dim = head.shape.head_dim;
        let column = head.head * dim;
        let padded = dim.next_multiple_of(S::LANES);
        let (first, count) = (head.rows.start, head.rows.len());
        let rows = Rows::of(&head.rows);
        let dout = Strided {
            data: head.dout,
            stride: head.shape.heads * dim,
        };
        let turns = head.rotary.map(|table| (table, first));
        let turned = |of| Source { of, column, turns };
        let (k, v) = (turned(head.k), Source::plain(head.v, column));
        scratch.pack_keys::<S, D>(simd, (k, v), rows, count, dim);
        let (q, dout) = (turned(head.q), Source::plain(dout, column));
        scratch.pack_queries::<S, D>(simd, (q, dout), rows, count, dim);
        let statistics = Statistics {
            kept: head.kept,
            dout: head.dout,
            heads: head.shape.heads,
            head: head.head,
        };
        scratch.take_statistics(simd, &statistics, first, count, dim);
        let mut blocks = Blocks::<D>::new(simd, scratch, count, dim, head.dropout);
        blocks.head = head.head;
        blocks.first = first;
        blocks.scale = head.shape.scale;
        // SAFETY: tasks have different rows or heads, and each part of a row is in one slice at a time.
        let write = |which: usize, t: usize, from: &[f32]| unsafe {
            let at = (first + t) * head.stride + head.columns[which] + column;
            let to = head.gradients.slice(at..at + dim);
            to.copy_from_slice(&from[..dim]);
        };
        for key in (0..count).step_by(BLOCK) {
            let keys = BLOCK.min(count - key);
            blocks.dk.fill(0.0);
            blocks.dv.fill(0.0);
            for query in (0..count).step_by(BLOCK) {
                blocks.add(simd, key..key + keys, query..count.min(query + BLOCK));
            }
            for t in 0..keys {
                let dk = &mut blocks.dk[t * padded..][..dim];
                if let Some(table) = head.rotary {
                    table.turn_back(key + t, dk);
                }
                write(1, key + t, dk);
                write(2, key + t, &blocks.dv[t * padded..]);
            }
        }
        for t in 0..count {
            let dq = &mut blocks.dq[t * padded..][..dim];
            if let Some(table) = head.rotary {
                table.turn_back(t, dq);
            }
            write(0, t, dq);
        }
    }
}

/// Where the statistics of a head's queries come from.
struct Statistics<'a> {
    kept: AttentionKept<'a>,
    dout: &'a [f32],
    heads: usize,
    head: usize,
}

impl Scratch {
    /// Lays out keys and values.
    #[inline(always)]
    fn pack_keys<S: Simd, D: Dot>(
        &mut self,
        simd: S,
        (k, v): (Source<'_>, Source<'_>),
        rows: Rows<'_>,
        count: usize,
        dim: usize,
    ) {
        let (height, words) = (tile_rows::<S>(), dim.div_ceil(D::VALUES));
        let padded = dim.next_multiple_of(S::LANES);
        let room = self.room.at_least(room(dim, tile_columns::<S>()));
        let len = count.div_ceil(height) * words * height;
        let strips = self.key_strips.at_least(len);
        pack_strips::<S, D>(simd, k, rows, (dim, height), room, strips);
        let strips = self.value_strips.at_least(len);
        pack_strips::<S, D>(simd, v, rows, (dim, height), room, strips);
        let key_rows = (self.key_rows).at_least(count.div_ceil(D::VALUES) * padded);
        copy_rows::<S, D>(simd, k, rows, dim, room, key_rows);
    }

    /// Lays out queries and gradients of the output.
    #[inline(always)]
    fn pack_queries<S: Simd, D: Dot>(
        &mut self,
        simd: S,
        (q, dout): (Source<'_>, Source<'_>),
        rows: Rows<'_>,
        count: usize,
        dim: usize,
    ) {
        let (width, words) = (tile_columns::<S>(), dim.div_ceil(D::VALUES));
        let padded = dim.next_multiple_of(S::LANES);
        let room = self.room.at_least(room(dim, width));
        for (of, panels, copies) in [
            (q, &mut self.query_panels, &mut self.query_rows),
            (dout, &mut self.dout_panels, &mut self.dout_rows),
        ] {
            let panels = panels.at_least(count.div_ceil(width) * words * width);
            pack_strips::<S, D>(simd, of, rows, (dim, width), room, panels);
            let copies = copies.at_least(count.div_ceil(D::VALUES) * padded);
            copy_rows::<S, D>(simd, of, rows, dim, room, copies);
        }
    }

    /// Takes each query's `lse`, and makes its `δ = Σ dO·O`.
    #[inline(always)]
    fn take_statistics<S: Simd>(
        &mut self,
        simd: S,
        from: &Statistics<'_>,
        first: usize,
        count: usize,
        dim: usize,
    ) {
        let places = count.next_multiple_of(tile_columns::<S>());
        let lse = self.lse.at_least(places);
        let delta = self.delta.at_least(places);
        lse[count..].fill(0.0);
        delta[count..].fill(0.0);
        for t in 0..count {
            let row = (first + t) * from.heads + from.head;
            let sum = from.kept.lse[row];
            // A query that sees no key has weights of 0, not 0/0.
            lse[t] = if sum == f32::NEG_INFINITY {
                f32::MAX
            } else {
                sum
            };
            let part = row * dim..(row + 1) * dim;
            delta[t] = dot(simd, &from.kept.out[part.clone()], &from.dout[part]);
        }
    }
}

/// `Σ a·b`.
#[inline(always)]
fn dot<S: Simd>(simd: S, a: &[f32], b: &[f32]) -> f32 {
    let (len, mut at, mut sum) = (a.len(), 0, simd.zero());
    while at + S::LANES <= len {
        sum = simd.mul_add(simd.load(&a[at..]), simd.load(&b[at..]), sum);
        at += S::LANES;
    }
    if at < len {
        sum = simd.mul_add(
            simd.load_partial(&a[at..]),
            simd.load_partial(&b[at..]),
            sum,
        );
    }
    simd.sum(sum)
}
