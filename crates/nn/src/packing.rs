//! A linear layer's weights as inference wants them: packed once, in the format that they come in.

use bertha_autograd::{LinearWeight, Precision, QuantizedWeight, Session};
use bertha_kernels::{
    BinaryWeights, Int8Weights, LowBitWeights, PackedWeights, quantize_rows_int8,
};
use bertha_tensor::{DType, Tensor};

use crate::elastic::{BitWeight, Elastic};
use crate::weights::source;
use crate::{Bias, NnError, QuantizedMatrix, WeightFormat, Weights};

/// What the least inputs are called whose bits are 1, `[in]`, in a layer of signs: after the first of those that are stacked.
pub const INPUT_THRESHOLD: &str = "input_threshold";

/// Float matrices `[*, inputs]`, one below the other, packed once in the session's precision.
pub(crate) fn for_inference(
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

/// The latent weights of a layer whose inputs have a bit each, packed.
pub(crate) fn latent_bits(
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
pub(crate) struct Reading {
    /// What binary weights compare inputs with, where that is not 0.
    thresholds: Option<Vec<f32>>,
    /// The magnitude from which on weights of 8 bits do not round inputs.
    outliers: Option<f32>,
}

/// Matrices of one format, one below the other.
pub(crate) fn packed(
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
pub(crate) fn stacked_quantized(
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
pub(crate) fn stacked_bias(
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
