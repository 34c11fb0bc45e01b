//! The loss of a head, as its class in `transformers` computes it from labels.

use bertha_autograd::ops::{self, CrossEntropyOptions, Reduction};
use bertha_autograd::{Session, Var};

use crate::{Head, ModelError, Outputs};

/// What a head should have given.
#[derive(Clone, Copy, Debug)]
pub enum Targets<'a> {
    /// A class for each row of the logits: each token of a masked LM or token classifier (−100: none), each sequence of
    /// a classifier.
    Classes(&'a [i64]),
    /// For each sequence and class 0 or 1: any number of classes.
    MultiLabel(&'a [f32]),
    /// For each value of the logits the number it should be.
    Values(&'a [f32]),
}

/// The loss of a forward pass, a single number.
///
/// # Errors
/// When the model has no head whose loss these targets make, or they do not fit the logits.
pub fn loss(
    session: &Session,
    head: Head,
    outputs: &Outputs,
    targets: Targets<'_>,
    reduction: Reduction,
) -> Result<Var, ModelError> {
    let logits = outputs.logits.clone().ok_or(ModelError::NoLoss { head })?;
    Ok(match targets {
        Targets::Classes(labels) => {
            let options = CrossEntropyOptions {
                reduction,
                ..CrossEntropyOptions::default()
            };
            ops::cross_entropy(session, logits, labels, &options)?
        }
        Targets::MultiLabel(labels) => {
            ops::binary_cross_entropy(session, logits, labels, reduction)?
        }
        Targets::Values(values) => ops::mean_squared_error(session, logits, values, reduction)?,
    })
}
