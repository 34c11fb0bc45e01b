//! A checkpoint seen from a path prefix, as layers load themselves from it.

use std::fmt::Display;
use std::path::{Path, PathBuf};

use bertha_autograd::Session;
use bertha_kernels::WeightSource;
use bertha_tensor::{Checkpoint, DType, Tensor};

use crate::NnError;

/// Named tensors under a prefix: `weights.at("encoder").at("layer").at(0)`.
#[derive(Clone)]
pub struct Weights<'a> {
    checkpoint: &'a Checkpoint,
    session: &'a Session,
    prefix: String,
}

impl<'a> Weights<'a> {
    /// All tensors of a checkpoint, to be packed for the session's kernels.
    pub fn new(checkpoint: &'a Checkpoint, session: &'a Session) -> Self {
        Self {
            checkpoint,
            session,
            prefix: String::new(),
        }
    }

    /// The tensors one level down: those whose names go on with `name` and a dot.
    pub fn at(&self, name: impl Display) -> Self {
        Self {
            prefix: format!("{}{name}.", self.prefix),
            ..self.clone()
        }
    }

    /// The tensors under the first of `prefixes` that has tensor `probe`, or under the first prefix
    /// if none has. A base model may be saved with its prefix (`bert.`) or without.
    pub fn at_first_with(&self, probe: &str, prefixes: &[&str]) -> Self {
        let under = |prefix: &&str| match *prefix {
            "" => self.clone(),
            prefix => self.at(prefix),
        };
        prefixes
            .iter()
            .map(under)
            .find(|weights| weights.contains(probe))
            .unwrap_or_else(|| prefixes.first().map_or_else(|| self.clone(), under))
    }

    /// The session whose kernels weights are packed for.
    pub fn session(&self) -> &'a Session {
        self.session
    }

    /// The file (or the index of the shards) that the tensors come from.
    pub fn file(&self) -> &Path {
        self.checkpoint.path()
    }

    /// Whether tensor `name` is there.
    pub fn contains(&self, name: &str) -> bool {
        self.checkpoint.contains(&self.full_name(name))
    }

    /// Tensor `name`, of the given shape and a float dtype, as it stands in the file.
    ///
    /// # Errors
    /// When it is missing, of another shape, or not of a float dtype.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor, NnError> {
        let full_name = self.full_name(name);
        if !self.checkpoint.contains(&full_name) {
            return Err(self.missing(full_name));
        }
        let tensor = self.checkpoint.get(&full_name)?;
        if tensor.shape() != shape {
            return Err(NnError::WrongShape {
                file: self.file_of(&full_name),
                name: full_name,
                found: tensor.shape().to_vec(),
                expected: shape.to_vec(),
            });
        }
        match tensor.dtype() {
            DType::F32 | DType::Bf16 | DType::F16 => Ok(tensor),
            found => Err(NnError::WrongDType {
                file: self.file_of(&full_name),
                name: full_name,
                found,
            }),
        }
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

    /// Lets the pages of a tensor that was packed leave memory: a file is never in memory whole beside
    /// its packed form.
    pub(crate) fn release(&self, name: &str) {
        self.checkpoint.release_pages(&self.full_name(name));
    }

    fn full_name(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    fn file_of(&self, full_name: &str) -> PathBuf {
        self.checkpoint
            .file_of(full_name)
            .unwrap_or(self.checkpoint.path())
            .to_path_buf()
    }

    fn missing(&self, name: String) -> NnError {
        let tail = |name: &str| name.rsplitn(3, '.').take(2).collect::<Vec<_>>().join(".");
        let wanted = tail(&name);
        let similar = self.checkpoint.names().find(|other| tail(other) == wanted);
        NnError::MissingTensor {
            file: self.checkpoint.path().to_path_buf(),
            count: self.checkpoint.names().count(),
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
