//! The element types a tensor can have, as a run-time value ([`DType`]) and as Rust types ([`Element`]).

use std::fmt;

use bytemuck::{CheckedBitPattern, NoUninit};
use half::{bf16, f16};

use crate::storage::TypedVec;

/// The element type of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DType {
    /// 32-bit IEEE 754 float.
    F32,
    /// 64-bit IEEE 754 float.
    F64,
    /// bfloat16: the upper half of an `F32`.
    Bf16,
    /// 16-bit IEEE 754 float.
    F16,
    /// 64-bit signed integer.
    I64,
    /// 32-bit signed integer.
    I32,
    /// 8-bit unsigned integer.
    U8,
    /// 8-bit signed integer.
    I8,
    /// A truth value, one byte of 0 or 1.
    Bool,
}

impl DType {
    /// Every element type.
    pub const ALL: [DType; 9] = [
        DType::F32,
        DType::F64,
        DType::Bf16,
        DType::F16,
        DType::I64,
        DType::I32,
        DType::U8,
        DType::I8,
        DType::Bool,
    ];

    /// Bytes of one element.
    pub const fn size(self) -> usize {
        match self {
            DType::F64 | DType::I64 => 8,
            DType::F32 | DType::I32 => 4,
            DType::Bf16 | DType::F16 => 2,
            DType::U8 | DType::I8 | DType::Bool => 1,
        }
    }

    /// The name as the user reads and writes it: `"f32"`, `"bf16"`, ...
    pub const fn name(self) -> &'static str {
        match self {
            DType::F32 => "f32",
            DType::F64 => "f64",
            DType::Bf16 => "bf16",
            DType::F16 => "f16",
            DType::I64 => "i64",
            DType::I32 => "i32",
            DType::U8 => "u8",
            DType::I8 => "i8",
            DType::Bool => "bool",
        }
    }

    /// The element type of this [`name`](Self::name), if it is one.
    pub fn from_name(name: &str) -> Option<DType> {
        DType::ALL.into_iter().find(|dtype| dtype.name() == name)
    }

    /// The name in a safetensors header: `"F32"`, `"BF16"`, `"BOOL"`, ...
    pub const fn safetensors_name(self) -> &'static str {
        match self {
            DType::F32 => "F32",
            DType::F64 => "F64",
            DType::Bf16 => "BF16",
            DType::F16 => "F16",
            DType::I64 => "I64",
            DType::I32 => "I32",
            DType::U8 => "U8",
            DType::I8 => "I8",
            DType::Bool => "BOOL",
        }
    }

    /// The element type of a name in a safetensors header, if bertha has it.
    pub fn from_safetensors_name(name: &str) -> Option<DType> {
        DType::ALL
            .into_iter()
            .find(|dtype| dtype.safetensors_name() == name)
    }

    /// Whether this is one of `f32`, `f64`, `bf16`, `f16`.
    pub const fn is_float(self) -> bool {
        matches!(self, DType::F32 | DType::F64 | DType::Bf16 | DType::F16)
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A Rust type that a tensor can hold: `f32`, `f64`, [`bf16`], [`f16`](struct@f16), `i64`, `i32`, `u8`, `i8`, `bool`.
///
/// Sealed: the set is exactly [`DType::ALL`].
pub trait Element:
    Private
    + Copy
    + Default
    + PartialEq
    + PartialOrd
    + fmt::Debug
    + fmt::Display
    + Send
    + Sync
    + NoUninit
    + CheckedBitPattern
    + 'static
{
    /// The run-time counterpart of this type.
    const DTYPE: DType;
}

/// A value on its way from one element type to another, without loss.
#[derive(Clone, Copy)]
pub enum Scalar {
    /// `f32` and the 16-bit floats.
    F32(f32),
    /// `f64`.
    F64(f64),
    /// All integers.
    I64(i64),
    /// `bool`.
    Bool(bool),
}

/// What seals [`Element`], and the parts of it that are nobody else's business.
pub trait Private: Sized {
    fn to_scalar(self) -> Scalar;
    /// Converts by the rules of [`crate::Tensor::to_dtype`].
    fn from_scalar(scalar: Scalar) -> Self;
    fn wrap(vec: Vec<Self>) -> TypedVec;
    fn vec_mut(vec: &mut TypedVec) -> Option<&mut Vec<Self>>;
}

macro_rules! element {
    ($type:ty, $variant:ident, $to:expr, $from:path) => {
        impl Element for $type {
            const DTYPE: DType = DType::$variant;
        }
        impl Private for $type {
            #[inline(always)]
            fn to_scalar(self) -> Scalar {
                $to(self)
            }
            #[inline(always)]
            fn from_scalar(scalar: Scalar) -> Self {
                $from(scalar)
            }
            fn wrap(vec: Vec<Self>) -> TypedVec {
                TypedVec::$variant(vec)
            }
            fn vec_mut(vec: &mut TypedVec) -> Option<&mut Vec<Self>> {
                match vec {
                    TypedVec::$variant(vec) => Some(vec),
                    _ => None,
                }
            }
        }
    };
}

element!(f32, F32, Scalar::F32, crate::cast::to_f32);
element!(f64, F64, Scalar::F64, crate::cast::to_f64);
element!(
    bf16,
    Bf16,
    |x: bf16| Scalar::F32(x.to_f32()),
    crate::cast::to_bf16
);
element!(
    f16,
    F16,
    |x: f16| Scalar::F32(x.to_f32()),
    crate::cast::to_f16
);
element!(i64, I64, Scalar::I64, crate::cast::to_i64);
element!(
    i32,
    I32,
    |x: i32| Scalar::I64(x.into()),
    crate::cast::to_i32
);
element!(u8, U8, |x: u8| Scalar::I64(x.into()), crate::cast::to_u8);
element!(i8, I8, |x: i8| Scalar::I64(x.into()), crate::cast::to_i8);
element!(bool, Bool, Scalar::Bool, crate::cast::to_bool);

/// Runs `$body` with `$T` standing for the Rust type of `$dtype`.
macro_rules! dispatch {
    ($dtype:expr, $T:ident => $body:expr) => {
        match $dtype {
            $crate::DType::F32 => {
                type $T = f32;
                $body
            }
            $crate::DType::F64 => {
                type $T = f64;
                $body
            }
            $crate::DType::Bf16 => {
                type $T = half::bf16;
                $body
            }
            $crate::DType::F16 => {
                type $T = half::f16;
                $body
            }
            $crate::DType::I64 => {
                type $T = i64;
                $body
            }
            $crate::DType::I32 => {
                type $T = i32;
                $body
            }
            $crate::DType::U8 => {
                type $T = u8;
                $body
            }
            $crate::DType::I8 => {
                type $T = i8;
                $body
            }
            $crate::DType::Bool => {
                type $T = bool;
                $body
            }
        }
    };
}
pub(crate) use dispatch;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_leads_back_to_its_dtype() {
        for dtype in DType::ALL {
            assert_eq!(DType::from_name(dtype.name()), Some(dtype));
            assert_eq!(
                DType::from_safetensors_name(dtype.safetensors_name()),
                Some(dtype)
            );
            assert_eq!(dtype.size(), dispatch!(dtype, T => size_of::<T>()));
            assert_eq!(dtype, dispatch!(dtype, T => <T as Element>::DTYPE));
        }
        assert_eq!(DType::from_safetensors_name("F8_E4M3"), None);
        assert_eq!(format!("{:>6}|", DType::Bf16), "  bf16|");
    }
}
