//! Rows of inputs as tiles.

use crate::amx::{BLOCK, Bf16, Halves, Int8, Operand, ROW_BYTES, TILE_BYTES, TILE_ROWS};
use crate::gemm::int8::{inverse, level, row_scale};
use crate::simd::{Kernel, Simd};

/// Whether rows of inputs whose largest magnitude is this are multiplied as halves: what lies below is then either normal or too
/// small to count, and nothing rounds to infinity.
pub(super) fn plain(largest: f32) -> bool {
    const LEAST: f32 = f32::from_bits((127 - 60) << 23);
    const MOST: f32 = f32::from_bits((127 + 126) << 23);
    largest == 0.0 || (LEAST..=MOST).contains(&largest)
}

/// [`plain`] for a matrix of weights, which stay within 2⁻⁴⁰ to 2⁴⁰ so that products of the least do not vanish.
pub(in crate::gemm) fn plain_weights(largest: f32) -> bool {
    const LEAST: f32 = f32::from_bits((127 - 40) << 23);
    const MOST: f32 = f32::from_bits((127 + 40) << 23);
    largest == 0.0 || (LEAST..=MOST).contains(&largest)
}

/// Operands that rows of f32 become.
///
/// A strip of 32 rows is [`Operand::STEP_BYTES`] for each step of K; rows that there are not, are left as they are, and of the
/// last step values that there are not, are zero.
pub(crate) trait Rows: Operand {
    /// Packs one row into a strip, whose steps' tiles hold it from `to` on. Gives what the last pass needs to know of it.
    ///
    /// # Safety
    /// `to` must be the place of a row in a strip of as many steps as the row takes.
    unsafe fn pack<S: Simd>(simd: S, row: &[f32], to: *mut u8) -> f32;
}

impl Rows for Bf16 {
    #[inline(always)]
    unsafe fn pack<S: Simd>(simd: S, row: &[f32], mut to: *mut u8) -> f32 {
        let chunks = row.chunks_exact(Self::STEP);
        let rest = chunks.remainder();
        let put = |chunk: &[f32], to: *mut u8| {
            for i in (0..Self::STEP).step_by(S::LANES) {
                // SAFETY: a row of a tile has room for a step's values.
                unsafe { simd.store_bf16(to.add(2 * i).cast(), simd.load(&chunk[i..])) }
            }
        };
        for chunk in chunks {
            put(chunk, to);
            to = to.wrapping_add(Self::STEP_BYTES);
        }
        if !rest.is_empty() {
            put(&filled::<32>(rest), to);
        }
        0.0
    }
}

impl Rows for Halves {
    /// 1 where the row is not [`plain`], else 0.
    #[inline(always)]
    unsafe fn pack<S: Simd>(simd: S, row: &[f32], mut to: *mut u8) -> f32 {
        let chunks = row.chunks_exact(Self::STEP);
        let rest = chunks.remainder();
        let mut most = simd.zero();
        // Stays zero, but for infinities and NaN: their product with zero is NaN.
        let mut unknown = simd.zero();
        let mut put = |chunk: &[f32], to: *mut u8| {
            for i in (0..Self::STEP).step_by(S::LANES) {
                let value = simd.load(&chunk[i..]);
                most = simd.max(simd.abs(value), most);
                unknown = simd.mul_add(value, simd.zero(), unknown);
                let high = simd.round_bf16(value);
                // SAFETY: a row of a tile has room for a step's values, and the tiles of low halves follow those of high ones.
                unsafe {
                    simd.store_bf16(to.add(2 * i).cast(), high);
                    let low = to.add(2 * TILE_BYTES + 2 * i);
                    simd.store_bf16(low.cast(), simd.sub(value, high));
                }
            }
        };
        for chunk in chunks {
            put(chunk, to);
            to = to.wrapping_add(Self::STEP_BYTES);
        }
        if !rest.is_empty() {
            put(&filled::<32>(rest), to);
        }
        let known = simd.sum(unknown) == 0.0;
        if known && plain(simd.largest(most)) { 0.0 } else { 1.0 }
    }
}

impl Rows for Int8 {
    /// The row's scale.
    #[inline(always)]
    unsafe fn pack<S: Simd>(_simd: S, row: &[f32], mut to: *mut u8) -> f32 {
        let scale = row_scale(row);
        let inverse = inverse(scale);
        let chunks = row.chunks_exact(Self::STEP);
        let rest = chunks.remainder();
        let put = |chunk: &[f32], to: *mut u8| {
            // SAFETY: a row of a tile.
            let levels = unsafe { std::slice::from_raw_parts_mut(to.cast::<i8>(), ROW_BYTES) };
            for (level_of, &x) in levels.iter_mut().zip(chunk) {
                *level_of = level(x, inverse);
            }
        };
        for chunk in chunks {
            put(chunk, to);
            to = to.wrapping_add(Self::STEP_BYTES);
        }
        if !rest.is_empty() {
            put(&filled::<64>(rest), to);
        }
        scale
    }
}

/// The values of a last step, filled up with zeros.
#[inline(always)]
fn filled<const N: usize>(rest: &[f32]) -> [f32; N] {
    let mut chunk = [0.0; N];
    chunk[..rest.len()].copy_from_slice(rest);
    chunk
}

/// Packs a strip of at most 32 rows of `k` values, with a note on each.
pub(super) struct PackStrip<'a, O> {
    pub(super) x: &'a [f32],
    pub(super) k: usize,
    pub(super) strip: &'a mut [u8],
    pub(super) notes: &'a mut [f32],
    pub(super) operand: std::marker::PhantomData<O>,
}

impl<O: Rows> Kernel for PackStrip<'_, O> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let steps = self.k.div_ceil(O::STEP);
        assert!(self.strip.len() >= steps * O::STEP_BYTES && self.notes.len() <= BLOCK);
        let rows = self.x.chunks_exact(self.k);
        for (r, (row, note)) in rows.zip(self.notes).enumerate() {
            let at = r / TILE_ROWS * TILE_BYTES + r % TILE_ROWS * ROW_BYTES;
            // SAFETY: the strip has all steps, and a step 32 rows.
            *note = unsafe { O::pack(simd, row, self.strip.as_mut_ptr().add(at)) };
        }
    }
}
