//! Attention in the tiles of AMX: for inference, over all keys.
//!
//! Scores of 32 queries by 32 keys are a block, with queries down; their powers are packed as rows of the second product, whose
//! columns are those of the values. Keys are packed as rows too, and each of their tiles then turned, for the first product
//! takes them as columns. Scores of at most 512 keys are kept at a time; the softmax is streamed over more.

use std::marker::PhantomData;

use super::{Head, Scratch};
use crate::amx::{
    Amx, BLOCK, Bf16, BlockSums, Halves, ROW_BYTES, TILE_BYTES, TILE_ROWS, TileKernel, Tiles,
};
use crate::attention::rows::Source;
use crate::gemm::PackedFormat;
use crate::gemm::amx::{Float, PackTiles, turn};
use crate::simd::{Kernel, Simd, copy};

/// Blocks of keys whose scores are kept at a time: 64 KiB.
const MOST_BLOCKS: usize = 16;

/// f32 values, or words, of a block and of a tile.
const BLOCK_WORDS: usize = BLOCK * BLOCK;
const TILE_WORDS: usize = TILE_BYTES / size_of::<f32>();

/// One head of a chunk of queries, without dropout.
pub(super) fn run(amx: Amx, precision: PackedFormat, head: Head<'_>) {
    match precision {
        PackedFormat::Bf16 => amx.run(OnTiles::<Bf16> {
            head,
            operand: PhantomData,
        }),
        PackedFormat::F32 | PackedFormat::F32Strict => amx.run(OnTiles::<Halves> {
            head,
            operand: PhantomData,
        }),
    }
}

struct OnTiles<'a, O> {
    head: Head<'a>,
    operand: PhantomData<O>,
}

impl<O: Float> TileKernel for OnTiles<'_, O> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, tiles: &Tiles, simd: S) {
        let head = self.head;
        let scratch = &mut *head.scratch;
        let dim = head.shape.head_dim;
        let keys = head.keys.len();
        let step = O::STEP_BYTES / size_of::<f32>();
        let (depth, blocks) = (dim.div_ceil(O::STEP), keys.div_ceil(BLOCK));
        let panels = dim.div_ceil(BLOCK);

        // Keys: rows of a block of them in `queries`, then turned.
        for block in 0..blocks {
            let first = head.keys.start + block * BLOCK;
            let count = BLOCK.min(head.keys.end - first);
            let rows = scratch.queries.at_least(depth * step);
            if count < BLOCK {
                rows.fill(0.0);
            }
            let room = scratch.room.at_least(dim);
            pack_rows::<S, O>(simd, head.k, first, (count, dim), (rows, room));
            let turned = &mut scratch.keys.at_least(blocks * depth * step)[block * depth * step..];
            for (from, to) in rows
                .chunks_exact(TILE_WORDS)
                .zip(turned.chunks_exact_mut(TILE_WORDS))
            {
                turn(simd, from, to);
            }
        }
        // Values: 32 columns of all keys, then the next.
        for panel in 0..panels {
            let columns = BLOCK.min(dim - panel * BLOCK);
            for block in 0..blocks {
                let first = head.keys.start + block * BLOCK;
                let count = BLOCK.min(head.keys.end - first);
                let rows = scratch.queries.at_least(BLOCK_WORDS);
                if count < BLOCK || columns < BLOCK {
                    rows.fill(0.0);
                }
                for (r, to) in rows.chunks_exact_mut(BLOCK).take(count).enumerate() {
                    // Values are not turned.
                    let from = &head.v.read(first + r, dim, &mut [])[panel * BLOCK..];
                    copy(simd, &from[..columns], &mut to[..columns]);
                }
                let to = scratch.values.at_least(panels * blocks * step);
                let pack = PackTiles {
                    from: &rows[..BLOCK_WORDS],
                    halves: O::PARTS > 1,
                    to: &mut to[(panel * blocks + block) * step..][..step],
                };
                let _ = pack.run(simd);
            }
        }

        scratch.queries.at_least(depth * step);
        scratch.scores.at_least(MOST_BLOCKS * BLOCK_WORDS);
        scratch.powers.at_least(MOST_BLOCKS * step);
        scratch.sums.at_least(panels * BLOCK_WORDS);
        let mut block = Queries {
            scratch,
            depth,
            blocks,
            keys,
            panels,
            scale: head.shape.scale,
            most: [f32::NEG_INFINITY; BLOCK],
            totals: [0.0; BLOCK],
            factors: [0.0; BLOCK],
            count: 0,
        };
        for first in head.queries.clone().step_by(BLOCK) {
            block.count = BLOCK.min(head.queries.end - first);
            let room = block.scratch.room.at_least(dim);
            let to = (&mut *block.scratch.queries, room);
            pack_rows::<S, O>(simd, head.q, first, (block.count, dim), to);
            block.run::<S, O>(tiles, simd);
            for r in 0..block.count {
                let at = ((first + r) * head.shape.heads + head.head) * dim;
                // SAFETY: tasks have different queries or heads, so their rows' parts of `out` do not overlap, and each is in
                // one slice at a time.
                let out = unsafe { head.out.slice(at..at + dim) };
                block.put(r, out);
            }
        }
    }
}

/// Packs `count` rows of `dim` values of a head, from row `first` on, into a strip; there is room for a row.
#[inline(always)]
fn pack_rows<S: Simd, O: Float>(
    simd: S,
    from: Source<'_>,
    first: usize,
    (count, dim): (usize, usize),
    (strip, room): (&mut [f32], &mut [f32]),
) {
    let depth = dim.div_ceil(O::STEP);
    assert!(size_of_val(strip) >= depth * O::STEP_BYTES && count <= BLOCK);
    let to = strip.as_mut_ptr().cast::<u8>();
    for r in 0..count {
        let values = from.read(first + r, dim, room);
        let at = r / TILE_ROWS * TILE_BYTES + r % TILE_ROWS * ROW_BYTES;
        // SAFETY: the strip has all steps of 32 rows.
        unsafe { O::pack(simd, values, to.add(at)) };
    }
}

/// A block of queries, with all keys and values of their sequence packed.
struct Queries<'a> {
    scratch: &'a mut Scratch,
    /// Steps of a key.
    depth: usize,
    /// Blocks of keys.
    blocks: usize,
    keys: usize,
    /// Blocks of the values' columns.
    panels: usize,
    scale: f32,
    /// Each query's largest score so far, the sum of its powers, and what those before are multiplied by.
    most: [f32; BLOCK],
    totals: [f32; BLOCK],
    factors: [f32; BLOCK],
    count: usize,
}

impl Queries<'_> {
    /// Weighted sums of the values into `scratch.sums`, panel after panel.
    #[inline(always)]
    fn run<S: Simd, O: Float>(&mut self, tiles: &Tiles, simd: S) {
        let half = self.count <= TILE_ROWS;
        self.most = [f32::NEG_INFINITY; BLOCK];
        self.totals = [0.0; BLOCK];
        let mut tile = BlockSums::new();
        for first in (0..self.blocks).step_by(MOST_BLOCKS) {
            let count = MOST_BLOCKS.min(self.blocks - first);
            for block in 0..count {
                tiles.clear();
                let queries = self.scratch.queries.as_ptr().cast::<u8>();
                let keys = self.scratch.keys.as_ptr().cast::<u8>();
                let keys = keys.wrapping_add((first + block) * self.depth * O::STEP_BYTES);
                for step in 0..self.depth {
                    let at = step * O::STEP_BYTES;
                    // SAFETY: the queries have as many steps as each block of keys.
                    unsafe {
                        O::multiply_rows(
                            tiles,
                            half,
                            queries.wrapping_add(at),
                            keys.wrapping_add(at),
                        );
                    }
                }
                tiles.store_to(&mut self.scratch.scores[block * BLOCK_WORDS..]);
            }
            for r in 0..self.count {
                self.exponentiate::<S, O>(simd, r, (first, count));
            }
            for panel in 0..self.panels {
                tiles.clear();
                let powers = self.scratch.powers.as_ptr().cast::<u8>();
                let values = self.scratch.values.as_ptr().cast::<u8>();
                let values = values.wrapping_add((panel * self.blocks + first) * O::STEP_BYTES);
                for step in 0..count {
                    let at = step * O::STEP_BYTES;
                    // SAFETY: there are powers and values of as many blocks of keys.
                    unsafe {
                        O::multiply_rows(
                            tiles,
                            half,
                            powers.wrapping_add(at),
                            values.wrapping_add(at),
                        );
                    }
                }
                let sums = &mut self.scratch.sums[panel * BLOCK_WORDS..][..BLOCK_WORDS];
                if first == 0 {
                    tiles.store_to(sums);
                    continue;
                }
                tiles.store(&mut tile);
                let rows = sums.chunks_exact_mut(BLOCK).zip(tile.0.chunks_exact(BLOCK));
                for ((sums, new), &factor) in rows.zip(&self.factors) {
                    for (sum, new) in sums.iter_mut().zip(new) {
                        *sum = sum.mul_add(factor, *new);
                    }
                }
            }
        }
    }

    /// Turns a query's scores for `count` blocks of keys from `first` on into powers, packed as a row.
    #[inline(always)]
    fn exponentiate<S: Simd, O: Float>(
        &mut self,
        simd: S,
        r: usize,
        (first, count): (usize, usize),
    ) {
        let lowest = simd.splat(f32::NEG_INFINITY);
        // Keys that there are not have the lowest score.
        let left = (self.keys - (first + count - 1) * BLOCK).min(BLOCK);
        let scores = &mut *self.scratch.scores;
        let last = &mut scores[(count - 1) * BLOCK_WORDS + r * BLOCK..][..BLOCK];
        last[left..].fill(f32::NEG_INFINITY);
        let row = |block: usize| &scores[block * BLOCK_WORDS + r * BLOCK..][..BLOCK];
        let scale = simd.splat(self.scale);
        let mut most = [lowest; 2];
        for block in 0..count {
            let row = row(block);
            let mut i = 0;
            while i < BLOCK {
                // NaN stays: it is the second operand.
                let score = simd.mul(simd.load(&row[i..]), scale);
                most[i / S::LANES % 2] = simd.max(most[i / S::LANES % 2], score);
                i += S::LANES;
            }
        }
        let before = self.most[r];
        let now = before.max(simd.largest(simd.max(most[0], most[1])));
        self.most[r] = now;
        let now = simd.splat(now);
        let mut total = [simd.zero(); 2];
        let at = r / TILE_ROWS * TILE_BYTES + r % TILE_ROWS * ROW_BYTES;
        let powers = self
            .scratch
            .powers
            .as_mut_ptr()
            .cast::<u8>()
            .wrapping_add(at);
        for block in 0..count {
            let row = row(block);
            let mut i = 0;
            while i < BLOCK {
                let score = simd.mul(simd.load(&row[i..]), scale);
                let power = O::exp_nonpositive(simd, simd.sub(score, now));
                total[i / S::LANES % 2] = simd.add(total[i / S::LANES % 2], power);
                // SAFETY: there is room for a step of 32 rows for each block.
                unsafe {
                    let to = powers.add(block * O::STEP_BYTES + i * size_of::<u16>());
                    O::put(simd, power, to);
                }
                i += S::LANES;
            }
        }
        let total = simd.sum(simd.add(total[0], total[1]));
        match first {
            0 => self.totals[r] = total,
            _ => {
                self.factors[r] = (before - self.most[r]).exp();
                self.totals[r] = self.totals[r] * self.factors[r] + total;
            }
        }
    }

    /// A query's sums by their total.
    #[inline(always)]
    fn put(&self, r: usize, out: &mut [f32]) {
        let part = 1.0 / self.totals[r];
        for (panel, out) in out.chunks_mut(BLOCK).enumerate() {
            let sums = &self.scratch.sums[panel * BLOCK_WORDS + r * BLOCK..];
            for (out, &sum) in out.iter_mut().zip(sums) {
                *out = sum * part;
            }
        }
    }
}
