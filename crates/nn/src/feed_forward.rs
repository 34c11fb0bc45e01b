//! The position-wise feed-forward block.

use bertha_autograd::{Session, Var};
use bertha_kernels::Activation;

use crate::{Linear, NnError};

/// `dropout(down(act(up(x)))) + residual`.
pub struct FeedForward {
    up: Linear,
    down: Linear,
    activation: Activation,
    /// Probability that a value of the output is dropped in training.
    dropout: f32,
}

impl FeedForward {
    /// From the layer up (`[T,N]` to `[T,I]`), the layer down, and what lies between.
    pub fn new(up: Linear, down: Linear, activation: Activation) -> Self {
        Self {
            up,
            down,
            activation,
            dropout: 0.0,
        }
    }

    /// Sets the probability of dropping values of the output in training.
    #[must_use]
    pub fn with_dropout(mut self, dropout: f32) -> Self {
        self.dropout = dropout;
        self
    }

    /// `x[T,N]` to `residual[T,N] + dropout(down(act(up(x))))`, f32.
    ///
    /// # Errors
    /// When `x` has another width.
    pub fn forward(&self, session: &Session, x: &Var, residual: &Var) -> Result<Var, NnError> {
        let inner = self.up.forward_with(session, x, self.activation, None)?;
        self.down
            .forward_dropout_add(session, &inner, self.dropout, residual)
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
