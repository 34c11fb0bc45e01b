//! What a layer can refuse.

use std::path::PathBuf;

use bertha_autograd::AutogradError;
use bertha_tensor::{DType, FileError, TensorError};

/// Why a layer could not be loaded or run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NnError {
    /// The checkpoint lacks a tensor that the architecture needs.
    #[error(
        "{file}: tensor `{name}` is missing, and the file's {count} tensors hold nothing like it{near}: \
         is config.json the one that belongs to these weights?",
        file = file.display()
    )]
    MissingTensor {
        /// The checkpoint.
        file: PathBuf,
        /// The tensor's full name.
        name: String,
        /// How many tensors there are.
        count: usize,
        /// A similar name that is there, as a phrase, or nothing.
        near: String,
    },
    /// A tensor has another shape than the configuration says.
    #[error(
        "{file}: tensor `{name}` has shape {found:?}, but config.json makes it {expected:?}",
        file = file.display()
    )]
    WrongShape {
        /// The file that holds the tensor.
        file: PathBuf,
        /// The tensor's full name.
        name: String,
        /// Its shape.
        found: Vec<usize>,
        /// The shape that the configuration asks for.
        expected: Vec<usize>,
    },
    /// A weight has a dtype that weights cannot have.
    #[error(
        "{file}: tensor `{name}` has dtype {found}, expected f32, bf16 or f16",
        file = file.display()
    )]
    WrongDType {
        /// The file that holds the tensor.
        file: PathBuf,
        /// The tensor's full name.
        name: String,
        /// Its dtype.
        found: DType,
    },
    /// A quantized weight was to be trained.
    #[error(
        "{file}: tensor `{name}` is quantized and cannot be trained: train the model that it was quantized from",
        file = file.display()
    )]
    QuantizedTraining {
        /// The checkpoint.
        file: PathBuf,
        /// The tensor's full name.
        name: String,
    },
    /// A quantized weight is not what its format says.
    #[error("{file}: quantized tensor `{name}`: {problem}", file = file.display())]
    Quantized {
        /// The checkpoint.
        file: PathBuf,
        /// The tensor's full name.
        name: String,
        /// What is wrong.
        problem: String,
    },
    /// An activation function that is not known.
    #[error(
        "activation `{0}` is not known; known are gelu, gelu_new, gelu_pytorch_tanh, gelu_fast, \
         relu, silu, swish, tanh"
    )]
    UnknownActivation(String),
    /// A batch that cannot be: no sequence, an empty one, arrays that disagree.
    #[error("{0}")]
    Batch(String),
    /// An operation refused its inputs.
    #[error(transparent)]
    Autograd(#[from] AutogradError),
    /// A checkpoint could not be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// A tensor could not be made or read as asked.
    #[error(transparent)]
    Tensor(#[from] TensorError),
}
