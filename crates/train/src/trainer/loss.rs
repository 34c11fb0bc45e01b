//! The loss of a batch, by what its targets are.

use bertha_autograd::ops::{self, CrossEntropyOptions, Reduction};
use bertha_autograd::{Gradients, Session, Var};
use bertha_models::{ForwardOptions, Head, Model, Outputs};

use crate::TrainError;
use crate::collate::{Targets, TrainingBatch};

/// A loss whose gradient can be taken.
#[derive(Clone, Debug)]
pub struct Loss {
    /// What it is.
    pub value: f64,
    root: Var,
}

/// What a model is trained to make small, in place of [`batch_loss`].
pub trait Objective: Send + Sync {
    /// The loss of a batch, or none of one without labels. Like [`batch_loss`] its share of the update's: of a mean over
    /// the batch [`loss_terms`] over `over`.
    ///
    /// # Errors
    /// When a model refuses the batch.
    fn loss(
        &self,
        session: &Session,
        model: &dyn Model,
        batch: &TrainingBatch,
        over: f64,
        label_smoothing: f32,
    ) -> Result<Option<Loss>, TrainError>;
}

/// What the task's targets say.
impl Objective for () {
    fn loss(
        &self,
        session: &Session,
        model: &dyn Model,
        batch: &TrainingBatch,
        over: f64,
        label_smoothing: f32,
    ) -> Result<Option<Loss>, TrainError> {
        batch_loss(session, model, batch, over, label_smoothing)
    }
}

impl Loss {
    /// The loss of a single number that was computed on the tape.
    ///
    /// # Errors
    /// When it is no single f32.
    pub fn new(root: Var) -> Result<Self, TrainError> {
        let value = f64::from(root.tensor().item::<f32>()?);
        Ok(Self { value, root })
    }

    /// What it was computed as.
    pub fn root(&self) -> &Var {
        &self.root
    }

    /// Adds the loss's gradient to `gradients`. It can be taken once.
    ///
    /// # Errors
    /// When no parameter that is not frozen led to the loss.
    pub fn backward(&self, session: &Session, gradients: &mut Gradients) -> Result<(), TrainError> {
        Ok(self.root.backward(session, gradients)?)
    }
}

/// How many single losses a batch has, which their sum is divided by to be a mean: labelled sequences or
/// tokens, decisions (several classes), numbers, or starts and ends of answers. Over several batches the
/// sums are divided by the sum of these.
pub fn loss_terms(batch: &TrainingBatch) -> usize {
    match &batch.targets {
        Targets::MultiLabel { values, .. } | Targets::Scores { values, .. } => values.len(),
        Targets::Spans { starts, ends } => starts.len() + ends.len(),
        _ => batch.loss_terms(),
    }
}

/// Runs a model on a batch and takes the loss: cross-entropy of classes, of tokens, of masked tokens and
/// of the starts and ends of answers, binary cross-entropy of several classes, squared difference of
/// numbers; the sum of the single losses divided by `over` (see [`loss_terms`]). Logits are computed only for
/// the tokens that have a label. A batch without any label has no loss.
///
/// Where masked tokens come with the classes of pairs, and the model scores pairs, the mean of the batch's pairs is added,
/// with the weight that the batch's tokens have in `over`: of one batch alone the loss is the sum of both means.
///
/// # Errors
/// When the model has another head than the targets need, or a class that it does not know.
pub fn batch_loss(
    session: &Session,
    model: &dyn Model,
    batch: &TrainingBatch,
    over: f64,
    label_smoothing: f32,
) -> Result<Option<Loss>, TrainError> {
    if loss_terms(batch) == 0 {
        return Ok(None);
    }
    let rows = labelled_rows(&batch.targets);
    let options = ForwardOptions {
        logit_rows: rows.as_deref(),
        global_tokens: None,
        ..ForwardOptions::default()
    };
    let outputs = model.forward(session, &batch.batch, &options)?;
    loss_of(session, outputs, batch, over, label_smoothing).map(Some)
}

/// The packed rows whose logits are wanted, where those of some are enough.
pub fn labelled_rows(targets: &Targets) -> Option<Vec<u32>> {
    match targets {
        Targets::Masked { rows, .. } => Some(rows.clone()),
        Targets::Tokens(labels) => {
            let rows = (0..).zip(labels).filter(|(_, label)| **label >= 0);
            Some(rows.map(|(row, _)| row).collect())
        }
        _ => None,
    }
}

/// The loss of a model's outputs, whose logits are those of [`labelled_rows`].
pub fn loss_of(
    session: &Session,
    outputs: Outputs,
    batch: &TrainingBatch,
    over: f64,
    label_smoothing: f32,
) -> Result<Loss, TrainError> {
    let reduction = Reduction::SumOver(over);
    let classes = |logits: Option<Var>, labels: Vec<i64>| {
        let options = CrossEntropyOptions {
            label_smoothing,
            class_weights: None,
            reduction,
        };
        let logits = logits.ok_or_else(|| no_head("logits"))?;
        Ok::<_, TrainError>(ops::cross_entropy(session, logits, &labels, &options)?)
    };
    let logits = outputs.logits.clone();
    let root = match &batch.targets {
        Targets::None => return Err(no_head("targets")),
        Targets::Classes(labels) => {
            classes(logits, labels.iter().map(|&label| label.into()).collect())?
        }
        Targets::Masked {
            ids,
            classes: pairs,
            ..
        } => {
            let tokens = classes(logits, ids.iter().map(|&id| id.into()).collect())?;
            match (&outputs.pair_logits, pairs) {
                (Some(scores), Some(pairs)) => {
                    let share = over * pairs.len() as f64 / ids.len() as f64;
                    let pairs = pair_loss(session, scores, pairs, label_smoothing, share)?;
                    ops::add(session, &tokens, &pairs)?
                }
                _ => tokens,
            }
        }
        Targets::Tokens(labels) => {
            let labelled = labels.iter().filter(|&&label| label >= 0);
            classes(logits, labelled.map(|&label| label.into()).collect())?
        }
        Targets::MultiLabel { values, .. } => {
            let logits = logits.ok_or_else(|| no_head("logits"))?;
            ops::binary_cross_entropy(session, logits, values, reduction)?
        }
        Targets::Scores { values, .. } => {
            let logits = logits.ok_or_else(|| no_head("logits"))?;
            ops::mean_squared_error(session, logits, values, reduction)?
        }
        Targets::Spans { starts, ends } => {
            let targets = bertha_models::Targets::Spans {
                batch: &batch.batch,
                starts,
                ends,
            };
            bertha_models::loss(
                session,
                Head::QuestionAnswering,
                &outputs,
                targets,
                reduction,
            )?
        }
    };
    Loss::new(root)
}

/// The loss of pairs of segments, the sum divided by `over`.
pub(super) fn pair_loss(
    session: &Session,
    scores: &Var,
    classes: &[u32],
    label_smoothing: f32,
    over: f64,
) -> Result<Var, TrainError> {
    let options = CrossEntropyOptions {
        label_smoothing,
        class_weights: None,
        reduction: Reduction::SumOver(over),
    };
    let classes: Vec<i64> = classes.iter().map(|&class| class.into()).collect();
    Ok(ops::cross_entropy(
        session,
        scores.clone(),
        &classes,
        &options,
    )?)
}

fn no_head(what: &str) -> TrainError {
    TrainError::Setting {
        setting: "the model's head",
        found: format!("one without {what}"),
        expected: "the head of the task".into(),
    }
}
