//! A model's parameters seen from a path prefix, as layers load themselves: from a checkpoint, or fresh.

use std::fmt::Display;
use std::path::{Path, PathBuf};

use bertha_autograd::{Parameter, Session};
use bertha_kernels::WeightSource;
use bertha_tensor::{Checkpoint, DType, Tensor};

use crate::elastic::{InputRounding, Range};
use crate::initializer::{Initial, Initializer};
use crate::{Binarization, NnError, ParameterSet, QuantizedMatrix};

/// Named tensors under a prefix: `weights.at("encoder").at("layer").at(0)`.
#[derive(Clone)]
pub struct Weights<'a> {
    checkpoint: Option<&'a Checkpoint>,
    session: &'a Session,
    /// What names in the checkpoint begin with.
    prefix: String,
    /// What the parameters' own names begin with: checkpoints differ in it, what is saved does not.
    name_prefix: String,
    training: Option<Training<'a>>,
    /// How the model is binarized.
    binarization: Option<Binarization>,
    /// How inputs of layers are rounded.
    inputs: Option<InputRounding>,
    /// The magnitude from which on inputs of 8 bits are not rounded.
    outliers: Option<f32>,
    /// Whether weights of layers are two side by side.
    are_split: bool,
    /// Whether what loads from here is part of what is binarized, or rounded.
    is_binarized: bool,
    /// Whether what loads from here reads an activation's values.
    is_activated: bool,
}

/// What is loaded to be trained.
#[derive(Clone, Copy)]
struct Training<'a> {
    initializer: &'a Initializer,
    parameters: &'a ParameterSet,
}

impl<'a> Weights<'a> {
    /// All tensors of a checkpoint, to be packed for the session's kernels.
    pub fn new(checkpoint: &'a Checkpoint, session: &'a Session) -> Self {
        Self {
            checkpoint: Some(checkpoint),
            session,
            prefix: String::new(),
            name_prefix: String::new(),
            training: None,
            binarization: None,
            inputs: None,
            outliers: None,
            are_split: false,
            is_binarized: false,
            is_activated: false,
        }
    }

    /// Parameters to be trained, which `parameters` collects: from a checkpoint where it has them, else with
    /// first values from `initializer`.
    pub fn trainable(
        checkpoint: Option<&'a Checkpoint>,
        session: &'a Session,
        initializer: &'a Initializer,
        parameters: &'a ParameterSet,
    ) -> Self {
        Self {
            checkpoint,
            session,
            prefix: String::new(),
            name_prefix: String::new(),
            training: Some(Training {
                initializer,
                parameters,
            }),
            binarization: None,
            inputs: None,
            outliers: None,
            are_split: false,
            is_binarized: false,
            is_activated: false,
        }
    }

    /// The same of a model that is binarized.
    #[must_use]
    pub fn with_binarization(mut self, binarization: Option<Binarization>) -> Self {
        self.binarization = binarization;
        self
    }

    /// The same of a model whose layers' inputs are rounded.
    #[must_use]
    pub fn with_input_rounding(mut self, rounding: Option<InputRounding>) -> Self {
        self.inputs = rounding;
        self
    }

    /// The same of a model whose layers have two weights each, side by side, that are added (Bai et al. 2020, BinaryBERT,
    /// <https://arxiv.org/abs/2012.15701>).
    #[must_use]
    pub fn with_split(mut self, are_split: bool) -> Self {
        self.are_split = are_split;
        self
    }

    /// Whether what loads from here has two weights side by side.
    pub(crate) fn is_split(&self) -> bool {
        self.are_split && self.is_binarized
    }

    /// The same of a model whose layers of 8 bits do not round inputs from a magnitude on.
    #[must_use]
    pub fn with_outlier_threshold(mut self, threshold: Option<f32>) -> Self {
        self.outliers = threshold;
        self
    }

    /// The magnitude from which on layers of 8 bits do not round inputs.
    pub(crate) fn outlier_threshold(&self) -> Option<f32> {
        self.outliers
    }

    /// How inputs of what loads from here are rounded.
    pub(crate) fn input_rounding(&self) -> Option<InputRounding> {
        self.inputs.filter(|_| self.is_binarized)
    }

    /// The same for the parts of a model that are binarized where it is, or whose inputs are rounded: its layers, its word table, its pooler.
    #[must_use]
    pub fn binarized(&self) -> Self {
        Self {
            is_binarized: true,
            ..self.clone()
        }
    }

    /// The same for a layer that reads an activation's values, which are hardly below 0.
    #[must_use]
    pub fn activated(&self) -> Self {
        Self {
            is_activated: true,
            ..self.clone()
        }
    }

    /// Which values a layer's inputs have.
    pub(crate) fn range(&self) -> Range {
        match self.is_activated {
            true => Range::Unsigned,
            false => Range::Signed,
        }
    }

    /// How what loads from here is binarized.
    pub(crate) fn binarization(&self) -> Option<Binarization> {
        self.binarization.filter(|_| self.is_binarized)
    }

    /// The tensors one level down: those whose names go on with `name` and a dot.
    pub fn at(&self, name: impl Display) -> Self {
        Self {
            prefix: format!("{}{name}.", self.prefix),
            name_prefix: format!("{}{name}.", self.name_prefix),
            ..self.clone()
        }
    }

    /// The tensors under the first of `prefixes` that has tensor `probe`, or under the first prefix
    /// if none has. A base model may be saved with its prefix (`bert.`) or without. `saved` is the prefix that parameters
    /// are saved under, whichever it was.
    pub fn at_first_with(&self, probe: &str, prefixes: &[&str], saved: &str) -> Self {
        let dotted = |prefix: &str| match prefix {
            "" => String::new(),
            prefix => format!("{prefix}."),
        };
        let under = |prefix: &&str| Self {
            prefix: format!("{}{}", self.prefix, dotted(prefix)),
            name_prefix: format!("{}{}", self.name_prefix, dotted(saved)),
            ..self.clone()
        };
        prefixes
            .iter()
            .map(under)
            .find(|weights| weights.contains(probe))
            .unwrap_or_else(|| under(prefixes.first().unwrap_or(&"")))
    }

    /// Whether what the checkpoint lacks gets first values: not an error, but something to be learned.
    pub fn is_trainable(&self) -> bool {
        self.training.is_some()
    }

    /// Whether there is a checkpoint.
    pub fn has_checkpoint(&self) -> bool {
        self.checkpoint.is_some()
    }

    /// The session whose kernels weights are packed for.
    pub fn session(&self) -> &'a Session {
        self.session
    }

    /// The file (or the index of the shards) that the tensors come from; empty where there is none.
    pub fn file(&self) -> &Path {
        self.checkpoint.map_or(Path::new(""), Checkpoint::path)
    }

    /// Whether the checkpoint has tensor `name`.
    pub fn contains(&self, name: &str) -> bool {
        let full_name = self.full_name(name);
        self.checkpoint
            .is_some_and(|checkpoint| checkpoint.contains(&full_name))
    }

    /// Tensor `name`, of the given shape and a float dtype, as it stands in the file.
    ///
    /// # Errors
    /// When it is missing, of another shape, or not of a float dtype.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor, NnError> {
        let tensor = self.stored(name, shape)?;
        match tensor.dtype() {
            DType::F32 | DType::Bf16 | DType::F16 => Ok(tensor),
            found => Err(self.wrong_dtype(name, found)),
        }
    }

    /// Matrix `name` `[rows, columns]` where it is quantized, or binarized now; none where it is of floats, or missing. It
    /// may be a table.
    ///
    /// # Errors
    /// When a tensor of it is missing or does not fit its format, or it is to be trained.
    pub(crate) fn quantized(
        &self,
        name: &str,
        [rows, columns]: [usize; 2],
        table: bool,
    ) -> Result<Option<QuantizedMatrix>, NnError> {
        let full_name = self.full_name(name);
        let Some(checkpoint) = self.checkpoint else {
            return Ok(None);
        };
        let mut matrix = QuantizedMatrix::load(checkpoint, &full_name, (rows, columns))?;
        let latent = matrix.is_none() && self.training.is_none() && self.contains(name);
        // A checkpoint of training: it runs as what it was trained to be. BiT's layers take more than their weights.
        let binarization = self.binarization().filter(|_| latent);
        let binarization =
            binarization.filter(|of| table || !matches!(of, Binarization::Bit { .. }));
        if let Some(of) = binarization {
            let tensor = self.tensor(name, &[rows, columns])?;
            matrix = Some(QuantizedMatrix::binarized(
                self.session,
                &tensor,
                of,
                table,
            )?);
        }
        if matrix.is_some() && self.training.is_some() {
            return Err(NnError::QuantizedTraining {
                file: self.file_of(&full_name),
                name: full_name,
            });
        }
        Ok(matrix)
    }

    fn wrong_dtype(&self, name: &str, found: DType) -> NnError {
        let name = self.full_name(name);
        NnError::WrongDType {
            file: self.file_of(&name),
            name,
            found,
        }
    }

    /// Tensor `name`, of the given shape and any dtype.
    fn stored(&self, name: &str, shape: &[usize]) -> Result<Tensor, NnError> {
        let full_name = self.full_name(name);
        let holder = self
            .checkpoint
            .filter(|checkpoint| checkpoint.contains(&full_name));
        let Some(checkpoint) = holder else {
            return Err(self.missing(full_name));
        };
        let tensor = checkpoint.get(&full_name)?;
        if self.training.is_some() && matches!(tensor.dtype(), DType::I8 | DType::U8) {
            return Err(NnError::QuantizedTraining {
                file: self.file_of(&full_name),
                name: full_name,
            });
        }
        if tensor.shape() != shape {
            return Err(NnError::WrongShape {
                file: self.file_of(&full_name),
                name: full_name,
                found: tensor.shape().to_vec(),
                expected: shape.to_vec(),
            });
        }
        Ok(tensor)
    }

    /// Tensor `name` as f32: the file's own pages when it is f32 there, converted otherwise.
    ///
    /// # Errors
    /// As [`Weights::tensor`].
    pub fn f32_tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor, NnError> {
        Ok(self.tensor(name, shape)?.to_dtype(DType::F32)?)
    }

    /// The first of `names` that is there, as f32: parameters that were renamed over the years.
    ///
    /// # Errors
    /// As [`Weights::tensor`]; when none is there, the error names the first.
    pub fn f32_tensor_named(&self, names: &[&str], shape: &[usize]) -> Result<Tensor, NnError> {
        let present = names.iter().find(|name| self.contains(name));
        let name = present.or(names.first()).copied().unwrap_or_default();
        self.f32_tensor(name, shape)
    }

    /// Parameter `names[0]`, f32: the first of `names` that the checkpoint has (parameters were renamed over the
    /// years). It is frozen unless parameters are loaded to be trained; then what the checkpoint lacks gets its first
    /// value by `initial`.
    ///
    /// # Errors
    /// As [`Weights::tensor`]; when none is there, the error names the first.
    pub fn parameter(
        &self,
        names: &[&str],
        shape: &[usize],
        initial: Initial,
    ) -> Result<Parameter, NnError> {
        let first = names.first().copied().unwrap_or_default();
        let name = format!("{}{first}", self.name_prefix);
        let Some(training) = self.training else {
            return Ok(Parameter::frozen(
                name,
                self.f32_tensor_named(names, shape)?,
            ));
        };
        if let Some(parameter) = training.parameters.get(&name) {
            return Ok(parameter);
        }
        let present = names.iter().any(|name| self.contains(name));
        let value = match present {
            true => self.f32_tensor_named(names, shape)?,
            false => training.initializer.tensor(&name, shape, initial)?,
        };
        let parameter = Parameter::new(name, value);
        training.parameters.insert(parameter.clone(), !present);
        Ok(parameter)
    }

    /// Lets the pages of a tensor that was packed leave memory: a file is never in memory whole beside
    /// its packed form.
    pub(crate) fn release(&self, name: &str) {
        if let Some(checkpoint) = self.checkpoint {
            checkpoint.release_pages(&self.full_name(name));
        }
    }

    pub(crate) fn full_name(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    fn file_of(&self, full_name: &str) -> PathBuf {
        let file = self
            .checkpoint
            .and_then(|checkpoint| checkpoint.file_of(full_name));
        file.unwrap_or(self.file()).to_path_buf()
    }

    fn missing(&self, name: String) -> NnError {
        let tail = |name: &str| name.rsplitn(3, '.').take(2).collect::<Vec<_>>().join(".");
        let wanted = tail(&name);
        let names = || self.checkpoint.into_iter().flat_map(Checkpoint::names);
        let similar = names().find(|other| tail(other) == wanted);
        NnError::MissingTensor {
            file: self.file().to_path_buf(),
            count: names().count(),
            near: similar.map_or_else(String::new, |other| format!(" but `{other}`")),
            name,
        }
    }
}

/// A weight tensor's values in the dtype they are stored in.
pub(crate) fn source(tensor: &Tensor) -> Result<WeightSource<'_>, NnError> {
    Ok(match tensor.dtype() {
        DType::Bf16 => WeightSource::Bf16(tensor.as_slice()?),
        DType::F16 => WeightSource::F16(tensor.as_slice()?),
        _ => WeightSource::F32(tensor.as_slice()?),
    })
}
