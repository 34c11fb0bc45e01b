//! Conversion between element types.
//!
//! The rules, for every pair: a float rounds to nearest, ties to even, in *one* rounding whatever the source, and
//! overflows to infinity; a float becomes an integer by truncation toward zero, saturating, NaN becoming 0; an integer
//! becomes a narrower integer by saturating; anything becomes `bool` by comparison with zero (NaN is true), and `bool`
//! becomes 0 or 1.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use crate::dtype::{Scalar, dispatch};
use crate::{DType, Element, Tensor, TensorError};

pub(crate) fn to_f32(scalar: Scalar) -> f32 {
    match scalar {
        Scalar::F32(x) => x,
        Scalar::F64(x) => x as f32,
        Scalar::I64(x) => x as f32,
        Scalar::Bool(x) => f32::from(u8::from(x)),
    }
}

pub(crate) fn to_f64(scalar: Scalar) -> f64 {
    match scalar {
        Scalar::F32(x) => x.into(),
        Scalar::F64(x) => x,
        Scalar::I64(x) => x as f64,
        Scalar::Bool(x) => f64::from(u8::from(x)),
    }
}

pub(crate) fn to_bf16(scalar: Scalar) -> bf16 {
    bf16::from_f32(to_f32_odd(scalar))
}

pub(crate) fn to_f16(scalar: Scalar) -> f16 {
    f16::from_f32(to_f32_odd(scalar))
}

pub(crate) fn to_i64(scalar: Scalar) -> i64 {
    match scalar {
        Scalar::F32(x) => x as i64,
        Scalar::F64(x) => x as i64,
        Scalar::I64(x) => x,
        Scalar::Bool(x) => x.into(),
    }
}

pub(crate) fn to_i32(scalar: Scalar) -> i32 {
    to_i64(scalar).clamp(i32::MIN.into(), i32::MAX.into()) as i32
}

pub(crate) fn to_u8(scalar: Scalar) -> u8 {
    to_i64(scalar).clamp(0, u8::MAX.into()) as u8
}

pub(crate) fn to_i8(scalar: Scalar) -> i8 {
    to_i64(scalar).clamp(i8::MIN.into(), i8::MAX.into()) as i8
}

pub(crate) fn to_bool(scalar: Scalar) -> bool {
    match scalar {
        Scalar::F32(x) => x != 0.0,
        Scalar::F64(x) => x != 0.0,
        Scalar::I64(x) => x != 0,
        Scalar::Bool(x) => x,
    }
}

/// Rounds to odd: toward zero, with the last bit set if anything was lost. A second rounding to a format of at least
/// two bits less then gives what one rounding from the source would have given. (Boldo & Melquiond, "Emulation of FMA
/// and correctly rounded sums: proved algorithms using rounding to odd", IEEE Trans. Computers 2008.)
fn to_f32_odd(scalar: Scalar) -> f32 {
    match scalar {
        Scalar::F64(x) => round_to_odd(x),
        Scalar::I64(x) => {
            // Above 53 bits the low 11 are folded into one sticky bit, which makes the step to f64 exact.
            let magnitude = x.unsigned_abs();
            let folded = if magnitude >> 53 == 0 {
                magnitude
            } else {
                (magnitude & !0x7ff) | (u64::from(magnitude & 0x7ff != 0) << 11)
            };
            let value = folded as f64;
            round_to_odd(if x < 0 { -value } else { value })
        }
        Scalar::F32(_) | Scalar::Bool(_) => to_f32(scalar),
    }
}

fn round_to_odd(x: f64) -> f32 {
    let nearest = x as f32;
    if f64::from(nearest) == x || x.is_nan() {
        return nearest;
    }
    let away = f64::from(nearest).abs() > x.abs();
    f32::from_bits((nearest.to_bits() - u32::from(away)) | 1)
}

fn convert<S: Element, D: Element>(src: &[S], dst: &mut [D]) {
    for (to, &from) in dst.iter_mut().zip(src) {
        *to = D::from_scalar(from.to_scalar());
    }
}

impl Tensor {
    /// The same values as `dtype`, row-major; the tensor itself (shared, not copied) if it is of that type already.
    ///
    /// To a float type: round to nearest, ties to even, once, overflowing to infinity. Float to integer: truncation
    /// toward zero, saturating, NaN to 0. Integer to narrower integer: saturating. To `bool`: whether it differs from
    /// zero (NaN does); from `bool`: 0 or 1.
    ///
    /// # Errors
    /// [`TensorError::TooLarge`] if a broadcast tensor's copy would exceed the address space.
    pub fn to_dtype(&self, dtype: DType) -> Result<Tensor, TensorError> {
        if dtype == self.dtype() {
            return Ok(self.clone());
        }
        let source = self.contiguous();
        let mut result = self.sibling(dtype, self.shape())?;
        match (self.dtype(), dtype) {
            // The pairs that loading weights is made of have wide instructions in `half`.
            (DType::Bf16, DType::F32) => source
                .as_slice::<bf16>()?
                .convert_to_f32_slice(result.as_mut_slice()?),
            (DType::F16, DType::F32) => source
                .as_slice::<f16>()?
                .convert_to_f32_slice(result.as_mut_slice()?),
            (DType::F32, DType::Bf16) => result
                .as_mut_slice::<bf16>()?
                .convert_from_f32_slice(source.as_slice()?),
            (DType::F32, DType::F16) => result
                .as_mut_slice::<f16>()?
                .convert_from_f32_slice(source.as_slice()?),
            (from, to) => dispatch!(from, S => {
                let source = source.as_slice::<S>()?;
                dispatch!(to, D => convert::<S, D>(source, result.as_mut_slice()?))
            }),
        }
        Ok(result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cast<S: Element, D: Element>(value: S) -> D {
        let tensor = Tensor::from_vec(vec![value], &[]).unwrap();
        tensor.to_dtype(D::DTYPE).unwrap().item().unwrap()
    }

    /// Nearest value of a 16-bit format by search over all of its finite values, ties to the even pattern.
    fn nearest(x: f64, finite: &[(u16, f64)]) -> u16 {
        let better = |a: &&(u16, f64), b: &&(u16, f64)| {
            (a.1 - x)
                .abs()
                .total_cmp(&(b.1 - x).abs())
                .then((a.0 & 1).cmp(&(b.0 & 1)))
        };
        finite.iter().min_by(better).unwrap().0
    }

    #[test]
    fn f64_and_i64_round_once_to_16_bits() {
        // Halfway between two bf16 values, and just beside it by less than f32 can see.
        let tie = 1.0 + 2f64.powi(-8);
        assert_eq!(cast::<f64, bf16>(tie), bf16::from_f32(1.0));
        assert_eq!(
            cast::<f64, bf16>(tie + 2f64.powi(-40)).to_bits(),
            bf16::from_f32(1.0).to_bits() + 1
        );
        assert_eq!(cast::<f64, bf16>(tie - 2f64.powi(-40)), bf16::from_f32(1.0));
        let tie = 1.0 + 2f64.powi(-11);
        assert_eq!(
            cast::<f64, f16>(tie + 2f64.powi(-40)).to_bits(),
            f16::from_f32(1.0).to_bits() + 1
        );
        // 2^62 + 2^54 is a tie of bf16; one more is above it, which an f64 cannot hold.
        let tie = (1_i64 << 62) + (1 << 54);
        assert_eq!(cast::<i64, bf16>(tie).to_f64(), 2f64.powi(62));
        assert_eq!(
            cast::<i64, bf16>(tie + 1).to_f64(),
            2f64.powi(62) + 2f64.powi(55)
        );
        assert_eq!(
            cast::<i64, bf16>(-tie - 1).to_f64(),
            -(2f64.powi(62) + 2f64.powi(55))
        );
        assert_eq!(cast::<i64, bf16>(i64::MIN).to_f64(), -(2f64.powi(63)));
        assert_eq!(cast::<f64, f16>(1e300), f16::INFINITY);
        assert_eq!(cast::<f64, bf16>(-1e300), bf16::NEG_INFINITY);
        assert_eq!(cast::<f64, bf16>(1e-300).to_bits(), 0);
        assert_eq!(cast::<f64, f16>(-1e-300).to_bits(), 0x8000);
        assert!(cast::<f64, f16>(f64::NAN).is_nan());
    }

    #[test]
    fn every_16_bit_value_and_its_neighbourhood_rounds_to_nearest() {
        let finite: Vec<(u16, f64)> = (0..0x7c00)
            .map(|bits| (bits, f16::from_bits(bits).to_f64()))
            .collect();
        for pair in finite.windows(2).step_by(37) {
            let (low, high) = (pair[0].1, pair[1].1);
            for x in [
                low,
                (low + high) / 2.0,
                low * 0.3 + high * 0.7,
                ((low + high) / 2.0).next_up(),
            ] {
                // A window of the list around the pair holds the nearest value.
                let from = usize::from(pair[0].0.saturating_sub(1));
                let expected = nearest(x, &finite[from..(from + 4).min(finite.len())]);
                assert_eq!(cast::<f64, f16>(x).to_bits(), expected, "{x:e}");
                if f64::from(x as f32) == x {
                    assert_eq!(cast::<f32, f16>(x as f32).to_bits(), expected, "{x:e}");
                }
            }
        }
    }

    #[test]
    fn integers_saturate_and_nan_is_zero() {
        assert_eq!(cast::<f32, u8>(-3.7), 0);
        assert_eq!(cast::<f32, u8>(300.0), 255);
        assert_eq!(cast::<f32, i8>(-3.7), -3);
        assert_eq!(cast::<f64, i32>(1e20), i32::MAX);
        assert_eq!(cast::<f64, i64>(f64::NEG_INFINITY), i64::MIN);
        assert_eq!(cast::<f32, i64>(f32::NAN), 0);
        assert_eq!(cast::<bf16, i8>(bf16::from_f32(1000.0)), 127);
        assert_eq!(cast::<i64, i32>(i64::MAX), i32::MAX);
        assert_eq!(cast::<i64, u8>(-1), 0);
        assert_eq!(cast::<u8, i8>(200), 127);
        assert_eq!(cast::<i64, f64>(i64::MAX), 2f64.powi(63));
    }

    #[test]
    fn bool_is_a_comparison_with_zero() {
        assert!(cast::<f32, bool>(f32::NAN));
        assert!(!cast::<f32, bool>(-0.0));
        assert!(cast::<f64, bool>(1e-300));
        assert!(cast::<i8, bool>(-1));
        assert_eq!(cast::<bool, f16>(true), f16::ONE);
        assert_eq!(cast::<bool, i64>(true), 1);
        assert_eq!(cast::<bool, f64>(false), 0.0);
    }

    #[test]
    fn every_pair_of_dtypes_converts() {
        let values = Tensor::from_vec(vec![0_i64, 1, 1, 0], &[2, 2])
            .unwrap()
            .transpose(0, 1)
            .unwrap();
        for from in DType::ALL {
            for to in DType::ALL {
                let back = values
                    .to_dtype(from)
                    .unwrap()
                    .to_dtype(to)
                    .unwrap()
                    .to_dtype(DType::I64)
                    .unwrap();
                assert_eq!(
                    back.to_vec::<i64>().unwrap(),
                    [0, 1, 1, 0],
                    "{from} to {to}"
                );
                assert_eq!(back.shape(), [2, 2]);
            }
        }
    }
}
