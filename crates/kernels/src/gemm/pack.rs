//! Packing: rows of a matrix into strips in which the k-th values of all rows lie side by side.

use crate::bf16;
use crate::simd::Simd;

/// A number format that weights are stored in.
pub(crate) trait Stored: Copy + Sync {
    /// Whether it is f32 in memory.
    const IS_F32: bool = false;

    /// Its value.
    fn to_f32(self) -> f32;
}

impl Stored for f32 {
    const IS_F32: bool = true;

    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }
}

impl Stored for half::bf16 {
    #[inline(always)]
    fn to_f32(self) -> f32 {
        half::bf16::to_f32(self)
    }
}

impl Stored for half::f16 {
    #[inline(always)]
    fn to_f32(self) -> f32 {
        half::f16::to_f32(self)
    }
}

/// An f32 that is read as the nearest bf16.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Rounded(f32);

impl Rounded {
    /// The values of a slice, to be rounded as they are read.
    #[inline(always)]
    pub(crate) fn of(values: &[f32]) -> &[Self] {
        // SAFETY: the type is transparent: a slice of it has the layout of the f32 values.
        unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), values.len()) }
    }
}

impl Stored for Rounded {
    #[inline(always)]
    fn to_f32(self) -> f32 {
        bf16::widen(bf16::narrow(self.0))
    }
}

/// Writes `strip[k][at + r] = rows[r·stride + k]` for `r < count` and all `k` of the strip, which holds
/// `width` values for each `k`. Other places are left as they are.
///
/// # Panics
/// When the rows are shorter than the strip, or do not fit its width.
#[inline(always)]
pub(crate) fn pack_strip<S: Simd, T: Stored>(
    simd: S,
    rows: &[T],
    stride: usize,
    count: usize,
    strip: &mut [f32],
    width: usize,
    at: usize,
) {
    let depth = strip.len() / width;
    assert!(at + count <= width && strip.len() == depth * width);
    if count == 0 || depth == 0 {
        return;
    }
    assert!(rows.len() >= (count - 1) * stride + depth);
    let mut first = 0;
    if const { T::IS_F32 } {
        while first + 8 <= count {
            let from = &rows[first * stride..];
            let mut k = 0;
            while k + 8 <= depth {
                debug_assert!(from.len() >= 7 * stride + k + 8 && at + first + 8 <= width);
                // SAFETY: f32 values of 8 rows that reach to `depth`, as the assertion above says; 8 places in each of 8
                // stretches of the strip.
                unsafe {
                    let to = strip.as_mut_ptr().add(k * width + at + first);
                    simd.turn_8x8(from.as_ptr().cast::<f32>().add(k), stride, to, width);
                }
                k += 8;
            }
            for r in 0..8 {
                let rest = &from[r * stride..][k..depth];
                for (i, value) in rest.iter().enumerate() {
                    strip[(k + i) * width + at + first + r] = value.to_f32();
                }
            }
            first += 8;
        }
    }
    while first + 4 <= count {
        turn::<T, 4>(&rows[first * stride..], stride, strip, width, at + first);
        first += 4;
    }
    if first + 2 <= count {
        turn::<T, 2>(&rows[first * stride..], stride, strip, width, at + first);
        first += 2;
    }
    for r in first..count {
        let row = &rows[r * stride..][..depth];
        for (values, value) in strip.chunks_exact_mut(width).zip(row) {
            values[at + r] = value.to_f32();
        }
    }
}

/// [`pack_strip`] for `R` rows: blocks of `R` × 4 are turned in registers.
#[inline(always)]
fn turn<T: Stored, const R: usize>(
    rows: &[T],
    stride: usize,
    strip: &mut [f32],
    width: usize,
    at: usize,
) {
    let depth = strip.len() / width;
    let row: [&[T]; R] = std::array::from_fn(|r| &rows[r * stride..][..depth]);
    let mut k = 0;
    while k + 4 <= depth {
        let block: [[f32; 4]; R] =
            std::array::from_fn(|r| std::array::from_fn(|i| row[r][k + i].to_f32()));
        for i in 0..4 {
            let column: [f32; R] = std::array::from_fn(|r| block[r][i]);
            strip[(k + i) * width + at..][..R].copy_from_slice(&column);
        }
        k += 4;
    }
    for k in k..depth {
        for (r, row) in row.iter().enumerate() {
            strip[k * width + at + r] = row[k].to_f32();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::Portable;

    #[test]
    fn strips_hold_the_rows_side_by_side() {
        for (count, width, at, depth, stride) in [
            (6, 6, 0, 9, 11),
            (5, 8, 2, 4, 4),
            (1, 1, 0, 7, 7),
            (4, 48, 40, 5, 6),
            (0, 4, 0, 3, 3),
        ] {
            let rows: Vec<f32> = (0..8 * stride).map(|i| i as f32 + 1.0).collect();
            let mut strip = vec![-1.0; depth * width];
            pack_strip(Portable, &rows, stride, count, &mut strip, width, at);
            for k in 0..depth {
                for column in 0..width {
                    let expected = match column.checked_sub(at) {
                        Some(r) if r < count => rows[r * stride + k],
                        _ => -1.0,
                    };
                    assert_eq!(strip[k * width + column], expected, "{k}, {column}");
                }
            }
        }
    }

    #[test]
    fn half_precision_is_widened() {
        let rows = [1.5f32, -2.0, 3.0].map(half::bf16::from_f32);
        let mut strip = [0.0; 3];
        pack_strip(Portable, &rows, 3, 1, &mut strip, 1, 0);
        assert_eq!(strip, [1.5, -2.0, 3.0]);
        let rows = [0.25f32, 65504.0].map(half::f16::from_f32);
        let mut strip = [0.0; 2];
        pack_strip(Portable, &rows, 1, 2, &mut strip, 2, 0);
        assert_eq!(strip, [0.25, 65504.0]);
    }
}
