//! Quantization-aware training: a model learns as what it will be packed as.

use std::collections::BTreeMap;

use bertha_autograd::{Gradients, Parameter, Session};
use bertha_kernels::{CodeBook, Group, GroupRange, decode_group, encode_group};
use bertha_models::{Config, TrainableModel};
use bertha_nn::{InputRounding, WeightFormat};
use bertha_tensor::Tensor;
use bertha_train::TrainError;
use bertha_train::trainer::WeightRounding;
use rayon::prelude::*;
use serde_json::{Value, json};

use crate::folder::within;
use crate::names::{ends_as, is_table};
use crate::rounding::{Row, assemble, fit, levels};
use crate::{CompressError, Method, Quantized, Settings, linear_layers};

/// How the gradient of a rounded weight becomes that of the weight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Estimator {
    /// The straight-through estimator (Bengio et al. 2013, <https://arxiv.org/abs/1308.3432>): it is the same inside of the window
    /// of values that the levels of its group are spread over, and 0 outside; of ternary levels everywhere. The scales follow the weights.
    #[default]
    StraightThrough,
    /// LSQ (Esser et al. 2020, <https://arxiv.org/abs/1902.08153>): the same, with scales that learn too, from the gradient of what
    /// is rounded with them.
    LearnedSteps,
}

impl Estimator {
    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::StraightThrough => "ste",
            Self::LearnedSteps => "lsq",
        }
    }
}

/// The configuration of a model that learns with the inputs of its layers rounded: each layer has a parameter more, `input_level`, its
/// step, which begins with the first inputs.
pub fn with_rounded_inputs(config: &Config, rounding: InputRounding) -> Config {
    let mut config = config.clone();
    let mut keys = json!({ "quant_method": "bertha" });
    put_input_keys(&mut keys, rounding);
    config.set("quantization_config", keys);
    config
}

pub(crate) fn put_input_keys(keys: &mut Value, rounding: InputRounding) {
    keys["input_bits"] = rounding.bits.into();
    keys["input_estimator"] = rounding.estimator.name().into();
}

/// What the names of learned scales end with, after their weights'.
pub const STEP: &str = "_step";

/// The weights of a model that learn as what they are rounded to.
pub struct QuantizationAware {
    weights: BTreeMap<String, Rounding>,
    range: GroupRange,
    estimator: Estimator,
    double: bool,
}

/// How a weight is rounded.
struct Rounding {
    weight: Parameter,
    format: WeightFormat,
    columns: usize,
    /// Scales that learn, `[rows, groups]`.
    steps: Option<Parameter>,
}

impl QuantizationAware {
    /// For the weights that `settings` give a format. Scales that learn become parameters of the model, `WEIGHT_step`.
    ///
    /// # Errors
    /// When the method is not rounding to the nearest level, no weight has a format, or scales of a format without whole, even
    /// levels are to learn.
    pub fn new(
        session: &Session,
        model: &mut TrainableModel,
        settings: &Settings,
        estimator: Estimator,
    ) -> Result<Self, CompressError> {
        let Method::Round(range) = settings.method else {
            return Err(CompressError::Settings(format!(
                "{} chooses values once; weights that learn are rounded: take minmax, percentile or mse",
                settings.method.name()
            )));
        };
        let linear: Vec<String> = linear_layers(&*model.model, session)?
            .into_iter()
            .flatten()
            .collect();
        let mut weights = BTreeMap::new();
        let mut learned = Vec::new();
        for parameter in &model.parameters {
            let name = parameter.name();
            let layer = linear.iter().find(|weight| ends_as(name, weight));
            let format = match layer {
                // A decoder that is the word table is a table.
                Some(layer) if !is_table(name) => settings
                    .format_of(name)
                    .or(settings.overrides.get(layer).copied()),
                _ if is_table(name) && parameter.shape()[0] >= 64 => settings.format_of_table(name),
                _ => None,
            };
            let (Some(format), &[_, columns]) = (format, parameter.shape()) else {
                continue;
            };
            let format = within(format, columns);
            let mut rounding = Rounding {
                weight: parameter.clone(),
                format,
                columns,
                steps: None,
            };
            if estimator == Estimator::LearnedSteps {
                let steps = rounding.first_steps()?;
                learned.push(steps.clone());
                rounding.steps = Some(steps);
            }
            weights.insert(name.to_owned(), rounding);
        }
        if weights.is_empty() {
            return Err(CompressError::Settings(
                "no weight of the model is to be quantized: what is kept leaves none".into(),
            ));
        }
        model.parameters.extend(learned);
        Ok(Self {
            weights,
            range,
            estimator,
            double: settings.double_quantization,
        })
    }

    /// The codes of a weight as it is now, and its groups, row by row; none of a weight that is not rounded.
    pub(crate) fn codes(&self, name: &str) -> Result<Option<Vec<Row>>, CompressError> {
        let rounding = self.weights.get(name);
        rounding
            .map(|rounding| rounding.rows(self.range))
            .transpose()
    }

    /// Packs what was learned.
    ///
    /// # Errors
    /// When a weight is not finite.
    pub fn pack(&self, model: &TrainableModel) -> Result<Quantized, CompressError> {
        let mut packed = Quantized {
            config: self.config(&model.config)?,
            tensors: BTreeMap::new(),
            metadata: BTreeMap::new(),
            layers: Vec::new(),
        };
        for parameter in &model.parameters {
            let (name, value) = (parameter.name(), parameter.value());
            if name
                .strip_suffix(STEP)
                .is_some_and(|of| self.weights.contains_key(of))
            {
                continue;
            }
            let Some(rounding) = self.weights.get(name) else {
                packed.tensors.insert(name.to_owned(), value);
                continue;
            };
            let mut matrix = assemble(
                rounding.format,
                rounding.columns,
                &rounding.rows(self.range)?,
            )?;
            let double = self.double && rounding.format != WeightFormat::Int8;
            if double {
                matrix = matrix.with_double_quantization()?;
            }
            packed.put(name, &value, &matrix, double)?;
        }
        Ok(packed)
    }

    fn config(&self, config: &Config) -> Result<Config, CompressError> {
        let mut config = config.clone();
        let mut keys = json!({
            "quant_method": "bertha",
            "method": "quantization-aware",
            "estimator": self.estimator.name(),
            "double_quantization": self.double,
        });
        if let Some(rounding) = config.input_rounding()? {
            put_input_keys(&mut keys, rounding);
        }
        if config.split_weights()? {
            keys["split_weights"] = true.into();
        }
        config.set("quantization_config", keys);
        Ok(config)
    }
}

impl Rounding {
    /// LSQ's first scales: twice the mean magnitude of a group by the root of the largest level.
    fn first_steps(&self) -> Result<Parameter, CompressError> {
        let (book, size) = levels(self.format, self.columns);
        let CodeBook::Symmetric(_) = book else {
            return Err(CompressError::Settings(format!(
                "scales of {} do not learn: take int8 or int2 to int4, or another estimator",
                self.format
            )));
        };
        let w = self.weight.value().contiguous();
        let rows = w.as_slice::<f32>()?.chunks(self.columns.max(1));
        let groups = rows.flat_map(|row| row.chunks(size));
        let step = |group: &[f32]| {
            let sum: f32 = group.iter().map(|w| w.abs()).sum();
            (2.0 * sum / group.len() as f32 / book.most().sqrt()).max(f32::MIN_POSITIVE)
        };
        let steps: Vec<f32> = groups.map(step).collect();
        let shape = [w.shape()[0], self.format.groups(self.columns)];
        let name = format!("{}{STEP}", self.weight.name());
        Ok(Parameter::new(name, Tensor::from_vec(steps, &shape)?))
    }

    /// The groups of each row, with their places.
    fn groups(&self, w: &[f32], range: GroupRange) -> Result<Vec<Vec<Group>>, CompressError> {
        let (book, size) = levels(self.format, self.columns);
        let steps = self.steps.as_ref().map(|steps| steps.value().contiguous());
        let steps = steps.as_ref().map(Tensor::as_slice::<f32>).transpose()?;
        let each = self.format.groups(self.columns);
        let rows = w.par_chunks(self.columns.max(1)).enumerate();
        Ok(rows
            .map(|(r, row)| match steps {
                // An update may take a scale below 0.
                Some(steps) => (steps[r * each..][..each].iter())
                    .map(|&step| Group {
                        scale: step.max(f32::MIN_POSITIVE),
                        zero: 0,
                    })
                    .collect(),
                None => (row.chunks(size))
                    .map(|group| fit(self.format, book, group, range, None))
                    .collect(),
            })
            .collect())
    }

    /// The codes of the weight as it is now.
    fn rows(&self, range: GroupRange) -> Result<Vec<Row>, CompressError> {
        let (book, size) = levels(self.format, self.columns);
        let w = self.weight.value().contiguous();
        let w = w.as_slice::<f32>()?;
        if let Some(wrong) = w.iter().find(|w| !w.is_finite()) {
            let name = self.weight.name();
            return Err(CompressError::Settings(format!(
                "{name} has a value that is {wrong}"
            )));
        }
        let rows = w
            .par_chunks(self.columns.max(1))
            .zip(self.groups(w, range)?);
        let row = |(row, groups): (&[f32], Vec<Group>)| {
            let mut codes = vec![0; row.len()];
            let pieces = row.chunks(size).zip(codes.chunks_mut(size)).zip(&groups);
            for ((w, codes), &group) in pieces {
                encode_group(book, w, group, codes);
            }
            Row { codes, groups }
        };
        Ok(rows.map(row).collect())
    }

    /// What the weight is rounded to.
    fn rounded(&self, range: GroupRange) -> Result<Tensor, CompressError> {
        let (book, size) = levels(self.format, self.columns);
        let mut values = vec![0.0; self.weight.numel()];
        let rows = self.rows(range)?;
        let to = values.par_chunks_mut(self.columns.max(1));
        rows.par_iter().zip(to).for_each(|(row, values)| {
            let pieces = row.codes.chunks(size).zip(values.chunks_mut(size));
            for ((codes, values), &group) in pieces.zip(&row.groups) {
                decode_group(book, codes, group, values);
            }
        });
        Ok(Tensor::from_vec(values, self.weight.shape())?)
    }

    /// The gradients of the weight and of its steps from that of what it is rounded to.
    fn estimate(
        &self,
        range: GroupRange,
        gradient: &Tensor,
    ) -> Result<(Tensor, Option<Tensor>), CompressError> {
        let (book, size) = levels(self.format, self.columns);
        let w = self.weight.value().contiguous();
        let w = w.as_slice::<f32>()?;
        let mut dw = gradient.contiguous().as_slice::<f32>()?.to_vec();
        let groups = self.groups(w, range)?;
        let all = (0..1u16 << book.bits()).map(|code| book.level(code as u8));
        // The outermost codes of symmetric formats are not used on the side that has one more.
        let low = match book {
            CodeBook::Symmetric(_) => -book.most(),
            _ => all.clone().fold(f32::INFINITY, f32::min),
        };
        let high = all.fold(f32::NEG_INFINITY, f32::max);
        let of_row = |((w, dw), groups): ((&[f32], &mut [f32]), &Vec<Group>)| {
            let mut steps = Vec::with_capacity(groups.len());
            for ((w, dw), group) in w.chunks(size).zip(dw.chunks_mut(size)).zip(groups) {
                let zero = f32::from(group.zero);
                let mut step = 0.0f64;
                for (w, dw) in w.iter().zip(dw) {
                    let level = w / group.scale + zero;
                    let found = level.clamp(low, high);
                    let nearest = level.round_ties_even().clamp(low, high);
                    // What a scale moves: the level itself outside, the rounding inside.
                    let moved = if found == level {
                        nearest - level
                    } else {
                        found
                    };
                    step += f64::from(*dw) * f64::from(moved);
                    // Half a level beyond the last one still rounds to it.
                    if (level - found).abs() > 0.5 || self.steps.is_some() && found != level {
                        *dw = 0.0;
                    }
                }
                let scale = 1.0 / (w.len() as f64 * f64::from(book.most())).sqrt();
                steps.push((step * scale) as f32);
            }
            steps
        };
        let rows = w.par_chunks(self.columns.max(1));
        let rows = rows.zip(dw.par_chunks_mut(self.columns.max(1)));
        let steps: Vec<Vec<f32>> = rows.zip(&groups).map(of_row).collect();
        let steps = steps.concat();
        let steps = match &self.steps {
            Some(parameter) => Some(Tensor::from_vec(steps, parameter.shape())?),
            None => None,
        };
        Ok((Tensor::from_vec(dw, self.weight.shape())?, steps))
    }
}

impl WeightRounding for QuantizationAware {
    fn round(&self, parameter: &Parameter) -> Result<Option<Tensor>, TrainError> {
        let rounding = self.weights.get(parameter.name());
        let rounded = rounding.map(|rounding| rounding.rounded(self.range));
        rounded.transpose().map_err(wrong)
    }

    fn estimate(&self, _: &Session, gradients: &mut Gradients) -> Result<(), TrainError> {
        // Over all of the range of a group no value is outside of the window; ternary and binary weights have none.
        let windowless = matches!(self.range, GroupRange::MinMax | GroupRange::Ternary);
        if self.estimator == Estimator::StraightThrough && windowless {
            return Ok(());
        }
        for rounding in self.weights.values() {
            let Some(gradient) = gradients.get(&rounding.weight) else {
                continue;
            };
            let (dw, steps) = rounding.estimate(self.range, gradient).map_err(wrong)?;
            gradients.set(&rounding.weight, dw)?;
            if let (Some(parameter), Some(gradient)) = (&rounding.steps, steps) {
                gradients.set(parameter, gradient)?;
            }
        }
        Ok(())
    }

    fn setup(&self) -> Value {
        let formats = self.weights.iter();
        let formats: BTreeMap<_, _> = formats
            .map(|(name, rounding)| (name, rounding.format.to_string()))
            .collect();
        json!({
            "estimator": self.estimator.name(),
            "method": Method::Round(self.range).name(),
            "formats": formats,
        })
    }
}

fn wrong(error: CompressError) -> TrainError {
    TrainError::Setting {
        setting: "the rounding of weights",
        found: error.to_string(),
        expected: "weights that can be rounded".into(),
    }
}
