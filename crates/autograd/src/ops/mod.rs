//! The operations, a file each: forward, and its backward beside it.
//!
//! First those that transformers are made of, fused, on f32; in f64 they run their scalar references, for gradient
//! checks. Then the general set, on f32 and f64, of which any small network can be built.
//!
//! To add one: a file with its [`OpInfo`], its forward, and the closure that takes the output's gradient to the
//! inputs'; a line in [`REGISTRY`]; a case in `tests/gradcheck`, without which the tests fail.

mod arithmetic;
mod attention;
mod binary_attention;
mod broadcast;
mod checkpoint;
mod conv;
mod custom_gradient;
mod distance_scores;
mod dropout;
mod embedding;
mod extremum;
mod gated;
mod gather;
mod index;
mod join;
mod layer_norm;
mod linear;
mod log_softmax;
mod loss;
mod masked_attention;
mod matmul;
mod pointwise;
mod pool2d;
mod real;
mod reduce;
mod replace_rows;
mod rope;
mod segment_mean;
mod straight_through;
mod unary;
mod view;
mod window;

pub use arithmetic::{add, div, mul, sub};
pub use attention::attention;
pub use binary_attention::binary_attention;
pub use checkpoint::checkpoint;
pub use conv::{Conv2d, conv2d};
pub use custom_gradient::custom_gradient;
pub use distance_scores::distance_scores;
pub use dropout::{dropout, dropout_add};
pub use embedding::{EmbeddingInputs, Tables, embedding, embedding_layer_norm};
pub use extremum::{maximum, minimum};
pub use gated::gate;
pub use gather::{column, gather_rows};
pub use index::{gather, index_select, one_hot, scatter_add, where_};
pub use join::{concat, split, stack};
pub use layer_norm::layer_norm;
pub use linear::{linear, linear_chain};
pub use log_softmax::log_softmax;
pub use loss::{
    CrossEntropyOptions, IGNORE_INDEX, Reduction, binary_cross_entropy, cross_entropy,
    mean_squared_error,
};
pub use masked_attention::{Projections, masked_attention};
pub use matmul::matmul;
pub use pointwise::{activate, softmax};
pub use pool2d::{Pool2d, avg_pool2d, max_pool2d};
pub use reduce::{logsumexp, max, mean, mean_all, sum, sum_all, var};
pub use replace_rows::replace_rows;
pub use rope::rope;
pub use segment_mean::segment_mean;
pub use straight_through::straight_through;
pub use unary::{
    abs, add_scalar, clamp, exp, gelu, ln, mul_scalar, neg, powf, relu, sigmoid, silu, sqrt, tanh,
};
pub use view::{broadcast_to, narrow, permute, reshape, select, squeeze, transpose, unsqueeze};

use bertha_tensor::{DType, Tensor};

use crate::tape::{Flow, Node};
use crate::{AutogradError, Session, Var};

/// What is known of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpInfo {
    /// The operation's name, as errors give it.
    pub name: &'static str,
    /// Whether a gradient can flow through it.
    pub has_backward: bool,
}

/// A dtype that gradients flow in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Float {
    F32,
    F64,
}

/// Declares an operation with a backward.
const fn differentiable(name: &'static str) -> OpInfo {
    OpInfo {
        name,
        has_backward: true,
    }
}

/// Every operation on a [`Var`].
pub const REGISTRY: &[OpInfo] = &[
    linear::INFO,
    layer_norm::INFO,
    attention::INFO,
    embedding::INFO,
    embedding::LOOKUP,
    dropout::DROPOUT,
    dropout::DROPOUT_ADD,
    masked_attention::INFO,
    replace_rows::INFO,
    rope::INFO,
    checkpoint::INFO,
    gated::INFO,
    segment_mean::INFO,
    straight_through::INFO,
    custom_gradient::INFO,
    binary_attention::INFO,
    distance_scores::INFO,
    gather::ROWS,
    gather::COLUMN,
    pointwise::ACTIVATE,
    pointwise::SOFTMAX,
    loss::CROSS_ENTROPY,
    loss::BINARY_CROSS_ENTROPY,
    loss::MEAN_SQUARED_ERROR,
    arithmetic::ADD,
    arithmetic::SUB,
    arithmetic::MUL,
    arithmetic::DIV,
    extremum::MAXIMUM,
    extremum::MINIMUM,
    unary::NEG,
    unary::ADD_SCALAR,
    unary::MUL_SCALAR,
    unary::EXP,
    unary::LN,
    unary::SQRT,
    unary::POWF,
    unary::ABS,
    unary::CLAMP,
    reduce::SUM,
    reduce::MEAN,
    reduce::VAR,
    reduce::MAX,
    reduce::LOGSUMEXP,
    log_softmax::LOG_SOFTMAX,
    matmul::MATMUL,
    view::RESHAPE,
    view::PERMUTE,
    view::TRANSPOSE,
    view::SQUEEZE,
    view::UNSQUEEZE,
    view::BROADCAST_TO,
    view::NARROW,
    view::SELECT,
    join::CONCAT,
    join::STACK,
    join::SPLIT,
    index::INDEX_SELECT,
    index::GATHER,
    index::SCATTER_ADD,
    index::WHERE,
    conv::CONV2D,
    pool2d::MAX_POOL2D,
    pool2d::AVG_POOL2D,
];

impl OpInfo {
    /// Whether one of the inputs is tracked, so that the operation must be recorded. Refuses that when the
    /// operation has no backward.
    fn admit(self, session: &Session, inputs: &[&Var]) -> Result<bool, AutogradError> {
        let tracked = session.records() && inputs.iter().any(|input| input.is_tracked());
        if tracked && !self.has_backward {
            return Err(AutogradError::NoBackward { op: self.name });
        }
        Ok(tracked)
    }

    /// Tells whoever wants to know that the operation runs, on a kernel, with so many multiply-adds.
    fn tell(self, session: &Session, kernel: &'static str, multiply_adds: usize) {
        session.tell(self.name, kernel, multiply_adds);
    }

    /// The operation's output, recorded with its backward pass: a closure that takes the output's gradient and adds
    /// the inputs' gradients to the [`Flow`].
    fn record(
        self,
        value: Tensor,
        backward: impl FnOnce(&mut Flow<'_>, Tensor) -> Result<(), AutogradError> + Send + 'static,
    ) -> Var {
        debug_assert!(self.has_backward);
        Var::new(value, Some(Node::record(self.name, backward)))
    }

    /// The dtype of inputs that must agree, f32 or f64.
    fn float(self, inputs: &[&Var]) -> Result<Float, AutogradError> {
        let dtypes: Vec<DType> = inputs.iter().map(|input| input.dtype()).collect();
        match dtypes[..] {
            [first, ref rest @ ..] if rest.iter().all(|&dtype| dtype == first) => match first {
                DType::F32 => Ok(Float::F32),
                DType::F64 => Ok(Float::F64),
                _ => Err(AutogradError::DType {
                    op: self.name,
                    found: dtypes,
                }),
            },
            _ => Err(AutogradError::DType {
                op: self.name,
                found: dtypes,
            }),
        }
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

    fn shape_error(self, input: &'static str, found: &[usize], expected: String) -> AutogradError {
        AutogradError::Shape {
            op: self.name,
            input,
            found: found.to_vec(),
            expected,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Parameter;

    #[test]
    fn a_gradient_through_what_has_none_is_refused_at_forward() {
        let op = OpInfo {
            name: "sign",
            has_backward: false,
        };
        let session = Session::new(Some(1)).unwrap();
        let parameter = Parameter::new("w", Tensor::zeros(DType::F32, &[2]).unwrap());
        let x = parameter.var();
        let error = op.admit(&session, &[&x]).unwrap_err();
        assert!(matches!(error, AutogradError::NoBackward { op: "sign" }));
        assert!(!op.admit(&session, &[&x.detach()]).unwrap());
        assert!(!op.admit(&session.no_grad(), &[&x]).unwrap());
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = REGISTRY.iter().map(|op| op.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), REGISTRY.len(), "operations share a name");
    }
}
