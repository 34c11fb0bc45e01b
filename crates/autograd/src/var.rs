//! A tensor in a computation.

use bertha_tensor::{DType, Tensor, TensorError};

use crate::tape::{self, Source, Target};
use crate::{AutogradError, Gradients, Session};

/// A tensor that operations take and give, with what its gradient flows back to.
///
/// A *tracked* value came, by whatever way, from a [`Parameter`](crate::Parameter); its operations are
/// remembered until it is dropped or [`Var::backward`] has run through them.
#[derive(Clone, Debug)]
pub struct Var {
    value: Tensor,
    source: Option<Source>,
}

impl Var {
    pub(crate) fn new(value: Tensor, source: Option<Source>) -> Self {
        Self { value, source }
    }

    /// A value through which no gradient flows.
    pub fn constant(value: Tensor) -> Self {
        Self::new(value, None)
    }

    /// The same value with no gradient wanted.
    pub fn detach(&self) -> Self {
        Self::constant(self.value.clone())
    }

    /// Whether a gradient is wanted through this value.
    pub fn is_tracked(&self) -> bool {
        self.source.is_some()
    }

    /// Where its gradient goes and what shape it must have; `None` where nobody wants it.
    pub(crate) fn target(&self) -> Option<Target> {
        let shape = self.shape().to_vec();
        self.source.clone().map(|source| Target { source, shape })
    }

    /// The tensor.
    pub fn tensor(&self) -> &Tensor {
        &self.value
    }

    /// The tensor, without what its gradient would flow back to.
    pub fn into_tensor(self) -> Tensor {
        self.value
    }

    /// The shape.
    pub fn shape(&self) -> &[usize] {
        self.value.shape()
    }

    /// The dtype.
    pub fn dtype(&self) -> DType {
        self.value.dtype()
    }

    /// The values of a contiguous f32 tensor, row-major.
    ///
    /// # Errors
    /// When the tensor is of another dtype or not contiguous.
    pub fn as_slice(&self) -> Result<&[f32], TensorError> {
        self.value.as_slice::<f32>()
    }

    /// Computes the gradient of this value, a single number, with respect to every parameter that it came
    /// from, and adds it to `gradients`. What the forward pass kept for it is freed on the way.
    ///
    /// # Errors
    /// When the value is not a single float or is not tracked, or was run through before.
    pub fn backward(
        &self,
        session: &Session,
        gradients: &mut Gradients,
    ) -> Result<(), AutogradError> {
        if self.value.numel() != 1 {
            return Err(AutogradError::NotScalar {
                shape: self.shape().to_vec(),
            });
        }
        let one = match self.dtype() {
            DType::F64 => Tensor::full(1.0_f64, self.shape())?,
            _ => Tensor::full(1.0_f32, self.shape())?,
        };
        self.backward_with(session, one, gradients)
    }

    /// As [`Var::backward`] for a value of any shape, from the gradient that flows into it.
    ///
    /// # Errors
    /// When `gradient` has another shape or dtype, or the value is not tracked or was run through before.
    pub fn backward_with(
        &self,
        session: &Session,
        gradient: Tensor,
        gradients: &mut Gradients,
    ) -> Result<(), AutogradError> {
        if gradient.shape() != self.shape() || gradient.dtype() != self.dtype() {
            return Err(AutogradError::Shape {
                op: "backward",
                input: "the gradient",
                found: gradient.shape().to_vec(),
                expected: format!("{} {:?}", self.dtype(), self.shape()),
            });
        }
        let source = self.source.as_ref().ok_or(AutogradError::NotTracked)?;
        tape::run(session, source, gradient, gradients)
    }
}
