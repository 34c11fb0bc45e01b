//! The weight of a linear layer, in the form that its product runs on.

use std::sync::{Arc, Mutex, PoisonError};

use bertha_kernels::{
    Activation, BinaryWeights, Epilogue, Exec, Int8Weights, Isa, LowBitWeights, Operands,
    PackedFormat, PackedWeights, WeightSource, gemm_binary, gemm_int8, gemm_low_bit,
    product_kernel,
};
use bertha_tensor::{DType, Tensor};

use crate::{AutogradError, Parameter, Precision, Session};

/// The weight `W[N,K]` of a linear layer and its bias `[N]`.
///
/// A layer may be several stacked on top of each other (queries, keys and values): one product, but parameters of
/// their own.
pub struct LinearWeight {
    form: Box<Form>,
    n: usize,
    k: usize,
}

enum Form {
    /// Packed once, the source not kept: all that inference needs.
    Packed {
        weight: PackedWeights,
        bias: Option<Tensor>,
    },
    /// Few bits, for inference alone.
    Quantized {
        weight: QuantizedWeight,
        bias: Option<Tensor>,
        /// `[K]`: multiplies inputs.
        input_scale: Option<Tensor>,
    },
    /// Parameters, packed again when one has changed.
    Trained {
        parts: Vec<LinearPart>,
        packed: Mutex<Option<Arc<Packed>>>,
    },
}

/// A weight in few bits, in the form that its product runs on.
#[derive(Debug)]
pub enum QuantizedWeight {
    /// 8 bits; inputs too, as they come.
    Int8(Int8Weights),
    /// Codes of 1 to 4 bits.
    LowBit(LowBitWeights),
    /// Signs; of inputs the signs count too.
    Binary(BinaryWeights),
}

impl QuantizedWeight {
    fn n(&self) -> usize {
        match self {
            Self::Int8(weight) => weight.n(),
            Self::LowBit(weight) => weight.n(),
            Self::Binary(weight) => weight.n(),
        }
    }

    fn k(&self) -> usize {
        match self {
            Self::Int8(weight) => weight.k(),
            Self::LowBit(weight) => weight.k(),
            Self::Binary(weight) => weight.k(),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Int8(weight) => weight.bytes(),
            Self::LowBit(weight) => weight.bytes(),
            Self::Binary(weight) => weight.bytes(),
        }
    }

    /// What its product multiplies, and where it was packed for.
    fn operands(&self) -> (Operands, Isa) {
        match self {
            Self::Int8(weight) => (Operands::Int8, weight.isa()),
            Self::LowBit(weight) => match weight.format() {
                PackedFormat::F32 | PackedFormat::F32Strict => (Operands::LowBit, weight.isa()),
                PackedFormat::Bf16 => (Operands::Bf16, weight.isa()),
            },
            Self::Binary(weight) => (Operands::Binary, weight.isa()),
        }
    }

    /// `y = epilogue(x·Wᵀ)` for `x[rows,K]`.
    pub(crate) fn product(
        &self,
        exec: &Exec,
        rows: usize,
        x: &[f32],
        epilogue: Epilogue<'_>,
        y: &mut [f32],
    ) {
        match self {
            Self::Int8(weight) => gemm_int8(exec, rows, x, weight, epilogue, y),
            Self::LowBit(weight) => gemm_low_bit(exec, rows, x, weight, epilogue, y),
            Self::Binary(weight) => gemm_binary(exec, rows, x, weight, epilogue, y),
        }
    }
}

/// The parameters of one of the layers that are stacked.
#[derive(Clone, Debug)]
pub struct LinearPart {
    /// `[N_i, K]`.
    pub weight: Parameter,
    /// `[N_i]`; all parts have one, or none.
    pub bias: Option<Parameter>,
}

/// What was packed from parameters, and from which versions of them.
pub(crate) struct Packed {
    versions: Vec<u64>,
    pub(crate) forward: PackedWeights,
    /// For the gradient of the input: `dX = dY·W`.
    pub(crate) transposed: PackedWeights,
    pub(crate) bias: Option<Tensor>,
}

impl LinearWeight {
    /// A weight for inference, with a bias `[N]` f32.
    ///
    /// # Errors
    /// When the bias has another length.
    pub fn packed(weight: PackedWeights, bias: Option<Tensor>) -> Result<Self, AutogradError> {
        let (n, k) = (weight.n(), weight.k());
        check_bias(bias.as_ref(), n)?;
        Ok(Self {
            form: Box::new(Form::Packed { weight, bias }),
            n,
            k,
        })
    }

    /// A weight in few bits for inference, with a bias `[N]` f32, and where inputs are to be scaled first, what by, `[K]` f32.
    /// It has no gradient.
    ///
    /// # Errors
    /// When the bias or the scale has another length.
    pub fn quantized(
        weight: QuantizedWeight,
        bias: Option<Tensor>,
        input_scale: Option<Tensor>,
    ) -> Result<Self, AutogradError> {
        let (n, k) = (weight.n(), weight.k());
        check_bias(bias.as_ref(), n)?;
        if let Some(scale) = &input_scale
            && scale.shape() != [k]
        {
            let expected = format!("[{k}]");
            return Err(shape_error("the input scale", scale.shape(), expected));
        }
        Ok(Self {
            form: Box::new(Form::Quantized {
                weight,
                bias,
                input_scale,
            }),
            n,
            k,
        })
    }

    /// A weight that is learned.
    ///
    /// # Errors
    /// When a part's weight is no matrix, the parts' inputs differ, or a bias does not fit its weight or is missing
    /// from some.
    pub fn trained(parts: Vec<LinearPart>) -> Result<Self, AutogradError> {
        let Some(first) = parts.first() else {
            return Err(shape_error("the weight", &[], "at least one part".into()));
        };
        let k = first.weight.shape().last().copied().unwrap_or(0);
        let mut n = 0;
        for part in &parts {
            let &[rows, columns] = part.weight.shape() else {
                return Err(shape_error(
                    "the weight",
                    part.weight.shape(),
                    "two dimensions".into(),
                ));
            };
            if columns != k {
                return Err(shape_error(
                    "the weight",
                    part.weight.shape(),
                    format!("[*, {k}]"),
                ));
            }
            match &part.bias {
                Some(bias) if bias.shape() != [rows] => {
                    return Err(shape_error("the bias", bias.shape(), format!("[{rows}]")));
                }
                bias if bias.is_some() != first.bias.is_some() => {
                    return Err(shape_error(
                        "the bias",
                        &[],
                        "one for every part, or for none".into(),
                    ));
                }
                _ => {}
            }
            n += rows;
        }
        Ok(Self {
            form: Box::new(Form::Trained {
                parts,
                packed: Mutex::new(None),
            }),
            n,
            k,
        })
    }

    /// Width of the output (N).
    pub fn n(&self) -> usize {
        self.n
    }

    /// Width of the input (K).
    pub fn k(&self) -> usize {
        self.k
    }

    /// Number of values, the bias included.
    pub fn numel(&self) -> usize {
        let bias = match &*self.form {
            Form::Packed { bias, .. } | Form::Quantized { bias, .. } => bias.is_some(),
            Form::Trained { parts, .. } => parts.iter().any(|part| part.bias.is_some()),
        };
        self.n * self.k + if bias { self.n } else { 0 }
    }

    /// Bytes in memory: of the packed form, and of the parameters where there are any, in passes of a precision.
    pub fn bytes(&self, precision: Precision) -> usize {
        let bias = self.numel() - self.n * self.k;
        match &*self.form {
            Form::Packed { weight, .. } => weight.bytes() + bias * size_of::<f32>(),
            Form::Quantized {
                weight,
                input_scale,
                ..
            } => {
                let scale = input_scale.as_ref().map_or(0, Tensor::size_in_bytes);
                weight.bytes() + scale + bias * size_of::<f32>()
            }
            // Parameters, and both packed forms.
            Form::Trained { .. } => {
                let packed = match precision {
                    Precision::F32 | Precision::F32Strict | Precision::Int8 => size_of::<f32>(),
                    Precision::Bf16 => size_of::<u16>(),
                };
                let float = size_of::<f32>();
                self.n * self.k * (float + 2 * packed) + 2 * bias * float
            }
        }
    }

    /// The name of the kernel that its products run on in passes of a session.
    pub(crate) fn kernel(&self, session: &Session) -> &'static str {
        let float = |format| match format {
            PackedFormat::F32 => Operands::F32,
            PackedFormat::F32Strict => Operands::F32Strict,
            PackedFormat::Bf16 => Operands::Bf16,
        };
        let (operands, isa) = match &*self.form {
            Form::Packed { weight, .. } => (float(weight.format()), weight.isa()),
            Form::Quantized { weight, .. } => weight.operands(),
            Form::Trained { .. } => {
                let format = session.precision().packed_format();
                (float(format), session.exec().isa())
            }
        };
        product_kernel(isa, operands)
    }

    /// The parameters, if it is learned.
    pub fn parts(&self) -> &[LinearPart] {
        match &*self.form {
            Form::Packed { .. } | Form::Quantized { .. } => &[],
            Form::Trained { parts, .. } => parts,
        }
    }

    /// Whether a gradient is wanted for one of the parameters.
    pub(crate) fn is_tracked(&self) -> bool {
        let tracked = |part: &LinearPart| {
            !part.weight.is_frozen() || part.bias.as_ref().is_some_and(|bias| !bias.is_frozen())
        };
        self.parts().iter().any(tracked)
    }

    /// `y = act(x·Wᵀ + bias) + residual` where the weight is quantized; whether it is.
    pub(crate) fn quantized_product(
        &self,
        session: &Session,
        (rows, x): (usize, &[f32]),
        activation: Activation,
        residual: Option<&[f32]>,
        y: &mut [f32],
    ) -> Result<bool, AutogradError> {
        let Form::Quantized {
            weight,
            bias,
            input_scale,
        } = &*self.form
        else {
            return Ok(false);
        };
        let epilogue = Epilogue {
            bias: bias.as_ref().map(Tensor::as_slice).transpose()?,
            activation,
            residual,
        };
        let Some(scale) = input_scale else {
            weight.product(session.exec(), rows, x, epilogue, y);
            return Ok(true);
        };
        let scale = scale.as_slice::<f32>()?;
        let mut scaled = session.scratch(&[rows, self.k])?;
        let values = scaled.as_mut_slice::<f32>()?;
        for (to, from) in values
            .chunks_mut(self.k.max(1))
            .zip(x.chunks(self.k.max(1)))
        {
            for ((to, from), scale) in to.iter_mut().zip(from).zip(scale) {
                *to = from * scale;
            }
        }
        weight.product(session.exec(), rows, values, epilogue, y);
        Ok(true)
    }

    /// The weight, packed for inference, and its bias, where it is that.
    pub(crate) fn for_inference(&self) -> Option<(&PackedWeights, Option<&Tensor>)> {
        match &*self.form {
            Form::Packed { weight, bias } => Some((weight, bias.as_ref())),
            Form::Quantized { .. } | Form::Trained { .. } => None,
        }
    }

    /// Whether it is quantized.
    pub(crate) fn is_quantized(&self) -> bool {
        matches!(*self.form, Form::Quantized { .. })
    }

    /// Calls `with` on the packed weight and the bias.
    pub(crate) fn with_packed<R>(
        &self,
        session: &Session,
        with: impl FnOnce(&PackedWeights, Option<&[f32]>, Option<Arc<Packed>>) -> R,
    ) -> Result<R, AutogradError> {
        Ok(match &*self.form {
            Form::Packed { weight, bias } => with(
                weight,
                bias.as_ref().map(Tensor::as_slice).transpose()?,
                None,
            ),
            // Whoever asks has handled it before, by `quantized_product`.
            Form::Quantized { .. } => {
                return Err(AutogradError::NoBackward {
                    op: "linear of a quantized weight",
                });
            }
            Form::Trained { parts, packed } => {
                let packed = up_to_date(session, parts, self.k, packed)?;
                let bias = packed.bias.as_ref().map(Tensor::as_slice).transpose()?;
                with(&packed.forward, bias, Some(Arc::clone(&packed)))
            }
        })
    }
}

impl std::fmt::Debug for LinearWeight {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let trained = matches!(*self.form, Form::Trained { .. });
        f.debug_struct("LinearWeight")
            .field("n", &self.n)
            .field("k", &self.k)
            .field("trained", &trained)
            .finish_non_exhaustive()
    }
}

/// The packed form of the parameters as they are now: the one at hand, or that packed again in its memory.
fn up_to_date(
    session: &Session,
    parts: &[LinearPart],
    k: usize,
    packed: &Mutex<Option<Arc<Packed>>>,
) -> Result<Arc<Packed>, AutogradError> {
    let format = session.precision().packed_format();
    let mut packed = packed.lock().unwrap_or_else(PoisonError::into_inner);
    // Versions first: a value that changes in between is packed once more the next time.
    let versions: Vec<u64> = parameters(parts).map(Parameter::version).collect();
    if let Some(packed) = &*packed
        && packed.versions == versions
        && packed.forward.isa() == session.exec().isa()
        && packed.forward.format() == format
    {
        return Ok(Arc::clone(packed));
    }
    let values: Vec<Tensor> = parts.iter().map(|part| part.weight.value()).collect();
    let sources = values
        .iter()
        .map(|value| Ok((WeightSource::F32(value.as_slice()?), value.shape()[0])))
        .collect::<Result<Vec<_>, AutogradError>>()?;
    let bias = stacked_bias::<f32>(parts)?;
    let exec = session.exec();
    let bias = bias.map(|values| {
        let n = values.len();
        Tensor::from_vec(values, &[n])
    });
    let bias = bias.transpose()?;
    let reusable = packed
        .take()
        .and_then(|old| Arc::try_unwrap(old).ok())
        .filter(|old| old.forward.isa() == exec.isa() && old.forward.format() == format);
    let fresh = match reusable {
        Some(mut old) => {
            old.forward.repack(exec, &sources);
            old.transposed.repack_transposed(exec, &sources);
            Packed {
                versions,
                bias,
                ..old
            }
        }
        None => Packed {
            versions,
            forward: PackedWeights::pack_stacked(exec, &sources, k, format),
            transposed: PackedWeights::pack_transposed(exec, &sources, k, format),
            bias,
        },
    };
    let fresh = Arc::new(fresh);
    *packed = Some(Arc::clone(&fresh));
    Ok(fresh)
}

fn parameters(parts: &[LinearPart]) -> impl Iterator<Item = &Parameter> {
    parts
        .iter()
        .flat_map(|part| [Some(&part.weight), part.bias.as_ref()])
        .flatten()
}

/// The biases of all parts, one after the other.
pub(crate) fn stacked_bias<T: bertha_tensor::Element>(
    parts: &[LinearPart],
) -> Result<Option<Vec<T>>, AutogradError> {
    let mut stacked = Vec::new();
    for part in parts {
        let Some(bias) = &part.bias else {
            return Ok(None);
        };
        stacked.extend_from_slice(bias.value().as_slice::<T>()?);
    }
    Ok(Some(stacked))
}

/// The weights of all parts, one below the other.
pub(crate) fn stacked_weight<T: bertha_tensor::Element>(
    parts: &[LinearPart],
) -> Result<Vec<T>, AutogradError> {
    let mut stacked = Vec::new();
    for part in parts {
        stacked.extend_from_slice(part.weight.value().as_slice::<T>()?);
    }
    Ok(stacked)
}

fn check_bias(bias: Option<&Tensor>, n: usize) -> Result<(), AutogradError> {
    match bias {
        Some(bias) if bias.shape() != [n] => {
            Err(shape_error("the bias", bias.shape(), format!("[{n}]")))
        }
        _ => Ok(()),
    }
}

fn shape_error(input: &'static str, found: &[usize], expected: String) -> AutogradError {
    AutogradError::Shape {
        op: "linear",
        input,
        found: found.to_vec(),
        expected,
    }
}

impl Packed {
    /// Whether all parameters are f64, as in gradient checks.
    pub(crate) fn is_f64(parts: &[LinearPart]) -> bool {
        !parts.is_empty() && parameters(parts).all(|parameter| parameter.dtype() == DType::F64)
    }
}
