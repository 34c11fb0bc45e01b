//! Attention, fast: register tiles of scores, softmax streamed over blocks of keys.
//!
//! Scores are computed *transposed*, keys down and queries across: then a vector holds one key's
//! scores for 8 or 16 queries, the softmax needs no sum across lanes, and what it leaves is already
//! the strip that the product with the values reads. Per query and block of keys:
//!
//! ```text
//! m' = max(m, scores)    p = e^(scores − m')    c = e^(m − m')
//! sum ← sum·c + Σ p      out ← out·c + p·V
//! ```
//!
//! and at the end `out / sum`. A block's scores stay in L1; there is never a matrix of all scores.

mod bf16;
mod pattern;
#[cfg(target_arch = "x86_64")]
mod tiles;

pub use pattern::{AttentionInputs, masked_attention};

use std::cell::RefCell;
use std::ops::Range;

use super::dropout::{AttentionDropout, Factors};
use super::{AttentionShape, Mask, Segments, Strided, check, row};
use crate::Exec;
use crate::buffer::AlignedFloats;
use crate::exec::SharedMut;
use crate::gemm::PackedFormat;
use crate::gemm::pack::pack_strip;
use crate::gemm::tile::{
    Dot, F32Word, MOST_COLUMNS, TileBuffer, multiply, multiply_vectors, tile_columns, tile_rows,
    tile_vectors,
};
use crate::simd::math::exp;
use crate::simd::{Kernel, Simd, copy};

/// Keys in a block, whole strips of tiles of 6 rows and of 8: its scores for a tile of 48 queries take
/// 27 KiB.
const BLOCK_KEYS: usize = 144;

/// Queries in a task: enough that packing keys and values again for each task does not count.
const TASK_QUERIES: usize = 384;

/// `softmax(scale · Q·Kᵀ)·V` for each head of each sequence.
///
/// `q`, `k` and `v` have `T` rows of `H·D` values (head h from column `h·D` on), `out` is `[T, H·D]`. The memory
/// needed beside them is linear in the longest sequence. A sequence's result has the same bits
/// whatever other sequences there are and however many threads run.
///
/// # Panics
/// When a buffer is shorter than the sequences say, or offsets do not ascend.
#[allow(clippy::too_many_arguments)]
pub fn attention(
    exec: &Exec,
    q: Strided<'_>,
    k: Strided<'_>,
    v: Strided<'_>,
    segments: Segments<'_>,
    mask: Mask,
    shape: AttentionShape,
    out: &mut [f32],
) {
    run(
        exec,
        q,
        k,
        v,
        segments,
        mask,
        shape,
        (None, PackedFormat::F32Strict),
        None,
        out,
    );
}

/// [`attention`] whose products are of a precision, where a query sees all keys: f32 within its contract, by which it may run in a
/// matrix unit (what is not finite then gives NaN), or bf16 where the machine multiplies that. Elsewhere it is [`attention`].
/// Sums and the softmax are f32.
///
/// # Panics
/// As [`attention`].
#[allow(clippy::too_many_arguments)]
pub fn attention_in(
    exec: &Exec,
    precision: PackedFormat,
    q: Strided<'_>,
    k: Strided<'_>,
    v: Strided<'_>,
    segments: Segments<'_>,
    mask: Mask,
    shape: AttentionShape,
    out: &mut [f32],
) {
    run(
        exec,
        q,
        k,
        v,
        segments,
        mask,
        shape,
        (None, precision),
        None,
        out,
    );
}

/// [`attention`] for training: it also writes `lse[T,H]`, the logarithm of each softmax's sum, which
/// [`attention_backward`](crate::attention_backward) needs, and may drop weights.
///
/// # Panics
/// As [`attention`]; when `lse` has another length, or the dropout does not fit.
#[allow(clippy::too_many_arguments)]
pub fn attention_keeping(
    exec: &Exec,
    q: Strided<'_>,
    k: Strided<'_>,
    v: Strided<'_>,
    segments: Segments<'_>,
    mask: Mask,
    shape: AttentionShape,
    dropout: Option<&AttentionDropout<'_>>,
    out: &mut [f32],
    lse: &mut [f32],
) {
    assert_eq!(lse.len(), segments.tokens() * shape.heads, "lse is [T, H]");
    run(
        exec,
        q,
        k,
        v,
        segments,
        mask,
        shape,
        (dropout, PackedFormat::F32Strict),
        Some(lse),
        out,
    );
}

#[allow(clippy::too_many_arguments)]
fn run(
    exec: &Exec,
    q: Strided<'_>,
    k: Strided<'_>,
    v: Strided<'_>,
    segments: Segments<'_>,
    mask: Mask,
    shape: AttentionShape,
    (dropout, precision): (Option<&AttentionDropout<'_>>, PackedFormat),
    lse: Option<&mut [f32]>,
    out: &mut [f32],
) {
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
        return masked_attention(exec, inputs, dropout, out, lse);
    }
    let width = shape.heads * shape.head_dim;
    let tokens = segments.tokens();
    assert_eq!(out.len(), tokens * width, "out is [{tokens}, {width}]");
    check(segments, [("q", q), ("k", k), ("v", v)], width);
    if let Some(dropout) = dropout {
        dropout.check(tokens, shape.heads);
    }
    if out.is_empty() {
        return;
    }
    let chunks: Vec<(Range<usize>, Range<usize>)> = segments
        .ranges()
        .flat_map(|keys| {
            let firsts = keys.clone().step_by(TASK_QUERIES);
            firsts.map(move |first| (first..keys.end.min(first + TASK_QUERIES), keys.clone()))
        })
        .collect();
    let shared = SharedMut::new(out);
    let lse = lse.map(SharedMut::new);
    exec.parallel(chunks.len() * shape.heads, |task| {
        let (queries, keys) = &chunks[task / shape.heads];
        SCRATCH.with_borrow_mut(|scratch| {
            let head = Head {
                q,
                k,
                v,
                queries: queries.clone(),
                keys: keys.clone(),
                head: task % shape.heads,
                shape,
                dropout,
                out: &shared,
                lse: lse.as_ref(),
                scratch,
            };
            let isa = exec.isa();
            #[cfg(target_arch = "x86_64")]
            if let Some(amx) = isa.amx().filter(|_| precision != PackedFormat::F32Strict) {
                return tiles::run(amx, precision, head);
            }
            match precision {
                PackedFormat::Bf16 if isa.multiplies_bf16() => isa.run_bf16(bf16::Pairs(head)),
                _ => isa.run(head),
            }
        });
    });
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch::new());
}

/// What a task keeps beside its tile.
struct Scratch {
    /// Keys in strips of a tile's rows: `[strip][D][rows]`.
    keys: AlignedFloats,
    /// Values `[key][D up to whole vectors]`.
    values: AlignedFloats,
    /// Queries of a tile: `[D][queries]`.
    queries: AlignedFloats,
    /// A block's scores, then their powers: `[key][queries]`.
    scores: AlignedFloats,
    /// Weighted sums of values so far: `[query][D up to whole vectors]`.
    sums: AlignedFloats,
    /// What dropout multiplies a block's powers by: `[key][queries]`.
    factors: AlignedFloats,
    /// Rows of pairs of bf16, before they are turned.
    rounded: AlignedFloats,
    /// A block's powers as tiles.
    powers: AlignedFloats,
}

impl Scratch {
    fn new() -> Self {
        let empty = || AlignedFloats::zeroed(0);
        Self {
            keys: empty(),
            values: empty(),
            queries: empty(),
            scores: empty(),
            sums: empty(),
            factors: empty(),
            rounded: empty(),
            powers: empty(),
        }
    }
}

/// One head of a chunk of queries over all keys of their sequence.
struct Head<'a> {
    q: Strided<'a>,
    k: Strided<'a>,
    v: Strided<'a>,
    queries: Range<usize>,
    keys: Range<usize>,
    head: usize,
    shape: AttentionShape,
    dropout: Option<&'a AttentionDropout<'a>>,
    out: &'a SharedMut<'a>,
    lse: Option<&'a SharedMut<'a>>,
    scratch: &'a mut Scratch,
}

impl Kernel for Head<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let scratch = &mut *self.scratch;
        let dim = self.shape.head_dim;
        let column = self.head * dim;
        let padded = dim.next_multiple_of(S::LANES);
        let (rows, columns) = (tile_rows::<S>(), tile_columns::<S>());

        let keys = self.keys.len();
        let strip_len = dim * rows;
        let strips = scratch.keys.at_least(keys.div_ceil(rows) * strip_len);
        for (i, strip) in strips.chunks_exact_mut(strip_len).enumerate() {
            let first = i * rows;
            let from = row(self.k, column, self.keys.start + first);
            pack_strip(
                simd,
                from,
                self.k.stride,
                rows.min(keys - first),
                strip,
                rows,
                0,
            );
        }
        let values = scratch.values.at_least(keys * padded);
        for (i, to) in values.chunks_exact_mut(padded).enumerate() {
            let from = &row(self.v, column, self.keys.start + i)[..dim];
            copy(simd, from, &mut to[..dim]);
            to[dim..].fill(0.0);
        }

        let mut tile = Tile {
            keys: strips,
            values,
            queries: scratch.queries.at_least(dim * columns),
            scores: scratch.scores.at_least(BLOCK_KEYS * columns),
            sums: scratch.sums.at_least(columns * padded),
            count: keys,
            dim,
            scale: self.shape.scale,
            head: self.head,
            dropout: self.dropout,
            names: [0; MOST_COLUMNS],
            factors: match self.dropout {
                Some(_) => scratch.factors.at_least(BLOCK_KEYS * columns),
                None => &mut [],
            },
        };
        for first in self.queries.clone().step_by(columns) {
            let count = columns.min(self.queries.end - first);
            let from = row(self.q, column, first);
            pack_strip(simd, from, self.q.stride, count, tile.queries, columns, 0);
            if let Some(dropout) = self.dropout {
                for (i, name) in tile.names[..count].iter_mut().enumerate() {
                    *name = dropout.name(first + i);
                }
            }
            let (max, totals) = match count.div_ceil(S::LANES) {
                1 => tile.run::<S, F32Word, 1>(simd),
                2 => tile.run::<S, F32Word, 2>(simd),
                _ if const { tile_vectors::<S>() >= 3 } => tile.run::<S, F32Word, 3>(simd),
                count => unreachable!("{count} vectors of queries"),
            };
            let place = Place {
                first,
                count,
                head: self.head,
                heads: self.shape.heads,
            };
            tile.put(simd, &place, (&max, &totals), self.out, self.lse);
        }
    }
}

/// Where a tile's results go.
struct Place {
    /// The first query's row.
    first: usize,
    /// Number of queries.
    count: usize,
    head: usize,
    heads: usize,
}

/// A tile of queries, with all keys and values of their sequence.
struct Tile<'a> {
    keys: &'a [f32],
    values: &'a [f32],
    queries: &'a mut [f32],
    scores: &'a mut [f32],
    sums: &'a mut [f32],
    /// Number of keys.
    count: usize,
    dim: usize,
    scale: f32,
    head: usize,
    dropout: Option<&'a AttentionDropout<'a>>,
    /// The queries' names, for dropout.
    names: [u32; MOST_COLUMNS],
    factors: &'a mut [f32],
}

impl Tile<'_> {
    /// Computes `sums` for `V` vectors of queries; gives each query's largest score and its `Σ p`. Queries and keys, powers and
    /// values come in words of a kind.
    #[inline(always)]
    fn run<S: Simd, D: Dot, const V: usize>(
        &mut self,
        simd: S,
    ) -> ([f32; MOST_COLUMNS], [f32; MOST_COLUMNS]) {
        let padded = self.dim.next_multiple_of(S::LANES);
        let mut max = [simd.splat(f32::NEG_INFINITY); V];
        let mut total = [simd.zero(); V];
        self.sums[..V * S::LANES * padded].fill(0.0);
        for first in (0..self.count).step_by(BLOCK_KEYS) {
            let keys = BLOCK_KEYS.min(self.count - first);
            self.score::<S, D, V>(simd, first, keys);
            let rescale = self.exponentiate::<S, V>(simd, keys, &mut max, &mut total);
            self.drop::<S, V>(simd, first, keys);
            if const { D::VALUES == 2 } {
                self.pair_powers(simd, keys, V * S::LANES);
            }
            // A block is whole words.
            let at = first / D::VALUES..(first + keys).div_ceil(D::VALUES);
            self.add_values::<S, D>(simd, V * S::LANES, at, &rescale);
        }
        let (mut maxima, mut totals) = ([0.0; MOST_COLUMNS], [0.0; MOST_COLUMNS]);
        for v in 0..V {
            simd.store(&mut maxima[v * S::LANES..], max[v]);
            simd.store(&mut totals[v * S::LANES..], total[v]);
        }
        (maxima, totals)
    }

    /// Writes the sums by their totals, and the logarithms of these where they are wanted.
    #[inline(always)]
    fn put<S: Simd>(
        &self,
        _simd: S,
        place: &Place,
        (max, totals): (&[f32; MOST_COLUMNS], &[f32; MOST_COLUMNS]),
        out: &SharedMut<'_>,
        lse: Option<&SharedMut<'_>>,
    ) {
        let (dim, padded) = (self.dim, self.dim.next_multiple_of(S::LANES));
        for (query, &total) in totals[..place.count].iter().enumerate() {
            let row = place.first + query;
            let at = (row * place.heads + place.head) * dim;
            // SAFETY: tasks have different queries or heads, so their rows' parts of `out`
            // do not overlap, and each is in one slice at a time.
            let out = unsafe { out.slice(at..at + dim) };
            let sums = &self.sums[query * padded..][..dim];
            for (out, &sum) in out.iter_mut().zip(sums) {
                *out = sum / total;
            }
            if let Some(lse) = lse {
                let at = row * place.heads + place.head;
                // SAFETY: as for `out`.
                let lse = unsafe { lse.slice(at..at + 1) };
                lse[0] = max[query] + total.ln();
            }
        }
    }

    /// Drops powers of a block of keys, whose sums are already taken.
    #[inline(always)]
    fn drop<S: Simd, const V: usize>(&mut self, simd: S, first: usize, keys: usize) {
        let Some(dropout) = self.dropout else {
            return;
        };
        let columns = V * S::LANES;
        let mask = &mut self.factors[..keys * columns];
        simd.vectorize(Factors {
            dropout,
            head: self.head,
            first,
            names: &self.names,
            columns,
            mask: &mut *mask,
        });
        let scores = &mut self.scores[..keys * columns];
        for (score, factor) in scores.iter_mut().zip(&*mask) {
            *score *= factor;
        }
    }

    /// Joins the powers of a block's keys two by two, in place: a pair's row is never behind those that it is made of.
    #[inline(always)]
    fn pair_powers<S: Simd>(&mut self, simd: S, keys: usize, columns: usize) {
        for i in 0..keys.div_ceil(2) {
            for at in (0..columns).step_by(S::LANES) {
                let first = simd.load(&self.scores[2 * i * columns + at..]);
                let second = match 2 * i + 1 < keys {
                    true => simd.load(&self.scores[(2 * i + 1) * columns + at..]),
                    false => simd.zero(),
                };
                let pair = simd.pair_bf16(first, second);
                simd.store(&mut self.scores[i * columns + at..], pair);
            }
        }
    }

    /// `scores[key][query]` for a block of keys.
    #[inline(always)]
    fn score<S: Simd, D: Dot, const V: usize>(&mut self, simd: S, first: usize, keys: usize) {
        let depth = self.dim.div_ceil(D::VALUES);
        let (rows, columns) = (tile_rows::<S>(), tile_columns::<S>());
        // A block starts at a whole strip.
        for from in (0..keys).step_by(rows) {
            let strip = &self.keys[(first + from) * depth..][..depth * rows];
            let (a, b) = ((strip, rows), (&*self.queries, columns));
            let to = &mut self.scores[from * V * S::LANES..];
            multiply::<S, D, V>(simd, rows.min(keys - from), a, b, depth, to);
        }
    }

    /// Turns a block's scores into powers, and gives what earlier sums are multiplied by.
    #[inline(always)]
    fn exponentiate<S: Simd, const V: usize>(
        &mut self,
        simd: S,
        keys: usize,
        max: &mut [S::F32; V],
        total: &mut [S::F32; V],
    ) -> [f32; MOST_COLUMNS] {
        let scale = simd.splat(self.scale);
        let scores = &mut self.scores[..keys * V * S::LANES];
        let old = *max;
        for row in scores.chunks_exact_mut(V * S::LANES) {
            for (v, max) in max.iter_mut().enumerate() {
                let score = simd.mul(simd.load(&row[v * S::LANES..]), scale);
                simd.store(&mut row[v * S::LANES..], score);
                *max = simd.max(score, *max);
            }
        }
        let mut rescale = [0.0; MOST_COLUMNS];
        for v in 0..V {
            let factor = exp(simd, simd.sub(old[v], max[v]));
            total[v] = simd.mul(total[v], factor);
            simd.store(&mut rescale[v * S::LANES..], factor);
        }
        for row in scores.chunks_exact_mut(V * S::LANES) {
            for v in 0..V {
                let score = simd.load(&row[v * S::LANES..]);
                let power = exp(simd, simd.sub(score, max[v]));
                total[v] = simd.add(total[v], power);
                simd.store(&mut row[v * S::LANES..], power);
            }
        }
        rescale
    }

    /// `sums ← sums·rescale + powers·V` for a block of keys, in words of which `at` are the block's among those of all keys.
    #[inline(always)]
    fn add_values<S: Simd, D: Dot>(
        &mut self,
        simd: S,
        queries: usize,
        at: Range<usize>,
        rescale: &[f32; MOST_COLUMNS],
    ) {
        let padded = self.dim.next_multiple_of(S::LANES);
        let rows = tile_rows::<S>();
        let mut tile = TileBuffer::new();
        for query in (0..queries).step_by(rows) {
            let count = rows.min(queries - query);
            let a = (&self.scores[query..at.len() * queries], queries);
            let mut column = 0;
            while column < padded {
                // Four vectors are two pairs: three and one would leave a lean tile.
                let vectors = match (padded - column) / S::LANES {
                    4 => 2,
                    left => left.min(tile_vectors::<S>()),
                };
                let b = (
                    &self.values[at.start * padded + column..at.end * padded],
                    padded,
                );
                multiply_vectors::<S, D>(simd, vectors, count, a, b, at.len(), &mut tile.0);
                for r in 0..count {
                    let factor = simd.splat(rescale[query + r]);
                    for v in 0..vectors {
                        let at = (query + r) * padded + column + v * S::LANES;
                        let new = simd.load(&tile.0[(r * vectors + v) * S::LANES..]);
                        let sum = simd.mul_add(simd.load(&self.sums[at..]), factor, new);
                        simd.store(&mut self.sums[at..], sum);
                    }
                }
                column += vectors * S::LANES;
            }
        }
    }
}
