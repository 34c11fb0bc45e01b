//! The walk over a model's weights, and what it leaves.

use std::collections::BTreeMap;
use std::path::Path;

use bertha_autograd::Session;
use bertha_kernels::GroupRange;
use bertha_models::{Config, Model, write_folder};
use bertha_nn::{QuantizedMatrix, WeightFormat};
use bertha_tensor::{Checkpoint, DType, Tensor};
use serde::Serialize;
use serde_json::json;

use crate::names::is_table;
use crate::scaling::{awq_factors, scaled, smooth_factors};
use crate::{Calibration, CompressError, Method, Settings, gptq, linear_layers, round_to_nearest};

/// What became of a weight.
#[derive(Clone, Debug, Serialize)]
pub struct LayerReport {
    /// Its name.
    pub weight: String,
    /// Its format.
    pub format: String,
    /// Rows and columns.
    pub shape: [usize; 2],
    /// Bytes in the file, scales and all.
    pub bytes: usize,
    /// Bytes before.
    pub bytes_before: usize,
    /// `‖W − Ŵ‖/‖W‖`, Frobenius.
    pub weight_error: f64,
    /// `‖X·(W − Ŵ)ᵀ‖/‖X·Wᵀ‖` on the texts of the calibration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_error: Option<f64>,
}

/// A model whose weights were quantized, to be saved or run.
#[derive(Debug)]
pub struct Quantized {
    /// Its configuration, with a `quantization_config`.
    pub config: Config,
    /// Its tensors.
    pub tensors: BTreeMap<String, Tensor>,
    /// The file's metadata: formats by the names of weights.
    pub metadata: BTreeMap<String, String>,
    /// What became of each weight.
    pub layers: Vec<LayerReport>,
}

impl Quantized {
    /// Keeps a weight that was `value` as `matrix`, and reports it. With `double`, its scales are stored in 8 bits.
    pub(crate) fn put(
        &mut self,
        name: &str,
        value: &Tensor,
        matrix: &QuantizedMatrix,
        double: bool,
    ) -> Result<(), CompressError> {
        let (rows, columns) = matrix.shape();
        let tensors = matrix.tensors(name, double)?;
        self.layers.push(LayerReport {
            weight: name.to_owned(),
            format: matrix.format().to_string(),
            shape: [rows, columns],
            bytes: tensors
                .iter()
                .map(|(_, tensor)| tensor.size_in_bytes())
                .sum(),
            bytes_before: value.size_in_bytes(),
            weight_error: weight_error(value.contiguous().as_slice()?, matrix)?,
            output_error: None,
        });
        self.metadata
            .insert(name.to_owned(), matrix.format().to_string());
        self.tensors.extend(tensors);
        Ok(())
    }

    /// The tensors as a checkpoint, to be loaded without a file.
    pub fn checkpoint(&self) -> Checkpoint {
        Checkpoint::from_tensors(
            self.config.file(),
            self.tensors.clone(),
            self.metadata.clone(),
        )
    }

    /// Bytes of all tensors.
    pub fn bytes(&self) -> usize {
        self.tensors.values().map(Tensor::size_in_bytes).sum()
    }

    /// Writes `config.json` and `model.safetensors` into a folder that exists: each appears whole or not at all.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn save(&self, dir: impl AsRef<Path>) -> Result<(), CompressError> {
        let tensors = self.tensors.iter();
        let tensors: Vec<_> = tensors.map(|(name, tensor)| (&**name, tensor)).collect();
        Ok(write_folder(
            dir.as_ref(),
            &self.config,
            &tensors,
            Some(&self.metadata),
        )?)
    }
}

/// Quantizes a model's weights. `model` is the model of `checkpoint` and `config`, which shows its linear layers.
///
/// # Errors
/// When a weight is quantized already or not finite, the method needs a calibration and there is none, or nothing is to
/// be quantized.
pub fn quantize(
    session: &Session,
    model: &dyn Model,
    checkpoint: &Checkpoint,
    config: &Config,
    settings: &Settings,
    calibration: Option<&Calibration>,
) -> Result<Quantized, CompressError> {
    settings.check()?;
    if settings.method.calibrates() && calibration.is_none() {
        return Err(CompressError::NoCalibration {
            method: settings.method.name(),
        });
    }
    let mut walk = Walk {
        session,
        checkpoint,
        settings,
        calibration,
        tensors: BTreeMap::new(),
        metadata: BTreeMap::new(),
        layers: Vec::new(),
    };
    for layer in linear_layers(model, session)? {
        // A decoder that is the word table has no weight of its own.
        let names = layer.into_iter().filter(|name| checkpoint.contains(name));
        let names: Vec<String> = names.collect();
        walk.layer(&names)?;
    }
    let tables = checkpoint.names().filter(|name| is_table(name));
    for name in tables.map(str::to_owned).collect::<Vec<_>>() {
        let Some(format) = settings.format_of_table(&name) else {
            continue;
        };
        let (w, shape) = walk.weight(&name)?;
        // Two rows of types are not worth it.
        if shape[0] < 64 {
            continue;
        }
        let range = match settings.method {
            Method::Round(range) => range,
            _ => GroupRange::MinMax,
        };
        let format = within(format, shape[1]);
        let matrix = round_to_nearest(format, &w, shape[1], range, None)?;
        walk.put(&name, &w, matrix)?;
    }
    if walk.layers.is_empty() {
        return Err(CompressError::Nothing {
            file: checkpoint.path().to_path_buf(),
            reason: "what is kept leaves none",
        });
    }
    let mut new = config.clone();
    let kept: Vec<&String> = settings.keep.iter().chain(&settings.spared).collect();
    new.set(
        "quantization_config",
        json!({
            "quant_method": "bertha",
            "format": settings.format.to_string(),
            "embeddings": settings.embeddings.map(|format| format.to_string()),
            "double_quantization": settings.double_quantization,
            "method": settings.method.name(),
            "outlier_threshold": settings.outlier_threshold,
            "modules_to_not_convert": kept,
        }),
    );
    let Walk {
        mut tensors,
        metadata,
        layers,
        ..
    } = walk;
    for name in checkpoint.names() {
        if !metadata.contains_key(name) && !tensors.contains_key(name) {
            tensors.insert(name.to_owned(), checkpoint.get(name)?);
        }
    }
    Ok(Quantized {
        config: new,
        tensors,
        metadata,
        layers,
    })
}

/// `‖W − Ŵ‖/‖W‖`.
fn weight_error(w: &[f32], matrix: &QuantizedMatrix) -> Result<f64, CompressError> {
    let values = matrix.dequantize()?;
    let square = |x: f32| f64::from(x).powi(2);
    let pairs = w.iter().zip(values.as_slice::<f32>()?);
    let left: f64 = pairs.map(|(w, value)| square(w - value)).sum();
    Ok(ratio(left, w.iter().map(|&w| square(w)).sum()))
}

fn ratio(a: f64, b: f64) -> f64 {
    if b > 0.0 { (a / b).sqrt() } else { 0.0 }
}

/// A format whose groups are no longer than a row.
pub(crate) fn within(format: WeightFormat, columns: usize) -> WeightFormat {
    match format {
        WeightFormat::Codes { book, group } => WeightFormat::Codes {
            book,
            group: group.min(columns.max(1)),
        },
        WeightFormat::Int8 | WeightFormat::Binary => format,
    }
}

struct Walk<'a> {
    session: &'a Session,
    checkpoint: &'a Checkpoint,
    settings: &'a Settings,
    calibration: Option<&'a Calibration>,
    tensors: BTreeMap<String, Tensor>,
    metadata: BTreeMap<String, String>,
    layers: Vec<LayerReport>,
}

impl Walk<'_> {
    /// A weight's values, and its shape.
    fn weight(&self, name: &str) -> Result<(Vec<f32>, [usize; 2]), CompressError> {
        let tensor = self.checkpoint.get(name)?;
        let file = self
            .checkpoint
            .file_of(name)
            .unwrap_or(self.checkpoint.path());
        let float = matches!(tensor.dtype(), DType::F32 | DType::F16 | DType::Bf16);
        let &[rows, columns] = tensor.shape() else {
            return Err(CompressError::Quantized {
                file: file.to_path_buf(),
                name: name.to_owned(),
            });
        };
        if !float {
            return Err(CompressError::Quantized {
                file: file.to_path_buf(),
                name: name.to_owned(),
            });
        }
        let values = tensor.to_dtype(DType::F32)?.contiguous();
        let values = values.as_slice::<f32>()?.to_vec();
        if values.iter().any(|value| !value.is_finite()) {
            return Err(CompressError::NotFinite {
                file: file.to_path_buf(),
                name: name.to_owned(),
            });
        }
        Ok((values, [rows, columns]))
    }

    /// Quantizes the weights that share a product.
    fn layer(&mut self, names: &[String]) -> Result<(), CompressError> {
        let formats = names
            .iter()
            .map(|name| (name, self.settings.format_of(name)));
        let wanted: Vec<(&String, WeightFormat)> = formats
            .filter_map(|(name, format)| Some((name, format?)))
            .filter(|(name, _)| !self.metadata.contains_key(*name))
            .collect();
        let Some(&(first, format)) = wanted.first() else {
            return Ok(());
        };
        let weights = wanted.iter().map(|(name, _)| self.weight(name));
        let weights = weights.collect::<Result<Vec<_>, _>>()?;
        let format = within(format, weights[0].1[1]);
        let inputs = self
            .calibration
            .and_then(|calibration| calibration.of(first));
        // All of a product share its input, and so the factors.
        let factors = match (self.settings.method, inputs) {
            (Method::SmoothQuant { strength }, Some(inputs)) => {
                let all = weights.iter().flat_map(|(w, _)| w).copied();
                Some(smooth_factors(&all.collect::<Vec<_>>(), inputs, strength))
            }
            (Method::Awq, Some(inputs)) => {
                let all = weights.iter().flat_map(|(w, _)| w).copied();
                let all: Vec<f32> = all.collect();
                Some(awq_factors(self.session, format, &all, inputs)?)
            }
            _ => None,
        };
        for (&(name, format), (w, shape)) in wanted.iter().zip(&weights) {
            let format = within(format, shape[1]);
            let matrix = match (self.settings.method, inputs, &factors) {
                (_, _, Some(factors)) => scaled(format, w, factors)?,
                (Method::Gptq { damping }, Some(inputs), _) => {
                    gptq(format, w, inputs, damping, GroupRange::MinMax)?
                }
                (Method::Round(range), inputs, _) => {
                    // Where inputs are known, an error counts as they do.
                    let diagonal = inputs.map(|inputs| {
                        let k = inputs.width;
                        (0..k).map(|i| inputs.gram[i * k + i]).collect::<Vec<_>>()
                    });
                    round_to_nearest(format, w, shape[1], range, diagonal.as_deref())?
                }
                // A layer that the texts did not reach.
                _ => round_to_nearest(format, w, shape[1], GroupRange::MinMax, None)?,
            };
            self.put(name, w, matrix)?;
        }
        Ok(())
    }

    /// Keeps a quantized weight, and reports it.
    fn put(
        &mut self,
        name: &str,
        w: &[f32],
        mut matrix: QuantizedMatrix,
    ) -> Result<(), CompressError> {
        let format = matrix.format();
        let double = self.settings.double_quantization && format != WeightFormat::Int8;
        if double {
            matrix = matrix.with_double_quantization()?;
        }
        let (rows, columns) = matrix.shape();
        let values = matrix.dequantize()?;
        let left: Vec<f32> = w
            .iter()
            .zip(values.as_slice::<f32>()?)
            .map(|(w, value)| w - value)
            .collect();
        let inputs = self
            .calibration
            .and_then(|calibration| calibration.of(name));
        let output_error = inputs.map(|inputs| {
            ratio(
                inputs.output_square(self.session, &left),
                inputs.output_square(self.session, w),
            )
        });
        let tensors = matrix.tensors(name, double)?;
        self.layers.push(LayerReport {
            weight: name.to_owned(),
            format: format.to_string(),
            shape: [rows, columns],
            bytes: tensors
                .iter()
                .map(|(_, tensor)| tensor.size_in_bytes())
                .sum(),
            bytes_before: self.checkpoint.get(name)?.size_in_bytes(),
            weight_error: weight_error(w, &matrix)?,
            output_error,
        });
        self.metadata.insert(name.to_owned(), format.to_string());
        self.tensors.extend(tensors);
        Ok(())
    }
}
