//! The product with weights of 8 bits: `act((q(x)·Wqᵀ)·s_x·s_w + bias) + residual`.
//!
//! A weight's row has one scale, an input's row (a token) one that is found as it runs; both are symmetric, with values
//! from −127 to 127, so no zero points are anywhere. Sums are i32 and exact: the same on every instruction set, whatever
//! the order. On AVX2 bytes are widened to 16 bits and multiplied in pairs (`vpmaddwd`), whose sums cannot overflow.

use super::epilogue::{Finish, Place};
use super::{Epilogue, gemm_is_empty};
use crate::Exec;
use crate::buffer::AlignedBytes;
use crate::exec::SharedMut;
use crate::isa::{Isa, Tier};
use crate::simd::{Kernel, Simd};

/// Columns of the product in a panel.
const COLUMNS: usize = 16;
/// Rows of a tile: with two vectors of columns twelve sums, as many as registers allow beside the operands.
const ROWS: usize = 6;
/// Rows of a task, at most.
const BLOCK_ROWS: usize = 60;
/// Multiply-adds below which a task is not worth a thread's while.
const LEAST_WORK: usize = 1 << 18;
/// The largest K: `2¹⁷·127²` stays below `2³¹`.
const MOST_K: usize = 1 << 17;

/// The weight `W[N,K]` of a product in 8 bits with an f32 scale for each row.
///
/// Panels of 16 rows of `W`; in a panel, for each pair of k, the two bytes of each row. Rows and k are filled up with
/// zeros. The same on every instruction set.
pub struct Int8Weights {
    data: AlignedBytes,
    scales: Vec<f32>,
    n: usize,
    k: usize,
}

impl Int8Weights {
    /// Packs `W[rows,k]` of each part, one below the other, with the scales `[rows]` of their rows.
    ///
    /// # Panics
    /// When a part has not `rows·k` values for its `rows` scales, or `k` is beyond 2¹⁷.
    pub fn pack_stacked(parts: &[(&[i8], &[f32])], k: usize) -> Self {
        assert!(k <= MOST_K, "sums of more than {MOST_K} products overflow");
        let n = parts.iter().map(|(_, scales)| scales.len()).sum::<usize>();
        let pairs = k.div_ceil(2);
        let mut data = AlignedBytes::zeroed(n.div_ceil(COLUMNS) * COLUMNS * pairs * 2);
        let bytes = data.as_bytes_mut();
        let mut scales = Vec::with_capacity(n);
        for (values, part_scales) in parts {
            assert_eq!(values.len(), part_scales.len() * k, "weights are [rows, k]");
            for r in 0..part_scales.len() {
                let row = scales.len() + r;
                let panel = row / COLUMNS * pairs * COLUMNS * 2 + row % COLUMNS * 2;
                for (i, &value) in values[r * k..][..k].iter().enumerate() {
                    bytes[panel + i / 2 * COLUMNS * 2 + i % 2] = value.cast_unsigned();
                }
            }
            scales.extend_from_slice(part_scales);
        }
        Self { data, scales, n, k }
    }

    /// Columns of the product (N).
    pub fn n(&self) -> usize {
        self.n
    }

    /// Columns of the input (K).
    pub fn k(&self) -> usize {
        self.k
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        self.data.len() + size_of_val(&*self.scales)
    }

    fn panel(&self, panel: usize) -> &[u8] {
        let len = self.k.div_ceil(2) * COLUMNS * 2;
        &self.data.as_bytes()[panel * len..][..len]
    }
}

impl std::fmt::Debug for Int8Weights {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Int8Weights")
            .field("n", &self.n)
            .field("k", &self.k)
            .finish_non_exhaustive()
    }
}

/// A row in 8 bits: `x ≈ scale·q` with `scale = max|x| / 127`, rounded half to even. Gives the scale; a row of zeros has
/// scale 0. Values that are not finite make the scale NaN, and with it all products of the row.
///
/// # Panics
/// When the slices differ in length.
pub fn quantize_row_int8(x: &[f32], q: &mut [i8]) -> f32 {
    assert_eq!(x.len(), q.len(), "as many bytes as values");
    let scale = row_scale(x);
    let inverse = inverse(scale);
    for (q, &x) in q.iter_mut().zip(x) {
        *q = level(x, inverse) as i8;
    }
    scale
}

#[inline(always)]
fn row_scale(x: &[f32]) -> f32 {
    // Magnitudes are compared as whole numbers, which order as they do: infinities and what is no number come last.
    let mut most = [0u32; 8];
    let chunks = x.chunks_exact(8);
    for (most, x) in most.iter_mut().zip(chunks.remainder()) {
        *most = x.abs().to_bits();
    }
    for chunk in chunks {
        for (most, x) in most.iter_mut().zip(chunk) {
            *most = (*most).max(x.abs().to_bits());
        }
    }
    let most = f32::from_bits(most.into_iter().max().unwrap_or(0));
    if most.is_finite() {
        most / 127.0
    } else {
        f32::NAN
    }
}

/// 0 where there is no finite inverse: the levels then are 0.
#[inline(always)]
fn inverse(scale: f32) -> f32 {
    let inverse = 1.0 / scale;
    if inverse.is_finite() { inverse } else { 0.0 }
}

/// Half to even: at 1.5·2²³ an f32 has no room for a fraction, and its lowest bits are the number.
#[inline(always)]
fn level(x: f32, inverse: f32) -> i16 {
    const ROUND: f32 = 12_582_912.0;
    (x * inverse + ROUND).to_bits() as u16 as i16
}

/// `y[T,N] = epilogue((q(x)·Wqᵀ)·s_x·s_w)` for `x[T,K]`: each row of `x` is quantized by its own largest value.
///
/// # Panics
/// When a slice has another length.
pub fn gemm_int8(
    exec: &Exec,
    rows: usize,
    x: &[f32],
    weights: &Int8Weights,
    epilogue: Epilogue<'_>,
    y: &mut [f32],
) {
    let (n, k) = (weights.n, weights.k);
    if gemm_is_empty((rows, n, k), x, epilogue, y) {
        return;
    }
    // Values in 16 bits, as the product wants them, K filled up to an even number.
    let width = k.next_multiple_of(2);
    let mut levels = vec![0i16; rows * width];
    let mut scales = vec![0.0f32; rows];
    {
        let (levels, scales) = (SharedMut::new(&mut levels), SharedMut::new(&mut scales));
        exec.for_ranges(rows, 4 * k, |range| {
            // SAFETY: the ranges of different pieces are disjoint.
            let (levels, scales) = unsafe {
                let values = range.start * width..range.end * width;
                (levels.slice(values), scales.slice(range.clone()))
            };
            exec.isa().run(Quantize {
                x: &x[range.start * k..range.end * k],
                k,
                levels,
                width,
                scales,
            });
        });
    }
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
                multiply(exec.isa(), values, width, weights.panel(panel), &mut sums);
                exec.isa().run(Put {
                    sums: &sums,
                    row_scales: &scales[row..row + count],
                    scales: &weights.scales,
                    finish: Finish {
                        epilogue,
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

struct Quantize<'a> {
    x: &'a [f32],
    k: usize,
    levels: &'a mut [i16],
    width: usize,
    scales: &'a mut [f32],
}

impl Kernel for Quantize<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _simd: S) {
        if self.k == 0 {
            return;
        }
        let rows = self.x.chunks_exact(self.k);
        let levels = self.levels.chunks_exact_mut(self.width);
        for ((x, levels), scale) in rows.zip(levels).zip(self.scales) {
            *scale = row_scale(x);
            let inverse = inverse(*scale);
            for (q, &x) in levels.iter_mut().zip(x) {
                *q = level(x, inverse);
            }
        }
    }
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
        Tier::Avx2(_) | Tier::Avx512(_) => {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Activation, reference};

    fn values(len: usize, seed: u64) -> Vec<f32> {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..len).map(|_| next()).collect()
    }

    fn quantized(w: &[f32], n: usize, k: usize) -> (Vec<i8>, Vec<f32>) {
        let mut q = vec![0; n * k];
        let scales = (0..n)
            .map(|r| quantize_row_int8(&w[r * k..][..k], &mut q[r * k..][..k]))
            .collect();
        (q, scales)
    }

    const SHAPES: [(usize, usize, usize); 8] = [
        (1, 1, 1),
        (1, 16, 8),
        (3, 17, 33),
        (5, 15, 2),
        (4, 48, 64),
        (66, 31, 129),
        (2, 100, 7),
        (130, 33, 5),
    ];

    #[test]
    fn every_tier_gives_the_reference() {
        for (rows, n, k) in SHAPES {
            let (x, w) = (values(rows * k, 1), values(n * k, 2));
            let (bias, residual) = (values(n, 3), values(rows * n, 4));
            let (q, scales) = quantized(&w, n, k);
            let weights = Int8Weights::pack_stacked(&[(&q, &scales)], k);
            let mut expected = vec![0.0; rows * n];
            reference::gemm_int8(rows, &x, (&q, &scales), k, &mut expected);
            for isa in Isa::available() {
                let run = |threads, epilogue| {
                    let exec = Exec::with_isa(isa, threads);
                    let mut y = vec![f32::NAN; rows * n];
                    gemm_int8(&exec, rows, &x, &weights, epilogue, &mut y);
                    y
                };
                // Sums are exact and scaled the same way: not a bit differs.
                assert_eq!(
                    run(1, Epilogue::default()),
                    expected,
                    "{isa} {rows} {n} {k}"
                );
                let epilogue = Epilogue {
                    bias: Some(&bias),
                    activation: Activation::GeluErf,
                    residual: Some(&residual),
                };
                let one = run(1, epilogue);
                assert_eq!(one, run(3, epilogue), "{isa}: threads change nothing");
                for (i, found) in one.iter().enumerate() {
                    let mut value = [f64::from(expected[i] + bias[i % n])];
                    reference::activate(Activation::GeluErf, &mut value);
                    let wanted = value[0] + f64::from(residual[i]);
                    assert!(
                        (f64::from(*found) - wanted).abs() < 1e-4,
                        "{found} {wanted}"
                    );
                }
            }
        }
    }

    #[test]
    fn the_largest_values_do_not_overflow_and_rows_do_not_depend_on_each_other() {
        let (n, k) = (16, 3072);
        let q: Vec<i8> = (0..n * k)
            .map(|i| if i / k % 2 == 0 { 127 } else { -127 })
            .collect();
        let weights = Int8Weights::pack_stacked(&[(&q, &vec![1.0; n])], k);
        let x = vec![127.0; 5 * k];
        for isa in Isa::available() {
            let exec = Exec::with_isa(isa, 1);
            let mut y = vec![0.0; 5 * n];
            gemm_int8(&exec, 5, &x, &weights, Epilogue::default(), &mut y);
            for (i, &y) in y.iter().enumerate() {
                let sign = if i % n % 2 == 0 { 1.0 } else { -1.0 };
                assert_eq!(y, sign * (127 * 127 * k) as f32, "{isa}");
            }
            let mut alone = vec![0.0; n];
            gemm_int8(&exec, 1, &x[..k], &weights, Epilogue::default(), &mut alone);
            assert_eq!(alone, y[4 * n..]);
        }
    }

    #[test]
    fn rows_of_zeros_and_of_what_is_no_number() {
        let mut q = [1i8; 3];
        assert_eq!(quantize_row_int8(&[0.0, -0.0, 0.0], &mut q), 0.0);
        assert_eq!(q, [0; 3]);
        assert!(quantize_row_int8(&[1.0, f32::NAN, 0.0], &mut q).is_nan());
        assert!(quantize_row_int8(&[1.0, f32::INFINITY, 0.0], &mut q).is_nan());
        assert_eq!(quantize_row_int8(&[-127.0, 0.5, 1.5], &mut q), 1.0);
        assert_eq!(q, [-127, 0, 2]);
    }
}
