//! Elementary functions over the SIMD trait, with bounds in ULP of the result.
//!
//! Coefficients are minimax fits (`fit/minimax.py`); the bounds hold for all 2³² arguments, which the
//! ignored tests go through.

use super::Simd;

/// `c₀ + c₁x + … `, by Horner's rule.
#[inline(always)]
fn polynomial<S: Simd, const N: usize>(simd: S, x: S::F32, coefficients: &[f32; N]) -> S::F32 {
    let mut sum = simd.splat(coefficients[N - 1]);
    let mut i = N - 1;
    while i > 0 {
        i -= 1;
        sum = simd.mul_add(sum, x, simd.splat(coefficients[i]));
    }
    sum
}

/// 1.5·2²³: what is added to it is rounded to an integer, halves to even, as long as it is below 2²².
const SHIFT: f32 = 12_582_912.0;

/// ln 2 to nine bits, so that its product with an integer of the exponents' size is exact.
const LN_2_HIGH: f32 = 0.693_359_4;
/// ln 2 − [`LN_2_HIGH`].
const LN_2_LOW: f32 = -2.121_944_4e-4;

/// eʳ for |r| ≤ ln 2/2.
const EXP: [f32; 7] = [
    1.0,
    1.0,
    0.499_999_94,
    0.166_665_17,
    0.041_668_106,
    0.008_369_14,
    0.001_383_672,
];

/// 2³²: functions that go on multiplying a tiny exponential take it times this, so that it is not subnormal
/// where their result is not.
const RAISE: f32 = (1u64 << 32) as f32;

/// The coefficients of [`EXP`] for `scale·e^(factor·r)`, both powers of two but for a sign.
const fn exp_of_multiple(factor: f32, scale: f32) -> [f32; 7] {
    let mut coefficients = EXP;
    let (mut power, mut i) = (scale, 0);
    while i < coefficients.len() {
        coefficients[i] *= power;
        power *= factor;
        i += 1;
    }
    coefficients
}

/// The nearest integer to `x·y`, or in ties one beside it; |x·y| below 2²².
#[inline(always)]
fn round_product<S: Simd>(simd: S, x: S::F32, y: f32) -> S::F32 {
    let shift = simd.splat(SHIFT);
    simd.sub(simd.mul_add(x, simd.splat(y), shift), shift)
}

/// `n`, `r` with x = n·ln 2 + r and |r| ≤ ln 2/2.
#[inline(always)]
fn reduce<S: Simd>(simd: S, x: S::F32) -> (S::F32, S::F32) {
    let n = round_product(simd, x, std::f32::consts::LOG2_E);
    let r = simd.neg_mul_add(n, simd.splat(LN_2_HIGH), x);
    (n, simd.neg_mul_add(n, simd.splat(LN_2_LOW), r))
}

/// eˣ, within 0.9 ULP (1.2 where the tier has no FMA).
///
/// Subnormal results are computed, not flushed; 0 below −103.98, ∞ above 88.73; NaN of NaN.
#[inline(always)]
pub(crate) fn exp<S: Simd>(simd: S, x: S::F32) -> S::F32 {
    // The argument is the second operand, so that NaN stays.
    let x = simd.min(simd.splat(89.0), simd.max(simd.splat(-104.0), x));
    let (n, r) = reduce(simd, x);
    simd.scale_pow2(polynomial(simd, r, &EXP), n)
}

/// eˣ as [`exp`], the same bits, for x ≤ 0 (or NaN): a third cheaper without AVX-512.
#[inline(always)]
pub(crate) fn exp_nonpositive<S: Simd>(simd: S, x: S::F32) -> S::F32 {
    let (n, r) = reduce(simd, simd.max(simd.splat(-104.0), x));
    simd.scale_down(polynomial(simd, r, &EXP), n)
}

/// eˣ for x ≤ 0 (or NaN) that is rounded to 8 bits after it: within 2⁻¹³ of the result, e⁻⁸⁰ of what lies below −80.
#[inline(always)]
pub(crate) fn exp_coarse<S: Simd>(simd: S, x: S::F32) -> S::F32 {
    /// 2ʸ for |y| ≤ ½, a minimax fit of the relative error.
    const EXP2: [f32; 4] = [0.999_928_06, 0.693_261_1, 0.242_611_33, 0.055_171_32];
    let x = simd.max(simd.splat(-80.0), x);
    let n = round_product(simd, x, std::f32::consts::LOG2_E);
    let y = simd.sub(simd.mul(x, simd.splat(std::f32::consts::LOG2_E)), n);
    simd.scale_down(polynomial(simd, y, &EXP2), n)
}

/// (tanh z − z)/z³ in z², for z up to 0.56.
const TANH: [f32; 5] = [
    -0.333_333_13,
    0.133_324_37,
    -0.053_835_757,
    0.021_000_376,
    -0.006_169_614_4,
];

/// tanh x, within 2 ULP and never beyond ±1.
///
/// Near 0 a polynomial; from there on 1 − 2e/(1 + e) with e = e^(−2|x|), whose second term is at most as
/// large as the result.
#[inline(always)]
pub(crate) fn tanh<S: Simd>(simd: S, x: S::F32) -> S::F32 {
    // From 9.02 on it rounds to 1.
    let z = simd.min(simd.splat(10.0), simd.abs(x));
    let square = simd.mul(z, z);
    let cube = simd.mul(square, z);
    let near = simd.mul_add(cube, polynomial(simd, square, &TANH), z);
    let (n, r) = reduce(simd, simd.mul(z, simd.splat(-2.0)));
    let e = simd.scale_down(polynomial(simd, r, &EXP), n);
    let one = simd.splat(1.0);
    let far = simd.sub(one, simd.div(simd.add(e, e), simd.add(one, e)));
    let t = simd.select(simd.lt(z, simd.splat(0.55)), near, far);
    simd.copysign(t, x)
}

/// `max(x, 0) − a·b`: x·Φ(x) and its like for either sign of x, where a·b is |x|·Φ(−|x|).
///
/// For positive x that is at most half of x, so that nothing cancels; for negative x it is the result.
#[inline(always)]
fn above_tail<S: Simd>(simd: S, x: S::F32, a: S::F32, b: S::F32) -> S::F32 {
    // The argument is the second operand, so that NaN and zeros stay; −0 is what it is where a·b vanishes.
    simd.neg_mul_add(a, b, simd.max(simd.splat(-0.0), x))
}

/// The normal density's exponential, e^(−r/2)/√(2π), for |r| ≤ ln 2.
const DENSITY: [f32; 7] = [
    0.398_942_3,
    -0.199_471_15,
    0.049_867_78,
    -0.008_311_223,
    0.001_038_962_7,
    -0.000_104_337_23,
    8.597_922e-6,
];

/// φ(z)/Φ(−z) − z = n(z)/d(z) for z from 0 to 14.5, where φ is the normal density and n(z) = start + z·slope(z).
const TAIL_START: f32 = 0.771_230_6;
const TAIL_SLOPE: [f32; 4] = [0.352_894_5, 0.088_350_93, 0.009_263_535, 9.626_86e-7];
const TAIL_D: [f32; 5] = [
    0.966_594_16,
    0.882_502_5,
    0.380_601_8,
    0.087_519_884,
    0.009_306_803,
];

/// φ(z), and d and z·d + n with Φ(−z) = φ(z)·d/(z·d + n), for z from 0 to 15.
#[inline(always)]
fn normal_tail<S: Simd>(simd: S, z: S::F32) -> (S::F32, S::F32, S::F32) {
    let square = simd.mul(z, z);
    let n = round_product(simd, square, -0.5 * std::f32::consts::LOG2_E);
    // z² + 2n·ln 2, from z itself: the rounding error of z² would be one of many ULP in its exponential.
    let high = simd.mul(n, simd.splat(-2.0 * LN_2_HIGH));
    let r = simd.mul_sub_exact(z, z, high);
    let r = simd.mul_add(n, simd.splat(2.0 * LN_2_LOW), r);
    // Where the result is not subnormal, this is not: it is the larger.
    let density = simd.scale_down(polynomial(simd, r, &DENSITY), n);
    let d = polynomial(simd, z, &TAIL_D);
    // z·d + n, its terms in an order that adds no rounding error of n where z is small.
    let slope = simd.add(d, polynomial(simd, z, &TAIL_SLOPE));
    let whole = simd.mul_add(z, slope, simd.splat(TAIL_START));
    (density, d, whole)
}

/// x·Φ(x), the erf form of GELU, within 4 ULP of the result (5 where the tier has no FMA), however small;
/// −0 of −∞.
///
/// With z = |x| the tail is z·Φ(−z) = z·φ(z)·d/(z·d + n), a quotient in which the rounding errors of d,
/// large where z is, nearly cancel.
#[inline(always)]
pub(crate) fn gelu<S: Simd>(simd: S, x: S::F32) -> S::F32 {
    // Beyond 14.5 the tail rounds to 0.
    let z = simd.min(simd.splat(15.0), simd.abs(x));
    let (density, d, whole) = normal_tail(simd, z);
    above_tail(simd, x, simd.mul(z, density), simd.div(d, whole))
}

/// x·Φ(x) for what is rounded to 8 bits after it: within 2⁻¹⁴ of the result, or 2⁻¹⁴·|x| where that is more, in less than half of
/// the operations of [`gelu`].
///
/// Φ(x) = ½ + x·P(x²) up to 4.5, where it is 1: a minimax fit of x·Φ(x) that keeps to that end.
#[inline(always)]
pub(crate) fn gelu_coarse<S: Simd>(simd: S, x: S::F32) -> S::F32 {
    const END: f32 = 4.5;
    const P: [f32; 10] = [
        3.988_273_5e-1,
        -6.621_683_4e-2,
        9.746_022e-3,
        -1.091_969_3e-3,
        9.179_454e-5,
        -5.643_225_4e-6,
        2.432_946e-7,
        -6.894_612_5e-9,
        1.143_854_1e-10,
        -8.362_609e-13,
    ];
    // What is no number stays so: it is the second operand.
    let above = simd.max(simd.splat(-END), x);
    let within = simd.min(simd.splat(END), above);
    let p = polynomial(simd, simd.mul(within, within), &P);
    simd.mul(above, simd.mul_add(within, p, simd.splat(0.5)))
}

/// x/(1 + e^(−v)) with v of the sign of x, from e = [`RAISE`]·e^(−|v|) and z = |x|.
#[inline(always)]
fn times_logistic<S: Simd>(simd: S, x: S::F32, z: S::F32, e: S::F32) -> S::F32 {
    let lower = simd.splat(1.0 / RAISE);
    let q = simd.div(simd.mul(z, e), simd.mul_add(e, lower, simd.splat(1.0)));
    above_tail(simd, x, q, lower)
}

/// x/(1 + e⁻ˣ), within 3 ULP of the result, however small; −0 of −∞.
#[inline(always)]
pub(crate) fn silu<S: Simd>(simd: S, x: S::F32) -> S::F32 {
    const EXP_RAISED: [f32; 7] = exp_of_multiple(1.0, RAISE);
    // Beyond 109 the result for −z rounds to 0.
    let z = simd.min(simd.splat(110.0), simd.abs(x));
    let (n, r) = reduce(simd, simd.sub(simd.zero(), z));
    let e = simd.scale_down(polynomial(simd, r, &EXP_RAISED), n);
    times_logistic(simd, x, z, e)
}

/// x/2·(1 + tanh(√(2/π)·(x + 0.044715·x³))), the tanh form of GELU, within 3 ULP of the result, however
/// small; −0 of −∞.
///
/// It is x/(1 + e^(−v)) with v = x·(A + B·x²).
#[inline(always)]
pub(crate) fn gelu_tanh<S: Simd>(simd: S, x: S::F32) -> S::F32 {
    const EXP_MINUS: [f32; 7] = exp_of_multiple(-1.0, RAISE);
    // A = 2·√(2/π) and B = 0.044715·A as sums of two. A's first part has 21 bits: what is left of m when it
    // is taken away is exact.
    const A: f64 = 1.595_769_121_605_731;
    const A_HIGH: f32 = ((A * (1 << 20) as f64) as i64 as f64 / (1 << 20) as f64) as f32;
    const A_LOW: f32 = (A - A_HIGH as f64) as f32;
    const B: f64 = 0.044715 * A;
    const B_HIGH: f32 = B as f32;
    const B_LOW: f32 = (B - B_HIGH as f64) as f32;
    // Beyond 10.8 the result for −z rounds to 0.
    let z = simd.min(simd.splat(11.0), simd.abs(x));
    // m + low = A + B·z²: an error of v is one of many ULP in its exponential.
    let square = simd.mul(z, z);
    let m = simd.mul_add(square, simd.splat(B_HIGH), simd.splat(A_HIGH));
    let kept = simd.sub(m, simd.splat(A_HIGH));
    let lost = simd.mul_sub_exact(square, simd.splat(B_HIGH), kept);
    let square_low = simd.mul_sub_exact(z, z, square);
    let low = simd.mul_add(square, simd.splat(B_LOW), simd.splat(A_LOW));
    let low = simd.add(simd.mul_add(square_low, simd.splat(B_HIGH), lost), low);
    // v + n·ln 2.
    let n = round_product(simd, simd.mul(z, m), -std::f32::consts::LOG2_E);
    let r = simd.mul_sub_exact(z, m, simd.mul(n, simd.splat(-LN_2_HIGH)));
    let r = simd.mul_add(z, low, r);
    let r = simd.mul_add(n, simd.splat(LN_2_LOW), r);
    let e = simd.scale_down(polynomial(simd, r, &EXP_MINUS), n);
    times_logistic(simd, x, z, e)
}

/// e^(−z) for z = |x| (at most 104 of it), never subnormal where a function that divides by about 1 is not.
#[inline(always)]
fn exp_minus_abs<S: Simd>(simd: S, x: S::F32) -> S::F32 {
    exp_nonpositive(simd, simd.sub(simd.zero(), simd.abs(x)))
}

/// 1/(1 + e⁻ˣ), within 3 ULP.
#[inline(always)]
pub(crate) fn sigmoid<S: Simd>(simd: S, x: S::F32) -> S::F32 {
    let one = simd.splat(1.0);
    let e = exp_minus_abs(simd, x);
    let above = simd.select(simd.lt(x, simd.zero()), e, one);
    simd.div(above, simd.add(one, e))
}

/// The derivative of [`sigmoid`], e/(1 + e)² with e = e^(−|x|), within 5 ULP.
#[inline(always)]
pub(crate) fn sigmoid_slope<S: Simd>(simd: S, x: S::F32) -> S::F32 {
    let e = exp_minus_abs(simd, x);
    let whole = simd.add(simd.splat(1.0), e);
    simd.div(e, simd.mul(whole, whole))
}

/// The derivative of [`tanh`], 4e/(1 + e)² with e = e^(−2|x|): 1 − tanh² without its cancellation, within 5 ULP.
#[inline(always)]
pub(crate) fn tanh_slope<S: Simd>(simd: S, x: S::F32) -> S::F32 {
    // Doubling is exact, and so is multiplying by 4.
    simd.mul(simd.splat(4.0), sigmoid_slope(simd, simd.add(x, x)))
}

/// The derivative of [`silu`], s·(1 + x·(1 − s)) with s = 1/(1 + e⁻ˣ), within 4·2⁻²⁴ or 6 ULP, whichever is
/// larger.
#[inline(always)]
pub(crate) fn silu_slope<S: Simd>(simd: S, x: S::F32) -> S::F32 {
    logistic_slope(simd, x, x, simd.splat(1.0))
}

/// The derivative of x/(1 + e^(−v)), s + x·v′·s·(1 − s) with s = 1/(1 + e^(−v)), from `v` of the sign of x and `v′`.
#[inline(always)]
fn logistic_slope<S: Simd>(simd: S, x: S::F32, v: S::F32, slope: S::F32) -> S::F32 {
    let one = simd.splat(1.0);
    let e = exp_minus_abs(simd, v);
    let inverse = simd.div(one, simd.add(one, e));
    let small = simd.mul(e, inverse);
    let s = simd.select(simd.lt(v, simd.zero()), small, inverse);
    // Beyond 120 the product with e is nothing; the bound keeps infinity from it.
    let z = simd.copysign(simd.min(simd.splat(120.0), simd.abs(x)), x);
    simd.mul_add(simd.mul(z, slope), simd.mul(small, inverse), s)
}

/// The derivative of [`gelu_tanh`], within 8·2⁻²⁴.
#[inline(always)]
pub(crate) fn gelu_tanh_slope<S: Simd>(simd: S, x: S::F32) -> S::F32 {
    const A: f32 = 1.595_769_121_605_731_f64 as f32;
    const B: f32 = 0.044715 * A;
    // Beyond 11 it is 0 or 1.
    let x = simd.copysign(simd.min(simd.splat(11.0), simd.abs(x)), x);
    let square = simd.mul(x, x);
    let v = simd.mul(x, simd.mul_add(square, simd.splat(B), simd.splat(A)));
    let slope = simd.mul_add(square, simd.splat(3.0 * B), simd.splat(A));
    logistic_slope(simd, x, v, slope)
}

/// The derivative of [`gelu`], Φ(x) + x·φ(x), within 4·2⁻²⁴.
#[inline(always)]
pub(crate) fn gelu_slope<S: Simd>(simd: S, x: S::F32) -> S::F32 {
    let z = simd.min(simd.splat(15.0), simd.abs(x));
    let (density, d, whole) = normal_tail(simd, z);
    // Φ(−z) = φ(z)·d/whole, at most one half.
    let tail = simd.mul(density, simd.div(d, whole));
    let below = simd.neg_mul_add(z, density, tail);
    let above = simd.sub(simd.splat(1.0), below);
    simd.select(simd.lt(x, simd.zero()), below, above)
}

#[cfg(test)]
mod tests;
