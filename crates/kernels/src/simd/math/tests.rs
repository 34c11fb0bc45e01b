//! Bounds of the elementary functions: dense samples always, all f32 that matter in the ignored tests
//! (`cargo test --release -p bertha-kernels -- --ignored --nocapture every_f32`).

use super::*;
use crate::activation::reference::scalar;
use crate::simd::testing::{assert_ulps, sample};
use crate::simd::unary::{Unary, map};
use crate::{Activation, Isa};

macro_rules! function {
    ($name:ident, $call:path) => {
        #[derive(Clone, Copy)]
        struct $name;
        impl Unary for $name {
            #[inline(always)]
            fn of<S: Simd>(self, simd: S, x: S::F32) -> S::F32 {
                $call(simd, x)
            }
        }
    };
}

function!(Exp, exp);
function!(ExpNonpositive, exp_nonpositive);
function!(ExpCoarse, exp_coarse);

function!(Tanh, tanh);
function!(Gelu, gelu);
function!(GeluCoarse, gelu_coarse);
function!(GeluTanh, gelu_tanh);
function!(Silu, silu);

/// The bounds that the functions state, in ULP: with FMA, and without.
const EXP_BOUNDS: (f64, f64) = (0.9, 1.2);
const TANH_BOUNDS: (f64, f64) = (2.0, 2.0);
const GELU_BOUNDS: (f64, f64) = (4.0, 5.0);
const GELU_TANH_BOUNDS: (f64, f64) = (3.0, 3.0);
const SILU_BOUNDS: (f64, f64) = (3.0, 3.0);

fn gelu_exact(x: f64) -> f64 {
    scalar(Activation::GeluErf, x)
}

fn gelu_tanh_exact(x: f64) -> f64 {
    scalar(Activation::GeluTanh, x)
}

fn silu_exact(x: f64) -> f64 {
    scalar(Activation::Silu, x)
}

/// Every so many bit patterns of all f32 are sampled.
const STEP: usize = 1009;

#[test]
fn exp_keeps_its_bound() {
    let places = [88.722_84, 103.972_08, 87.336_55, 0.346_573_6, 1.039_720_8];
    assert_ulps("exp", Exp, f64::exp, sample(STEP, &places), EXP_BOUNDS);
}

#[test]
fn tanh_keeps_its_bound_and_stays_within_one() {
    let places = [9.02, 9.010_913, 0.55, 1.0, 10.0, 1e-4, 1e-20];
    assert_ulps("tanh", Tanh, f64::tanh, sample(STEP, &places), TANH_BOUNDS);
    for isa in Isa::available() {
        let mut values: Vec<f32> = sample(STEP, &places).map(f32::from_bits).collect();
        map(isa, Tanh, &mut values);
        assert!(values.iter().all(|t| t.is_nan() || t.abs() <= 1.0), "{isa}");
    }
}

#[test]
fn gelu_keeps_its_bound() {
    let places = [
        0.588_7, 0.832_5, 12.97, 13.15, 14.415, 14.5, 15.0, 5.0, 1e-20,
    ];
    let sample = sample(STEP, &places);
    assert_ulps("gelu", Gelu, gelu_exact, sample, GELU_BOUNDS);
}

#[test]
fn coarse_exp_keeps_its_bound() {
    for isa in Isa::available() {
        let exact: Vec<f32> = (0..200_000).map(|i| i as f32 * -4e-4).collect();
        let mut found = exact.clone();
        map(isa, ExpCoarse, &mut found);
        for (x, found) in exact.into_iter().zip(found) {
            let wanted = f64::from(x).exp();
            let error = (f64::from(found) - wanted).abs() / wanted;
            assert!(
                error <= 0.5f64.powi(13),
                "{x}: {found} for {wanted} on {isa}"
            );
        }
        let mut values = [f32::NEG_INFINITY, f32::NAN, -1e30];
        map(isa, ExpCoarse, &mut values);
        assert!(
            values[0] < 1e-34 && values[1].is_nan() && values[2] < 1e-34,
            "{isa}"
        );
    }
}

#[test]
fn coarse_gelu_keeps_its_bound() {
    for isa in Isa::available() {
        let exact: Vec<f32> = sample(STEP, &[4.5, 4.27, 1e-20, 12.0])
            .map(f32::from_bits)
            .collect();
        let mut found = exact.clone();
        map(isa, GeluCoarse, &mut found);
        for (x, found) in exact.into_iter().zip(found) {
            let wanted = gelu_exact(x.into());
            let most = (0.5f64).powi(14) * f64::from(x.abs()).max(1.0);
            let near = (f64::from(found) - wanted).abs() <= most;
            // At the very end of f32 the error overflows.
            let last = x.abs() > 3e38 || x.is_nan() && found.is_nan();
            assert!(near || found == x || last, "{x:e}: {found:e} on {isa}");
        }
        let mut values = [f32::INFINITY, f32::NEG_INFINITY, 0.0, 3e38];
        map(isa, GeluCoarse, &mut values);
        assert!(values[0].is_infinite() && values[1].abs() < 1e-4 && values[2] == 0.0);
        assert!(values[3] > 2.99e38, "{isa}");
    }
}

#[test]
fn gelu_tanh_keeps_its_bound() {
    let places = [10.0, 10.13, 10.75, 11.0, 2.0, 3.0, 5.0, 0.214_7, 1e-20];
    let sample = sample(STEP, &places);
    assert_ulps(
        "gelu_tanh",
        GeluTanh,
        gelu_tanh_exact,
        sample,
        GELU_TANH_BOUNDS,
    );
}

#[test]
fn silu_keeps_its_bound() {
    let places = [87.34, 91.85, 104.0, 108.6, 110.0, 0.346_573_6, 1e-20];
    let sample = sample(STEP, &places);
    assert_ulps("silu", Silu, silu_exact, sample, SILU_BOUNDS);
}

#[test]
fn gelu_and_its_like_keep_signs_infinities_and_nan() {
    fn check(name: &str, function: impl Unary) {
        let (inf, nan) = (f32::INFINITY, f32::NAN);
        let arguments = [0.0, -0.0, inf, -inf, nan, -nan, f32::MAX, f32::MIN];
        let expected = [0.0, -0.0, inf, -0.0, nan, nan, f32::MAX, -0.0];
        for isa in Isa::available() {
            // Over again, so that they pass through whole and partial vectors.
            let mut values = arguments.repeat(5);
            values.truncate(37);
            map(isa, function, &mut values);
            for (i, value) in values.iter().enumerate() {
                let expected: f32 = expected[i % expected.len()];
                assert!(
                    value.to_bits() == expected.to_bits() || value.is_nan() && expected.is_nan(),
                    "{name} on {isa}: {value} of {}",
                    arguments[i % arguments.len()]
                );
            }
        }
    }
    check("gelu", Gelu);
    check("gelu_tanh", GeluTanh);
    check("silu", Silu);
}

#[test]
fn exp_of_nonpositive_values_has_the_same_bits() {
    let arguments: Vec<f32> = sample(4001, &[103.972_08, 87.336_55])
        .map(f32::from_bits)
        .filter(|x| x.is_nan() || *x <= 0.0)
        .collect();
    for isa in Isa::available() {
        let mut all = arguments.clone();
        map(isa, Exp, &mut all);
        let mut nonpositive = arguments.clone();
        map(isa, ExpNonpositive, &mut nonpositive);
        for ((x, a), b) in arguments.iter().zip(all).zip(nonpositive) {
            assert!(
                a.to_bits() == b.to_bits() || x.is_nan() && a.is_nan() && b.is_nan(),
                "{isa}: exp({x:e}) = {a:e}, {b:e}"
            );
        }
    }
}

/// All f32 from 2⁻³² to 128 in magnitude, and a sample of the rest: above, all results are 0, infinite, ±1 or
/// the argument; below, a binade's results are those of the next but for the scale.
fn every_f32() -> impl Iterator<Item = u32> {
    let (least, most) = (2f32.powi(-32).to_bits(), 128f32.to_bits());
    let all = (least..most).flat_map(|bits| [bits, bits | 1 << 31]);
    all.chain(sample(61, &[]))
}

macro_rules! every_f32 {
    ($test:ident, $name:literal, $function:ident, $exact:path, $bounds:ident) => {
        #[test]
        #[ignore = "a minute each in a release build"]
        fn $test() {
            assert_ulps($name, $function, $exact, every_f32(), $bounds);
        }
    };
}

every_f32!(every_f32_exp, "exp", Exp, f64::exp, EXP_BOUNDS);
every_f32!(every_f32_tanh, "tanh", Tanh, f64::tanh, TANH_BOUNDS);
every_f32!(every_f32_gelu, "gelu", Gelu, gelu_exact, GELU_BOUNDS);
every_f32!(
    every_f32_gelu_tanh,
    "gelu_tanh",
    GeluTanh,
    gelu_tanh_exact,
    GELU_TANH_BOUNDS
);
every_f32!(every_f32_silu, "silu", Silu, silu_exact, SILU_BOUNDS);
