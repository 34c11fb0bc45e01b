//! What an operation can refuse.

use bertha_tensor::{DType, TensorError};

/// Why an operation was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AutogradError {
    /// A gradient was asked for through an operation that has no backward.
    #[error(
        "operation `{op}` has no backward, but one of its inputs is tracked: \
         detach the input, or run the forward pass on constants"
    )]
    NoBackward {
        /// The operation's name in [`crate::ops::REGISTRY`].
        op: &'static str,
    },
    /// A part that ran well in the forward pass failed when the backward pass ran it again.
    #[error("the backward pass could not run a part of the model again: {reason}")]
    Recomputation {
        /// What the part said.
        reason: String,
    },
    /// An input's shape does not fit the operation.
    #[error("operation `{op}`: {input} has shape {found:?}, expected {expected}")]
    Shape {
        /// The operation's name.
        op: &'static str,
        /// Which input.
        input: &'static str,
        /// The shape it had.
        found: Vec<usize>,
        /// The shape it should have had, in words.
        expected: String,
    },
    /// An index is outside the table it selects from.
    #[error("operation `{op}`: {what} {index} is out of range, the table has {rows} rows")]
    Index {
        /// The operation's name.
        op: &'static str,
        /// What the index is (a token id, a position, a token type).
        what: &'static str,
        /// The index found.
        index: u32,
        /// Rows of the table.
        rows: usize,
    },
    /// An index, of any integer type, is outside the dimension that it points into.
    #[error("operation `{op}`: {what} {index} is out of range, there are {len}")]
    OutOfRange {
        /// The operation's name.
        op: &'static str,
        /// What the index is (a class, an index into a dimension).
        what: &'static str,
        /// The index found.
        index: i64,
        /// How many there are to point to.
        len: usize,
    },
    /// An input that selects (indices, a condition) is of another dtype than that takes.
    #[error("operation `{op}`: {input} must be {expected}, found {found}")]
    SelectorDType {
        /// The operation's name.
        op: &'static str,
        /// Which input.
        input: &'static str,
        /// The dtype found.
        found: DType,
        /// The dtypes it may have, in words.
        expected: &'static str,
    },
    /// A view was asked for that the tensor does not have.
    #[error("operation `{op}`: {source}")]
    View {
        /// The operation's name.
        op: &'static str,
        /// What the tensor said.
        source: TensorError,
    },
    /// Inputs of dtypes that the operation does not take, or not together.
    #[error(
        "operation `{op}` takes inputs of one dtype, f32 or f64, found {found:?}: convert them first"
    )]
    DType {
        /// The operation's name.
        op: &'static str,
        /// The inputs' dtypes.
        found: Vec<DType>,
    },
    /// A share that is not from 0 to below 1.
    #[error("operation `{op}`: the probability {found} is not from 0 to below 1")]
    Probability {
        /// The operation's name.
        op: &'static str,
        /// The value found.
        found: f32,
    },
    /// A label that is no class.
    #[error(
        "operation `{op}`: label {label} of row {row} is none of the {classes} classes, nor −100"
    )]
    Label {
        /// The operation's name.
        op: &'static str,
        /// The label.
        label: i64,
        /// Its row.
        row: usize,
        /// Number of classes.
        classes: usize,
    },
    /// A parameter was given a value that it cannot have.
    #[error("parameter `{name}` is {expected}, but its new value is {found}")]
    ParameterValue {
        /// The parameter.
        name: String,
        /// Dtype and shape of the value.
        found: String,
        /// Dtype and shape of the parameter.
        expected: String,
    },
    /// A backward pass can only begin at a single number.
    #[error(
        "backward needs a single number to begin at, found shape {shape:?}: reduce the loss to its mean or sum, \
         or give the gradient that flows into it (`backward_with`)"
    )]
    NotScalar {
        /// The shape found.
        shape: Vec<usize>,
    },
    /// No parameter led to the value.
    #[error("backward has nowhere to go: no parameter that is not frozen led to this value")]
    NotTracked,
    /// A backward pass has used up what the forward pass kept.
    #[error("operation `{op}`: its backward has run already; run the forward pass again")]
    Spent {
        /// The operation's name.
        op: &'static str,
    },
    /// A tensor could not be made or read as asked.
    #[error(transparent)]
    Tensor(#[from] TensorError),
}
