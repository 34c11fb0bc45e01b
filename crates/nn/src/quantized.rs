//! Matrices in few bits, as a safetensors file holds them.
//!
//! A matrix `NAME` `[rows, columns]` is, by its format:
//!
//! | tensor | int8 | codes of 1 to 4 bits, and binary |
//! | --- | --- | --- |
//! | `NAME` | I8 `[rows, columns]` | U8 `[rows, ⌈columns·bits/8⌉]`, the first code in the highest bits |
//! | `NAME_scale` | float `[rows, 1]` | float `[rows, ⌈columns/group⌉]`, or U8 codes of 8 bits |
//! | `NAME_zero_point` | | U8, as the scales, in asymmetric formats |
//! | `NAME_scale_absmax` | | f32, a magnitude for 256 scales, where these are codes |
//! | `NAME_scale_mean` | | f32 `[1]`, the mean of the scales, where these are codes |
//! | `NAME_input_scale` | f32 `[columns]`, where there is one | the same |
//!
//! An input scale multiplies the product's input before it meets the codes (SmoothQuant, Xiao et al. 2022,
//! <https://arxiv.org/abs/2211.10438>; AWQ, Lin et al. 2023, <https://arxiv.org/abs/2306.00978>),
//!
//! and the file's metadata says under `NAME` which format it is, such as `nf4 64`.

use std::fmt;
use std::str::FromStr;

use bertha_autograd::Session;
use bertha_kernels::{
    CodeBook, DynamicScales, Group, LowBitSource, SCALE_BLOCK, decode_group, pack_codes,
    packed_len, unpack_codes,
};
use bertha_tensor::{Checkpoint, DType, Tensor};

use crate::{Binarization, NnError, estimators};

/// How the values of a matrix are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WeightFormat {
    /// 8 bits, a scale for each row.
    Int8,
    /// Codes of 1 to 4 bits.
    Codes {
        /// What they stand for.
        book: CodeBook,
        /// Values of a row that share a scale.
        group: usize,
    },
    /// A sign, and a scale for each row; of inputs signs count too.
    Binary,
}

impl WeightFormat {
    /// Bits of a value, without scales.
    pub fn bits(self) -> usize {
        match self {
            Self::Int8 => 8,
            Self::Codes { book, .. } => book.bits(),
            Self::Binary => 1,
        }
    }

    /// Scales of a row of `columns` values.
    pub fn groups(self, columns: usize) -> usize {
        match self {
            Self::Int8 | Self::Binary => 1,
            Self::Codes { group, .. } => columns.div_ceil(group.max(1)),
        }
    }
}

impl fmt::Display for WeightFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Int8 => f.write_str("int8"),
            Self::Binary => f.write_str("binary"),
            Self::Codes { book, group } => match book {
                CodeBook::Symmetric(bits) => write!(f, "int{bits} {group}"),
                CodeBook::Asymmetric(bits) => write!(f, "uint{bits} {group}"),
                CodeBook::Nf4 => write!(f, "nf4 {group}"),
                CodeBook::Fp4 => write!(f, "fp4 {group}"),
                CodeBook::E2m1 => write!(f, "e2m1 {group}"),
                CodeBook::Sign => write!(f, "sign {group}"),
            },
        }
    }
}

impl FromStr for WeightFormat {
    type Err = String;

    /// What [`Display`](fmt::Display) gives.
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "int8" => return Ok(Self::Int8),
            "binary" => return Ok(Self::Binary),
            _ => {}
        }
        let unknown = || {
            format!(
                "format `{text}` is not known; known are int8, binary, and int2 to int4, uint2 to uint4, nf4, fp4, e2m1 and \
                 sign, each with a space and the values of a group"
            )
        };
        let (book, group) = text.split_once(' ').ok_or_else(unknown)?;
        let group = group
            .parse()
            .ok()
            .filter(|&group| group > 0)
            .ok_or_else(unknown)?;
        let book = match book {
            "int2" => CodeBook::Symmetric(2),
            "int3" => CodeBook::Symmetric(3),
            "int4" => CodeBook::Symmetric(4),
            "uint2" => CodeBook::Asymmetric(2),
            "uint3" => CodeBook::Asymmetric(3),
            "uint4" => CodeBook::Asymmetric(4),
            "nf4" => CodeBook::Nf4,
            "fp4" => CodeBook::Fp4,
            "e2m1" => CodeBook::E2m1,
            "sign" => CodeBook::Sign,
            _ => return Err(unknown()),
        };
        Ok(Self::Codes { book, group })
    }
}

/// A matrix in few bits.
#[derive(Clone, Debug)]
pub struct QuantizedMatrix {
    format: WeightFormat,
    rows: usize,
    columns: usize,
    /// I8 or U8.
    codes: Tensor,
    /// f32 `[rows, groups]`.
    scales: Tensor,
    zeros: Option<Tensor>,
    /// f32 `[columns]`.
    input_scale: Option<Tensor>,
}

/// In 16 bits where that loses nothing.
fn halved(scales: &Tensor) -> Result<Tensor, NnError> {
    let half = scales.to_dtype(DType::F16)?;
    let back = half.to_dtype(DType::F32)?;
    let same = back.as_slice::<f32>()? == scales.as_slice::<f32>()?;
    Ok(if same { half } else { scales.clone() })
}

/// What the tensors beside the codes are called, after the codes' name.
const SCALE: &str = "_scale";
const ZERO_POINT: &str = "_zero_point";
const ABSMAX: &str = "_scale_absmax";
const MEAN: &str = "_scale_mean";
const INPUT_SCALE: &str = "_input_scale";

impl QuantizedMatrix {
    /// From parts: codes I8 `[rows, columns]` or U8 `[rows, ⌈columns·bits/8⌉]`, scales f32 `[rows, groups]`, and zero points U8
    /// of the scales' shape where the format has them.
    ///
    /// # Errors
    /// A phrase that says which part does not fit.
    pub fn new(
        format: WeightFormat,
        (rows, columns): (usize, usize),
        codes: Tensor,
        scales: Tensor,
        zeros: Option<Tensor>,
    ) -> Result<Self, String> {
        let (dtype, bytes) = match format {
            WeightFormat::Int8 => (DType::I8, columns),
            WeightFormat::Codes { .. } | WeightFormat::Binary => {
                (DType::U8, packed_len(format.bits(), columns))
            }
        };
        let groups = [rows, format.groups(columns)];
        let check = |what: &str, tensor: &Tensor, dtype: DType, shape: &[usize]| {
            if tensor.dtype() == dtype && tensor.shape() == shape {
                return Ok(());
            }
            Err(format!(
                "{what} of {format} are {} {:?}, expected {dtype} {shape:?}",
                tensor.dtype(),
                tensor.shape()
            ))
        };
        check("the codes", &codes, dtype, &[rows, bytes])?;
        check("the scales", &scales, DType::F32, &groups)?;
        let wanted = matches!(format, WeightFormat::Codes { book, .. } if book.has_zero_points());
        match &zeros {
            Some(zeros) => check("the zero points", zeros, DType::U8, &groups)?,
            None if wanted => return Err(format!("{format} needs zero points")),
            None => {}
        }
        Ok(Self {
            format,
            rows,
            columns,
            codes: codes.contiguous(),
            scales: scales.contiguous(),
            zeros: zeros.filter(|_| wanted).map(|zeros| zeros.contiguous()),
            input_scale: None,
        })
    }

    /// The same with an input scale f32 `[columns]`.
    ///
    /// # Errors
    /// A phrase, when it has another shape or dtype.
    pub fn with_input_scale(mut self, scale: Tensor) -> Result<Self, String> {
        if scale.dtype() != DType::F32 || scale.shape() != [self.columns] {
            return Err(format!(
                "the input scale is {} {:?}, expected f32 [{}]",
                scale.dtype(),
                scale.shape(),
                self.columns
            ));
        }
        self.input_scale = Some(scale.contiguous());
        Ok(self)
    }

    /// Matrix `name` `[rows, columns]` of a checkpoint, where it is quantized; none where it is of floats, or missing.
    ///
    /// # Errors
    /// When a tensor of it is missing or does not fit its format.
    pub fn load(
        checkpoint: &Checkpoint,
        name: &str,
        shape: (usize, usize),
    ) -> Result<Option<Self>, NnError> {
        if !checkpoint.contains(name) {
            return Ok(None);
        }
        let refuse = |problem: String| NnError::Quantized {
            file: checkpoint
                .file_of(name)
                .unwrap_or(checkpoint.path())
                .to_path_buf(),
            name: name.to_owned(),
            problem,
        };
        let format = match checkpoint.info(name)?.dtype {
            DType::I8 => WeightFormat::Int8,
            DType::U8 => {
                let format = checkpoint.metadata().get(name).ok_or_else(|| {
                    refuse("the file's metadata does not say in which format its bytes are".into())
                })?;
                format.parse().map_err(refuse)?
            }
            _ => return Ok(None),
        };
        let part = |suffix: &str| checkpoint.get(&format!("{name}{suffix}"));
        let codes = part("")?;
        let stored = part(SCALE)?;
        let scales = match stored.dtype() {
            DType::U8 => {
                let mean = part(MEAN)?.to_dtype(DType::F32)?;
                let magnitudes = part(ABSMAX)?.to_dtype(DType::F32)?;
                let scales = DynamicScales {
                    codes: stored.contiguous().as_slice::<u8>()?.to_vec(),
                    magnitudes: magnitudes.contiguous().as_slice::<f32>()?.to_vec(),
                    mean: mean.as_slice::<f32>()?.first().copied().unwrap_or(0.0),
                };
                let scales = scales.decode().ok_or_else(|| {
                    refuse(format!(
                        "{} codes of scales need a magnitude for each {SCALE_BLOCK}",
                        stored.numel()
                    ))
                })?;
                Tensor::from_vec(scales, stored.shape())?
            }
            _ => stored.to_dtype(DType::F32)?,
        };
        let zeros = match format {
            WeightFormat::Codes { book, .. } if book.has_zero_points() => Some(part(ZERO_POINT)?),
            _ => None,
        };
        let matrix = Self::new(format, shape, codes, scales, zeros).map_err(refuse)?;
        Ok(Some(
            match checkpoint.contains(&format!("{name}{INPUT_SCALE}")) {
                true => matrix
                    .with_input_scale(part(INPUT_SCALE)?)
                    .map_err(refuse)?,
                false => matrix,
            },
        ))
    }

    /// The signs of a binarized layer's or table's latent weight `w[rows, columns]`, with the scale of each row, as its estimator gives
    /// them: [`estimators::binarize_rows`], of BiT's tables [`estimators::binarize_table`]. A layer's format is
    /// [`WeightFormat::Binary`], a table's that of signs. Of BiT's layers, whose scales hold those of inputs, see
    /// [`BitInputs`](crate::BitInputs).
    ///
    /// # Errors
    /// When `w` is no matrix of a float dtype.
    pub fn binarized(
        session: &Session,
        w: &Tensor,
        binarization: Binarization,
        table: bool,
    ) -> Result<Self, NnError> {
        let w = w.to_dtype(DType::F32)?.contiguous();
        let &[rows, columns] = w.shape() else {
            return Err(NnError::Batch(format!(
                "a weight of shape {:?} cannot be binarized: it has not two dimensions",
                w.shape()
            )));
        };
        let (scales, signs) = match binarization {
            Binarization::Naive | Binarization::BiBert => estimators::row_signs(session, &w)?,
            Binarization::Bit { .. } => estimators::table_signs(&w)?,
        };
        Self::of_signs((rows, columns), scales, &signs, table)
    }

    /// A matrix of signs, −1 and 1, with a scale for each row: of a layer, or a table.
    ///
    /// # Errors
    /// When storage cannot be made.
    ///
    /// # Panics
    /// When there are not as many signs or scales.
    pub fn of_signs(
        (rows, columns): (usize, usize),
        scales: Vec<f32>,
        signs: &[f32],
        table: bool,
    ) -> Result<Self, NnError> {
        assert_eq!((signs.len(), scales.len()), (rows * columns, rows));
        let len = packed_len(1, columns);
        let mut bytes = vec![0; rows * len];
        let mut codes = vec![0; columns];
        for (signs, bytes) in signs
            .chunks_exact(columns.max(1))
            .zip(bytes.chunks_exact_mut(len.max(1)))
        {
            for (code, &sign) in codes.iter_mut().zip(signs) {
                *code = u8::from(sign > 0.0);
            }
            pack_codes(1, &codes, bytes);
        }
        let format = match table {
            true => WeightFormat::Codes {
                book: CodeBook::Sign,
                group: columns.max(1),
            },
            false => WeightFormat::Binary,
        };
        Ok(Self {
            format,
            rows,
            columns,
            codes: Tensor::from_vec(bytes, &[rows, len])?,
            scales: Tensor::from_vec(scales, &[rows, 1])?,
            zeros: None,
            input_scale: None,
        })
    }

    /// The tensors that a file holds of it, by name. With `double`, scales are stored in 8 bits: call
    /// [`Self::with_double_quantization`] first, so that they are what will be read.
    ///
    /// # Errors
    /// When a tensor cannot be made.
    pub fn tensors(&self, name: &str, double: bool) -> Result<Vec<(String, Tensor)>, NnError> {
        let mut tensors = vec![(name.to_owned(), self.codes.clone())];
        if double {
            let scales = DynamicScales::encode(self.scales.as_slice()?);
            let blocks = scales.magnitudes.len();
            tensors.push((
                format!("{name}{SCALE}"),
                Tensor::from_vec(scales.codes, self.scales.shape())?,
            ));
            tensors.push((
                format!("{name}{ABSMAX}"),
                Tensor::from_vec(scales.magnitudes, &[blocks])?,
            ));
            tensors.push((
                format!("{name}{MEAN}"),
                Tensor::from_vec(vec![scales.mean], &[1])?,
            ));
        } else {
            tensors.push((format!("{name}{SCALE}"), halved(&self.scales)?));
        }
        if let Some(zeros) = &self.zeros {
            tensors.push((format!("{name}{ZERO_POINT}"), zeros.clone()));
        }
        if let Some(scale) = &self.input_scale {
            tensors.push((format!("{name}{INPUT_SCALE}"), scale.clone()));
        }
        Ok(tensors)
    }

    /// What it was made to be.
    pub fn format(&self) -> WeightFormat {
        self.format
    }

    /// Rows and columns.
    pub fn shape(&self) -> (usize, usize) {
        (self.rows, self.columns)
    }

    /// Bytes of codes, scales and zero points in memory.
    pub fn bytes(&self) -> usize {
        let optional = [&self.zeros, &self.input_scale].into_iter().flatten();
        let all = [&self.codes, &self.scales].into_iter().chain(optional);
        all.map(Tensor::size_in_bytes).sum()
    }

    /// The values of a row.
    ///
    /// # Errors
    /// When storage cannot be read.
    ///
    /// # Panics
    /// When there is no such row, or `out` has not a value for each column.
    pub fn decode_row(&self, row: usize, out: &mut [f32]) -> Result<(), NnError> {
        let groups = self.format.groups(self.columns);
        let scales = &self.scales.as_slice::<f32>()?[row * groups..][..groups];
        match self.format {
            WeightFormat::Int8 => {
                let codes = &self.codes.as_slice::<i8>()?[row * self.columns..][..self.columns];
                for (out, &code) in out.iter_mut().zip(codes) {
                    *out = f32::from(code) * scales[0];
                }
            }
            WeightFormat::Codes { .. } | WeightFormat::Binary => {
                let (book, group) = match self.format {
                    WeightFormat::Codes { book, group } => (book, group),
                    _ => (CodeBook::Sign, self.columns.max(1)),
                };
                let len = packed_len(book.bits(), self.columns);
                let packed = &self.codes.as_slice::<u8>()?[row * len..][..len];
                let mut codes = vec![0; self.columns];
                unpack_codes(book.bits(), packed, &mut codes);
                let zeros = match &self.zeros {
                    Some(zeros) => Some(&zeros.as_slice::<u8>()?[row * groups..][..groups]),
                    None => None,
                };
                for (g, (codes, out)) in codes.chunks(group).zip(out.chunks_mut(group)).enumerate()
                {
                    let zero = zeros.map_or(0, |zeros| zeros[g]);
                    let scale = scales[g];
                    decode_group(book, codes, Group { scale, zero }, out);
                }
            }
        }
        if let Some(scale) = &self.input_scale {
            for (out, scale) in out.iter_mut().zip(scale.as_slice::<f32>()?) {
                *out *= scale;
            }
        }
        Ok(())
    }

    /// All values, f32 `[rows, columns]`.
    ///
    /// # Errors
    /// When storage cannot be read.
    pub fn dequantize(&self) -> Result<Tensor, NnError> {
        let mut values = vec![0.0; self.rows * self.columns];
        for (row, out) in values.chunks_exact_mut(self.columns.max(1)).enumerate() {
            self.decode_row(row, out)?;
        }
        Ok(Tensor::from_vec(values, &[self.rows, self.columns])?)
    }

    /// What the product's input is multiplied by, f32 `[columns]`.
    pub(crate) fn input_scale(&self) -> Option<&Tensor> {
        self.input_scale.as_ref()
    }

    /// Whether it can share a product with another matrix of as many columns.
    pub(crate) fn goes_with(&self, other: &Self) -> Result<bool, NnError> {
        let scale = |of: &Self| -> Result<Vec<f32>, NnError> {
            Ok(match &of.input_scale {
                Some(scale) => scale.as_slice::<f32>()?.to_vec(),
                None => Vec::new(),
            })
        };
        Ok(self.format == other.format && scale(self)? == scale(other)?)
    }

    /// The codes and scales of a matrix of 8 bits.
    pub(crate) fn int8(&self) -> Result<(&[i8], &[f32]), NnError> {
        Ok((self.codes.as_slice()?, self.scales.as_slice()?))
    }

    /// The bits and scales of a binary matrix.
    pub(crate) fn binary(&self) -> Result<(&[u8], &[f32]), NnError> {
        Ok((self.codes.as_slice()?, self.scales.as_slice()?))
    }

    /// The parts of a matrix of codes.
    pub(crate) fn low_bit(&self) -> Result<LowBitSource<'_>, NnError> {
        Ok(LowBitSource {
            codes: self.codes.as_slice()?,
            scales: self.scales.as_slice()?,
            zeros: self.zeros.as_ref().map(Tensor::as_slice).transpose()?,
            rows: self.rows,
        })
    }

    /// The same with its scales as they are after 8 bits.
    ///
    /// # Errors
    /// When storage cannot be read.
    pub fn with_double_quantization(mut self) -> Result<Self, NnError> {
        let scales = DynamicScales::encode(self.scales.as_slice()?);
        let shape = self.scales.shape().to_vec();
        let decoded = scales.decode().unwrap_or_default();
        self.scales = Tensor::from_vec(decoded, &shape)?;
        Ok(self)
    }
}
