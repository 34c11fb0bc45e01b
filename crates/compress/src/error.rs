//! What compression can refuse.

use std::path::PathBuf;

use bertha_autograd::AutogradError;
use bertha_models::ModelError;
use bertha_nn::NnError;
use bertha_tensor::{FileError, TensorError};
use bertha_train::TrainError;

/// Why a model could not be made small.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CompressError {
    /// A weight that is quantized was to be quantized.
    #[error(
        "{file}: tensor `{name}` is quantized already: quantize the model that it was made from",
        file = file.display()
    )]
    Quantized {
        /// The checkpoint.
        file: PathBuf,
        /// The tensor.
        name: String,
    },
    /// A weight holds what is not a number, or is infinite.
    #[error(
        "{file}: tensor `{name}` holds values that are not finite, which no scale can hold",
        file = file.display()
    )]
    NotFinite {
        /// The checkpoint.
        file: PathBuf,
        /// The tensor.
        name: String,
    },
    /// Nothing would be quantized.
    #[error("{file}: no weight of the model is to be quantized: {reason}", file = file.display())]
    Nothing {
        /// The checkpoint.
        file: PathBuf,
        /// Why not.
        reason: &'static str,
    },
    /// A method needs texts.
    #[error("{method} needs texts to calibrate with: none was given")]
    NoCalibration {
        /// The method.
        method: &'static str,
    },
    /// Settings that do not fit each other.
    #[error("{0}")]
    Settings(String),
    /// The model refused something.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A layer refused something.
    #[error(transparent)]
    Nn(#[from] NnError),
    /// An operation refused its inputs.
    #[error(transparent)]
    Autograd(#[from] AutogradError),
    /// Training refused something.
    #[error(transparent)]
    Train(Box<TrainError>),
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A tensor could not be made or read as asked.
    #[error(transparent)]
    Tensor(#[from] TensorError),
}

impl From<TrainError> for CompressError {
    fn from(error: TrainError) -> Self {
        Self::Train(Box::new(error))
    }
}
