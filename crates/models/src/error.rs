//! What loading or running a model can refuse.

use std::path::PathBuf;

use bertha_autograd::AutogradError;
use bertha_nn::NnError;
use bertha_tensor::{FileError, TensorError};

use crate::Head;

/// Why a model could not be loaded or run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// A file could not be read.
    #[error("{file}: {source}{hint}", file = file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: std::io::Error,
        /// What to do about it, or nothing.
        hint: &'static str,
    },
    /// The head has no logits that labels could be compared with.
    #[error("a model with {head} has no loss: labels need logits for each token or sequence")]
    NoLoss {
        /// The head.
        head: Head,
    },
    /// The answers that a model should have found do not fit its batch.
    #[error("{found}, expected {expected}")]
    Spans {
        /// What was found.
        found: String,
        /// What was expected.
        expected: String,
    },
    /// A file could not be written.
    #[error("{file}: cannot write: {source}", file = file.display())]
    Write {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// config.json is not JSON, or not an object.
    #[error("{file}: not a model configuration: {reason}", file = file.display())]
    NotAConfig {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A key of config.json is missing, of another type, or out of range.
    #[error("{file}: `{key}` is {found}, expected {expected}", file = file.display())]
    Key {
        /// The file.
        file: PathBuf,
        /// The key.
        key: String,
        /// What was found.
        found: String,
        /// What was expected.
        expected: String,
    },
    /// The configuration's `model_type` is none that bertha has.
    #[error(
        "{file}: `model_type` is \"{found}\", which is not supported; supported are {known}",
        file = file.display()
    )]
    UnknownModelType {
        /// The file.
        file: PathBuf,
        /// The type found.
        found: String,
        /// The types there are.
        known: String,
    },
    /// A conversion that cannot be.
    #[error("cannot convert to {what}: expected {expected}")]
    Conversion {
        /// What was asked for.
        what: String,
        /// What was expected.
        expected: String,
    },
    /// The architecture has no global tokens.
    #[error("{model_type} models have no global tokens: each token sees what their masks let it")]
    NoGlobalTokens {
        /// The architecture.
        model_type: &'static str,
    },
    /// The architecture has no such head.
    #[error(
        "{model_type} models have no {head} head in `transformers`: choose another task or model"
    )]
    NoSuchHead {
        /// The architecture.
        model_type: &'static str,
        /// The head.
        head: Head,
    },
    /// The model has no head for the task.
    #[error(
        "{file}: the checkpoint has no {wanted} head (tensor `{tensor}` is missing): \
         choose a model fine-tuned for this task",
        file = file.display()
    )]
    MissingHead {
        /// The checkpoint.
        file: PathBuf,
        /// The head asked for.
        wanted: Head,
        /// The tensor that shows it is missing.
        tensor: &'static str,
    },
    /// A sequence is longer than the model's positions.
    #[error(
        "sequence {index} has a token at position {position}, but the model has {limit} positions: \
         shorten it or ask for truncation"
    )]
    TooLong {
        /// The sequence's index in its batch.
        index: usize,
        /// The first position that is too far.
        position: u32,
        /// Positions of the model.
        limit: usize,
    },
    /// A layer refused.
    #[error(transparent)]
    Nn(#[from] NnError),
    /// An operation refused.
    #[error(transparent)]
    Autograd(#[from] AutogradError),
    /// A checkpoint could not be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// A tensor refused.
    #[error(transparent)]
    Tensor(#[from] TensorError),
}
