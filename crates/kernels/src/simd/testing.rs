//! What tests of vector functions share: errors in ULP, and samples of all f32.

use super::unary::{Unary, map};
use crate::Isa;

/// The distance of `found` from `exact` in units of the last place of an f32 of that size.
///
/// Infinite when one is NaN and the other not, or one infinite and the other not (an `exact` that
/// rounds to infinity counts as infinite), or when signs differ (zeros' too).
pub(crate) fn ulps(found: f32, exact: f64) -> f64 {
    let rounded = exact as f32;
    if rounded.is_nan() || found.is_nan() {
        return if rounded.is_nan() == found.is_nan() {
            0.0
        } else {
            f64::INFINITY
        };
    }
    if rounded.is_infinite() || found.is_infinite() {
        return if rounded == found { 0.0 } else { f64::INFINITY };
    }
    if rounded.is_sign_negative() != found.is_sign_negative() {
        return f64::INFINITY;
    }
    let exponent = (exact.abs().to_bits() >> 52) as i32 - 1023;
    (f64::from(found) - exact).abs() / 2f64.powi(exponent.max(-126) - 23)
}

/// Every `step`-th bit pattern of all f32, and the neighbourhoods of `places`, either sign.
pub(crate) fn sample(step: usize, places: &[f32]) -> impl Iterator<Item = u32> + use<> {
    let near = places.iter().flat_map(|place| {
        let bits = place.abs().to_bits();
        (bits.saturating_sub(500)..=bits + 500).flat_map(|bits| [bits, bits | 1 << 31])
    });
    let ends = [f32::INFINITY, f32::NAN, f32::MAX, f32::MIN_POSITIVE, 0.0];
    let ends = ends
        .into_iter()
        .flat_map(|x| [x.to_bits(), (-x).to_bits(), x.to_bits() + 1]);
    let near: Vec<u32> = near.chain(ends).collect();
    (0..=u32::MAX).step_by(step).chain(near)
}

/// Asserts a bound on the error over the bit patterns on each instruction set, the second one on those
/// without FMA.
pub(crate) fn assert_ulps(
    name: &str,
    function: impl Unary,
    exact: impl Fn(f64) -> f64,
    patterns: impl Iterator<Item = u32>,
    (bound, without_fma): (f64, f64),
) {
    let tiers = Isa::available();
    let mut worst = vec![(0.0, 0.0); tiers.len()];
    let mut patterns = patterns.map(f32::from_bits).peekable();
    let (mut arguments, mut values, mut expected) = (Vec::new(), Vec::new(), Vec::new());
    while patterns.peek().is_some() {
        arguments.clear();
        arguments.extend(patterns.by_ref().take(4096));
        expected.clear();
        expected.extend(arguments.iter().map(|&x| exact(f64::from(x))));
        for (&isa, worst) in tiers.iter().zip(&mut worst) {
            values.clone_from(&arguments);
            map(isa, function, &mut values);
            for ((&x, &value), &exact) in arguments.iter().zip(&values).zip(&expected) {
                let error = ulps(value, exact);
                if error > worst.0 {
                    *worst = (error, x);
                }
            }
        }
    }
    let mut failed = Vec::new();
    for (isa, (error, x)) in tiers.into_iter().zip(worst) {
        let fma = isa != Isa::portable();
        let bound = if fma { bound } else { without_fma };
        let line = format!(
            "{name} on {isa}: {error:.3} ULP at {x:e} ({:#010x})",
            x.to_bits()
        );
        println!("{line}");
        if error > bound {
            failed.push(format!("{line}, more than {bound}"));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}
