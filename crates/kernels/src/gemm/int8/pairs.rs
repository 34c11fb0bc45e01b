//! Bytes widened to 16 bits and multiplied in pairs: `vpmaddwd` on AVX2, one by one on the portable tier.

use super::Int8Weights;
use super::quantize::quantize_rows;
use crate::Exec;
use crate::exec::SharedMut;
use crate::gemm::{Epilogue, Exactness, Finish, Place};
use crate::isa::{Isa, Tier};
use crate::simd::{Kernel, Simd};

/// Columns of the product in a panel.
pub(super) const COLUMNS: usize = 16;
/// Rows of a tile: with two vectors of columns twelve sums, as many as registers allow beside the operands.
const ROWS: usize = 6;
/// Rows of a task, at most.
const BLOCK_ROWS: usize = 60;
/// Multiply-adds below which a task is not worth a thread's while.
const LEAST_WORK: usize = 1 << 18;

/// See [`gemm_int8`](super::gemm_int8).
pub(super) fn gemm(
    exec: &Exec,
    rows: usize,
    x: &[f32],
    weights: &Int8Weights,
    epilogue: Epilogue<'_>,
    y: &mut [f32],
) {
    let (n, k) = (weights.n, weights.k);
    // Values in 16 bits, as the product wants them, K filled up to an even number.
    let width = k.next_multiple_of(2);
    let mut levels = vec![0i16; rows * width];
    let mut scales = vec![0.0f32; rows];
    quantize_rows(exec, exec.isa(), (x, k), (&mut levels, width), &mut scales);
    let panels = n.div_ceil(COLUMNS);
    let row_blocks = rows.div_ceil(BLOCK_ROWS);
    let groups = match exec.threads() {
        1 => 1,
        threads => {
            let worth = (rows * n * k / LEAST_WORK).min(4 * threads);
            worth.div_ceil(row_blocks).clamp(1, panels)
        }
    };
    let each = panels.div_ceil(groups);
    let groups = panels.div_ceil(each);
    let y = SharedMut::new(y);
    exec.parallel(row_blocks * groups, |task| {
        let (block, group) = (task / groups, task % groups);
        for panel in group * each..panels.min((group + 1) * each) {
            let mut row = block * BLOCK_ROWS;
            let end = rows.min(row + BLOCK_ROWS);
            while row < end {
                let count = ROWS.min(end - row);
                let mut sums = [0i32; ROWS * COLUMNS];
                let values = &levels[row * width..(row + count) * width];
                multiply(exec.isa(), values, width, weights.pairs(panel), &mut sums);
                exec.isa().run(Put {
                    sums: &sums,
                    row_scales: &scales[row..row + count],
                    scales: &weights.scales,
                    finish: Finish {
                        epilogue,
                        exactness: Exactness::Full,
                        earlier: false,
                        before: None,
                        y: &y,
                    },
                    place: Place {
                        rows: row..row + count,
                        columns: panel * COLUMNS..n.min((panel + 1) * COLUMNS),
                        n,
                    },
                });
                row += count;
            }
        }
    });
}

/// Scales a tile's sums and finishes them.
struct Put<'a> {
    sums: &'a [i32; ROWS * COLUMNS],
    row_scales: &'a [f32],
    scales: &'a [f32],
    finish: Finish<'a>,
    place: Place,
}

impl Kernel for Put<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let mut tile = [0.0f32; ROWS * COLUMNS];
        let scales = &self.scales[self.place.columns.clone()];
        let rows = tile
            .chunks_exact_mut(COLUMNS)
            .zip(self.sums.chunks_exact(COLUMNS));
        for ((tile, sums), &row_scale) in rows.zip(self.row_scales) {
            for ((value, &sum), &scale) in tile.iter_mut().zip(sums).zip(scales) {
                *value = sum as f32 * (row_scale * scale);
            }
        }
        // SAFETY: tasks cover different rows or columns of `y`, and no slice outlives a call.
        unsafe { self.finish.tile(simd, (&tile, COLUMNS), &self.place) };
    }
}

/// The sums of up to 6 rows of `x` (of `width` values) with a panel.
fn multiply(isa: Isa, x: &[i16], width: usize, panel: &[u8], sums: &mut [i32; ROWS * COLUMNS]) {
    if width == 0 {
        return;
    }
    match isa.0 {
        Tier::Portable(_) => multiply_portable(x, width, panel, sums),
        #[cfg(target_arch = "x86_64")]
        Tier::Avx2(_) | Tier::Avx512(_) | Tier::Amx(_) => {
            assert_eq!(panel.len(), width * COLUMNS, "a panel of all k");
            // SAFETY: the tokens prove AVX2; the panel has a pair of bytes of 16 columns for each pair of values of
            // a row, and there are as many whole rows as the constant says.
            unsafe {
                match x.len() / width {
                    1 => avx2::multiply::<1>(x, width, panel, sums),
                    2 => avx2::multiply::<2>(x, width, panel, sums),
                    3 => avx2::multiply::<3>(x, width, panel, sums),
                    4 => avx2::multiply::<4>(x, width, panel, sums),
                    5 => avx2::multiply::<5>(x, width, panel, sums),
                    _ => avx2::multiply::<6>(x, width, panel, sums),
                }
            }
        }
    }
}

fn multiply_portable(x: &[i16], width: usize, panel: &[u8], sums: &mut [i32; ROWS * COLUMNS]) {
    for (row, sums) in x.chunks_exact(width).zip(sums.chunks_exact_mut(COLUMNS)) {
        for (x, weights) in row.chunks_exact(2).zip(panel.chunks_exact(2 * COLUMNS)) {
            let (even, odd) = (i32::from(x[0]), i32::from(x[1]));
            for (sum, w) in sums.iter_mut().zip(weights.chunks_exact(2)) {
                let (first, second) = (w[0].cast_signed(), w[1].cast_signed());
                *sum += even * i32::from(first) + odd * i32::from(second);
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::*;

    use super::{COLUMNS, ROWS};

    /// # Safety
    /// AVX2; `x` has `R` rows of `width` values, `width` is even, and the panel has `width·16` bytes.
    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn multiply<const R: usize>(
        x: &[i16],
        width: usize,
        panel: &[u8],
        sums: &mut [i32; ROWS * COLUMNS],
    ) {
        debug_assert!(R <= ROWS && x.len() >= R * width && panel.len() >= width * COLUMNS);
        let mut low = [_mm256_setzero_si256(); R];
        let mut high = [_mm256_setzero_si256(); R];
        for pair in 0..width / 2 {
            // SAFETY: 32 bytes for each pair, and 2 values of each row, as the caller promises; loads are unaligned.
            unsafe {
                let weights = panel.as_ptr().add(pair * 2 * COLUMNS).cast::<__m128i>();
                let first = _mm256_cvtepi8_epi16(_mm_loadu_si128(weights));
                let second = _mm256_cvtepi8_epi16(_mm_loadu_si128(weights.add(1)));
                for r in 0..R {
                    let values = x.as_ptr().add(r * width + 2 * pair).cast::<i32>();
                    let values = _mm256_set1_epi32(values.read_unaligned());
                    low[r] = _mm256_add_epi32(low[r], _mm256_madd_epi16(values, first));
                    high[r] = _mm256_add_epi32(high[r], _mm256_madd_epi16(values, second));
                }
            }
        }
        for r in 0..R {
            let row = &mut sums[r * COLUMNS..][..COLUMNS];
            // SAFETY: 16 values.
            unsafe {
                _mm256_storeu_si256(row.as_mut_ptr().cast(), low[r]);
                _mm256_storeu_si256(row.as_mut_ptr().add(8).cast(), high[r]);
            }
        }
    }
}
