//! A run under way: its state, its loop, an update.

mod evaluation;
mod saving;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use bertha_autograd::Gradients;
use bertha_tensor::Tensor;
use serde_json::{Value, json};

use super::checkpoint::{State, checkpoints, prune, write_text};
use super::rounding::Rounded;
use super::{End, Every, Outcome, Plan, Progress, Scores, Signal, Trainer, loss_terms};
use crate::TrainError;
use crate::collate::{Batches, Sampler, TrainingBatch, collate, deal};
use crate::collective::plan_buckets;
use crate::optim::{Ema, Optimizer, ParameterGroups, clip_factor, global_norm};
use crate::random::{Seed, Stream};
use crate::record::{Record, Recorder};
use crate::schedule::Schedule;

/// A trainer with all that changes while it runs.
pub(super) struct Run<'a> {
    trainer: Trainer<'a>,
    lengths: Vec<u32>,
    batches: Batches,
    schedule: Schedule,
    steps: u64,
    optimizer: Optimizer,
    ema: Option<Ema>,
    gradients: Gradients,
    /// Parameters by index, in the groups that their gradients are summed in over the ranks.
    buckets: Vec<Vec<usize>>,
    state: State,
    recorder: Option<Recorder>,
    spent: Spent,
    /// Sum and number of the losses of updates since the run started, and since the last record.
    losses: [(f64, u64); 2],
    /// Tokens and time at the last record.
    recorded: (u64, Duration),
    metric: String,
    scores: Scores,
}

/// Where the time went, and for how many tokens.
#[derive(Clone, Copy, Default)]
struct Spent {
    all: Duration,
    forward: Duration,
    backward: Duration,
    optimizer: Duration,
    tokens: u64,
}

/// What an update did.
struct Update {
    loss: f64,
    learning_rate: f64,
    gradient_norm: f64,
}

const RECORD: &str = "metrics.jsonl";

impl<'a> Run<'a> {
    /// Checks the settings, and reads the checkpoint of a run that is resumed.
    pub(super) fn start(trainer: Trainer<'a>) -> Result<Self, TrainError> {
        let options = &trainer.options;
        options.check()?;
        if trainer.task.masks() != trainer.masker.is_some() {
            return Err(TrainError::Setting {
                setting: "the masker",
                found: match trainer.masker {
                    Some(_) => "there".into(),
                    None => "missing".into(),
                },
                expected: "one for masked language modelling, and none otherwise".into(),
            });
        }
        let lengths = trainer.examples.lengths();
        let seed = Seed::new(options.seed);
        let sampler = Sampler::new(lengths.clone(), options.sampler(), seed)?;
        let steps = options.steps(&sampler);
        let (rate, decay) = (options.learning_rate, options.decay);
        let schedule = Schedule::new(rate, steps, options.warmup, decay)?;
        let parameters = &trainer.model.parameters;
        let shapes = parameters.iter().map(|p| (p.name(), p.shape()));
        let groups = ParameterGroups::new(shapes, &options.groups)?;
        for parameter in parameters {
            // No gradient is computed for what no update changes.
            parameter.set_frozen(!groups.rule(parameter.name())?.trained);
        }
        let mut optimizer = Optimizer::new(options.optimizer, groups)?;
        let mut ema = options.ema.map(Ema::new).transpose()?;
        let sizes: Vec<usize> = parameters.iter().map(|p| p.numel()).collect();
        let setup = setup(&trainer);
        let mut state = State::new(setup.clone());
        if let Some(output) = &trainer.output {
            let last = checkpoints(&output.folder)?.pop();
            match (trainer.resume, last) {
                (true, Some((_, folder))) => {
                    let ema = ema.as_mut();
                    state = State::read(&folder, &setup, &mut optimizer, ema, parameters)?;
                }
                (false, last) if last.is_some() || output.folder.join(RECORD).exists() => {
                    return Err(TrainError::Run {
                        path: output.folder.clone(),
                        problem: "there is a training run in this folder already: resume it, or take another \
                                  folder"
                            .into(),
                    });
                }
                _ => {}
            }
        }
        let metric = options.metric.clone();
        let mut run = Self {
            batches: Batches::new(sampler, state.cursor),
            lengths,
            schedule,
            steps,
            optimizer,
            ema,
            gradients: Gradients::new(),
            buckets: plan_buckets(&sizes),
            state,
            recorder: None,
            spent: Spent::default(),
            losses: [(0.0, 0); 2],
            recorded: (0, Duration::ZERO),
            metric: metric.unwrap_or_else(|| trainer.task.metric().to_owned()),
            scores: Scores::new(),
            trainer,
        };
        run.open_folder()?;
        Ok(run)
    }

    /// The folder, where this rank writes one.
    fn folder(&self) -> Option<&Path> {
        let output = self.trainer.output.as_ref();
        let output = output.filter(|_| self.trainer.collective.rank() == 0);
        output.map(|output| output.folder.as_path())
    }

    /// Makes the folder and starts its record.
    fn open_folder(&mut self) -> Result<(), TrainError> {
        let Some(folder) = self.folder().map(Path::to_path_buf) else {
            return Ok(());
        };
        fs::create_dir_all(&folder).map_err(TrainError::io(&folder, "create the folder"))?;
        prune(&folder, usize::MAX)?;
        let trainer = &self.trainer;
        let config: Value =
            serde_json::from_str(&trainer.model.config.to_json()).unwrap_or(Value::Null);
        let training = json!({
            "bertha": env!("CARGO_PKG_VERSION"),
            "setup": setup(trainer),
            "steps": self.steps,
            "warmup_steps": self.schedule.warmup_steps(),
            "metric": self.metric,
            "evaluation_examples": trainer.evaluation.as_ref().map(|data| data.examples.len()),
            "parameters": trainer.model.numel(),
            "fresh_parameters": trainer.model.fresh,
            "config": config,
        });
        write_text(&folder.join("training.json"), &format!("{training:#}\n"))?;
        let record = folder.join(RECORD);
        self.recorder = Some(match self.state.step {
            0 => Recorder::create(record)?,
            step => Recorder::resume(record, step)?,
        });
        Ok(())
    }

    /// Trains to the end, or until something ends it early.
    pub(super) fn train(mut self) -> Result<Outcome, TrainError> {
        let plan = Plan {
            steps: self.steps,
            done: self.state.step,
            examples: self.trainer.examples.len(),
            tokens: self.trainer.examples.tokens(),
            parameters: self.trainer.model.numel(),
        };
        self.trainer.observer.started(&plan);
        // A run that ended early is not to go on where it is resumed.
        let mut end = match self.state.step < self.steps && self.out_of_patience() {
            true => End::Early,
            false => End::Complete,
        };
        while end == End::Complete && self.state.step < self.steps {
            let epochs = self.batches.epochs();
            let started = Instant::now();
            let update = self.update().map_err(|source| match source {
                // Ranks, files and data have words of their own.
                TrainError::NonFinite { .. } | TrainError::Loss { .. } => TrainError::Update {
                    step: self.state.step + 1,
                    source: Box::new(source),
                },
                other => other,
            })?;
            self.spent.all += started.elapsed();
            let step = self.state.step;
            let last = step == self.steps;
            if last || step.is_multiple_of(self.trainer.options.log_every.max(1)) {
                self.record(&update)?;
            }
            let signal = self.trainer.observer.step(&Progress {
                step,
                steps: self.steps,
                epoch: self.epoch(),
                loss: update.loss,
                learning_rate: update.learning_rate,
                gradient_norm: update.gradient_norm,
                tokens: self.spent.tokens,
                elapsed: self.spent.all,
            });
            let new_epoch = self.batches.epochs() > epochs;
            let due = |every: Every| match every {
                Every::Never => false,
                Every::Epoch => last || new_epoch,
                Every::Steps(steps) => last || step.is_multiple_of(steps.max(1)),
            };
            let options = &self.trainer.options;
            let (evaluates, saves) = (due(options.evaluate_every), due(options.checkpoint_every));
            // Evaluation comes first: the best model of a run that is stopped and resumed is the same.
            if evaluates && self.trainer.evaluation.is_some() {
                self.evaluate()?;
                if !last && self.out_of_patience() {
                    end = End::Early;
                }
            }
            if self.agree(signal == Signal::Stop)? && !last {
                end = End::Stopped;
            }
            if saves || end != End::Complete {
                self.save_checkpoint()?;
            }
        }
        self.finish(end)
    }

    /// Whether as many evaluations as the run has patience for were no better.
    fn out_of_patience(&self) -> bool {
        let patience = self.trainer.options.patience;
        self.trainer.evaluation.is_some()
            && patience.is_some_and(|patience| self.state.stale >= patience.max(1))
    }

    /// Whether any rank says so.
    fn agree(&mut self, says: bool) -> Result<bool, TrainError> {
        let mut sum = [f32::from(u8::from(says))];
        self.trainer.collective.all_reduce_sum(&mut sum)?;
        Ok(sum[0] > 0.0)
    }

    /// One update.
    fn update(&mut self) -> Result<Update, TrainError> {
        let seed = Seed::new(self.trainer.options.seed);
        let (rank, world) = (
            self.trainer.collective.rank(),
            self.trainer.collective.world(),
        );
        let mut batches: Vec<TrainingBatch> = Vec::new();
        for _ in 0..self.trainer.options.accumulation {
            let (mut numbers, epoch) = self.batches.next_batch();
            let tokens = numbers.iter().map(|&i| u64::from(self.lengths[i as usize]));
            self.state.examples += numbers.len() as u64;
            let tokens: u64 = tokens.sum();
            self.state.tokens += tokens;
            self.spent.tokens += tokens;
            if world > 1 {
                numbers = deal(&numbers, &self.lengths, rank, world);
            }
            let masking = self
                .trainer
                .masker
                .as_ref()
                .map(|masker| (masker, seed, epoch));
            batches.push(collate(&self.trainer.examples, &numbers, masking)?);
        }
        let terms: usize = batches.iter().map(loss_terms).sum();
        let over = self.sum_count(terms)? as f64;
        let rounded = Rounded::of(&self.trainer)?;
        let loss = self.passes(&batches, over);
        rounded.restore()?;
        let mut loss = loss?;
        if world > 1 {
            let mut sum = [loss as f32];
            self.trainer.collective.all_reduce_sum(&mut sum)?;
            loss = f64::from(sum[0]);
        }
        if !loss.is_finite() {
            return Err(TrainError::Loss { value: loss });
        }
        let started = Instant::now();
        if let Some(rounding) = &self.trainer.rounding {
            rounding.estimate(&self.trainer.session, &mut self.gradients)?;
        }
        if world > 1 {
            self.reduce()?;
        }
        let exec = self.trainer.session.exec();
        let parameters = &self.trainer.model.parameters;
        let mut gradients = Vec::with_capacity(parameters.len());
        for parameter in parameters {
            if let Some(gradient) = self.gradients.get(parameter) {
                gradients.push((parameter.name(), gradient.as_slice::<f32>()?));
            }
        }
        let gradient_norm = global_norm(exec, gradients)?;
        let scale = match self.trainer.options.max_gradient_norm {
            Some(largest) => clip_factor(gradient_norm, largest),
            None => 1.0,
        };
        let learning_rate = self.schedule.lr(self.state.step);
        let gradients = &self.gradients;
        self.optimizer
            .step_parameters(exec, parameters, gradients, learning_rate, scale)?;
        if let Some(ema) = &mut self.ema {
            let weights: Vec<_> = parameters.iter().map(|p| (p.name(), p.value())).collect();
            ema.update(weights.iter().map(|(name, value)| (*name, value)))?;
        }
        self.spent.optimizer += started.elapsed();
        self.state.step += 1;
        self.state.cursor = self.batches.cursor();
        for losses in &mut self.losses {
            losses.0 += loss;
            losses.1 += 1;
        }
        Ok(Update {
            loss,
            learning_rate,
            gradient_norm,
        })
    }

    /// The passes of an update, forward and back; the sum of the batches' losses.
    fn passes(&mut self, batches: &[TrainingBatch], over: f64) -> Result<f64, TrainError> {
        let seed = Seed::new(self.trainer.options.seed);
        let (rank, world) = (
            self.trainer.collective.rank(),
            self.trainer.collective.world(),
        );
        self.gradients.clear();
        let key = seed.key(Stream::Dropout);
        let dropout = u64::from(key[0]) | u64::from(key[1]) << 32;
        let mut loss = 0.0;
        for batch in batches {
            let pass = self.state.micro_batches * world as u64 + rank as u64;
            self.state.micro_batches += 1;
            // Dropout counts in 32 bits, and would begin again after 4 billion passes.
            let options = &self.trainer.options;
            let session = self.trainer.session.training(dropout, pass as u32);
            let session = session.checkpointing(options.activation_checkpointing);
            let started = Instant::now();
            let smoothing = options.label_smoothing;
            let model = self.trainer.model.model.as_ref();
            let objective = &self.trainer.objective;
            let part = objective.loss(&session, model, batch, over, smoothing)?;
            self.spent.forward += started.elapsed();
            if let Some(part) = part {
                let started = Instant::now();
                loss += part.value;
                if part.value.is_finite() {
                    part.backward(&session, &mut self.gradients)?;
                }
                self.spent.backward += started.elapsed();
            }
        }
        Ok(loss)
    }

    /// A count summed over all ranks, exactly.
    fn sum_count(&mut self, count: usize) -> Result<u64, TrainError> {
        // f32 holds whole numbers up to 2²⁴: two halves of 12 bits each leave room for 4096 ranks.
        let mut parts = [0, 12, 24].map(|shift| ((count >> shift) & 0xFFF) as f32);
        self.trainer.collective.all_reduce_sum(&mut parts)?;
        Ok(parts
            .iter()
            .rev()
            .fold(0, |sum, &part| (sum << 12) + part as u64))
    }

    /// Sums the gradients over all ranks, bucket by bucket.
    fn reduce(&mut self) -> Result<(), TrainError> {
        for bucket in &self.buckets {
            let parameters: Vec<_> = bucket
                .iter()
                .map(|&i| &self.trainer.model.parameters[i])
                .filter(|parameter| !parameter.is_frozen())
                .collect();
            let mut flat = Vec::new();
            for parameter in &parameters {
                match self.gradients.get(parameter) {
                    Some(gradient) => flat.extend_from_slice(gradient.as_slice::<f32>()?),
                    // A rank whose part of the batch has no label.
                    None => flat.resize(flat.len() + parameter.numel(), 0.0),
                }
            }
            self.trainer.collective.all_reduce_sum(&mut flat)?;
            let mut rest = &flat[..];
            for parameter in &parameters {
                let (values, after) = rest.split_at(parameter.numel());
                let sum = Tensor::from_slice(values, parameter.shape())?;
                self.gradients.set(parameter, sum)?;
                rest = after;
            }
        }
        Ok(())
    }

    fn epoch(&self) -> f64 {
        self.state.examples as f64 / self.trainer.examples.len() as f64
    }

    /// Writes a line about the updates since the last one.
    fn record(&mut self, update: &Update) -> Result<(), TrainError> {
        let [_, (sum, count)] = self.losses;
        let (tokens, time) = self.recorded;
        let seconds = (self.spent.all - time).as_secs_f64();
        let rate = (self.spent.tokens - tokens) as f64 / seconds.max(1e-9);
        let record = Record::new(self.state.step)
            .with("epoch", self.epoch())
            .with("loss", sum / count.max(1) as f64)
            .with("lr", update.learning_rate)
            .with("gradient_norm", update.gradient_norm)
            .with("tokens", self.state.tokens as f64)
            .with("tokens_per_second", rate.round());
        if let Some(recorder) = &mut self.recorder {
            recorder.write(&record)?;
        }
        self.losses[1] = (0.0, 0);
        self.recorded = (self.spent.tokens, self.spent.all);
        Ok(())
    }
}

/// What a resumed run must have in common with the run that it goes on from.
fn setup(trainer: &Trainer<'_>) -> Value {
    json!({
        "task": trainer.task,
        "options": trainer.options,
        "masking": trainer.masker.as_ref().map(|masker| masker.options()),
        "examples": trainer.examples.len(),
        "tokens": trainer.examples.tokens(),
        "ranks": trainer.collective.world(),
        "rounding": trainer.rounding.as_ref().map(|rounding| rounding.setup()),
    })
}
