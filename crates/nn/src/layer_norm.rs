//! Layer normalisation with a learned scale and shift.

use bertha_autograd::{Parameter, Session, Var, ops};

use bertha_tensor::{DType, Tensor};

use crate::initializer::Initial;
use crate::{Bias, NnError, Weights};

/// `(x − mean)/√(var + eps)·gamma + beta` over the last dimension.
pub struct LayerNorm {
    gamma: Parameter,
    /// Zeros that are not learned where there is none.
    beta: Parameter,
    bias: Bias,
    eps: f32,
}

impl LayerNorm {
    /// Loads `weight` and `bias`, or `gamma` and `beta` as TensorFlow's checkpoints call them, `[n]`.
    ///
    /// # Errors
    /// When a tensor is missing or has another shape.
    pub fn load(weights: &Weights<'_>, n: usize, eps: f32) -> Result<Self, NnError> {
        Self::load_with(weights, n, eps, Bias::Present)
    }

    /// [`LayerNorm::load`], with a shift or without one.
    ///
    /// # Errors
    /// When a tensor is missing or has another shape.
    pub fn load_with(
        weights: &Weights<'_>,
        n: usize,
        eps: f32,
        bias: Bias,
    ) -> Result<Self, NnError> {
        Ok(Self {
            gamma: weights.parameter(&["weight", "gamma"], &[n], Initial::Ones)?,
            beta: match bias {
                Bias::Present => weights.parameter(&["bias", "beta"], &[n], Initial::Zeros)?,
                Bias::Absent => Parameter::frozen("no bias", Tensor::zeros(DType::F32, &[n])?),
            },
            bias,
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
        let n = self.gamma.shape()[0];
        match self.bias {
            Bias::Present => 2 * n,
            Bias::Absent => n,
        }
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
