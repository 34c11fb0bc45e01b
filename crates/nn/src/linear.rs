//! The fully connected layer.

use bertha_autograd::{LinearPart, LinearWeight, Parameter, Precision, Session, Var, ops};
use bertha_kernels::Activation;
use bertha_tensor::{DType, Tensor};

use crate::elastic::{BitWeight, Elastic};
use crate::initializer::Initial;
use crate::packing::{
    Reading, for_inference, latent_bits, packed, stacked_bias, stacked_quantized,
};
use crate::{Binarization, NnError, QuantizedMatrix, Weights, estimators};

/// Whether a linear layer adds a bias.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bias {
    /// It has one, named `bias`.
    Present,
    /// It has none.
    Absent,
}

/// `y = x·Wᵀ + b`, with `W` `[out, in]` and `b` `[out]`. For inference the weight is packed once; to be trained it is
/// made of parameters.
pub struct Linear {
    weight: LinearWeight,
    /// What the checkpoint calls the weights that are stacked in it; empty where it has no names.
    names: Vec<String>,
    inputs: Inputs,
    /// The weight is two side by side, of the same inputs.
    split: bool,
}

/// What the product reads of an input.
enum Inputs {
    /// What is packed takes them as they come.
    Plain,
    /// Their signs: trained as what is binarized.
    Signs,
    /// Levels that are learned: trained as what is binarized, or, with more bits than one, run so.
    Elastic(Elastic),
    /// Values on levels, of a weight that is not binarized.
    Rounded(Elastic),
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
        let Some(first) = parts.first() else {
            return Err(NnError::Batch(
                "a linear layer needs at least one part".into(),
            ));
        };
        let names = parts.iter().map(|part| part.full_name("weight")).collect();
        let split = first.is_split();
        let columns = if split { 2 * inputs } else { inputs };
        let mut binarized = match first.binarization() {
            None => match first.input_rounding() {
                Some(rounding) => Inputs::Rounded(Elastic::rounded(first, rounding)?),
                None => Inputs::Plain,
            },
            Some(Binarization::Bit { bits }) => {
                if first.is_trainable() || Elastic::has_inputs(first) {
                    Inputs::Elastic(Elastic::of_inputs(first, inputs, first.range(), bits)?)
                } else {
                    Inputs::Plain
                }
            }
            Some(_) => Inputs::Signs,
        };
        if parts.iter().any(Weights::is_trainable) {
            let part = |part: &Weights<'_>| {
                let weight =
                    part.parameter(&["weight"], &[outputs_each, columns], Initial::Normal)?;
                let bias = match bias {
                    Bias::Absent => None,
                    Bias::Present => {
                        Some(part.parameter(&["bias"], &[outputs_each], Initial::Zeros)?)
                    }
                };
                Ok(LinearPart { weight, bias })
            };
            let parts = parts
                .iter()
                .map(part)
                .collect::<Result<Vec<_>, NnError>>()?;
            let weight = LinearWeight::trained(parts)?;
            return Ok(Self {
                weight,
                names,
                inputs: binarized,
                split,
            });
        }
        let quantized = parts
            .iter()
            .map(|part| part.quantized("weight", [outputs_each, columns], false))
            .collect::<Result<Vec<_>, _>>()?;
        let weight = if quantized.iter().any(Option::is_some) {
            let floats = |part: &Weights<'_>| part.tensor("weight", &[outputs_each, columns]);
            let bias = stacked_bias(parts, outputs_each, bias)?;
            stacked_quantized(parts, &quantized, columns, bias, floats)?
        } else {
            let tensors = parts
                .iter()
                .map(|part| part.tensor("weight", &[outputs_each, columns]))
                .collect::<Result<Vec<_>, _>>()?;
            let bias = stacked_bias(parts, outputs_each, bias)?;
            match &binarized {
                Inputs::Elastic(elastic) if elastic.bits() == 1 => {
                    let packed = latent_bits(first.session(), &tensors, elastic, bias)?;
                    binarized = Inputs::Plain;
                    packed
                }
                Inputs::Elastic(_) => {
                    let signs = tensors.iter().map(|tensor| {
                        let w = Var::constant(tensor.to_dtype(DType::F32)?);
                        let w = estimators::binarize_matrix(first.session(), &w)?;
                        Ok(w.tensor().clone())
                    });
                    let signs = signs.collect::<Result<Vec<_>, NnError>>()?;
                    for_inference(first.session(), &signs, columns, bias)?
                }
                _ => for_inference(first.session(), &tensors, columns, bias)?,
            }
        };
        if let Inputs::Signs = binarized {
            binarized = Inputs::Plain;
        }
        for part in parts {
            part.release("weight");
        }
        Ok(Self {
            weight,
            names,
            inputs: binarized,
            split,
        })
    }

    /// A layer from a matrix in few bits and an f32 bias `[outputs]`.
    ///
    /// # Errors
    /// When the bias does not fit.
    pub fn from_quantized(
        session: &Session,
        weight: &QuantizedMatrix,
        bias: Option<Tensor>,
    ) -> Result<Self, NnError> {
        let input_scale = weight.input_scale().cloned();
        let weight = packed(session, &[weight], Reading::default())?;
        let weight = LinearWeight::quantized(weight, bias, input_scale)?;
        Ok(Self {
            weight,
            names: Vec::new(),
            inputs: Inputs::Plain,
            split: false,
        })
    }

    /// A layer of given parameters, a weight `[outputs, inputs]` and a bias `[outputs]`, that other layers may share:
    /// packed once if they are frozen.
    ///
    /// # Errors
    /// When the weight is no matrix or the bias does not fit it.
    pub fn from_parameters(
        session: &Session,
        weight: &Parameter,
        bias: Option<&Parameter>,
    ) -> Result<Self, NnError> {
        if weight.is_frozen() && bias.is_none_or(Parameter::is_frozen) {
            return Self::from_tensors(session, &weight.value(), bias.map(Parameter::value));
        }
        let part = LinearPart {
            weight: weight.clone(),
            bias: bias.cloned(),
        };
        let weight = LinearWeight::trained(vec![part])?;
        Ok(Self {
            weight,
            names: Vec::new(),
            inputs: Inputs::Plain,
            split: false,
        })
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
        let &[_, inputs] = weight.shape() else {
            return Err(NnError::Batch(format!(
                "a linear layer's weight has shape {:?}, expected two dimensions",
                weight.shape()
            )));
        };
        let weight = for_inference(session, std::slice::from_ref(weight), inputs, bias)?;
        Ok(Self {
            weight,
            names: Vec::new(),
            inputs: Inputs::Plain,
            split: false,
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
        session.observe(&self.names, x);
        let x = match &self.inputs {
            Inputs::Rounded(elastic) => &elastic.forward(session, x)?,
            Inputs::Elastic(elastic) if !self.is_trained() => &elastic.forward(session, x)?,
            Inputs::Signs | Inputs::Elastic(_) => {
                return self.forward_binarized(session, x, activation, residual);
            }
            Inputs::Plain => x,
        };
        let doubled = match self.split {
            true => Some(ops::concat(session, &[x, x], 1)?),
            false => None,
        };
        let x = doubled.as_ref().unwrap_or(x);
        Ok(ops::linear(session, x, &self.weight, activation, residual)?)
    }

    /// As the packed bits will give it, with gradients by their estimators.
    fn forward_binarized(
        &self,
        session: &Session,
        x: &Var,
        activation: Activation,
        residual: Option<&Var>,
    ) -> Result<Var, NnError> {
        // What is evaluated scales whole numbers, as the kernel does, to the bit.
        let (read, bits) = match &self.inputs {
            Inputs::Elastic(elastic) => {
                let read = elastic.forward(session, x)?;
                let exact = !session.is_training() && elastic.bits() == 1;
                let bits = exact.then(|| elastic.bit_inputs(elastic.step(Some(x))?));
                (read, bits.transpose()?)
            }
            _ => (estimators::sign(session, x)?, None),
        };
        let mut outputs = Vec::new();
        for part in self.weight.parts() {
            let w = part.weight.var();
            let binary = match &self.inputs {
                Inputs::Elastic(_) => estimators::binarize_matrix(session, &w)?,
                _ => estimators::binarize_rows(session, &w)?,
            };
            let mut y = ops::matmul(session, &read, &ops::transpose(session, &binary, 0, 1)?)?;
            let mut bias = part.bias.as_ref().map(Parameter::var);
            if let Some(bits) = &bits {
                let weight = bits.weight(w.tensor())?;
                let signs = Var::constant(bits.signs(x)?);
                y = exactly(session, &y, &signs, &weight)?;
                if let Some(bias) = &mut bias {
                    let values = weight.bias(bias.as_slice()?);
                    let values = Tensor::from_vec(values, bias.shape())?;
                    *bias = ops::straight_through(session, bias, values)?;
                }
            } else if !session.is_training() && matches!(self.inputs, Inputs::Signs) {
                let (scales, signs) = estimators::row_signs(session, w.tensor())?;
                let weight = BitWeight {
                    scales,
                    signs,
                    offsets: None,
                };
                y = exactly(session, &y, &read.detach(), &weight)?;
            }
            if let Some(bias) = &bias {
                y = ops::add(session, &y, bias)?;
            }
            outputs.push(y);
        }
        let mut y = match &outputs[..] {
            [one] => one.clone(),
            several => ops::concat(session, &several.iter().collect::<Vec<_>>(), 1)?,
        };
        if activation != Activation::None {
            y = ops::activate(session, activation, y)?;
        }
        Ok(match residual {
            Some(residual) => ops::add(session, &y, residual)?,
            None => y,
        })
    }

    /// `dropout(x·Wᵀ + b) + residual`: `x[T, in]`, `residual[T, out]` to `[T, out]`. In one pass where nothing is
    /// dropped, which is everywhere but in training.
    ///
    /// # Errors
    /// When the shapes disagree.
    pub fn forward_dropout_add(
        &self,
        session: &Session,
        x: &Var,
        dropout: f32,
        residual: &Var,
    ) -> Result<Var, NnError> {
        if !session.is_training() || dropout == 0.0 {
            return self.forward_with(session, x, Activation::None, Some(residual));
        }
        let y = self.forward(session, x)?;
        Ok(ops::dropout_add(session, y, residual, dropout)?)
    }

    /// `down(act(self(x))) + residual` by one kernel, where there is one and nobody wants to know what lies between.
    ///
    /// # Errors
    /// When the shapes disagree.
    pub(crate) fn chain(
        &self,
        session: &Session,
        x: &Var,
        activation: Activation,
        down: &Linear,
        residual: &Var,
    ) -> Result<Option<Var>, NnError> {
        let plain = |of: &Self| matches!(of.inputs, Inputs::Plain) && !of.split;
        if session.is_training() || session.is_observed() || !plain(self) || !plain(down) {
            return Ok(None);
        }
        let up = (&self.weight, activation);
        Ok(ops::linear_chain(session, x, up, &down.weight, residual)?)
    }

    /// Whether it is made of parameters, which may change.
    pub fn is_trained(&self) -> bool {
        !self.weight.parts().is_empty()
    }

    /// Width of the input.
    pub fn inputs(&self) -> usize {
        self.weight.k() / if self.split { 2 } else { 1 }
    }

    /// Width of the output.
    pub fn outputs(&self) -> usize {
        self.weight.n()
    }

    /// Number of parameters.
    pub fn parameters(&self) -> usize {
        self.weight.numel()
    }

    /// Bytes that the weight and the bias take in memory, in passes of a precision.
    pub fn bytes(&self, precision: Precision) -> usize {
        self.weight.bytes(precision)
    }
}

/// The product of signs with the scales of their weight, with the gradient of `y`.
fn exactly(session: &Session, y: &Var, x: &Var, weight: &BitWeight) -> Result<Var, NnError> {
    let plain = session.no_grad();
    let (rows, columns) = (weight.scales.len(), x.shape().last().copied().unwrap_or(0));
    let signs = Var::constant(Tensor::from_vec(weight.signs.clone(), &[rows, columns])?);
    let whole = ops::matmul(&plain, x, &ops::transpose(&plain, &signs, 0, 1)?)?;
    let scales = Var::constant(Tensor::from_vec(weight.scales.clone(), &[rows])?);
    let exact = ops::mul(&plain, &whole, &scales)?;
    Ok(ops::straight_through(session, y, exact.tensor().clone())?)
}
