//! Activations one value at a time, in f64.

use super::Activation;
use crate::Float;

/// `act(x)` for every value, computed in f64 and rounded once.
pub fn activate<F: Float>(activation: Activation, values: &mut [F]) {
    for value in values {
        *value = F::from_f64(scalar(activation, value.to_f64()));
    }
}

/// `dx = dy·act′(x)` for every value, in place of `dy`.
pub fn activate_backward<F: Float>(activation: Activation, x: &[F], dy: &mut [F]) {
    assert_eq!(x.len(), dy.len(), "a gradient for every value");
    for (x, dy) in x.iter().zip(dy) {
        *dy = F::from_f64(dy.to_f64() * slope(activation, x.to_f64()));
    }
}

/// `y = act(a)·b` of rows `[a|b]` of twice `width` values.
pub fn gate<F: Float>(activation: Activation, x: &[F], width: usize, y: &mut [F]) {
    for (x, y) in x.chunks_exact(2 * width).zip(y.chunks_exact_mut(width)) {
        for (i, y) in y.iter_mut().enumerate() {
            *y = F::from_f64(scalar(activation, x[i].to_f64()) * x[width + i].to_f64());
        }
    }
}

/// The gradient of [`gate`]: `dy·act′(a)·b` and `dy·act(a)`.
pub fn gate_backward<F: Float>(
    activation: Activation,
    x: &[F],
    width: usize,
    dy: &[F],
    dx: &mut [F],
) {
    let rows = x.chunks_exact(2 * width).zip(dy.chunks_exact(width));
    for ((x, dy), dx) in rows.zip(dx.chunks_exact_mut(2 * width)) {
        for (i, dy) in dy.iter().enumerate() {
            let (a, b, dy) = (x[i].to_f64(), x[width + i].to_f64(), dy.to_f64());
            dx[i] = F::from_f64(dy * slope(activation, a) * b);
            dx[width + i] = F::from_f64(dy * scalar(activation, a));
        }
    }
}

/// `act′(x)`.
pub(crate) fn slope(activation: Activation, x: f64) -> f64 {
    let logistic = |x: f64| 1.0 / (1.0 + (-x).exp());
    match activation {
        Activation::None => 1.0,
        // The limits; the formulae give ∞·0.
        Activation::GeluErf | Activation::GeluTanh | Activation::Silu if x.is_infinite() => {
            f64::from(x > 0.0)
        }
        Activation::GeluErf => {
            let density = (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt();
            0.5 * erfc(-x * std::f64::consts::FRAC_1_SQRT_2) + x * density
        }
        Activation::GeluTanh => {
            let a = 2.0 * (2.0 / std::f64::consts::PI).sqrt();
            let v = a * (x + 0.044715 * x * x * x);
            let s = logistic(v);
            // Where v overflows the second term is 0.
            let second = x * a * (1.0 + 3.0 * 0.044715 * x * x) * s * logistic(-v);
            if second.is_nan() && !x.is_nan() {
                s
            } else {
                s + second
            }
        }
        Activation::Relu if x.is_nan() => x,
        Activation::Relu => f64::from(x > 0.0),
        Activation::Silu => logistic(x) * (1.0 + x * logistic(-x)),
        Activation::Tanh => {
            // 1 − tanh², without the cancellation at ±1.
            let e = (-2.0 * x.abs()).exp();
            4.0 * e / ((1.0 + e) * (1.0 + e))
        }
        Activation::Sigmoid => {
            let e = (-x.abs()).exp();
            e / ((1.0 + e) * (1.0 + e))
        }
    }
}

/// `act(x)`.
pub(crate) fn scalar(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::None => x,
        // The limit; the formulae give −∞·0.
        Activation::GeluErf | Activation::GeluTanh | Activation::Silu if x == f64::NEG_INFINITY => {
            -0.0
        }
        Activation::GeluErf => 0.5 * x * erfc(-x * std::f64::consts::FRAC_1_SQRT_2),
        Activation::GeluTanh => {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
            // x/2·(1 + tanh(u)) = x/(1 + e^(−2u)), without the cancellation at −1.
            x / (1.0 + (-2.0 * inner).exp())
        }
        Activation::Relu if x < 0.0 => 0.0,
        Activation::Relu => x,
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::Tanh => x.tanh(),
        Activation::Sigmoid => 1.0 / (1.0 + (-x).exp()),
    }
}

/// The complementary error function to about 1e-15 relative: the Maclaurin series of erf near 0, the
/// continued fraction beyond (Abramowitz & Stegun 7.1.5 and 7.1.14).
pub(crate) fn erfc(x: f64) -> f64 {
    if x.is_nan() {
        return x;
    }
    let z = x.abs();
    let upper = if z < 2.0 {
        let (mut term, mut sum, mut n) = (z, z, 0.0);
        while term.abs() > 1e-18 * sum.abs() {
            n += 1.0;
            term *= -z * z / n;
            sum += term / (2.0 * n + 1.0);
        }
        1.0 - std::f64::consts::FRAC_2_SQRT_PI * sum
    } else if z > 27.3 {
        0.0
    } else {
        let fraction = (1..=120)
            .rev()
            .fold(z, |below, n| z + f64::from(n) / 2.0 / below);
        (-z * z).exp() / (std::f64::consts::PI.sqrt() * fraction)
    };
    if x < 0.0 { 2.0 - upper } else { upper }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slopes_are_what_differences_tell() {
        let h = 1e-5;
        for activation in Activation::ALL {
            for i in -400..400 {
                // Never 0, where ReLU has no derivative.
                let x = f64::from(i) * 0.03 + 0.001;
                let difference =
                    (scalar(activation, x + h) - scalar(activation, x - h)) / (2.0 * h);
                let found = slope(activation, x);
                assert!(
                    (found - difference).abs() < 1e-8,
                    "{activation:?} at {x}: {found}, {difference}"
                );
            }
        }
    }

    #[test]
    fn erfc_has_its_tabulated_values() {
        // NIST Digital Library of Mathematical Functions, table 7.23 and series 7.6.1, 7.9.1.
        for (x, expected) in [
            (0.0, 1.0),
            (0.5, 0.479_500_122_186_953_5),
            (1.0, 0.157_299_207_050_285_13),
            (2.0, 4.677_734_981_047_266e-3),
            (3.0, 2.209_049_699_858_544e-5),
            (5.0, 1.537_459_794_428_035e-12),
            (-1.0, 1.842_700_792_949_715),
        ] {
            let found = erfc(x);
            assert!(
                (found - expected).abs() <= 1e-13 * expected,
                "erfc({x}) = {found}"
            );
        }
    }
}
