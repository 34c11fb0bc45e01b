//! Rows in 8 bits.

use crate::Exec;
use crate::exec::SharedMut;
use crate::isa::Isa;
use crate::simd::{Kernel, Simd};

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
        *q = level(x, inverse);
    }
    scale
}

/// [`quantize_row_int8`] for rows of `k` values, on all threads. Gives a scale for each row.
///
/// # Panics
/// When there are not whole rows, or the slices differ in length.
pub fn quantize_rows_int8(exec: &Exec, x: &[f32], k: usize, q: &mut [i8]) -> Vec<f32> {
    assert_eq!(x.len(), q.len(), "as many bytes as values");
    if k == 0 {
        return Vec::new();
    }
    assert!(x.len().is_multiple_of(k), "rows of {k} values");
    let mut scales = vec![0.0; x.len() / k];
    quantize_rows(exec, exec.isa(), (x, k), (q, k), &mut scales);
    scales
}

/// Quantizes rows of `k` values into rows of `width` levels on all threads: [`Quantize`].
pub(super) fn quantize_rows<L: Level + Send>(
    exec: &Exec,
    isa: Isa,
    (x, k): (&[f32], usize),
    (levels, width): (&mut [L], usize),
    scales: &mut [f32],
) {
    let rows = scales.len();
    let (levels, scales) = (SharedMut::new(levels), SharedMut::new(scales));
    exec.for_ranges(rows, 4 * k, |range| {
        // SAFETY: the ranges of different pieces are disjoint.
        let (levels, scales) = unsafe {
            let values = range.start * width..range.end * width;
            (levels.slice(values), scales.slice(range.clone()))
        };
        isa.run(Quantize {
            x: &x[range.start * k..range.end * k],
            k,
            levels,
            width,
            scales,
        });
    });
}

#[inline(always)]
pub(in crate::gemm) fn row_scale(x: &[f32]) -> f32 {
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
pub(in crate::gemm) fn inverse(scale: f32) -> f32 {
    let inverse = 1.0 / scale;
    if inverse.is_finite() { inverse } else { 0.0 }
}

/// Half to even: at 1.5·2²³ an f32 has no room for a fraction, and its lowest bits are the number.
#[inline(always)]
pub(in crate::gemm) fn level<L: Level>(x: f32, inverse: f32) -> L {
    const ROUND: f32 = 12_582_912.0;
    L::of((x * inverse + ROUND).to_bits())
}

/// Quantizes rows of `k` values into rows of `width` levels, whose last may have no value and stay as they are.
struct Quantize<'a, L> {
    x: &'a [f32],
    k: usize,
    levels: &'a mut [L],
    width: usize,
    /// Takes a scale for each row.
    scales: &'a mut [f32],
}

/// A level from −127 to 127 as a product takes it.
pub(in crate::gemm) trait Level: Copy {
    /// From the lowest bits of its whole number.
    fn of(bits: u32) -> Self;
}

impl Level for i8 {
    #[inline(always)]
    fn of(bits: u32) -> Self {
        bits as u8 as i8
    }
}

impl Level for i16 {
    #[inline(always)]
    fn of(bits: u32) -> Self {
        bits as u16 as i16
    }
}

/// 128 more, without a sign.
impl Level for u8 {
    #[inline(always)]
    fn of(bits: u32) -> Self {
        bits as u8 ^ 0x80
    }
}

impl<L: Level> Kernel for Quantize<'_, L> {
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
