//! Layer normalisation with a learned scale and shift.

use bertha_autograd::{Session, Var, ops};
use bertha_tensor::Tensor;

use crate::{NnError, Weights};

/// `(x − mean)/√(var + eps)·gamma + beta` over the last dimension.
pub struct LayerNorm {
    gamma: Tensor,
    beta: Tensor,
    eps: f32,
}

impl LayerNorm {
    /// Loads `weight` and `bias`, or `gamma` and `beta` as TensorFlow's checkpoints call them, `[n]`.
    ///
    /// # Errors
    /// When a tensor is missing or has another shape.
    pub fn load(weights: &Weights<'_>, n: usize, eps: f32) -> Result<Self, NnError> {
        Ok(Self {
            gamma: weights.f32_tensor_named(&["weight", "gamma"], &[n])?,
            beta: weights.f32_tensor_named(&["bias", "beta"], &[n])?,
            eps,
        })
    }

    /// Normalises the rows of `x[T,N]`, in place when nobody else holds it.
    ///
    /// # Errors
    /// When `x` has another width.
    pub fn forward(&self, session: &Session, x: Var) -> Result<Var, NnError> {
        let (gamma, beta) = (self.gamma()?, self.beta()?);
        Ok(ops::layer_norm(session, x, gamma, beta, self.eps)?)
    }

    /// Number of parameters.
    pub fn parameters(&self) -> usize {
        2 * self.gamma.shape()[0]
    }

    /// The scale, `[N]`.
    pub(crate) fn gamma(&self) -> Result<&[f32], NnError> {
        Ok(self.gamma.as_slice()?)
    }

    /// The shift, `[N]`.
    pub(crate) fn beta(&self) -> Result<&[f32], NnError> {
        Ok(self.beta.as_slice()?)
    }

    /// What is added to the variance.
    pub(crate) fn eps(&self) -> f32 {
        self.eps
    }
}
