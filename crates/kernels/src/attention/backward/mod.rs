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
use std::ops::Range;

use super::dropout::AttentionDropout;
use super::{AttentionInputs, AttentionShape, Mask, Segments, Strided, check, row};
use crate::Exec;
use crate::buffer::AlignedFloats;
use crate::exec::SharedMut;
use crate::gemm::pack::pack_strip;
use crate::gemm::tile::{tile_columns, tile_rows};
use crate::simd::{Kernel, Simd, copy};
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

/// The gradients of [`attention_keeping`](crate::attention_keeping), whose `out[T, H·D]` and `lse[T,H]` these are, for `dout[T, H·D]`; the
/// other arguments must be the same as there. Columns of `gradients` other than those of dq, dk and dv are left as they
/// are.
///
/// The memory needed is linear in the longest sequence. A sequence's gradients have the same bits whatever other
/// sequences there are and however many threads run.
///
/// # Panics
/// When a buffer is shorter than the sequences say, offsets do not ascend, gradients
/// overlap, or the mask or dropout does not fit.
#[allow(clippy::too_many_arguments)]
pub fn attention_backward(
    exec: &Exec,
    q: Strided<'_>,
    k: Strided<'_>,
    v: Strided<'_>,
    segments: Segments<'_>,
    mask: Mask,
    shape: AttentionShape,
    dropout: Option<&AttentionDropout<'_>>,
    out: &[f32],
    lse: &[f32],
    dout: &[f32],
    gradients: AttentionGradients<'_>,
) {
    let width = shape.heads * shape.head_dim;
    let tokens = segments.tokens();
    assert_eq!(out.len(), tokens * width, "out is [{tokens}, {width}]");
    assert_eq!(dout.len(), tokens * width, "dout is [{tokens}, {width}]");
    assert_eq!(lse.len(), tokens * shape.heads, "lse is [T, H]");
    check(segments, [("q", q), ("k", k), ("v", v)], width);
    if let Some(dropout) = dropout {
        dropout.check(tokens, shape.heads);
    }
    if out.is_empty() {
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
    if mask != Mask::Full {
        let inputs = AttentionInputs {
            q,
            k,
            v,
            queries: segments,
            keys: segments,
            mask: &mask,
            bias: None,
            shape,
        };
        let shared = SharedMut::new(gradients.data);
        let to = columns.map(|column| SharedRows {
            data: &shared,
            stride,
            column,
        });
        pattern::run(exec, inputs, dropout, out, lse, dout, to);
        return;
    }
    let sequences: Vec<Range<usize>> = segments
        .ranges()
        .filter(|range| !range.is_empty())
        .collect();
    let shared = SharedMut::new(gradients.data);
    exec.parallel(sequences.len() * shape.heads, |task| {
        SCRATCH.with_borrow_mut(|scratch| {
            exec.isa().run(Head {
                q,
                k,
                v,
                out,
                lse,
                dout,
                rows: sequences[task / shape.heads].clone(),
                head: task % shape.heads,
                shape,
                dropout,
                gradients: &shared,
                stride,
                columns,
                scratch,
            });
        });
    });
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch::default());
}

/// What a task keeps. D is padded to whole vectors where a product is that wide.
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
}

/// A head of a sequence.
struct Head<'a> {
    q: Strided<'a>,
    k: Strided<'a>,
    v: Strided<'a>,
    out: &'a [f32],
    lse: &'a [f32],
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

impl Kernel for Head<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let dim = self.shape.head_dim;
        let column = self.head * dim;
        let padded = dim.next_multiple_of(S::LANES);
        let (height, width) = (tile_rows::<S>(), tile_columns::<S>());
        let (first, count) = (self.rows.start, self.rows.len());
        let dout = Strided {
            data: self.dout,
            stride: self.shape.heads * dim,
        };
        let scratch = &mut *self.scratch;
        let (strips, panels) = (count.div_ceil(height), count.div_ceil(width));
        for (of, to, rows, pieces) in [
            (self.k, &mut scratch.key_strips, height, strips),
            (self.v, &mut scratch.value_strips, height, strips),
            (self.q, &mut scratch.query_panels, width, panels),
            (dout, &mut scratch.dout_panels, width, panels),
        ] {
            let to = to.at_least(pieces * dim * rows);
            pack_pieces(simd, of, column, first..first + count, dim, rows, to);
        }
        for (of, to) in [
            (self.k, &mut scratch.key_rows),
            (self.q, &mut scratch.query_rows),
            (dout, &mut scratch.dout_rows),
        ] {
            let to = to.at_least(count * padded);
            for (t, to) in to.chunks_exact_mut(padded).enumerate() {
                copy(simd, &row(of, column, first + t)[..dim], &mut to[..dim]);
                to[dim..].fill(0.0);
            }
        }
        let lse = scratch.lse.at_least(panels * width);
        let delta = scratch.delta.at_least(panels * width);
        for t in 0..panels * width {
            if t >= count {
                (lse[t], delta[t]) = (0.0, 0.0);
                continue;
            }
            lse[t] = self.lse[(first + t) * self.shape.heads + self.head];
            let out = &self.out[(first + t) * dout.stride + column..][..dim];
            let up = &row(dout, column, first + t)[..dim];
            delta[t] = dot(simd, out, up);
        }
        let mut blocks = Blocks {
            head: self.head,
            first,
            count,
            dim,
            padded,
            scale: self.shape.scale,
            dropout: self.dropout,
            rule: None,
            key_strips: &scratch.key_strips,
            value_strips: &scratch.value_strips,
            query_panels: &scratch.query_panels,
            dout_panels: &scratch.dout_panels,
            key_rows: &scratch.key_rows,
            query_rows: &scratch.query_rows,
            dout_rows: &scratch.dout_rows,
            lse: &scratch.lse,
            delta: &scratch.delta,
            dq: scratch.dq.at_least(count * padded),
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
        // SAFETY: tasks have different rows or heads, and each part of a row is in one slice at a time.
        let write = |which: usize, t: usize, from: &[f32]| unsafe {
            let at = (first + t) * self.stride + self.columns[which] + column;
            self.gradients
                .slice(at..at + dim)
                .copy_from_slice(&from[..dim]);
        };
        blocks.dq.fill(0.0);
        for key in (0..count).step_by(BLOCK) {
            let keys = BLOCK.min(count - key);
            blocks.dk.fill(0.0);
            blocks.dv.fill(0.0);
            for query in (0..count).step_by(BLOCK) {
                blocks.add(simd, key..key + keys, query..count.min(query + BLOCK));
            }
            for t in 0..keys {
                write(1, key + t, &blocks.dk[t * padded..]);
                write(2, key + t, &blocks.dv[t * padded..]);
            }
        }
        for t in 0..count {
            write(0, t, &blocks.dq[t * padded..]);
        }
    }
}

/// Lays out rows in panels of a tile's columns: `[panel][D][columns]`.
#[inline(always)]
fn pack_panels<S: Simd>(
    simd: S,
    of: Strided<'_>,
    column: usize,
    rows: Range<usize>,
    dim: usize,
    to: &mut [f32],
) {
    pack_pieces(simd, of, column, rows, dim, tile_columns::<S>(), to);
}

/// Lays out rows in pieces of `width` rows: `[piece][D][width]`.
#[inline(always)]
fn pack_pieces<S: Simd>(
    simd: S,
    of: Strided<'_>,
    column: usize,
    rows: Range<usize>,
    dim: usize,
    width: usize,
    to: &mut [f32],
) {
    let count = rows.len();
    for (i, to) in to.chunks_exact_mut(dim * width).enumerate() {
        let from = row(of, column, rows.start + i * width);
        let kept = width.min(count - i * width);
        if kept < width {
            to.fill(0.0);
        }
        simd.vectorize(Pack {
            from,
            stride: of.stride,
            count: kept,
            to,
            width,
        });
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

/// The arguments of [`pack_strip`], to be a function of its own.
struct Pack<'a> {
    from: &'a [f32],
    stride: usize,
    count: usize,
    to: &'a mut [f32],
    width: usize,
}

impl Kernel for Pack<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        pack_strip(
            simd,
            self.from,
            self.stride,
            self.count,
            self.to,
            self.width,
            0,
        );
    }
}
