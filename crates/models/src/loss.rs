//! The loss of a head, as its class in `transformers` computes it from labels.

use bertha_autograd::ops::{self, CrossEntropyOptions, Reduction};
use bertha_autograd::{Session, Var};
use bertha_nn::Batch;

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
    /// For each row of the logits a token (−100: none), and for each sequence the class of its pair of segments. The loss
    /// is the sum of both.
    PreTraining {
        /// Tokens, a row of the logits each.
        tokens: &'a [i64],
        /// 0: the second segment follows the first; 1: it does not. `[B]`.
        pairs: &'a [i64],
        /// What the sum of the pairs' losses is divided by.
        pairs_reduction: Reduction,
    },
    /// For each sequence of a batch the tokens, counted from its first, at which its answer starts and ends.
    Spans {
        /// The batch that the model was given.
        batch: &'a Batch,
        /// First tokens, `[B]`.
        starts: &'a [u32],
        /// Last tokens, `[B]`.
        ends: &'a [u32],
    },
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
    if let Targets::Spans {
        batch,
        starts,
        ends,
    } = targets
    {
        let both = outputs
            .start_logits
            .as_ref()
            .zip(outputs.end_logits.as_ref());
        let (start, end) = both.ok_or(ModelError::NoLoss { head })?;
        return span_loss(session, batch, [(start, starts), (end, ends)], reduction);
    }
    let logits = outputs.logits.clone().ok_or(ModelError::NoLoss { head })?;
    let cross_entropy = |logits, labels, reduction| {
        let options = CrossEntropyOptions {
            reduction,
            ..CrossEntropyOptions::default()
        };
        ops::cross_entropy(session, logits, labels, &options)
    };
    Ok(match targets {
        Targets::Classes(labels) => cross_entropy(logits, labels, reduction)?,
        Targets::PreTraining {
            tokens,
            pairs,
            pairs_reduction,
        } => {
            let scores = outputs.pair_logits.clone();
            let scores = scores.ok_or(ModelError::NoLoss { head })?;
            let tokens = cross_entropy(logits, tokens, reduction)?;
            let pairs = cross_entropy(scores, pairs, pairs_reduction)?;
            ops::add(session, &tokens, &pairs)?
        }
        Targets::MultiLabel(labels) => {
            ops::binary_cross_entropy(session, logits, labels, reduction)?
        }
        Targets::Values(values) => ops::mean_squared_error(session, logits, values, reduction)?,
        Targets::Spans { .. } => return Err(ModelError::NoLoss { head }),
    })
}

/// Cross-entropy over the tokens of each sequence: its own alone, where `transformers` also counts what it pads with.
/// The mean is over starts and ends.
fn span_loss(
    session: &Session,
    batch: &Batch,
    sides: [(&Var, &[u32]); 2],
    reduction: Reduction,
) -> Result<Var, ModelError> {
    let over = match reduction {
        Reduction::Mean => 2.0 * batch.len() as f64,
        Reduction::SumOver(over) => over,
    };
    let options = CrossEntropyOptions {
        reduction: Reduction::SumOver(over),
        ..CrossEntropyOptions::default()
    };
    let mut total: Option<Var> = None;
    for (logits, targets) in sides {
        if targets.len() != batch.len() {
            return Err(ModelError::Spans {
                found: format!("{} answers", targets.len()),
                expected: format!("one for each of {} sequences", batch.len()),
            });
        }
        for (sequence, &target) in targets.iter().enumerate() {
            let range = batch.range(sequence);
            let len = range.len();
            if target as usize >= len {
                return Err(ModelError::Spans {
                    found: format!("an answer at token {target} of sequence {sequence}"),
                    expected: format!("one of its {len} tokens"),
                });
            }
            let row = ops::narrow(session, logits, 0, range.start, len)?;
            let row = ops::reshape(session, &row, &[1, len])?;
            let loss = ops::cross_entropy(session, row, &[target.into()], &options)?;
            total = Some(match total {
                Some(total) => ops::add(session, &total, &loss)?,
                None => loss,
            });
        }
    }
    total.ok_or_else(|| ModelError::Spans {
        found: "no sequence".into(),
        expected: "at least one".into(),
    })
}
