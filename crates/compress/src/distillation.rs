//! A student learns from a teacher what the teacher gives, and how it gets there.

use std::sync::{Arc, Mutex, PoisonError};

use bertha_autograd::{Session, Taps, Var, ops};
use bertha_models::{ForwardOptions, Model, Outputs};
use bertha_train::TrainError;
use bertha_train::collate::{Targets, TrainingBatch};
use bertha_train::trainer::{Loss, Objective, labelled_rows, loss_of, loss_terms};

/// What keeps a root away from 0, where its slope is infinite.
const TINY: f64 = 1e-12;

/// The loss of a student that has a teacher of the same shape: cross-entropy with the teacher's classes (of other tasks
/// the squared difference of the outputs), some of the task's own loss, and the directions of what happens inside (Qin
/// et al. 2022, <https://arxiv.org/abs/2203.06390>, section 3.3).
pub struct Distillation {
    teacher: Box<dyn Model>,
    /// Share of the task's own loss.
    pub hard: f64,
    /// Whether similarities of queries, of keys and of values are matched. Not with activation checkpointing.
    pub directions: bool,
    /// How the embeddings and the layers' outputs are matched.
    pub hidden: HiddenLoss,
}

/// How hidden states are matched with the teacher's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HiddenLoss {
    /// Not at all.
    #[default]
    None,
    /// By their direction: [`direction_loss`].
    Direction,
    /// By the mean of the squared differences, as BiT does (Liu et al. 2022, <https://arxiv.org/abs/2205.13016>).
    MeanSquare,
}

impl Distillation {
    /// From a teacher: its outputs alone, and half of the task's own loss.
    pub fn new(teacher: Box<dyn Model>) -> Self {
        Self {
            teacher,
            hard: 0.5,
            directions: false,
            hidden: HiddenLoss::None,
        }
    }

    /// With direction matching.
    #[must_use]
    pub fn matching_directions(mut self) -> Self {
        (self.directions, self.hidden) = (true, HiddenLoss::Direction);
        self
    }

    /// With squared differences of the embeddings and the layers' outputs.
    #[must_use]
    pub fn matching_hidden_states(mut self) -> Self {
        self.hidden = HiddenLoss::MeanSquare;
        self
    }
}

/// A forward pass with what it had inside.
fn tapped(
    session: &Session,
    model: &dyn Model,
    batch: &TrainingBatch,
) -> Result<(Outputs, Vec<Var>), TrainError> {
    let taps: Taps = Arc::new(Mutex::new(Vec::new()));
    let rows = labelled_rows(&batch.targets);
    let options = ForwardOptions {
        hidden_states: true,
        logit_rows: rows.as_deref(),
        global_tokens: None,
    };
    let tapping = session.tapping(Arc::clone(&taps));
    let outputs = model.forward(&tapping, &batch.batch, &options)?;
    let taps = std::mem::take(&mut *taps.lock().unwrap_or_else(PoisonError::into_inner));
    Ok((outputs, taps))
}

impl Objective for Distillation {
    fn loss(
        &self,
        session: &Session,
        model: &dyn Model,
        batch: &TrainingBatch,
        over: f64,
        label_smoothing: f32,
    ) -> Result<Option<Loss>, TrainError> {
        let terms = loss_terms(batch);
        if terms == 0 {
            return Ok(None);
        }
        if self.directions && session.checkpoints() {
            // What is tapped of a layer that is computed anew is not on the tape.
            return Err(TrainError::Setting {
                setting: "direction matching",
                found:
                    "activation checkpointing, which keeps no gradient of queries, keys and values"
                        .into(),
                expected: "one or the other".into(),
            });
        }
        let (teacher, wanted) = tapped(&session.no_grad(), &*self.teacher, batch)?;
        let (student, tracked) = tapped(session, model, batch)?;
        let mut losses = vec![of_outputs(session, &student, &teacher, &batch.targets)?];
        if self.directions {
            let heads = model.info().heads;
            let cu_seqlens = batch.batch.cu_seqlens();
            for (student, teacher) in tracked.iter().zip(&wanted) {
                losses.extend(similarity_losses(
                    session, student, teacher, cu_seqlens, heads,
                )?);
            }
        }
        let pairs = student.hidden_states.iter().zip(&teacher.hidden_states);
        for (student, teacher) in pairs {
            match self.hidden {
                HiddenLoss::None => {}
                HiddenLoss::Direction => losses.push(direction_loss(session, student, teacher)?),
                HiddenLoss::MeanSquare => {
                    let left = ops::sub(session, student, &teacher.detach())?;
                    losses.push(ops::mean_all(session, &ops::mul(session, &left, &left)?)?);
                }
            }
        }
        let mut sum: Option<Var> = None;
        for loss in losses {
            sum = Some(match sum {
                None => loss,
                Some(sum) => ops::add(session, &sum, &loss)?,
            });
        }
        let share = terms as f64 / over;
        let mut root = match sum {
            Some(sum) => ops::mul_scalar(session, &sum, share)?,
            None => return Ok(None),
        };
        if self.hard > 0.0 {
            let own = loss_of(session, student, batch, over / self.hard, label_smoothing)?;
            root = ops::add(session, &root, own.root())?;
        }
        Loss::new(root).map(Some)
    }
}

/// Cross-entropy with the teacher's probabilities, a mean over rows and classes; of numbers the mean squared difference.
fn of_outputs(
    session: &Session,
    student: &Outputs,
    teacher: &Outputs,
    targets: &Targets,
) -> Result<Var, TrainError> {
    let pairs = [
        (&student.logits, &teacher.logits),
        (&student.start_logits, &teacher.start_logits),
        (&student.end_logits, &teacher.end_logits),
    ];
    let mut sum: Option<Var> = None;
    for (student, teacher) in pairs {
        let (Some(student), Some(teacher)) = (student, teacher) else {
            continue;
        };
        let teacher = teacher.detach();
        let count = teacher.shape().iter().product::<usize>().max(1) as f64;
        let numbers = matches!(targets, Targets::Scores { .. } | Targets::Spans { .. });
        let loss = match numbers || student.shape().len() != 2 {
            true => {
                let left = ops::sub(session, student, &teacher)?;
                ops::sum_all(session, &ops::mul(session, &left, &left)?)?
            }
            false => {
                let wanted = ops::softmax(session, teacher)?;
                let found = ops::log_softmax(session, student)?;
                let agreement = ops::mul(session, &wanted, &found)?;
                ops::mul_scalar(session, &ops::sum_all(session, &agreement)?, -1.0)?
            }
        };
        let loss = ops::mul_scalar(session, &loss, 1.0 / count)?;
        sum = Some(match sum {
            None => loss,
            Some(sum) => ops::add(session, &sum, &loss)?,
        });
    }
    sum.ok_or_else(|| TrainError::Setting {
        setting: "the models' heads",
        found: "outputs that the teacher and the student do not share".into(),
        expected: "the head of the task on both".into(),
    })
}

/// `‖A/‖A‖ − B/‖B‖‖`, not squared: the root of `2 − 2·cos`.
///
/// # Errors
/// When the shapes differ.
pub fn direction_loss(session: &Session, a: &Var, b: &Var) -> Result<Var, TrainError> {
    let b = b.detach();
    let product = ops::sum_all(session, &ops::mul(session, a, &b)?)?;
    let square = ops::sum_all(session, &ops::mul(session, a, a)?)?;
    let other = ops::sum_all(session, &ops::mul(session, &b, &b)?)?;
    of_sums(session, &product, &square, &other)
}

/// `√(2 − 2·product/√(square·other))`.
fn of_sums(session: &Session, product: &Var, square: &Var, other: &Var) -> Result<Var, TrainError> {
    let norms = ops::sqrt(
        session,
        &ops::add_scalar(session, &ops::mul(session, square, other)?, TINY)?,
    )?;
    let cosine = ops::div(session, product, &norms)?;
    let left = ops::add_scalar(session, &ops::mul_scalar(session, &cosine, -2.0)?, 2.0)?;
    // Rounding may take it below 0.
    let left = ops::clamp(session, &left, 0.0, 4.0)?;
    Ok(ops::sqrt(session, &ops::add_scalar(session, &left, TINY)?)?)
}

/// [`direction_loss`] of the similarities of all pairs of tokens, `P = X·Xᵀ` of each sequence and head, where `X` is the
/// queries, the keys and the values of `[T,3·H·D]`: a loss each. The similarities themselves are never computed: for `X`
/// and `Y` of width D `⟨X·Xᵀ, Y·Yᵀ⟩ = ‖Xᵀ·Y‖²`, of a matrix of `[D,D]`.
///
/// # Errors
/// When the shapes differ, or there is no sequence.
pub fn similarity_losses(
    session: &Session,
    student: &Var,
    teacher: &Var,
    cu_seqlens: &[u32],
    heads: usize,
) -> Result<Vec<Var>, TrainError> {
    let width = student.shape().last().copied().unwrap_or(0) / 3;
    let dim = width / heads.max(1);
    let lengths = cu_seqlens
        .windows(2)
        .map(|ends| (ends[1] - ends[0]) as usize);
    let lengths: Vec<usize> = lengths.collect();
    // [H, S, D] of each part and sequence.
    let of = |x: &Var| -> Result<Vec<Vec<Var>>, TrainError> {
        let parts = ops::split(session, x, 1, &[width; 3])?;
        let sequences = parts.iter().map(|part| {
            let rows = ops::split(session, part, 0, &lengths)?;
            let rows = rows.iter().zip(&lengths).map(|(rows, &len)| {
                let rows = ops::reshape(session, rows, &[len, heads, dim])?;
                Ok(ops::permute(session, &rows, &[1, 0, 2])?)
            });
            rows.collect()
        });
        sequences.collect()
    };
    let squares = |a: &Var, b: &Var| -> Result<Var, TrainError> {
        let crossed = ops::matmul(session, &ops::transpose(session, a, 1, 2)?, b)?;
        Ok(ops::sum_all(
            session,
            &ops::mul(session, &crossed, &crossed)?,
        )?)
    };
    let (student, teacher) = (of(student)?, of(&teacher.detach())?);
    let mut losses = Vec::with_capacity(3);
    for (student, teacher) in student.iter().zip(&teacher) {
        let mut sums: Option<[Var; 3]> = None;
        for (a, b) in student.iter().zip(teacher) {
            let new = [squares(a, b)?, squares(a, a)?, squares(b, b)?];
            sums = Some(match sums {
                None => new,
                Some([x, y, z]) => [
                    ops::add(session, &x, &new[0])?,
                    ops::add(session, &y, &new[1])?,
                    ops::add(session, &z, &new[2])?,
                ],
            });
        }
        let [product, square, other] = sums.ok_or_else(|| TrainError::Setting {
            setting: "the batch",
            found: "no sequence".into(),
            expected: "one at least".into(),
        })?;
        losses.push(of_sums(session, &product, &square, &other)?);
    }
    Ok(losses)
}
