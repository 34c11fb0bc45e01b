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

// A block has whole pairs of keys.
const _: () = assert!(BLOCK_KEYS.is_multiple_of(2));

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
                1 => tile.run::<S, Bf16Pair, 1>(simd),
                2 => tile.run::<S, Bf16Pair, 2>(simd),
                _ if const { tile_vectors::<S>() >= 3 } => tile.run::<S, Bf16Pair, 3>(simd),
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
