//! Multi-head self-attention: one product for queries, keys and values, attention, one product out.

use std::sync::Arc;

use bertha_autograd::{Session, Var, ops};
use bertha_kernels::{AttentionShape, Mask};

use crate::{Batch, Linear, NnError, Rotary};

/// Scaled dot-product self-attention over each sequence of a batch
/// (Vaswani et al. 2017, <https://arxiv.org/abs/1706.03762>).
pub struct SelfAttention {
    qkv: Linear,
    output: Linear,
    heads: usize,
    head_dim: usize,
    mask: Mask,
    rotary: Option<Arc<Rotary>>,
    /// Probability that an attention weight is dropped in training.
    weight_dropout: f32,
    /// Probability that a value of the output is dropped in training.
    dropout: f32,
}

impl SelfAttention {
    /// From a layer that gives queries, keys and values side by side (`[T,N]` to `[T,3·H·D]`) and the
    /// layer that mixes the heads (`[T,H·D]` to `[T,N]`).
    ///
    /// # Errors
    /// When the layers' widths are not those of `heads` heads.
    pub fn new(qkv: Linear, output: Linear, heads: usize) -> Result<Self, NnError> {
        let hidden = output.inputs();
        if heads == 0 || !hidden.is_multiple_of(heads) || qkv.outputs() != 3 * hidden {
            return Err(NnError::Batch(format!(
                "attention of {heads} heads over width {hidden} cannot take queries, keys and \
                 values of width {} together",
                qkv.outputs()
            )));
        }
        Ok(Self {
            head_dim: hidden / heads,
            qkv,
            output,
            heads,
            mask: Mask::Full,
            rotary: None,
            weight_dropout: 0.0,
            dropout: 0.0,
        })
    }

    /// Sets the probabilities of dropping attention weights, and values of the output, in training.
    #[must_use]
    pub fn with_dropout(mut self, weights: f32, output: f32) -> Self {
        (self.weight_dropout, self.dropout) = (weights, output);
        self
    }

    /// Sets which keys a query sees; without, all of its sequence.
    #[must_use]
    pub fn with_mask(mut self, mask: Mask) -> Self {
        self.mask = mask;
        self
    }

    /// Sets how queries and keys are turned by their places (RoPE); without, they are not.
    #[must_use]
    pub fn with_rotary(mut self, rotary: Arc<Rotary>) -> Self {
        self.rotary = Some(rotary);
        self
    }

    /// `x[T,N]` to `residual[T,N] + dropout(attention(x))`, f32.
    ///
    /// # Errors
    /// When `x` has another width than the layer or another length than the batch.
    pub fn forward(
        &self,
        session: &Session,
        x: &Var,
        batch: &Batch,
        residual: &Var,
    ) -> Result<Var, NnError> {
        let mut qkv = self.qkv.forward(session, x)?;
        if let Some(rotary) = &self.rotary {
            let lengths = batch.cu_seqlens().windows(2).map(|ends| ends[1] - ends[0]);
            let table = rotary.table(lengths.max().unwrap_or(0) as usize);
            qkv = ops::rope(session, qkv, batch.cu_seqlens(), 2 * self.heads, &table)?;
        }
        let shape = AttentionShape {
            heads: self.heads,
            head_dim: self.head_dim,
            scale: 1.0 / (self.head_dim as f32).sqrt(),
        };
        let context = ops::attention(
            session,
            &qkv,
            batch.cu_seqlens(),
            self.mask.clone(),
            shape,
            self.weight_dropout,
        )?;
        drop(qkv);
        self.output
            .forward_dropout_add(session, &context, self.dropout, residual)
    }

    /// Number of parameters.
    pub fn parameters(&self) -> usize {
        self.qkv.parameters() + self.output.parameters()
    }

    /// Bytes of the weights.
    pub fn bytes(&self) -> usize {
        self.qkv.bytes() + self.output.bytes()
    }
}
