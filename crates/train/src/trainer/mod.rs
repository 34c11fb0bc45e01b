//! The training loop.
//!
//! A [`Trainer`] takes a model with its parameters, a [`Task`] and tokenized examples, and runs to the end
//! or until its [`Observer`] stops it. An update is `accumulation` batches: forward with dropout, loss
//! (summed, divided by the number of labels of the whole update), backward into one set of gradients, their
//! sum over all ranks, clipping by the global norm, optimizer, averaged weights. Everything is a function of
//! settings, data and seed: the same bits on any number of threads, and after a resume.
//!
//! A run's folder holds
//!
//! - the trained model itself, `config.json`, `model.safetensors` and the tokenizer's files, once the run has
//!   ended: the best by the chosen measure where it was evaluated, otherwise the last;
//! - `training.json`, the exact configuration;
//! - `metrics.jsonl`, what happened, and `curve.svg`, its picture;
//! - `checkpoints/step-N`, model folders with all that is needed to go on;
//! - `best`, the best model so far.

mod checkpoint;
mod evaluation;
mod loss;
mod observer;
mod options;
mod rounding;
mod run;
mod task;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::time::Duration;

use bertha_autograd::Session;
use bertha_models::TrainableModel;
use serde::Serialize;

pub use checkpoint::Best;
pub use evaluation::{EvaluationData, Scores, evaluate};
pub use loss::{Loss, Objective, batch_loss, labelled_rows, loss_of, loss_terms};
pub use observer::{Observer, Plan, Progress, Signal};
pub use options::{Every, Length, TrainOptions};
pub use rounding::WeightRounding;
pub use task::Task;

use crate::TrainError;
use crate::collate::Masker;
use crate::collective::{Collective, Local};
use crate::data::Examples;

/// Trains a model.
///
/// ```no_run
/// use bertha_autograd::Session;
/// use bertha_models::{Config, TrainableModel};
/// use bertha_tokenizer::{Input, Tokenizer};
/// use bertha_train::data::text_examples;
/// use bertha_train::trainer::{Task, TrainOptions, Trainer};
///
/// let (session, task) = (Session::new(None)?, Task::Classify);
/// let tokenizer = Tokenizer::from_dir("bert")?;
/// let texts = [Input::Single("What a wonderful film."), Input::Single("Never again.")];
/// let examples = text_examples(&tokenizer, &texts, 128)?.with_classes(&[1, 0])?;
/// let config = Config::from_file("bert/config.json")?;
/// let model = TrainableModel::from_dir("bert", config, task.head(), &session, 42)?;
/// let outcome = Trainer::new(session, model, task, examples, TrainOptions::default())
///     .output("run", "bert")
///     .run()?;
/// println!("{} updates, loss {}", outcome.summary.step, outcome.summary.loss);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Trainer<'a> {
    session: Session,
    model: TrainableModel,
    task: Task,
    examples: Examples,
    options: TrainOptions,
    masker: Option<Masker>,
    evaluation: Option<EvaluationData>,
    output: Option<Output>,
    resume: bool,
    observer: Box<dyn Observer + 'a>,
    collective: Box<dyn Collective + 'a>,
    objective: Box<dyn Objective + 'a>,
    rounding: Option<Box<dyn WeightRounding + 'a>>,
}

/// The folder of a run.
struct Output {
    folder: PathBuf,
    /// Where the tokenizer's files are copied from.
    tokenizer: PathBuf,
}

/// Why a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// All updates were made.
    Complete,
    /// No evaluation was better for as long as its patience lasted.
    Early,
    /// Its observer stopped it.
    Stopped,
}

/// What a run came to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// Why it ended.
    pub end: End,
    /// Updates made, those before a resume included.
    pub step: u64,
    /// Updates that the whole run has.
    pub steps: u64,
    /// Passes over the data, with the part of the last.
    pub epoch: f64,
    /// The mean loss of the updates since the run started or resumed; NaN of none.
    pub loss: f64,
    /// Tokens trained on since the run started or resumed.
    pub tokens: u64,
    /// Seconds of training, without evaluation and saving.
    pub seconds: f64,
    /// Seconds of them that the forward passes took.
    pub forward_seconds: f64,
    /// Seconds of them that the backward passes took.
    pub backward_seconds: f64,
    /// Seconds of them that the updates took: norm, optimizer, averaged weights.
    pub optimizer_seconds: f64,
    /// The best evaluation.
    pub best: Option<Best>,
    /// The measures of the model as it is now; none without data for that, or when it was stopped.
    pub evaluation: Scores,
}

/// A trained model and what its training came to.
pub struct Outcome {
    /// The model, with the weights that were saved.
    pub model: TrainableModel,
    /// What the run came to.
    pub summary: Summary,
}

impl<'a> Trainer<'a> {
    /// A run in memory, without evaluation.
    pub fn new(
        session: Session,
        model: TrainableModel,
        task: Task,
        examples: Examples,
        options: TrainOptions,
    ) -> Self {
        Self {
            session: session.with_precision(options.precision),
            model,
            task,
            examples,
            options,
            masker: None,
            evaluation: None,
            output: None,
            resume: false,
            observer: Box::new(()),
            collective: Box::new(Local),
            objective: Box::new(()),
            rounding: None,
        }
    }

    /// What masks tokens; needed where [`Task::masks`].
    #[must_use]
    pub fn masker(mut self, masker: Masker) -> Self {
        self.masker = Some(masker);
        self
    }

    /// Evaluates on this data, and keeps the best model where the run has a folder; otherwise the last.
    #[must_use]
    pub fn evaluation(mut self, data: impl Into<EvaluationData>) -> Self {
        self.evaluation = Some(data.into());
        self
    }

    /// Writes the run into a folder (made where there is none), with the files of the tokenizer in
    /// another.
    #[must_use]
    pub fn output(mut self, folder: impl AsRef<Path>, tokenizer: impl AsRef<Path>) -> Self {
        self.output = Some(Output {
            folder: folder.as_ref().to_path_buf(),
            tokenizer: tokenizer.as_ref().to_path_buf(),
        });
        self
    }

    /// Goes on from the folder's last checkpoint, where there is one. Otherwise a folder that has a run in
    /// it is refused.
    #[must_use]
    pub fn resume(mut self, resume: bool) -> Self {
        self.resume = resume;
        self
    }

    /// Who is told what happens, and may stop it.
    #[must_use]
    pub fn observer(mut self, observer: impl Observer + 'a) -> Self {
        self.observer = Box::new(observer);
        self
    }

    /// What is made small in place of the task's own loss, as distillation wants. Evaluation stays that of the task.
    #[must_use]
    pub fn objective(mut self, objective: impl Objective + 'a) -> Self {
        self.objective = Box::new(objective);
        self
    }

    /// What passes have in place of weights: quantization-aware training.
    #[must_use]
    pub fn rounding(mut self, rounding: impl WeightRounding + 'a) -> Self {
        self.rounding = Some(Box::new(rounding));
        self
    }

    /// Trains together with other ranks: each has a trainer of the same settings, data and model, and gets
    /// a part of every batch. The first rank alone writes files; all must use the same folder.
    #[must_use]
    pub fn collective(mut self, collective: impl Collective + 'a) -> Self {
        self.collective = Box::new(collective);
        self
    }

    /// Runs.
    ///
    /// # Errors
    /// [`TrainError::Setting`] when a setting is out of range, [`TrainError::Run`] when the folder has
    /// another run in it or a checkpoint of other settings, [`TrainError::Update`] naming the update in which
    /// the loss, or the gradient of a parameter, was no finite number.
    pub fn run(self) -> Result<Outcome, TrainError> {
        run::Run::start(self)?.train()
    }
}

impl Summary {
    /// Tokens trained on in a second.
    pub fn tokens_per_second(&self) -> f64 {
        self.tokens as f64 / Duration::from_secs_f64(self.seconds.max(1e-9)).as_secs_f64()
    }
}
