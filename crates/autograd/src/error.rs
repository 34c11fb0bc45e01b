//! What an operation can refuse.

use bertha_tensor::TensorError;

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
    /// A tensor could not be made or read as asked.
    #[error(transparent)]
    Tensor(#[from] TensorError),
}
