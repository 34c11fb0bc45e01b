//! Rows of inputs as tiles.

use crate::amx::{BLOCK, Bf16, Halves, Int8, Operand, ROW_BYTES, TILE_BYTES, TILE_ROWS};
use crate::gemm::int8::{inverse, level, row_scale};
use crate::simd::math::{exp_coarse, exp_nonpositive};
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

/// Operands whose values need not be known all at once.
pub(crate) trait Float: Rows {
    /// Writes a vector of values of a row, of which the first has its place at `to`.
    ///
    /// # Safety
    /// `to` must be in a row of a tile, with room for the vector.
    unsafe fn put<S: Simd>(simd: S, values: S::F32, to: *mut u8);

    /// eˣ for x ≤ 0 (or NaN), as exact as the operand.
    fn exp_nonpositive<S: Simd>(simd: S, x: S::F32) -> S::F32;
}

impl Float for Bf16 {
    #[inline(always)]
    unsafe fn put<S: Simd>(simd: S, values: S::F32, to: *mut u8) {
        // SAFETY: the caller's promise.
        unsafe { simd.store_bf16(to.cast(), values) }
    }

    #[inline(always)]
    fn exp_nonpositive<S: Simd>(simd: S, x: S::F32) -> S::F32 {
        exp_coarse(simd, x)
    }
}

impl Float for Halves {
    #[inline(always)]
    unsafe fn put<S: Simd>(simd: S, values: S::F32, to: *mut u8) {
        let high = simd.round_bf16(values);
        // SAFETY: the caller's promise; the tiles of low halves are two tiles behind those of high ones.
        unsafe {
            simd.store_bf16(to.cast(), high);
            simd.store_bf16(to.add(2 * TILE_BYTES).cast(), simd.sub(values, high));
        }
    }

    #[inline(always)]
    fn exp_nonpositive<S: Simd>(simd: S, x: S::F32) -> S::F32 {
        exp_nonpositive(simd, x)
    }
}

impl Rows for Bf16 {
    #[inline(always)]
    unsafe fn pack<S: Simd>(simd: S, row: &[f32], mut to: *mut u8) -> f32 {
        let (chunks, rest) = row.as_chunks::<32>();
        for chunk in chunks {
            // SAFETY: a row of a tile has room for a step's values.
            unsafe { put_bf16(simd, chunk, to) }
            to = to.wrapping_add(Self::STEP_BYTES);
        }
        if !rest.is_empty() {
            // SAFETY: as above.
            unsafe { put_bf16(simd, &filled(rest), to) }
        }
        0.0
    }
}

impl Rows for Halves {
    /// 1 where the row is not [`plain`], else 0.
    #[inline(always)]
    unsafe fn pack<S: Simd>(simd: S, row: &[f32], mut to: *mut u8) -> f32 {
        let (chunks, rest) = row.as_chunks::<32>();
        let mut range = Range::new(simd);
        for chunk in chunks {
            // SAFETY: a row of a tile has room for a step's values, and the tiles of low halves follow those of high ones.
            unsafe { put_halves(simd, chunk, to, &mut range) }
            to = to.wrapping_add(Self::STEP_BYTES);
        }
        if !rest.is_empty() {
            // SAFETY: as above.
            unsafe { put_halves(simd, &filled(rest), to, &mut range) }
        }
        if plain(range.largest(simd)) { 0.0 } else { 1.0 }
    }
}

impl Rows for Int8 {
    /// The row's scale.
    #[inline(always)]
    unsafe fn pack<S: Simd>(_simd: S, row: &[f32], mut to: *mut u8) -> f32 {
        let scale = row_scale(row);
        let inverse = inverse(scale);
        let (chunks, rest) = row.as_chunks::<64>();
        for chunk in chunks {
            // SAFETY: a row of a tile has room for a step's values.
            unsafe { put_levels(chunk, inverse, to) }
            to = to.wrapping_add(Self::STEP_BYTES);
        }
        if !rest.is_empty() {
            // SAFETY: as above.
            unsafe { put_levels(&filled(rest), inverse, to) }
        }
        scale
    }
}

/// # Safety
/// `to` must have room for the values, rounded.
#[inline(always)]
unsafe fn put_bf16<S: Simd>(simd: S, chunk: &[f32; 32], to: *mut u8) {
    let mut i = 0;
    while i < chunk.len() {
        // SAFETY: the caller's promise.
        unsafe { Bf16::put(simd, simd.load(&chunk[i..]), to.add(2 * i)) }
        i += S::LANES;
    }
}

/// # Safety
/// `to` must have room for the values, rounded, and so must what is two tiles behind it.
#[inline(always)]
unsafe fn put_halves<S: Simd>(simd: S, chunk: &[f32; 32], to: *mut u8, range: &mut Range<S>) {
    let mut i = 0;
    while i < chunk.len() {
        let value = simd.load(&chunk[i..]);
        range.take(simd, value);
        // SAFETY: the caller's promise.
        unsafe { Halves::put(simd, value, to.add(2 * i)) }
        i += S::LANES;
    }
}

/// # Safety
/// `to` must have room for the values as bytes.
#[inline(always)]
unsafe fn put_levels(chunk: &[f32; 64], inverse: f32, to: *mut u8) {
    // SAFETY: the caller's promise.
    let levels = unsafe { std::slice::from_raw_parts_mut(to.cast::<i8>(), ROW_BYTES) };
    for (to, &x) in levels.iter_mut().zip(chunk) {
        *to = level(x, inverse);
    }
}

/// The largest magnitude of values, and whether all are finite.
pub(super) struct Range<S: Simd> {
    most: S::F32,
    /// Stays zero, but for infinities and NaN: their product with zero is NaN.
    unknown: S::F32,
}

impl<S: Simd> Range<S> {
    #[inline(always)]
    pub(super) fn new(simd: S) -> Self {
        Self {
            most: simd.zero(),
            unknown: simd.zero(),
        }
    }

    #[inline(always)]
    pub(super) fn take(&mut self, simd: S, value: S::F32) {
        self.most = simd.max(simd.abs(value), self.most);
        self.unknown = simd.mul_add(value, simd.zero(), self.unknown);
    }

    /// The largest magnitude; NaN where a value is not finite.
    #[inline(always)]
    pub(super) fn largest(&self, simd: S) -> f32 {
        simd.largest(self.most) + simd.sum(self.unknown)
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
