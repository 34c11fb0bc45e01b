//! What the commands that train share: the options of a run, its progress, its end.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bertha_train::collate::BatchSize;
use bertha_train::optim::OptimizerConfig;
use bertha_train::schedule::{Decay, Span, Tail};
use bertha_train::trainer::{
    End, Every, Length, Observer, Outcome, Plan, Progress as Step, Scores, Signal, Summary,
    TrainOptions, Trainer,
};
use clap::{Args, ValueEnum};
use indicatif::{HumanCount, HumanDuration};
use serde::Serialize;

use crate::args::{Global, positive};
use crate::failure::{Failure, Result};
use crate::output::Output;
use crate::progress::{self, Progress};

/// The options of a training run.
#[derive(Args, Debug)]
pub struct Training {
    /// Folder of the run: it gets the trained model, metrics.jsonl, curve.svg, training.json, checkpoints
    #[arg(short, long, value_name = "DIR")]
    pub output: PathBuf,
    /// Go on from the last checkpoint in --output, with the same options; where there is none, begin
    #[arg(long)]
    resume: bool,
    /// Passes over the data
    #[arg(
        long,
        value_name = "N",
        visible_alias = "num-train-epochs",
        conflicts_with = "steps",
        help_heading = "Training"
    )]
    epochs: Option<f64>,
    /// Updates, in place of --epochs
    #[arg(long, value_name = "N", visible_alias = "max-steps", value_parser = positive, help_heading = "Training")]
    steps: Option<usize>,
    /// Examples of a batch
    #[arg(
        long,
        value_name = "N",
        visible_alias = "per-device-train-batch-size",
        value_parser = positive,
        conflicts_with = "batch_tokens",
        help_heading = "Training"
    )]
    batch_size: Option<usize>,
    /// Tokens of a batch, in place of --batch-size: as many examples as have so many together
    #[arg(long, value_name = "N", value_parser = positive, help_heading = "Training")]
    batch_tokens: Option<usize>,
    /// Batches whose gradients are added up for one update
    #[arg(long, value_name = "N", default_value = "1", value_parser = positive, help_heading = "Training")]
    gradient_accumulation_steps: usize,
    /// Keep only the inputs of layers for the backward pass, which computes the rest again: less
    /// memory, more time, the same weights
    #[arg(
        long,
        visible_alias = "gradient-checkpointing",
        help_heading = "Training"
    )]
    activation_checkpointing: bool,
    /// What products are computed of, and what is kept for the backward pass: bf16 takes less
    /// memory; weights, gradients and sums are f32 with both
    #[arg(long, value_enum, default_value_t, help_heading = "Training")]
    precision: Precision,
    /// Largest learning rate
    #[arg(long, value_name = "RATE", help_heading = "Training")]
    learning_rate: Option<f64>,
    /// Part of all updates in which the learning rate rises to its largest
    #[arg(
        long,
        value_name = "PART",
        conflicts_with = "warmup_steps",
        help_heading = "Training"
    )]
    warmup_ratio: Option<f64>,
    /// The same in updates
    #[arg(long, value_name = "N", help_heading = "Training")]
    warmup_steps: Option<u64>,
    /// How the learning rate falls afterwards
    #[arg(long, value_enum, default_value_t, help_heading = "Training")]
    lr_scheduler_type: Scheduler,
    /// Rule of the updates
    #[arg(long, value_enum, default_value_t, help_heading = "Training")]
    optimizer: Rule,
    /// Decay of the weights; biases and norms have none
    #[arg(
        long,
        value_name = "DECAY",
        default_value_t = 0.01,
        help_heading = "Training"
    )]
    weight_decay: f64,
    /// How much more slowly each layer learns than the one above it: 1 is not at all, 0.9 a little
    #[arg(
        long,
        value_name = "PART",
        default_value_t = 1.0,
        help_heading = "Training"
    )]
    layer_decay: f64,
    /// Parameters not to train, by the beginnings of their names
    #[arg(
        long,
        value_name = "NAME,…",
        value_delimiter = ',',
        help_heading = "Training"
    )]
    freeze: Vec<String>,
    /// Norm that longer gradients are cut to; 0 cuts none
    #[arg(
        long,
        value_name = "NORM",
        default_value_t = 1.0,
        help_heading = "Training"
    )]
    max_grad_norm: f64,
    /// Share of a class's target that is spread over all classes
    #[arg(
        long,
        value_name = "SHARE",
        default_value_t = 0.0,
        help_heading = "Training"
    )]
    label_smoothing: f32,
    /// Average the weights with this decay (such as 0.999), and keep the average
    #[arg(long, value_name = "DECAY", help_heading = "Training")]
    ema: Option<f64>,
    /// What order, masks, dropout and new layers follow from: the same seed gives the same model
    #[arg(
        long,
        value_name = "N",
        default_value_t = 42,
        help_heading = "Training"
    )]
    pub seed: u64,
    /// Updates between two evaluations on --dev [default: at the end of each epoch]
    #[arg(long, value_name = "N", value_parser = positive, help_heading = "Evaluation and checkpoints")]
    eval_steps: Option<usize>,
    /// Measure that tells the best model, which is the one kept [default: by the task]
    #[arg(
        long,
        value_name = "NAME",
        visible_alias = "metric-for-best-model",
        help_heading = "Evaluation and checkpoints"
    )]
    metric: Option<String>,
    /// Evaluations without a better model after which to end early
    #[arg(long, value_name = "N", value_parser = positive, help_heading = "Evaluation and checkpoints")]
    early_stopping_patience: Option<usize>,
    /// Updates between two checkpoints [default: at the end of each epoch]; 0 saves none
    #[arg(long, value_name = "N", help_heading = "Evaluation and checkpoints")]
    save_steps: Option<u64>,
    /// Last checkpoints to keep
    #[arg(long, value_name = "N", default_value = "2", value_parser = positive, help_heading = "Evaluation and checkpoints")]
    save_total_limit: usize,
    /// Updates that a line of metrics.jsonl tells of
    #[arg(long, value_name = "N", default_value = "10", value_parser = positive, help_heading = "Evaluation and checkpoints")]
    logging_steps: usize,
    /// Threads, at most; by default one for each physical core that the process may use. Their number
    /// changes no result
    #[arg(long, value_name = "N", value_parser = positive, help_heading = "Running")]
    pub threads: Option<usize>,
}

/// What differs between pre-training and fine-tuning where nothing is said.
pub struct Defaults {
    pub epochs: f64,
    pub batch: BatchSize,
    pub learning_rate: f64,
    pub warmup_ratio: f64,
}

/// What products are computed of in training.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum Precision {
    /// f32, each product within 1e-5: where the machine has a matrix unit, each value as two bf16
    #[default]
    F32,
    /// f32, by multiply-adds of f32 on any machine
    F32Strict,
    /// Operands rounded to 8 bits of precision, sums in f32
    Bf16,
}

impl From<Precision> for bertha_autograd::Precision {
    fn from(precision: Precision) -> Self {
        match precision {
            Precision::F32 => Self::F32,
            Precision::F32Strict => Self::F32Strict,
            Precision::Bf16 => Self::Bf16,
        }
    }
}

/// How a learning rate falls.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Scheduler {
    /// In a straight line to 0
    #[default]
    Linear,
    /// Along half a cosine to 0
    Cosine,
    /// Not
    Constant,
    /// As one over the root of the step
    InverseSqrt,
    /// Not, but for the last fifth, in which it falls to 0 as 1 − √x
    WarmupStableDecay,
}

/// Rules of optimizers.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Rule {
    /// AdamW as PyTorch's
    #[default]
    Adamw,
    /// The original BERT's Adam
    BertAdam,
    /// AdamW whose rate is cut where gradients surprise; wants no --max-grad-norm
    StableAdamw,
    /// LAMB, for large batches
    Lamb,
    /// Lion; wants a learning rate 3 to 10 times smaller
    Lion,
    /// Gradient descent with momentum 0.9
    Sgd,
}

impl Training {
    /// The options as the trainer takes them.
    pub fn options(&self, defaults: &Defaults) -> TrainOptions {
        let mut options = TrainOptions {
            seed: self.seed,
            length: match self.steps {
                Some(steps) => Length::Steps(steps as u64),
                None => Length::Epochs(self.epochs.unwrap_or(defaults.epochs)),
            },
            batch: match (self.batch_size, self.batch_tokens) {
                (Some(examples), _) => BatchSize::Examples(examples),
                (_, Some(tokens)) => BatchSize::Tokens(tokens),
                _ => defaults.batch,
            },
            accumulation: self.gradient_accumulation_steps,
            activation_checkpointing: self.activation_checkpointing,
            precision: self.precision.into(),
            learning_rate: self.learning_rate.unwrap_or(defaults.learning_rate),
            warmup: match self.warmup_steps {
                Some(steps) => Span::Steps(steps),
                None => Span::Ratio(self.warmup_ratio.unwrap_or(defaults.warmup_ratio)),
            },
            decay: match self.lr_scheduler_type {
                Scheduler::Linear => Decay::Linear,
                Scheduler::Cosine => Decay::Cosine {
                    floor: 0.0,
                    cycles: 0.5,
                },
                Scheduler::Constant => Decay::Constant,
                Scheduler::InverseSqrt => Decay::InverseSqrt { timescale: None },
                Scheduler::WarmupStableDecay => Decay::WarmupStableDecay {
                    decay: Span::Ratio(0.2),
                    tail: Tail::OneMinusSqrt,
                    floor: 0.0,
                },
            },
            optimizer: match self.optimizer {
                Rule::Adamw => OptimizerConfig::adamw(),
                Rule::BertAdam => OptimizerConfig::bert_adam(),
                Rule::StableAdamw => OptimizerConfig::stable_adamw(),
                Rule::Lamb => OptimizerConfig::lamb(),
                Rule::Lion => OptimizerConfig::lion(),
                Rule::Sgd => OptimizerConfig::sgd(0.9),
            },
            max_gradient_norm: (self.max_grad_norm != 0.0).then_some(self.max_grad_norm),
            label_smoothing: self.label_smoothing,
            ema: self.ema,
            evaluate_every: match self.eval_steps {
                Some(steps) => Every::Steps(steps as u64),
                None => Every::Epoch,
            },
            metric: self.metric.clone(),
            patience: self.early_stopping_patience,
            checkpoint_every: match self.save_steps {
                Some(0) => Every::Never,
                Some(steps) => Every::Steps(steps),
                None => Every::Epoch,
            },
            keep_checkpoints: self.save_total_limit,
            log_every: self.logging_steps as u64,
            ..TrainOptions::default()
        };
        options.groups.weight_decay = self.weight_decay;
        options.groups.layer_decay = self.layer_decay;
        options.groups.frozen.clone_from(&self.freeze);
        options
    }

    /// Runs a trainer that is set up but for its folder, and prints what it came to.
    pub fn run(&self, global: &Global, trainer: Trainer<'_>, tokenizer: &Path) -> Result<Outcome> {
        self.run_in(global, trainer, tokenizer, &self.output)
    }

    /// The same in a folder of a step on the way.
    pub fn run_in(
        &self,
        global: &Global,
        trainer: Trainer<'_>,
        tokenizer: &Path,
        folder: &Path,
    ) -> Result<Outcome> {
        listen()?;
        let outcome = trainer
            .output(folder, tokenizer)
            .resume(self.resume)
            .observer(Watch::new(global))
            .run()?;
        report(&outcome, folder)?;
        Ok(outcome)
    }
}

fn report(outcome: &Outcome, folder: &Path) -> Result<()> {
    let summary = &outcome.summary;
    if summary.end == End::Stopped {
        return Err(Failure::new(format!(
            "stopped after update {} of {}; the same command with --resume goes on",
            summary.step, summary.steps
        )));
    }
    let mut output = Output::stdout();
    output.line(&Line {
        output: folder,
        parameters: outcome.model.numel(),
        tokens_per_second: summary.tokens_per_second().round(),
        summary,
    })?;
    output.finish()
}

#[derive(Serialize)]
struct Line<'a> {
    output: &'a Path,
    parameters: usize,
    tokens_per_second: f64,
    #[serde(flatten)]
    summary: &'a Summary,
}

/// Lets tokenizing use as many threads as training.
pub fn limit_threads(threads: Option<usize>) {
    if let Some(threads) = threads {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        // Fails only where the pool is in use already, and nothing was tokenized yet.
        drop(pool.build_global());
    }
}

/// Whether the run is to save and end.
static STOP: AtomicBool = AtomicBool::new(false);
static LISTENS: AtomicBool = AtomicBool::new(false);

/// Ends the run in order at the first Ctrl-C (or SIGTERM), and at once at the second.
fn listen() -> Result<()> {
    // A command of several runs listens once.
    if LISTENS.swap(true, Ordering::SeqCst) {
        return Ok(());
    }
    let set = ctrlc::set_handler(|| {
        if STOP.swap(true, Ordering::SeqCst) {
            std::process::exit(130);
        }
        progress::message("stopping: a checkpoint is saved after this update\n");
    });
    set.map_err(|error| Failure::new(format!("cannot listen for Ctrl-C: {error}")))
}

/// Shows how far a run is.
struct Watch<'g> {
    global: &'g Global,
    bar: Option<Progress<'static>>,
    done: u64,
}

impl<'g> Watch<'g> {
    fn new(global: &'g Global) -> Self {
        Self {
            global,
            bar: None,
            done: 0,
        }
    }
}

impl Observer for Watch<'_> {
    fn started(&mut self, plan: &Plan) {
        let steps = plan.steps as usize;
        self.done = plan.done;
        self.bar = Some(Progress::new("updates", self.global, false, move || {
            Some(steps)
        }));
        tracing::info!(
            "{} updates over {} examples of {} tokens, {} parameters",
            plan.steps,
            plan.examples,
            plan.tokens,
            plan.parameters
        );
        if plan.done > 0 {
            tracing::info!("resumed after update {}", plan.done);
        }
    }

    fn step(&mut self, step: &Step) -> Signal {
        if let Some(bar) = &mut self.bar {
            let made = (step.step - self.done).max(1) as f64;
            bar.at_with(step.step as usize, || {
                let seconds = step.elapsed.as_secs_f64();
                let rate = HumanCount((step.tokens as f64 / seconds.max(1e-9)) as u64);
                let left = seconds / made * (step.steps - step.step) as f64;
                let left = HumanDuration(Duration::from_secs(left as u64));
                format!(
                    "epoch {:.2}, loss {:.4}, {rate} tokens a second, {left} left",
                    step.epoch, step.loss
                )
            });
        }
        match STOP.load(Ordering::SeqCst) {
            true => Signal::Stop,
            false => Signal::Continue,
        }
    }

    fn evaluated(&mut self, step: u64, scores: &Scores, best: bool) {
        if self.global.quiet {
            return;
        }
        let scores = scores.iter();
        let scores: Vec<String> = scores
            .map(|(name, value)| format!("{name} {value:.4}"))
            .collect();
        let best = if best { " (best so far)" } else { "" };
        progress::message(&format!("update {step}: {}{best}\n", scores.join(", ")));
    }

    fn saved(&mut self, folder: &Path) {
        tracing::info!("saved {}", folder.display());
    }
}
