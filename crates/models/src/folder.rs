//! A model folder: config.json and safetensors weights.

use std::path::Path;

use bertha_autograd::Session;
use bertha_nn::Weights;
use bertha_tensor::Checkpoint;

use crate::{Config, Head, Model, ModelError, architecture};

/// Loads the model in a folder with the head that it was saved with.
///
/// # Errors
/// When a file is missing or corrupt, the architecture is unknown, or tensors do not fit.
pub fn load(dir: impl AsRef<Path>, session: &Session) -> Result<Box<dyn Model>, ModelError> {
    let config = Config::from_file(dir.as_ref().join("config.json"))?;
    let head = config.head();
    load_configured(dir, &config, head, session)
}

/// Loads the model in a folder with a given head.
///
/// # Errors
/// As [`load`], and when the checkpoint does not have that head.
pub fn load_with_head(
    dir: impl AsRef<Path>,
    head: Head,
    session: &Session,
) -> Result<Box<dyn Model>, ModelError> {
    let config = Config::from_file(dir.as_ref().join("config.json"))?;
    load_configured(dir, &config, head, session)
}

/// Loads the weights in a folder with a given head and by a given configuration, as a caller has changed it.
///
/// # Errors
/// As [`load_with_head`].
pub fn load_configured(
    dir: impl AsRef<Path>,
    config: &Config,
    head: Head,
    session: &Session,
) -> Result<Box<dyn Model>, ModelError> {
    load_checkpoint(&Checkpoint::open_dir(dir)?, config, head, session)
}

/// Loads weights, wherever they are, with a given head and by a given configuration.
///
/// # Errors
/// As [`load_with_head`].
pub fn load_checkpoint(
    checkpoint: &Checkpoint,
    config: &Config,
    head: Head,
    session: &Session,
) -> Result<Box<dyn Model>, ModelError> {
    let architecture = architecture(config)?;
    let weights = compressed(Weights::new(checkpoint, session), config)?;
    let model = (architecture.load)(config, &weights, head)?;
    // What was packed is not read again; what stays mapped (the tables) comes back on demand.
    checkpoint.release_all_pages();
    Ok(model)
}

/// Weights of a model whose configuration says how it is compressed.
pub(crate) fn compressed<'a>(
    weights: Weights<'a>,
    config: &Config,
) -> Result<Weights<'a>, ModelError> {
    Ok(weights
        .with_binarization(config.binarization()?)
        .with_input_rounding(config.input_rounding()?)
        .with_outlier_threshold(config.outlier_threshold()?)
        .with_split(config.split_weights()?))
}
