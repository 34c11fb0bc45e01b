//! A small vector trait: an element-wise kernel is written once and compiled for every tier.
//!
//! A [`Kernel`] is generic over [`Simd`]; [`Simd::vectorize`] runs it inside a function that is
//! compiled with the tier's instructions, into which everything is inlined. Hence a rule for
//! kernels: what they call must be `#[inline(always)]`, or it is compiled without those instructions.
//!
//! A token ([`Portable`], [`Avx2`], [`Avx512`]) is the proof that the machine has them.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub(crate) mod math;
mod portable;
pub(crate) mod reduce;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
pub(crate) mod unary;
mod words;

#[cfg(target_arch = "x86_64")]
pub(crate) use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) use avx512::{Avx512, Avx512Bf16, Avx512Popcnt, Avx512Vnni};
pub(crate) use portable::Portable;

/// A computation written over [`Simd`]. `run` must be `#[inline(always)]`.
pub(crate) trait Kernel {
    /// What it gives.
    type Output;

    /// Computes.
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

/// Vectors of f32 in the registers of a tier.
///
/// Comparisons, `max` and `min` follow x86: `max(a, b)` and `min(a, b)` give `b` when either is NaN.
pub(crate) trait Simd: Copy + Send + Sync + 'static {
    /// A vector of [`Simd::LANES`] values.
    type F32: Copy;
    /// A truth value for each lane.
    type Mask: Copy;
    /// Values in a vector.
    const LANES: usize;
    /// Vector registers.
    const REGISTERS: usize;

    /// Runs a kernel compiled with this tier's instructions, as a function of its own. A kernel too may
    /// call it, for a part that many kernels share and that is too large to be compiled into each.
    fn vectorize<K: Kernel>(self, kernel: K) -> K::Output;

    /// `x` in every lane.
    fn splat(self, x: f32) -> Self::F32;
    /// The `LANES` values from `p` on.
    ///
    /// # Safety
    /// They must be readable.
    unsafe fn load_ptr(self, p: *const f32) -> Self::F32;
    /// Writes `LANES` values from `p` on.
    ///
    /// # Safety
    /// They must be writable.
    unsafe fn store_ptr(self, p: *mut f32, v: Self::F32);
    /// Asks for the cache line of `p`, which may be any address, to be brought into L1. A hint: it never faults.
    fn prefetch(self, p: *const f32);
    /// As [`Simd::prefetch`], into L2 only.
    fn prefetch_l2(self, p: *const f32);
    /// The values of a slice shorter than a vector, zero in the other lanes.
    fn load_partial(self, from: &[f32]) -> Self::F32;
    /// The values of a slice shorter than a vector, those of `fill` in the other lanes.
    fn load_partial_or(self, from: &[f32], fill: Self::F32) -> Self::F32;
    /// The first lanes, as many as the slice (shorter than a vector) takes.
    fn store_partial(self, to: &mut [f32], v: Self::F32);

    /// `a + b`.
    fn add(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a − b`.
    fn sub(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a · b`.
    fn mul(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a / b`.
    fn div(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a · b + c`, rounded once where the tier has FMA.
    fn mul_add(self, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32;
    /// `c − a · b`, rounded once where the tier has FMA.
    fn neg_mul_add(self, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32;
    /// `a · b − c` as if rounded once, on every tier: what a product's rounding lost can be had from it.
    fn mul_sub_exact(self, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32;
    /// The larger; `b` when either is NaN.
    fn max(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// The smaller; `b` when either is NaN.
    fn min(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `√x`.
    fn sqrt(self, x: Self::F32) -> Self::F32;
    /// `|x|`.
    fn abs(self, x: Self::F32) -> Self::F32;
    /// `|magnitude|` with the sign of `sign`.
    fn copysign(self, magnitude: Self::F32, sign: Self::F32) -> Self::F32;
    /// `x · 2ⁿ` for integral `n` from −252 to 254; `x` times two powers of two, so that a result may
    /// be subnormal.
    fn scale_pow2(self, x: Self::F32, n: Self::F32) -> Self::F32;
    /// `x · 2ⁿ` for integral `n` from −180 to 0 and `x` from ¼ to 2⁶⁰ (or NaN); a result may be subnormal.
    /// Cheaper than [`Simd::scale_pow2`].
    fn scale_down(self, x: Self::F32, n: Self::F32) -> Self::F32;
    /// Where `a < b`; false where either is NaN.
    fn lt(self, a: Self::F32, b: Self::F32) -> Self::Mask;
    /// `a` where the mask is set, else `b`.
    fn select(self, mask: Self::Mask, a: Self::F32, b: Self::F32) -> Self::F32;
    /// The sum of the lanes, in a fixed order.
    fn sum(self, v: Self::F32) -> f32;
    /// The largest lane. Unspecified when one is NaN.
    fn largest(self, v: Self::F32) -> f32;

    /// Turns 8 rows of 8 values, `stride` apart: value `i` of row `r` goes to `to + i·width + r`.
    ///
    /// # Safety
    /// The rows must be readable and the places writable.
    #[inline(always)]
    unsafe fn turn_8x8(self, rows: *const f32, stride: usize, to: *mut f32, width: usize) {
        for r in 0..8 {
            for i in 0..8 {
                // SAFETY: the caller's promise.
                unsafe { *to.add(i * width + r) = *rows.add(r * stride + i) }
            }
        }
    }
    /// Writes `LANES` values, rounded to bf16, from `p` on. By one instruction where the tier has it, which rounds values
    /// below the least normal one to zero.
    ///
    /// # Safety
    /// They must be writable.
    #[inline(always)]
    unsafe fn store_bf16(self, p: *mut half::bf16, v: Self::F32) {
        // SAFETY: the caller's promise.
        unsafe { words::store_bf16(self, p, v) }
    }

    /// The nearest values of bf16. By an instruction where the tier has it, which rounds values below the least normal one to zero.
    #[inline(always)]
    fn round_bf16(self, v: Self::F32) -> Self::F32 {
        words::round_bf16(self, v)
    }

    /// Lane by lane, a word of two values rounded to bf16, the first in the lower half.
    #[inline(always)]
    fn pair_bf16(self, first: Self::F32, second: Self::F32) -> Self::F32 {
        words::pair_bf16(self, first, second)
    }
    /// Lane by lane, `sums` and the two products of a pair of bf16 each in `a` and `b` (the first in the lower half). Values
    /// below the least normal one may count as zero. By one instruction where the tier has it, else slowly.
    #[inline(always)]
    fn dot_bf16(self, a: Self::F32, b: Self::F32, sums: Self::F32) -> Self::F32 {
        words::dot_bf16(self, a, b, sums)
    }
    /// Lane by lane, the whole number (i32) in `sums` and the four products of a byte without sign in `a` by one with a
    /// sign in `b`, modulo 2³². By one instruction where the tier has it, else slowly.
    #[inline(always)]
    fn dot_int8(self, a: Self::F32, b: Self::F32, sums: Self::F32) -> Self::F32 {
        words::dot_int8(self, a, b, sums)
    }
    /// Lane by lane, the whole number in `sums` and how many of 32 bits differ between `a` and `b`. In a few instructions
    /// where the tier counts bits, else slowly.
    #[inline(always)]
    fn count_differing(self, a: Self::F32, b: Self::F32, sums: Self::F32) -> Self::F32 {
        words::count_differing(self, a, b, sums)
    }

    /// The first `LANES` values of a slice that has as many or more.
    #[inline(always)]
    fn load(self, from: &[f32]) -> Self::F32 {
        assert!(from.len() >= Self::LANES);
        // SAFETY: the slice has `LANES` values.
        unsafe { self.load_ptr(from.as_ptr()) }
    }

    /// Writes the first `LANES` values of a slice that has as many or more.
    #[inline(always)]
    fn store(self, to: &mut [f32], v: Self::F32) {
        assert!(to.len() >= Self::LANES);
        // SAFETY: the slice has `LANES` values.
        unsafe { self.store_ptr(to.as_mut_ptr(), v) }
    }

    /// All zeros.
    #[inline(always)]
    fn zero(self) -> Self::F32 {
        self.splat(0.0)
    }
}

/// Copies a slice to one of its length, in place: for slices so short that a call would count.
#[inline(always)]
pub(crate) fn copy<S: Simd>(simd: S, from: &[f32], to: &mut [f32]) {
    assert_eq!(from.len(), to.len());
    let whole = from.len() - from.len() % S::LANES;
    for i in (0..whole).step_by(S::LANES) {
        simd.store(&mut to[i..], simd.load(&from[i..]));
    }
    if whole < from.len() {
        simd.store_partial(&mut to[whole..], simd.load_partial(&from[whole..]));
    }
}
