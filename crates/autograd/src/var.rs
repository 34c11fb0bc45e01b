//! A tensor in a computation.

use bertha_tensor::{Tensor, TensorError};

/// A tensor that operations take and give, and whether a gradient is wanted through it.
#[derive(Clone, Debug)]
pub struct Var {
    value: Tensor,
    tracked: bool,
}

impl Var {
    /// A value through which no gradient flows.
    pub fn constant(value: Tensor) -> Self {
        Self {
            value,
            tracked: false,
        }
    }

    /// A value whose gradient is wanted: every operation that it reaches must have a backward.
    pub fn parameter(value: Tensor) -> Self {
        Self {
            value,
            tracked: true,
        }
    }

    /// The same value with no gradient wanted.
    pub fn detach(&self) -> Self {
        Self::constant(self.value.clone())
    }

    /// Whether a gradient is wanted through this value.
    pub fn is_tracked(&self) -> bool {
        self.tracked
    }

    /// The tensor.
    pub fn tensor(&self) -> &Tensor {
        &self.value
    }

    /// The tensor, without the wish for a gradient.
    pub fn into_tensor(self) -> Tensor {
        self.value
    }

    /// The shape.
    pub fn shape(&self) -> &[usize] {
        self.value.shape()
    }

    /// The values of a contiguous f32 tensor, row-major.
    ///
    /// # Errors
    /// When the tensor is of another dtype or not contiguous.
    pub fn as_slice(&self) -> Result<&[f32], TensorError> {
        self.value.as_slice::<f32>()
    }
}
