//! Attention of pairs of bf16, where the machine multiplies them: for inference, over all keys.
//!
//! Queries and keys are paired along D, powers and values along the keys, so that both products run on half as many words. What
//! lies between, scores and softmax, is f32 and that of the other kernel.

use super::{BLOCK_KEYS, Head, Place, Tile};
use crate::attention::row;
use crate::bf16::pair_row;
use crate::gemm::pack::pack_strip;
use crate::gemm::tile::{Bf16Pair, MOST_COLUMNS, tile_columns, tile_rows, tile_vectors};
use crate::simd::{Kernel, Simd};

/// One head of a chunk of queries, without dropout.
pub(super) struct Pairs<'a>(pub(super) Head<'a>);

impl Kernel for Pairs<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self(head) = self;
        let scratch = &mut *head.scratch;
        let dim = head.shape.head_dim;
        let words = dim.div_ceil(2);
        let column = head.head * dim;
        let padded = dim.next_multiple_of(S::LANES);
        let (rows, columns) = (tile_rows::<S>(), tile_columns::<S>());
        let rounded = scratch.rounded.at_least(columns * words);

        let keys = head.keys.len();
        let strip_len = words * rows;
        let strips = scratch.keys.at_least(keys.div_ceil(rows) * strip_len);
        for (i, strip) in strips.chunks_exact_mut(strip_len).enumerate() {
            let first = i * rows;
            let count = rows.min(keys - first);
            for (r, to) in rounded.chunks_exact_mut(words).take(count).enumerate() {
                let key = row(head.k, column, head.keys.start + first + r);
                pair_row(simd, &key[..dim], to);
            }
            pack_strip(simd, rounded, words, count, strip, rows, 0);
        }
        let values = scratch.values.at_least(keys.div_ceil(2) * padded);
        for (i, to) in values.chunks_exact_mut(padded).enumerate() {
            let value = |key: usize| &row(head.v, column, head.keys.start + key)[..dim];
            let first = value(2 * i);
            let second = if 2 * i + 1 < keys {
                value(2 * i + 1)
            } else {
                &[]
            };
            for at in (0..padded).step_by(S::LANES) {
                let pair = simd.pair_bf16(lanes(simd, first, at), lanes(simd, second, at));
                simd.store(&mut to[at..], pair);
            }
        }

        let mut tile = Tile {
            keys: strips,
            values,
            queries: scratch.queries.at_least(words * columns),
            scores: scratch.scores.at_least(BLOCK_KEYS * columns),
            sums: scratch.sums.at_least(columns * padded),
            count: keys,
            dim,
            scale: head.shape.scale,
            head: head.head,
            dropout: None,
            names: [0; MOST_COLUMNS],
            factors: &mut [],
        };
        for first in head.queries.clone().step_by(columns) {
            let count = columns.min(head.queries.end - first);
            for (r, to) in rounded.chunks_exact_mut(words).take(count).enumerate() {
                pair_row(simd, &row(head.q, column, first + r)[..dim], to);
            }
            pack_strip(simd, rounded, words, count, tile.queries, columns, 0);
            let (max, totals) = match count.div_ceil(S::LANES) {
                1 => stream::<S, 1>(simd, &mut tile, words),
                2 => stream::<S, 2>(simd, &mut tile, words),
                _ if const { tile_vectors::<S>() >= 3 } => stream::<S, 3>(simd, &mut tile, words),
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

/// A vector of a row from `at` on, zero beyond its end.
#[inline(always)]
fn lanes<S: Simd>(simd: S, row: &[f32], at: usize) -> S::F32 {
    match row.len().saturating_sub(at) {
        0 => simd.zero(),
        left if left < S::LANES => simd.load_partial(&row[at..]),
        _ => simd.load(&row[at..]),
    }
}

/// Computes a tile's sums for `V` vectors of queries; gives each query's largest score and its sum of powers.
#[inline(always)]
fn stream<S: Simd, const V: usize>(
    simd: S,
    tile: &mut Tile<'_>,
    words: usize,
) -> ([f32; MOST_COLUMNS], [f32; MOST_COLUMNS]) {
    let columns = V * S::LANES;
    let padded = tile.dim.next_multiple_of(S::LANES);
    let mut max = [simd.splat(f32::NEG_INFINITY); V];
    let mut total = [simd.zero(); V];
    tile.sums[..columns * padded].fill(0.0);
    // A block has an even number of keys, so that pairs do not go over its end.
    const { assert!(BLOCK_KEYS.is_multiple_of(2)) };
    for first in (0..tile.count).step_by(BLOCK_KEYS) {
        let keys = BLOCK_KEYS.min(tile.count - first);
        tile.score::<S, Bf16Pair, V>(simd, first, keys, words);
        let rescale = tile.exponentiate::<S, V>(simd, keys, &mut max, &mut total);
        // In place: a pair's row is never behind those that it is made of.
        let pairs = keys.div_ceil(2);
        for i in 0..pairs {
            for at in (0..columns).step_by(S::LANES) {
                let first = simd.load(&tile.scores[2 * i * columns + at..]);
                let second = match 2 * i + 1 < keys {
                    true => simd.load(&tile.scores[(2 * i + 1) * columns + at..]),
                    false => simd.zero(),
                };
                simd.store(
                    &mut tile.scores[i * columns + at..],
                    simd.pair_bf16(first, second),
                );
            }
        }
        let at = first / 2..first / 2 + pairs;
        tile.add_values::<S, Bf16Pair>(simd, columns, at, &rescale);
    }
    let (mut maxima, mut totals) = ([0.0; MOST_COLUMNS], [0.0; MOST_COLUMNS]);
    for v in 0..V {
        simd.store(&mut maxima[v * S::LANES..], max[v]);
        simd.store(&mut totals[v * S::LANES..], total[v]);
    }
    (maxima, totals)
}
