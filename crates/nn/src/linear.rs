//! The fully connected layer, its weight packed once for the kernels.

use bertha_autograd::{Session, Var, ops};
use bertha_kernels::{Activation, PackedWeights};
use bertha_tensor::Tensor;

use crate::{NnError, Weights, weights::source};

/// Whether a linear layer adds a bias.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bias {
    /// It has one, named `bias`.
    Present,
    /// It has none.
    Absent,
}

/// `y = x·Wᵀ + b`, with `W` `[out, in]` packed and `b` `[out]`.
pub struct Linear {
    weight: PackedWeights,
    bias: Option<Tensor>,
}

impl Linear {
    /// Loads `weight` `[outputs, inputs]` and, where wanted, `bias` `[outputs]`.
    ///
    /// # Errors
    /// When a tensor is missing or has another shape.
    pub fn load(
        weights: &Weights<'_>,
        inputs: usize,
        outputs: usize,
        bias: Bias,
    ) -> Result<Self, NnError> {
        Self::load_stacked(std::slice::from_ref(weights), inputs, outputs, bias)
    }

    /// Loads several layers of one input as a single layer, their outputs side by side: one product
    /// where a model's file has three (queries, keys and values).
    ///
    /// # Errors
    /// When a tensor is missing or has another shape.
    pub fn load_stacked(
        parts: &[Weights<'_>],
        inputs: usize,
        outputs_each: usize,
        bias: Bias,
    ) -> Result<Self, NnError> {
        let tensors = parts
            .iter()
            .map(|part| part.tensor("weight", &[outputs_each, inputs]))
            .collect::<Result<Vec<_>, _>>()?;
        let sources = tensors
            .iter()
            .map(|tensor| Ok((source(tensor)?, outputs_each)))
            .collect::<Result<Vec<_>, NnError>>()?;
        let bias = match bias {
            Bias::Absent => None,
            Bias::Present => {
                let mut stacked = Vec::with_capacity(parts.len() * outputs_each);
                for part in parts {
                    let bias = part.f32_tensor("bias", &[outputs_each])?;
                    stacked.extend_from_slice(bias.as_slice::<f32>()?);
                }
                let len = stacked.len();
                Some(Tensor::from_vec(stacked, &[len])?)
            }
        };
        let Some(first) = parts.first() else {
            return Err(NnError::Batch(
                "a linear layer needs at least one part".into(),
            ));
        };
        let weight = PackedWeights::pack_stacked(first.session().exec(), &sources, inputs);
        for part in parts {
            part.release("weight");
        }
        Ok(Self { weight, bias })
    }

    /// A layer from a weight `[outputs, inputs]` of a float dtype and an f32 bias `[outputs]`.
    ///
    /// # Errors
    /// When the weight is no matrix or the bias does not fit it.
    pub fn from_tensors(
        session: &Session,
        weight: &Tensor,
        bias: Option<Tensor>,
    ) -> Result<Self, NnError> {
        let &[outputs, inputs] = weight.shape() else {
            return Err(NnError::Batch(format!(
                "a linear layer's weight has shape {:?}, expected two dimensions",
                weight.shape()
            )));
        };
        if let Some(bias) = &bias
            && bias.shape() != [outputs]
        {
            return Err(NnError::Batch(format!(
                "a linear layer's bias has shape {:?}, expected [{outputs}]",
                bias.shape()
            )));
        }
        Ok(Self {
            weight: PackedWeights::pack(session.exec(), source(weight)?, outputs, inputs),
            bias,
        })
    }

    /// `x[T, in]` to `[T, out]`, f32.
    ///
    /// # Errors
    /// When `x` has another width.
    pub fn forward(&self, session: &Session, x: &Var) -> Result<Var, NnError> {
        self.forward_with(session, x, Activation::None, None)
    }

    /// `act(x·Wᵀ + b) + residual` in one pass: `x[T, in]`, `residual[T, out]` to `[T, out]`, f32.
    ///
    /// # Errors
    /// When the shapes disagree.
    pub fn forward_with(
        &self,
        session: &Session,
        x: &Var,
        activation: Activation,
        residual: Option<&Var>,
    ) -> Result<Var, NnError> {
        let bias = match &self.bias {
            Some(bias) => Some(bias.as_slice::<f32>()?),
            None => None,
        };
        Ok(ops::linear(
            session,
            x,
            &self.weight,
            bias,
            activation,
            residual,
        )?)
    }

    /// Width of the input.
    pub fn inputs(&self) -> usize {
        self.weight.k()
    }

    /// Width of the output.
    pub fn outputs(&self) -> usize {
        self.weight.n()
    }

    /// Number of parameters.
    pub fn parameters(&self) -> usize {
        let bias = self.bias.as_ref().map_or(0, |bias| bias.shape()[0]);
        self.inputs() * self.outputs() + bias
    }

    /// Bytes that the weight and the bias take in memory.
    pub fn bytes(&self) -> usize {
        self.weight.bytes() + self.bias.as_ref().map_or(0, |bias| bias.shape()[0] * 4)
    }
}
