//! The arithmetic that the general operations are written over, once for f32 and f64.

use std::ops::{AddAssign, Neg};

use bertha_tensor::Element;
use ndarray::LinalgScalar;

use super::matmul::Product;

/// f32 or f64.
pub(super) trait Real:
    Element + LinalgScalar + Neg<Output = Self> + AddAssign + Product
{
    const ZERO: Self;
    const ONE: Self;
    const NEG_INFINITY: Self;

    fn from_f64(x: f64) -> Self;
    fn to_f64(self) -> f64;
    fn exp(self) -> Self;
    fn ln(self) -> Self;
    fn sqrt(self) -> Self;
    fn powf(self, exponent: Self) -> Self;
    fn abs(self) -> Self;
    fn is_nan(self) -> bool;

    /// The greater of two; NaN if one is.
    fn greater(self, other: Self) -> Self {
        if self > other || self.is_nan() {
            self
        } else {
            other
        }
    }

    /// The lesser of two; NaN if one is.
    fn lesser(self, other: Self) -> Self {
        if self < other || self.is_nan() {
            self
        } else {
            other
        }
    }
}

macro_rules! real {
    ($type:ident) => {
        impl Real for $type {
            const ZERO: Self = 0.0;
            const ONE: Self = 1.0;
            const NEG_INFINITY: Self = $type::NEG_INFINITY;

            #[inline(always)]
            fn from_f64(x: f64) -> Self {
                x as $type
            }
            #[inline(always)]
            fn to_f64(self) -> f64 {
                f64::from(self)
            }
            fn exp(self) -> Self {
                $type::exp(self)
            }
            fn ln(self) -> Self {
                $type::ln(self)
            }
            #[inline(always)]
            fn sqrt(self) -> Self {
                $type::sqrt(self)
            }
            fn powf(self, exponent: Self) -> Self {
                $type::powf(self, exponent)
            }
            #[inline(always)]
            fn abs(self) -> Self {
                $type::abs(self)
            }
            #[inline(always)]
            fn is_nan(self) -> bool {
                $type::is_nan(self)
            }
        }
    };
}
real!(f32);
real!(f64);

/// The sum of the values, in f64 and in one fixed order: eight running sums that vector instructions can hold.
pub(super) fn sum<T: Real>(values: &[T]) -> f64 {
    let mut lanes = [0.0; 8];
    let (chunks, rest) = values.as_chunks::<8>();
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane += value.to_f64();
        }
    }
    for (lane, value) in lanes.iter_mut().zip(rest) {
        *lane += value.to_f64();
    }
    lanes.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_take_every_value_once() {
        for len in 0..40 {
            let values: Vec<f32> = (1..=len).map(|i| i as f32).collect();
            let n = f64::from(len);
            assert_eq!(sum(&values), n * (n + 1.0) / 2.0);
        }
    }

    #[test]
    fn sums_of_many_values_keep_f32_precision() {
        let values = vec![0.1_f32; 1 << 22];
        let expected = f64::from(0.1_f32) * f64::from(1 << 22);
        assert!((sum(&values) - expected).abs() < 1e-8 * expected);
    }
}
