//! The position-wise feed-forward block.

use bertha_autograd::{Session, Var};
use bertha_kernels::Activation;

use crate::{Linear, NnError};

/// `down(act(up(x))) + residual`.
pub struct FeedForward {
    up: Linear,
    down: Linear,
    activation: Activation,
}

impl FeedForward {
    /// From the layer up (`[T,N]` to `[T,I]`), the layer down, and what lies between.
    pub fn new(up: Linear, down: Linear, activation: Activation) -> Self {
        Self {
            up,
            down,
            activation,
        }
    }

    /// `x[T,N]` to `residual[T,N] + down(act(up(x)))`, f32.
    ///
    /// # Errors
    /// When `x` has another width.
    pub fn forward(&self, session: &Session, x: &Var, residual: &Var) -> Result<Var, NnError> {
        let inner = self.up.forward_with(session, x, self.activation, None)?;
        self.down
            .forward_with(session, &inner, Activation::None, Some(residual))
    }

    /// Number of parameters.
    pub fn parameters(&self) -> usize {
        self.up.parameters() + self.down.parameters()
    }

    /// Bytes of the weights.
    pub fn bytes(&self) -> usize {
        self.up.bytes() + self.down.bytes()
    }
}
