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

mod pattern;

pub use pattern::masked_attention_backward;

use std::cell::RefCell;
use std::ops::Range;

use super::dropout::{AttentionDropout, Factors, SlotFactors};
use super::layout::Rule;
use super::{AttentionInputs, AttentionShape, Mask, Segments, Strided, check, row};
use crate::Exec;
use crate::buffer::AlignedFloats;
use crate::exec::SharedMut;
use crate::gemm::pack::pack_strip;
use crate::gemm::tile::{
    F32Word, MOST_COLUMNS, MOST_ROWS, multiply_vectors, tile_columns, tile_rows, tile_vectors,
};
use crate::simd::math::exp;
use crate::simd::{Kernel, Simd, copy};
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

/// The packed inputs of a head, and the sums of its gradients; see [`Scratch`].
struct Blocks<'a> {
    head: usize,
    /// The sequence's first row, and how many it has.
    first: usize,
    count: usize,
    dim: usize,
    padded: usize,
    scale: f32,
    dropout: Option<&'a AttentionDropout<'a>>,
    /// Where keys are slots: what their scores are, the first query's place in its sequence, and the gradient of the bias.
    rule: Option<(&'a Rule<'a>, usize, &'a mut [f64])>,
    key_strips: &'a [f32],
    value_strips: &'a [f32],
    query_panels: &'a [f32],
    dout_panels: &'a [f32],
    key_rows: &'a [f32],
    query_rows: &'a [f32],
    dout_rows: &'a [f32],
    lse: &'a [f32],
    delta: &'a [f32],
    dq: &'a mut [f32],
    dk: &'a mut [f32],
    dv: &'a mut [f32],
    weights: &'a mut [f32],
    ds: &'a mut [f32],
    factors: &'a mut [f32],
    strip: &'a mut [f32],
}

impl Blocks<'_> {
    /// Adds what a block of keys and queries has of the gradients.
    #[inline(always)]
    fn add<S: Simd>(&mut self, simd: S, keys: Range<usize>, queries: Range<usize>) {
        let (height, width) = (tile_rows::<S>(), tile_columns::<S>());
        let padded = self.padded;
        let panels = queries.len().div_ceil(width);
        // Of each panel the keys that it sees.
        let mut seen = [const { 0..0 }; BLOCK / MIN_COLUMNS];
        for (panel, seen) in seen[..panels].iter_mut().enumerate() {
            let query = queries.start + panel * width;
            let count = width.min(self.count - query);
            let columns = count.next_multiple_of(S::LANES);
            let range = match &self.rule {
                Some((rule, place, _)) => rule.seen(keys.clone(), place + query, count, height),
                None => keys.clone(),
            };
            *seen = range.clone();
            if range.is_empty() {
                continue;
            }
            let offset = panel * width * BLOCK + (range.start - keys.start) * columns;
            self.weigh(simd, range.clone(), query, count, offset);
            let ds = &self.ds[offset..][..range.len() * columns];
            for at in (0..count).step_by(height) {
                simd.vectorize(Accumulate {
                    rows: height.min(count - at),
                    a: (&ds[at..], columns),
                    b: &self.key_rows[range.start * padded..range.end * padded],
                    padded,
                    to: &mut self.dq[(query + at) * padded..],
                });
            }
        }
        for at in (0..keys.len()).step_by(height) {
            let rows = height.min(keys.len() - at);
            // The panels that see the strip lie side by side.
            let sees = |seen: &Range<usize>| seen.contains(&(keys.start + at));
            let Some(low) = seen[..panels].iter().position(sees) else {
                continue;
            };
            let high = seen[low..panels]
                .iter()
                .take_while(|seen| sees(seen))
                .count()
                + low;
            let (from, end) = (low * width, queries.len().min(high * width));
            for (turned, b, to) in [
                (&*self.weights, self.dout_rows, &mut *self.dv),
                (&*self.ds, self.query_rows, &mut *self.dk),
            ] {
                let strip = &mut self.strip[..(end - from) * height];
                for (panel, strip) in (low..).zip(strip.chunks_mut(width * height)) {
                    let columns = (strip.len() / height).next_multiple_of(S::LANES);
                    simd.vectorize(Pack {
                        from: &turned[panel * width * BLOCK + at * columns..],
                        stride: columns,
                        count: rows,
                        to: strip,
                        width: height,
                    });
                }
                simd.vectorize(Accumulate {
                    rows,
                    a: (strip, height),
                    b: &b[(queries.start + from) * padded..(queries.start + end) * padded],
                    padded,
                    to: &mut to[at * padded..],
                });
            }
        }
    }

    /// The (dropped) weights of some keys for a panel of queries, and the gradients of their scores, from `offset` on.
    #[inline(always)]
    fn weigh<S: Simd>(
        &mut self,
        simd: S,
        keys: Range<usize>,
        query: usize,
        count: usize,
        offset: usize,
    ) {
        let (height, width) = (tile_rows::<S>(), tile_columns::<S>());
        let (dim, columns) = (self.dim, count.next_multiple_of(S::LANES));
        let len = keys.len() * columns;
        let weights = &mut self.weights[offset..][..len];
        let ds = &mut self.ds[offset..][..len];
        for (strips, panels, to) in [
            (self.key_strips, self.query_panels, &mut *weights),
            (self.value_strips, self.dout_panels, &mut *ds),
        ] {
            let b = &panels[query * dim..][..dim * width];
            for at in (0..keys.len()).step_by(height) {
                let strip = &strips[(keys.start + at) * dim..][..dim * height];
                let rows = height.min(keys.len() - at);
                let vectors = columns / S::LANES;
                let to = &mut to[at * columns..];
                multiply_vectors::<S, F32Word>(
                    simd,
                    vectors,
                    rows,
                    (strip, height),
                    (b, width),
                    dim,
                    to,
                );
            }
        }
        if let Some((rule, place, _)) = &self.rule {
            rule.mask(keys.start, place + query, count, columns, weights);
        }
        let dropped = self.dropout.is_some();
        if let Some(dropout) = self.dropout {
            let mut names = [0; MOST_COLUMNS];
            for (i, name) in names[..count].iter_mut().enumerate() {
                *name = dropout.name(self.first + query + i);
            }
            let (head, names, mask) = (self.head, &names, &mut self.factors[..len]);
            match &self.rule {
                None => simd.vectorize(Factors {
                    dropout,
                    head,
                    first: keys.start,
                    names,
                    columns,
                    mask,
                }),
                Some((rule, ..)) => simd.vectorize(SlotFactors {
                    dropout,
                    head,
                    slots: &rule.slots.keys[keys.clone()],
                    names,
                    columns,
                    mask,
                }),
            }
        }
        let scale = simd.splat(self.scale);
        for at in (0..columns).step_by(S::LANES) {
            let lse = simd.load(&self.lse[query + at..]);
            let delta = simd.load(&self.delta[query + at..]);
            let mut place = at;
            while place < len {
                let score = simd.load(&weights[place..]);
                let weight = exp(simd, simd.sub(simd.mul(score, scale), lse));
                let mut dp = simd.load(&ds[place..]);
                let mut kept = weight;
                if dropped {
                    let factor = simd.load(&self.factors[place..]);
                    dp = simd.mul(dp, factor);
                    kept = simd.mul(weight, factor);
                }
                let gradient = simd.mul(simd.mul(weight, scale), simd.sub(dp, delta));
                simd.store(&mut weights[place..], kept);
                simd.store(&mut ds[place..], gradient);
                place += columns;
            }
        }
        if let Some((rule, place, dbias)) = &mut self.rule {
            rule.add_bias_gradient(keys.start, *place + query, count, columns, ds, dbias);
        }
    }
}

/// `to[row][D] += Σ a[k][row]·b[k][D]`, a tile of rows; `b` has whole rows.
struct Accumulate<'a> {
    rows: usize,
    a: (&'a [f32], usize),
    b: &'a [f32],
    padded: usize,
    to: &'a mut [f32],
}

impl Kernel for Accumulate<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let padded = self.padded;
        let depth = self.b.len() / padded;
        let mut tile = [0.0; MOST_ROWS * MOST_COLUMNS];
        let mut column = 0;
        while column < padded {
            // Four vectors are two pairs: three and one would leave a lean tile.
            let vectors = match (padded - column) / S::LANES {
                4 => 2,
                left => left.min(tile_vectors::<S>()),
            };
            let b = (&self.b[column..], padded);
            multiply_vectors::<S, F32Word>(simd, vectors, self.rows, self.a, b, depth, &mut tile);
            for r in 0..self.rows {
                for v in 0..vectors {
                    let to = &mut self.to[r * padded + column + v * S::LANES..];
                    let new = simd.load(&tile[(r * vectors + v) * S::LANES..]);
                    let sum = simd.add(simd.load(to), new);
                    simd.store(to, sum);
                }
            }
            column += vectors * S::LANES;
        }
    }
}
