//! The fully connected layer.

use bertha_autograd::{
    LinearPart, LinearWeight, Parameter, Precision, QuantizedWeight, Session, Var, ops,
};
use bertha_kernels::{
    Activation, BinaryWeights, Int8Weights, LowBitWeights, PackedWeights, quantize_rows_int8,
};
use bertha_tensor::{DType, Tensor};

use crate::elastic::{BitWeight, Elastic};
use crate::initializer::Initial;
use crate::weights::source;
use crate::{Binarization, NnError, QuantizedMatrix, WeightFormat, Weights, estimators};

/// What the least inputs are called whose bits are 1, `[in]`, in a layer of signs: after the first of those that are stacked.
pub const INPUT_THRESHOLD: &str = "input_threshold";

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

/// Float matrices `[*, inputs]`, one below the other, packed once in the session's precision.
fn for_inference(
    session: &Session,
    tensors: &[Tensor],
    inputs: usize,
    bias: Option<Tensor>,
) -> Result<LinearWeight, NnError> {
    let exec = session.exec();
    if session.precision() == Precision::Int8 {
        let mut parts = Vec::new();
        for tensor in tensors {
            let values = tensor.to_dtype(DType::F32)?.contiguous();
            let mut levels = vec![0; values.numel()];
            let scales = quantize_rows_int8(exec, values.as_slice()?, inputs, &mut levels);
            parts.push((levels, scales));
        }
        let parts: Vec<(&[i8], &[f32])> = parts.iter().map(|(q, s)| (&q[..], &s[..])).collect();
        let weight = QuantizedWeight::Int8(Int8Weights::pack_stacked(exec, &parts, inputs));
        return Ok(LinearWeight::quantized(weight, bias, None)?);
    }
    let rows = |tensor: &Tensor| tensor.numel() / inputs.max(1);
    let sources = tensors
        .iter()
        .map(|tensor| Ok((source(tensor)?, rows(tensor))))
        .collect::<Result<Vec<_>, NnError>>()?;
    let format = session.precision().packed_format();
    let weight = PackedWeights::pack_stacked(exec, &sources, inputs, format);
    Ok(LinearWeight::packed(weight, bias)?)
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

/// The latent weights of a layer whose inputs have a bit each, packed.
fn latent_bits(
    session: &Session,
    tensors: &[Tensor],
    elastic: &Elastic,
    bias: Option<Tensor>,
) -> Result<LinearWeight, NnError> {
    let inputs = elastic.bit_inputs(elastic.step(None)?)?;
    let mut matrices = Vec::new();
    let mut offsets = Vec::new();
    for tensor in tensors {
        let tensor = tensor.to_dtype(DType::F32)?.contiguous();
        let (rows, columns) = (tensor.shape()[0], tensor.shape()[1]);
        let weight = inputs.weight(&tensor)?;
        offsets.extend(weight.bias(&vec![0.0; rows]));
        let BitWeight { scales, signs, .. } = weight;
        let shape = (rows, columns);
        matrices.push(QuantizedMatrix::of_signs(shape, scales, &signs, false)?);
    }
    let columns = tensors.first().map_or(0, |tensor| tensor.shape()[1]);
    let bias = match bias {
        Some(bias) => {
            let pairs = bias.as_slice::<f32>()?.iter().zip(&offsets);
            let values: Vec<f32> = pairs.map(|(bias, offset)| bias + offset).collect();
            Some(Tensor::from_vec(values, bias.shape())?)
        }
        None => None,
    };
    let matrices: Vec<_> = matrices.iter().collect();
    let reading = Reading {
        thresholds: Some(inputs.thresholds(columns)),
        outliers: None,
    };
    let weight = packed(session, &matrices, reading)?;
    Ok(LinearWeight::quantized(weight, bias, None)?)
}

/// How packed weights read inputs.
#[derive(Default)]
struct Reading {
    /// What binary weights compare inputs with, where that is not 0.
    thresholds: Option<Vec<f32>>,
    /// The magnitude from which on weights of 8 bits do not round inputs.
    outliers: Option<f32>,
}

/// Matrices of one format, one below the other.
fn packed(
    session: &Session,
    parts: &[&QuantizedMatrix],
    reading: Reading,
) -> Result<QuantizedWeight, NnError> {
    let inputs = parts.first().map_or(0, |part| part.shape().1);
    Ok(match parts.first().map(|part| part.format()) {
        Some(WeightFormat::Codes { book, group }) => {
            let sources = parts.iter().map(|part| part.low_bit());
            let sources = sources.collect::<Result<Vec<_>, _>>()?;
            let exec = session.exec();
            let (sizes, format) = ((group, inputs), session.precision().packed_format());
            let weight = LowBitWeights::pack_stacked(exec, &sources, book, sizes, format);
            QuantizedWeight::LowBit(weight)
        }
        Some(WeightFormat::Binary) => {
            let sources = parts.iter().map(|part| part.binary());
            let sources = sources.collect::<Result<Vec<_>, _>>()?;
            let weight = BinaryWeights::pack_stacked(session.exec(), &sources, inputs);
            QuantizedWeight::Binary(match reading.thresholds {
                Some(thresholds) => weight.with_thresholds(thresholds),
                None => weight,
            })
        }
        _ => {
            let sources = parts.iter().map(|part| part.int8());
            let sources = sources.collect::<Result<Vec<_>, _>>()?;
            let weight = Int8Weights::pack_stacked(session.exec(), &sources, inputs);
            QuantizedWeight::Int8(match reading.outliers {
                Some(threshold) => weight.with_outliers(threshold),
                None => weight,
            })
        }
    })
}

/// Layers of one input of which some are quantized: together in their format if they have one, else as float ones.
fn stacked_quantized(
    parts: &[Weights<'_>],
    quantized: &[Option<QuantizedMatrix>],
    inputs: usize,
    bias: Option<Tensor>,
    floats: impl Fn(&Weights<'_>) -> Result<Tensor, NnError>,
) -> Result<LinearWeight, NnError> {
    let session = parts[0].session();
    let matrices: Vec<_> = quantized.iter().flatten().collect();
    let mut together = matrices.len() == parts.len();
    for pair in matrices.windows(2) {
        together &= pair[0].goes_with(pair[1])?;
    }
    if together {
        let input_scale = matrices[0].input_scale().cloned();
        let thresholds = match parts[0].contains(INPUT_THRESHOLD) {
            true => {
                let tensor = parts[0].f32_tensor(INPUT_THRESHOLD, &[inputs])?;
                Some(tensor.contiguous().as_slice::<f32>()?.to_vec())
            }
            false => None,
        };
        let outliers = parts[0].outlier_threshold();
        let reading = Reading {
            thresholds,
            outliers,
        };
        let weight = packed(session, &matrices, reading)?;
        return Ok(LinearWeight::quantized(weight, bias, input_scale)?);
    }
    let tensors = parts
        .iter()
        .zip(quantized)
        .map(|(part, quantized)| match quantized {
            Some(matrix) => matrix.dequantize(),
            None => floats(part),
        })
        .collect::<Result<Vec<_>, _>>()?;
    for_inference(session, &tensors, inputs, bias)
}

/// The biases of layers of one input, one after the other.
fn stacked_bias(
    parts: &[Weights<'_>],
    outputs_each: usize,
    bias: Bias,
) -> Result<Option<Tensor>, NnError> {
    if bias == Bias::Absent {
        return Ok(None);
    }
    let mut stacked = Vec::with_capacity(parts.len() * outputs_each);
    for part in parts {
        let bias = part.f32_tensor("bias", &[outputs_each])?;
        stacked.extend_from_slice(bias.as_slice::<f32>()?);
    }
    let len = stacked.len();
    Ok(Some(Tensor::from_vec(stacked, &[len])?))
}
