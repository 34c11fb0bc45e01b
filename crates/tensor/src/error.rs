//! What can go wrong: with a tensor operation ([`TensorError`]) and with a file ([`FileError`]).
//!
//! A message names the thing, what was found, what was expected, and where it helps the remedy.

use std::io;
use std::path::PathBuf;

use crate::DType;

/// A tensor operation that cannot be done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TensorError {
    /// Typed access with another type than the tensor's.
    #[error(
        "the tensor of shape {shape:?} holds {found}, but {expected} was asked for; convert it with to_dtype first"
    )]
    DType {
        /// Shape of the tensor.
        shape: Vec<usize>,
        /// What the tensor holds.
        found: DType,
        /// What was asked for.
        expected: DType,
    },
    /// A slice was asked of a tensor whose elements do not lie in one run, in order.
    #[error(
        "a slice needs elements that lie in order, but the tensor of shape {shape:?} has strides {strides:?}; \
         call contiguous() first, or use view()"
    )]
    NotContiguous {
        /// Shape of the tensor.
        shape: Vec<usize>,
        /// Its strides, in elements.
        strides: Vec<usize>,
    },
    /// The number of elements given is not what the shape needs.
    #[error("shape {shape:?} needs {expected} elements, but {found} were given")]
    ElementCount {
        /// The shape.
        shape: Vec<usize>,
        /// The product of its sizes.
        expected: usize,
        /// What was given.
        found: usize,
    },
    /// A reshape that would change the number of elements.
    #[error(
        "shape {from:?} has {from_count} elements and cannot become {to:?}, which has {to_count}"
    )]
    Reshape {
        /// Shape of the tensor.
        from: Vec<usize>,
        /// Its elements.
        from_count: usize,
        /// The shape asked for.
        to: Vec<usize>,
        /// The elements that one has.
        to_count: usize,
    },
    /// A dimension that the tensor does not have.
    #[error("dimension {dim} does not exist in shape {shape:?}; it must be below {limit}")]
    Dimension {
        /// The dimension asked for.
        dim: usize,
        /// Shape of the tensor.
        shape: Vec<usize>,
        /// One more than the largest dimension allowed here.
        limit: usize,
    },
    /// A range that leaves its dimension.
    #[error(
        "{start}..{end} is not a range within dimension {dim} of shape {shape:?}, which has size {size}"
    )]
    Range {
        /// First index.
        start: usize,
        /// One past the last index.
        end: usize,
        /// The dimension.
        dim: usize,
        /// Shape of the tensor.
        shape: Vec<usize>,
        /// Size of the dimension.
        size: usize,
    },
    /// A list of axes that is no permutation of the dimensions.
    #[error("axes {axes:?} do not name each dimension of shape {shape:?} once")]
    Permutation {
        /// The axes given.
        axes: Vec<usize>,
        /// Shape of the tensor.
        shape: Vec<usize>,
    },
    /// A squeeze of a dimension that is not of size 1.
    #[error(
        "dimension {dim} of shape {shape:?} has size {size}; only a dimension of size 1 can be squeezed"
    )]
    Squeeze {
        /// The dimension.
        dim: usize,
        /// Shape of the tensor.
        shape: Vec<usize>,
        /// Its size.
        size: usize,
    },
    /// Shapes that do not broadcast.
    #[error(
        "shape {from:?} does not broadcast to {to:?}: aligned at the last dimension, each size must be equal or 1"
    )]
    Broadcast {
        /// Shape of the tensor.
        from: Vec<usize>,
        /// The shape asked for.
        to: Vec<usize>,
    },
    /// More elements than memory can address.
    #[error("a tensor of shape {shape:?} and dtype {dtype} is larger than memory can address")]
    TooLarge {
        /// The shape.
        shape: Vec<usize>,
        /// The element type.
        dtype: DType,
    },
    /// A single value was asked of a tensor that has none or several.
    #[error("item() needs a tensor of exactly one element, but the shape is {shape:?}")]
    NotOneElement {
        /// Shape of the tensor.
        shape: Vec<usize>,
    },
    /// A buffer of another size than the tensor.
    #[error("shape {shape:?} of {dtype} needs {expected} bytes, but the buffer has {found}")]
    BufferSize {
        /// The shape.
        shape: Vec<usize>,
        /// The element type.
        dtype: DType,
        /// Bytes needed.
        expected: usize,
        /// Bytes given.
        found: usize,
    },
    /// A byte that is no truth value.
    #[error(
        "a bool tensor must consist of bytes 0 and 1, but other bytes were given; compare an u8 tensor with 0 instead"
    )]
    InvalidBool,
}

/// A file that cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// The operating system refused.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was being done to it.
        action: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// A model folder without weights that bertha reads.
    #[error("{}: no weights found: expected `model.safetensors`, or `model.safetensors.index.json` with its shards", path.display())]
    NoWeights {
        /// The folder.
        path: PathBuf,
    },
    /// A model folder whose weights are a Python pickle only.
    #[error(
        "{}: the weights are in `{found}`, a Python pickle, which bertha does not read; convert them once to \
         `model.safetensors`: load the model in `transformers` and call `save_pretrained(folder, safe_serialization=True)`",
        path.display()
    )]
    PickleOnly {
        /// The folder.
        path: PathBuf,
        /// The pickle's name.
        found: String,
    },
    /// A file that is not what its format demands, as a whole.
    #[error("{}: {problem}; {remedy}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What was found and what was expected.
        problem: String,
        /// What to do about it.
        remedy: &'static str,
    },
    /// A tensor in a file that is not what the format demands.
    #[error("{}: tensor `{tensor}`: {problem}; {remedy}", path.display())]
    MalformedTensor {
        /// The file.
        path: PathBuf,
        /// Name of the tensor.
        tensor: String,
        /// What was found and what was expected.
        problem: String,
        /// What to do about it.
        remedy: &'static str,
    },
    /// A dtype that bertha has no kernels for.
    #[error(
        "{}: tensor `{tensor}` has dtype {found}, which is not supported (supported: F64, F32, F16, BF16, I64, I32, I8, \
         U8, BOOL); convert the model to one of these",
        path.display()
    )]
    UnsupportedDType {
        /// The file.
        path: PathBuf,
        /// Name of the tensor.
        tensor: String,
        /// The dtype, as the file spells it.
        found: String,
    },
    /// A tensor that is not in the file.
    #[error("{}: no tensor `{tensor}` among the {count} of this file{}", path.display(), similar_names(similar))]
    NoTensor {
        /// The file, or the folder of the shards.
        path: PathBuf,
        /// The name asked for.
        tensor: String,
        /// How many tensors there are.
        count: usize,
        /// Names that end alike.
        similar: Vec<String>,
    },
    /// A shard that the index names and that is not there.
    #[error(
        "{}: shard `{shard}` is missing, which holds tensor `{tensor}` and {others} more; fetch it into the same folder",
        index.display()
    )]
    MissingShard {
        /// The index.
        index: PathBuf,
        /// Name of the shard.
        shard: String,
        /// The first tensor it should hold.
        tensor: String,
        /// How many others it should hold.
        others: usize,
    },
    /// An index that names a file outside of its folder.
    #[error(
        "{}: tensor `{tensor}` is said to be in `{shard}`; only a file inside the index's own folder is accepted",
        index.display()
    )]
    ShardOutside {
        /// The index.
        index: PathBuf,
        /// The tensor.
        tensor: String,
        /// The name refused.
        shard: String,
    },
    /// A tensor operation on the way to or from the file.
    #[error("{}: tensor `{tensor}`: {source}", path.display())]
    Tensor {
        /// The file.
        path: PathBuf,
        /// Name of the tensor.
        tensor: String,
        /// The reason.
        source: TensorError,
    },
}

impl FileError {
    /// For `map_err` on an I/O operation: `action` completes "cannot ...".
    pub(crate) fn io(
        path: impl Into<PathBuf>,
        action: &'static str,
    ) -> impl FnOnce(io::Error) -> FileError {
        let path = path.into();
        move |source| FileError::Io {
            path,
            action,
            source,
        }
    }
}

fn similar_names(similar: &[String]) -> String {
    if similar.is_empty() {
        return String::new();
    }
    let quoted: Vec<String> = similar.iter().map(|name| format!("`{name}`")).collect();
    format!("; similar names: {}", quoted.join(", "))
}
