//! The product of signs and its last pass.

use super::popcount::differing;
use super::{BinaryWeights, COLUMNS, PANELS, ROWS, WORD};
use crate::Exec;
use crate::exec::SharedMut;
use crate::gemm::{Epilogue, Exactness, Finish, Place, driver, gemm_is_empty, with_words};
use crate::isa::Tier;
use crate::simd::{Kernel, Simd};

/// Columns of a tile.
const WIDTH: usize = PANELS * COLUMNS;
/// Rows of a task, at most.
const BLOCK_ROWS: usize = 64;
/// Bits multiplied below which a task is not worth a thread's while.
const LEAST_WORK: usize = 1 << 21;

/// The signs of rows of `k` values as bits, `⌈k/64⌉` words a row, the first value in the lowest bit. With a threshold for each
/// of the `k`, whether values are not below it.
///
/// # Panics
/// When the slices have other lengths.
pub fn pack_signs(x: &[f32], k: usize, thresholds: Option<&[f32]>, words: &mut [u64]) {
    let each = k.div_ceil(WORD);
    if k == 0 {
        return;
    }
    assert_eq!(x.len() / k * each, words.len(), "{each} words a row");
    assert!(x.len().is_multiple_of(k), "rows of {k} values");
    assert!(
        thresholds.is_none_or(|thresholds| thresholds.len() == k),
        "{k} thresholds"
    );
    for (row, words) in x.chunks_exact(k).zip(words.chunks_exact_mut(each)) {
        for (at, (values, word)) in row.chunks(WORD).zip(words).enumerate() {
            let mut bits = 0;
            // Bytes first: the compiler turns eight comparisons into a mask.
            for (i, values) in values.chunks(8).enumerate() {
                let mut byte = 0u8;
                let first = at * WORD + 8 * i;
                for (bit, &value) in values.iter().enumerate() {
                    let threshold = thresholds.map_or(0.0, |thresholds| thresholds[first + bit]);
                    byte |= u8::from(value >= threshold) << bit;
                }
                bits |= u64::from(byte) << (8 * i);
            }
            *word = bits;
        }
    }
}

/// `y[T,N] = epilogue(α·(sign(x)·sign(W)ᵀ))` for `x[T,K]`, with a scale `α` for each row of `W`.
///
/// # Panics
/// When a slice has another length.
pub fn gemm_binary(
    exec: &Exec,
    rows: usize,
    x: &[f32],
    weights: &BinaryWeights,
    epilogue: Epilogue<'_>,
    y: &mut [f32],
) {
    let (n, k) = (weights.n(), weights.k());
    if gemm_is_empty((rows, n, k), x, epilogue, y) {
        return;
    }
    let words = k.div_ceil(WORD);
    if weights.for_tiles() {
        return with_words(rows * weights.words(), |room| {
            // SAFETY: two words of 32 bits are one of 64, and the room is aligned to 64 bytes.
            let bits = unsafe {
                std::slice::from_raw_parts_mut(room.as_mut_ptr().cast::<u64>(), rows * words)
            };
            pack_rows(exec, rows, x, weights, bits);
            driver::gemm(
                exec,
                rows,
                room,
                driver::Panels::Binary(weights),
                epilogue,
                None,
                driver::Output::Values(y),
            );
        });
    }
    let words = words.max(1);
    let mut bits = vec![0u64; rows * words];
    pack_rows(exec, rows, x, weights, &mut bits);
    let panels = n.div_ceil(COLUMNS);
    let tiles = n.div_ceil(WIDTH);
    let row_blocks = rows.div_ceil(BLOCK_ROWS);
    let groups = match exec.threads() {
        1 => 1,
        threads => {
            let worth = (rows * n * k / LEAST_WORK).min(4 * threads);
            worth.div_ceil(row_blocks).clamp(1, tiles)
        }
    };
    let each = tiles.div_ceil(groups);
    let groups = tiles.div_ceil(each);
    let y = SharedMut::new(y);
    exec.parallel(row_blocks * groups, |task| {
        let (block, group) = (task / groups, task % groups);
        let end = rows.min((block + 1) * BLOCK_ROWS);
        for tile in group * each..tiles.min((group + 1) * each) {
            let mut row = block * BLOCK_ROWS;
            while row < end {
                let count = ROWS.min(end - row);
                let mut sums = [0u32; ROWS * WIDTH];
                for panel in (tile * PANELS..panels.min((tile + 1) * PANELS)).filter(|_| k > 0) {
                    let x = &bits[row * words..(row + count) * words];
                    let sums = &mut sums[panel % PANELS * COLUMNS..];
                    differing(exec.isa(), x, words, weights.panel(panel), (sums, WIDTH));
                }
                exec.isa().run(Put {
                    sums: &sums,
                    k,
                    scales: weights.scales(),
                    finish: Finish {
                        epilogue,
                        exactness: Exactness::Full,
                        earlier: false,
                        before: None,
                        y: &y,
                    },
                    place: Place {
                        rows: row..row + count,
                        columns: tile * WIDTH..n.min((tile + 1) * WIDTH),
                        n,
                    },
                });
                row += count;
            }
        }
    });
}

/// [`pack_signs`] for `rows` rows, on all threads, as the weights want it.
fn pack_rows(exec: &Exec, rows: usize, x: &[f32], weights: &BinaryWeights, bits: &mut [u64]) {
    let (k, thresholds) = (weights.k(), weights.thresholds());
    let words = k.div_ceil(WORD);
    let bits = SharedMut::new(bits);
    exec.for_ranges(rows, 2 * k, |range| {
        // SAFETY: the ranges of different pieces are disjoint.
        let bits = unsafe { bits.slice(range.start * words..range.end * words) };
        let x = &x[range.start * k..range.end * k];
        match exec.isa().0 {
            Tier::Portable(_) => pack_signs(x, k, thresholds, bits),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the tokens prove AVX2.
            Tier::Avx2(_) | Tier::Avx512(_) | Tier::Amx(_) => unsafe {
                avx2::pack_signs(x, k, thresholds, bits)
            },
        }
    });
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::*;

    use super::WORD;

    /// [`pack_signs`](super::pack_signs).
    ///
    /// # Safety
    /// AVX2.
    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn pack_signs(
        x: &[f32],
        k: usize,
        thresholds: Option<&[f32]>,
        words: &mut [u64],
    ) {
        if k == 0 {
            return;
        }
        assert!(
            thresholds.is_none_or(|thresholds| thresholds.len() == k),
            "{k} thresholds"
        );
        let rows = x.chunks_exact(k);
        for (row, words) in rows.zip(words.chunks_exact_mut(k.div_ceil(WORD))) {
            let wholes = row.chunks_exact(WORD);
            let rest = wholes.remainder();
            for (at, (values, word)) in wholes.zip(words.iter_mut()).enumerate() {
                *word = 0;
                for (i, eight) in values.chunks_exact(8).enumerate() {
                    // SAFETY: eight values.
                    let eight = unsafe { _mm256_loadu_ps(eight.as_ptr()) };
                    let least = match thresholds {
                        // SAFETY: as many as a row has, of which these eight are whole ones.
                        Some(of) => unsafe { _mm256_loadu_ps(of.as_ptr().add(at * WORD + 8 * i)) },
                        None => _mm256_setzero_ps(),
                    };
                    let mask = _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_GE_OQ>(eight, least));
                    *word |= u64::from(mask.cast_unsigned()) << (8 * i);
                }
            }
            if let Some(word) = words.last_mut().filter(|_| !rest.is_empty()) {
                *word = 0;
                for (i, &value) in rest.iter().enumerate() {
                    let least = thresholds.map_or(0.0, |of| of[k - rest.len() + i]);
                    *word |= u64::from(value >= least) << i;
                }
            }
        }
    }
}

/// Turns counts into products, scales and finishes them.
struct Put<'a> {
    sums: &'a [u32; ROWS * WIDTH],
    k: usize,
    scales: &'a [f32],
    finish: Finish<'a>,
    place: Place,
}

impl Kernel for Put<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let mut tile = [0.0f32; ROWS * WIDTH];
        let scales = &self.scales[self.place.columns.clone()];
        let k = self.k as i32;
        let rows = tile
            .chunks_exact_mut(WIDTH)
            .zip(self.sums.chunks_exact(WIDTH));
        for (tile, sums) in rows.take(self.place.rows.len()) {
            for ((value, &sum), &scale) in tile.iter_mut().zip(sums).zip(scales) {
                *value = (k - 2 * sum as i32) as f32 * scale;
            }
        }
        // SAFETY: tasks cover different rows or columns of `y`, and no slice outlives a call.
        unsafe { self.finish.tile(simd, (&tile, WIDTH), &self.place) };
    }
}
