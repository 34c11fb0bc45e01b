//! Models whose parameters can be trained, and saving them.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use bertha_autograd::{Parameter, Session};
use bertha_nn::{Initializer, ParameterSet, Weights};
use bertha_tensor::{AtomicFile, Checkpoint, Tensor, save_safetensors};

use crate::folder::compressed;
use crate::{Config, Head, Model, ModelError, architecture};

/// A model with its parameters, as training needs it.
///
/// The forward pass is the model's own, [`Model::forward`]: with [`Session::training`] dropout is on and operations are
/// recorded.
pub struct TrainableModel {
    /// The model, which reads the parameters anew at every forward pass.
    pub model: Box<dyn Model>,
    /// Its parameters, in the order of its layers, under the names that they are saved under.
    pub parameters: Vec<Parameter>,
    /// The names of those that the checkpoint did not have, and that therefore begin at random.
    pub fresh: Vec<String>,
    /// Its configuration, with the head it has now.
    pub config: Config,
}

impl TrainableModel {
    /// The model in a folder, with a given head: layers that the checkpoint lacks begin at random, as functions of
    /// `seed`.
    ///
    /// # Errors
    /// When a file is missing or corrupt, the architecture is unknown, or tensors do not fit `config`.
    pub fn from_dir(
        dir: impl AsRef<Path>,
        config: Config,
        head: Head,
        session: &Session,
        seed: u64,
    ) -> Result<Self, ModelError> {
        let checkpoint = Checkpoint::open_dir(dir.as_ref())?;
        Self::load(Some(&checkpoint), config, head, session, seed)
    }

    /// The model of a checkpoint, as [`Self::from_dir`].
    ///
    /// # Errors
    /// As there.
    pub fn from_checkpoint(
        checkpoint: &Checkpoint,
        config: Config,
        head: Head,
        session: &Session,
        seed: u64,
    ) -> Result<Self, ModelError> {
        Self::load(Some(checkpoint), config, head, session, seed)
    }

    /// A model of random parameters, as functions of `seed`.
    ///
    /// # Errors
    /// When the architecture is unknown or a key is out of range.
    pub fn new(
        config: Config,
        head: Head,
        session: &Session,
        seed: u64,
    ) -> Result<Self, ModelError> {
        Self::load(None, config, head, session, seed)
    }

    fn load(
        checkpoint: Option<&Checkpoint>,
        mut config: Config,
        head: Head,
        session: &Session,
        seed: u64,
    ) -> Result<Self, ModelError> {
        let architecture = architecture(&config)?;
        let initializer = Initializer {
            seed,
            std: config.positive("initializer_range", 0.02)? as f32,
        };
        let set = ParameterSet::new();
        let weights = Weights::trainable(checkpoint, session, &initializer, &set);
        let weights = compressed(weights, &config)?;
        let model = (architecture.load)(&config, &weights, head)?;
        config.set("architectures", vec![head.class(architecture.class_prefix)]);
        Ok(Self {
            model,
            parameters: set.parameters(),
            fresh: set.fresh(),
            config,
        })
    }

    /// Number of values of all parameters.
    pub fn numel(&self) -> usize {
        self.parameters.iter().map(Parameter::numel).sum()
    }

    /// Writes `config.json` and `model.safetensors` into a folder that exists: each appears whole or not at all. A
    /// model folder also needs its tokenizer.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn save(&self, dir: impl AsRef<Path>) -> Result<(), ModelError> {
        let values: Vec<(&str, Tensor)> = self
            .parameters
            .iter()
            .map(|parameter| (parameter.name(), parameter.value()))
            .collect();
        let tensors: Vec<(&str, &Tensor)> =
            values.iter().map(|(name, value)| (*name, value)).collect();
        write_folder(dir.as_ref(), &self.config, &tensors, None)
    }
}

/// Writes `config.json` and `model.safetensors` into a folder that exists: each appears whole or not at all.
///
/// # Errors
/// When a file cannot be written.
pub fn write_folder(
    dir: &Path,
    config: &Config,
    tensors: &[(&str, &Tensor)],
    metadata: Option<&BTreeMap<String, String>>,
) -> Result<(), ModelError> {
    save_safetensors(dir.join("model.safetensors"), tensors, metadata)?;
    let path = dir.join("config.json");
    let mut file = AtomicFile::create(&path)?;
    let written = file.write_all(config.to_json().as_bytes());
    written.map_err(|source| ModelError::Write { file: path, source })?;
    Ok(file.commit()?)
}
