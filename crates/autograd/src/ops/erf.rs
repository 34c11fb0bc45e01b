//! The error function, for the exact GELU in f64 and its derivative.

/// `e^(−x²/2)/√(2π)`: the density of the normal distribution.
pub(super) fn normal_density(x: f64) -> f64 {
    (-0.5 * x * x).exp() * 0.5 * std::f64::consts::FRAC_2_SQRT_PI * std::f64::consts::FRAC_1_SQRT_2
}

/// The complementary error function, to about 1e-14 relative.
pub(super) fn erfc(x: f64) -> f64 {
    if x.is_nan() {
        return x;
    }
    let z = x.abs();
    // 1 − erf by the series of positive terms erf(z) = 2/√π·e^(−z²)·Σ 2ⁿz^(2n+1)/(2n+1)!! where that difference
    // loses at most two digits, and the continued fraction beyond (Abramowitz & Stegun 7.1.6 and 7.1.14).
    let upper = if z < 1.5 {
        let (mut term, mut sum, mut odd) = (z, z, 1.0);
        while term > 1e-17 * sum {
            odd += 2.0;
            term *= 2.0 * z * z / odd;
            sum += term;
        }
        1.0 - std::f64::consts::FRAC_2_SQRT_PI * (-z * z).exp() * sum
    } else if z > 27.3 {
        0.0
    } else {
        let tail = (1..=200)
            .rev()
            .fold(z, |below, n| z + 0.5 * f64::from(n) / below);
        0.5 * std::f64::consts::FRAC_2_SQRT_PI * (-z * z).exp() / tail
    };
    if x < 0.0 { 2.0 - upper } else { upper }
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn the_density_is_the_slope_of_the_distribution() {
        for x in [-3.0, -0.7, 0.0, 0.4, 2.1_f64] {
            let step = 1e-5;
            let distribution = |x: f64| 0.5 * erfc(-x * std::f64::consts::FRAC_1_SQRT_2);
            let slope = (distribution(x + step) - distribution(x - step)) / (2.0 * step);
            assert!((slope - normal_density(x)).abs() < 1e-9);
        }
    }
}
