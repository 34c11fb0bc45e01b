//! Layer normalisation with a learned scale and shift.

use bertha_autograd::{Parameter, Session, Var, ops};

use crate::initializer::Initial;
use crate::{NnError, Weights};

/// `(x − mean)/√(var + eps)·gamma + beta` over the last dimension.
pub struct LayerNorm {
    gamma: Parameter,
    beta: Parameter,
    eps: f32,
}

impl LayerNorm {
    /// Loads `weight` and `bias`, or `gamma` and `beta` as TensorFlow's checkpoints call them, `[n]`.
    ///
    /// # Errors
    /// When a tensor is missing or has another shape.
    pub fn load(weights: &Weights<'_>, n: usize, eps: f32) -> Result<Self, NnError> {
        Ok(Self {
            gamma: weights.parameter(&["weight", "gamma"], &[n], Initial::Ones)?,
            beta: weights.parameter(&["bias", "beta"], &[n], Initial::Zeros)?,
            eps,
        })
    }

    /// Normalises the rows of `x[T,N]`, in place when nobody else holds it.
    ///
    /// # Errors
    /// When `x` has another width.
    pub fn forward(&self, session: &Session, x: Var) -> Result<Var, NnError> {
        Ok(ops::layer_norm(
            session,
            x,
            &self.gamma(),
            &self.beta(),
            self.eps,
        )?)
    }

    /// Number of parameters.
    pub fn parameters(&self) -> usize {
        2 * self.gamma.shape()[0]
    }

    /// The scale, `[N]`.
    pub(crate) fn gamma(&self) -> Var {
        self.gamma.var()
    }

    /// The shift, `[N]`.
    pub(crate) fn beta(&self) -> Var {
        self.beta.var()
    }

    /// What is added to the variance.
    pub(crate) fn eps(&self) -> f32 {
        self.eps
    }
}
