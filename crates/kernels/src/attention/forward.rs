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

mod pattern;
#[cfg(target_arch = "x86_64")]
mod tiles;

use std::cell::RefCell;
use std::marker::PhantomData;
use std::ops::Range;

use super::dropout::{AttentionDropout, Factors};
use super::rows::{Rows, Source, copy_rows, pack_strips, room};
use super::{AttentionInputs, AttentionShape};
use crate::Exec;
use crate::buffer::AlignedFloats;
use crate::exec::SharedMut;
use crate::gemm::PackedFormat;
use crate::gemm::tile::{
    Bf16Pair, Dot, F32Word, MOST_COLUMNS, TileBuffer, multiply, multiply_vectors, tile_columns,
    tile_rows, tile_vectors,
};
use crate::simd::math::exp;
use crate::simd::{Kernel, Simd};

/// Keys in a block, whole strips of tiles of 6 rows and of 8, and whole pairs: its scores for a tile of 48 queries take 27 KiB.
const BLOCK_KEYS: usize = 144;

/// Queries in a task: enough that packing keys and values again for each task does not count.
const TASK_QUERIES: usize = 384;

/// `softmax(scale·Q·Kᵀ + bias)·V` over the keys that the mask lets each query see, for each head of each sequence:
/// `out[Tq, H·D]`. A query that sees no key gives zeros. For training it also writes `lse[Tq, H]`, the logarithm of each softmax's
/// sum, which [`attention_backward`](crate::attention_backward) needs, and may drop weights.
///
/// Products are of a precision: bf16 where the machine multiplies that; f32 within its contract, by which it may run in a matrix
/// unit (what is not finite then gives NaN) where neither `lse` nor dropout is asked for; else f32 itself. Sums and the
/// softmax are f32.
///
/// Time is linear in what is seen, memory in the longest sequence. A sequence's result has the same bits whatever other
/// sequences there are and however many threads run.
///
/// # Panics
/// When a buffer is shorter than the sequences say, offsets do not ascend, the scale is not above 0, or the mask, bias or dropout
/// does not fit.
pub fn attention(
    exec: &Exec,
    precision: PackedFormat,
    inputs: AttentionInputs<'_>,
    dropout: Option<&AttentionDropout<'_>>,
    out: &mut [f32],
    lse: Option<&mut [f32]>,
) {
    let AttentionInputs { q, k, v, shape, .. } = inputs;
    let width = shape.heads * shape.head_dim;
    let tokens = inputs.queries.tokens();
    assert_eq!(out.len(), tokens * width, "out is [{tokens}, {width}]");
    inputs.check();
    if let Some(lse) = &lse {
        assert_eq!(lse.len(), tokens * shape.heads, "lse is [Tq, H]");
    }
    if let Some(dropout) = dropout {
        dropout.check(tokens, inputs.keys.tokens(), shape.heads);
    }
    if out.is_empty() {
        return;
    }
    let out = SharedMut::new(out);
    let lse = lse.map(SharedMut::new);
    if !inputs.is_dense() {
        return pattern::run(exec, precision, inputs, dropout, &out, lse.as_ref());
    }
    let chunks: Vec<(Range<usize>, Range<usize>)> = inputs
        .keys
        .ranges()
        .flat_map(|keys| {
            let firsts = keys.clone().step_by(TASK_QUERIES);
            firsts.map(move |first| (first..keys.end.min(first + TASK_QUERIES), keys.clone()))
        })
        .collect();
    exec.parallel(chunks.len() * shape.heads, |task| {
        let (queries, keys) = &chunks[task / shape.heads];
        SCRATCH.with_borrow_mut(|scratch| {
            let column = task % shape.heads * shape.head_dim;
            let turns = inputs.rotary.map(|table| (table, keys.start));
            let turned = |of| Source { of, column, turns };
            let head = Head {
                q: turned(q),
                k: turned(k),
                v: Source::plain(v, column),
                queries: queries.clone(),
                keys: keys.clone(),
                head: task % shape.heads,
                shape,
                dropout,
                out: &out,
                lse: lse.as_ref(),
                scratch,
            };
            let isa = exec.isa();
            #[cfg(target_arch = "x86_64")]
            if let Some(amx) = isa.amx()
                && precision != PackedFormat::F32Strict
                && dropout.is_none()
                && lse.is_none()
            {
                return tiles::run(amx, precision, head);
            }
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
    /// Rows before they are laid out.
    room: AlignedFloats,
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
            room: empty(),
            powers: empty(),
        }
    }
}

/// One head of a chunk of queries over all keys of their sequence.
struct Head<'a> {
    q: Source<'a>,
    k: Source<'a>,
    v: Source<'a>,
    queries: Range<usize>,
    keys: Range<usize>,
    head: usize,
    shape: AttentionShape,
    dropout: Option<&'a AttentionDropout<'a>>,
    out: &'a SharedMut<'a>,
    lse: Option<&'a SharedMut<'a>>,
    scratch: &'a mut Scratch,
}

/// A head by vectors.
struct Dense<'a, D>(Head<'a>, PhantomData<D>);

impl<D: Dot> Kernel for Dense<'_, D> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let head = self.0;
        let dim = head.shape.head_dim;
        let keys = (head.k, head.v, Rows::of(&head.keys), head.keys.len());
        let mut tile = Tile::new::<S, D>(simd, head.scratch, keys, dim);
        tile.scale = head.shape.scale;
        tile.head = head.head;
        tile.dropout = head.dropout;
        let columns = tile_columns::<S>();
        for first in head.queries.clone().step_by(columns) {
            let count = columns.min(head.queries.end - first);
            tile.take_queries::<S, D>(simd, head.q, first, count);
            let (max, totals) = match count.div_ceil(S::LANES) {
                1 => tile.run::<S, D, 1>(simd),
                2 => tile.run::<S, D, 2>(simd),
                _ if const { tile_vectors::<S>() >= 3 } => tile.run::<S, D, 3>(simd),
                count => unreachable!("{count} vectors of queries"),
            };
            let place = Place {
                first,
                count,
                head: head.head,
                heads: head.shape.heads,
            };
            tile.put(simd, &place, (&max, &totals), head.out, head.lse);
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

/// A tile of queries, with all keys and values that they may see.
struct Tile<'a> {
    keys: &'a [f32],
    values: &'a [f32],
    queries: &'a mut [f32],
    scores: &'a mut [f32],
    sums: &'a mut [f32],
    room: &'a mut [f32],
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

/// Keys and values; which rows these are, and how many.
type KeysValues<'a> = (Source<'a>, Source<'a>, Rows<'a>, usize);

impl<'a> Tile<'a> {
    /// Packs keys and values.
    #[inline(always)]
    fn new<S: Simd, D: Dot>(
        simd: S,
        scratch: &'a mut Scratch,
        (k, v, from, count): KeysValues<'_>,
        dim: usize,
    ) -> Self {
        let padded = dim.next_multiple_of(S::LANES);
        let (rows, columns) = (tile_rows::<S>(), tile_columns::<S>());
        let words = dim.div_ceil(D::VALUES);
        let room = scratch.room.at_least(room(dim, columns));
        let keys = scratch.keys.at_least(count.div_ceil(rows) * words * rows);
        pack_strips::<S, D>(simd, k, from, (dim, rows), room, keys);
        let values = scratch.values.at_least(count.div_ceil(D::VALUES) * padded);
        copy_rows::<S, D>(simd, v, from, dim, room, values);
        Self {
            keys,
            values,
            queries: scratch.queries.at_least(words * columns),
            scores: scratch.scores.at_least(BLOCK_KEYS * columns),
            sums: scratch.sums.at_least(columns * padded),
            room,
            count,
            dim,
            scale: 1.0,
            head: 0,
            dropout: None,
            names: [0; MOST_COLUMNS],
            factors: scratch.factors.at_least(BLOCK_KEYS * columns),
        }
    }

    /// Packs the queries that come next.
    #[inline(always)]
    fn take_queries<S: Simd, D: Dot>(
        &mut self,
        simd: S,
        q: Source<'_>,
        first: usize,
        count: usize,
    ) {
        let (rows, dims) = (
            Rows::Successive(first, count),
            (self.dim, tile_columns::<S>()),
        );
        pack_strips::<S, D>(simd, q, rows, dims, self.room, self.queries);
        if let Some(dropout) = self.dropout {
            for (i, name) in self.names[..count].iter_mut().enumerate() {
                *name = dropout.name(first + i);
            }
        }
    }

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

    /// Writes the sums by their totals, zeros where no key was seen, and the logarithms of these where they are wanted.
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
                *out = if total == 0.0 { 0.0 } else { sum / total };
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
