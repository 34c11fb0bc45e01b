//! The operations, a file each: forward, and later its backward beside it.

mod attention;
mod embedding;
mod gather;
mod layer_norm;
mod linear;
mod pointwise;

pub use attention::attention;
pub use embedding::{EmbeddingInputs, embedding_layer_norm};
pub use gather::{column, gather_rows};
pub use layer_norm::layer_norm;
pub use linear::linear;
pub use pointwise::{activate, softmax};

use crate::{AutogradError, Var};

/// What is known of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpInfo {
    /// The operation's name, as errors give it.
    pub name: &'static str,
    /// Whether a gradient can flow through it.
    pub has_backward: bool,
}

/// Declares an operation without a backward.
const fn forward_only(name: &'static str) -> OpInfo {
    OpInfo {
        name,
        has_backward: false,
    }
}

/// Every operation on a [`Var`].
pub const REGISTRY: &[OpInfo] = &[
    linear::INFO,
    layer_norm::INFO,
    attention::INFO,
    embedding::INFO,
    gather::ROWS,
    gather::COLUMN,
    pointwise::ACTIVATE,
    pointwise::SOFTMAX,
];

impl OpInfo {
    /// Refuses tracked inputs when the operation has no backward.
    fn admit(self, inputs: &[&Var]) -> Result<(), AutogradError> {
        if !self.has_backward && inputs.iter().any(|input| input.is_tracked()) {
            return Err(AutogradError::NoBackward { op: self.name });
        }
        Ok(())
    }

    /// The rows and columns of a matrix input.
    fn matrix(self, input: &'static str, var: &Var) -> Result<(usize, usize), AutogradError> {
        match *var.shape() {
            [rows, columns] => Ok((rows, columns)),
            ref found => Err(self.shape_error(input, found, "two dimensions".into())),
        }
    }

    /// Checks that a matrix input has `columns` columns, and gives its rows.
    fn rows_of(
        self,
        input: &'static str,
        var: &Var,
        columns: usize,
    ) -> Result<usize, AutogradError> {
        let (rows, found) = self.matrix(input, var)?;
        if found != columns {
            return Err(self.shape_error(input, var.shape(), format!("[*, {columns}]")));
        }
        Ok(rows)
    }

    /// Checks that a vector parameter has `len` values.
    fn vector(self, input: &'static str, values: &[f32], len: usize) -> Result<(), AutogradError> {
        if values.len() != len {
            return Err(self.shape_error(input, &[values.len()], format!("[{len}]")));
        }
        Ok(())
    }

    fn shape_error(self, input: &'static str, found: &[usize], expected: String) -> AutogradError {
        AutogradError::Shape {
            op: self.name,
            input,
            found: found.to_vec(),
            expected,
        }
    }
}
