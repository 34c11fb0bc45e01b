//! The settings of a training run.

use bertha_autograd::Precision;
use serde::{Deserialize, Serialize};

use crate::TrainError;
use crate::collate::{BatchSize, Sampler, SamplerOptions};
use crate::optim::{GroupOptions, OptimizerConfig};
use crate::schedule::{Decay, Span};

/// How long a run is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Length {
    /// So many passes over the data; the last may be a part of one.
    Epochs(f64),
    /// So many updates.
    Steps(u64),
}

/// How often something happens. At the end of a run it happens in any case, unless never.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Every {
    /// Not at all.
    Never,
    /// After each pass over the data.
    Epoch,
    /// After so many updates.
    Steps(u64),
}

/// All settings of a run but its model and data. They are written into the run's folder, and a resumed
/// run must have the same (but for what changes nothing in the weights: records, evaluation, checkpoints).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainOptions {
    /// What all randomness follows from: order, masks, dropout.
    pub seed: u64,
    /// How long to train.
    pub length: Length,
    /// How large a batch is: what is computed at a time, on one rank or dealt to several.
    pub batch: BatchSize,
    /// See [`SamplerOptions::pool`].
    pub length_pool: usize,
    /// Batches whose gradients are added up for one update.
    pub accumulation: usize,
    /// Whether only the inputs of a model's layers are kept for the backward pass, which then computes the rest again: less
    /// memory, more time, the same weights.
    pub activation_checkpointing: bool,
    /// What products are computed of, and what is kept for the backward pass.
    #[serde(with = "precision")]
    pub precision: Precision,
    /// The largest learning rate.
    pub learning_rate: f64,
    /// How long the learning rate rises.
    pub warmup: Span,
    /// How it falls.
    pub decay: Decay,
    /// The optimizer's rule.
    pub optimizer: OptimizerConfig,
    /// Which parameters decay, are frozen, or learn slower.
    pub groups: GroupOptions,
    /// The norm that longer gradients are cut to; none are cut without it.
    pub max_gradient_norm: Option<f64>,
    /// The share of a class's target that is spread over all classes.
    pub label_smoothing: f32,
    /// The decay of averaged weights, which are then evaluated and saved in place of the last ones.
    pub ema: Option<f64>,
    /// How often the model is evaluated, where there is data for that.
    pub evaluate_every: Every,
    /// The measure that tells the best model, see [`Task::metric`](super::Task::metric).
    pub metric: Option<String>,
    /// Evaluations without a better model after which the run ends early.
    pub patience: Option<usize>,
    /// How often a checkpoint is saved.
    pub checkpoint_every: Every,
    /// The last checkpoints that are kept.
    pub keep_checkpoints: usize,
    /// Updates of which a line of the record tells.
    pub log_every: u64,
    /// Tokens that are evaluated at a time.
    pub evaluation_batch_tokens: usize,
}

impl Default for TrainOptions {
    /// Fine-tuning as usual: 3 epochs of batches of 32, AdamW with 5e-5 falling linearly to 0.
    fn default() -> Self {
        Self {
            seed: 42,
            length: Length::Epochs(3.0),
            batch: BatchSize::Examples(32),
            length_pool: 0,
            accumulation: 1,
            activation_checkpointing: false,
            precision: Precision::F32,
            learning_rate: 5e-5,
            warmup: Span::Ratio(0.0),
            decay: Decay::Linear,
            optimizer: OptimizerConfig::adamw(),
            groups: GroupOptions::default(),
            max_gradient_norm: Some(1.0),
            label_smoothing: 0.0,
            ema: None,
            evaluate_every: Every::Epoch,
            metric: None,
            patience: None,
            checkpoint_every: Every::Epoch,
            keep_checkpoints: 2,
            log_every: 10,
            evaluation_batch_tokens: 4096,
        }
    }
}

/// A precision by its name.
mod precision {
    use bertha_autograd::Precision;
    use serde::de::{Deserialize, Deserializer, Error};
    use serde::ser::Serializer;

    pub(super) fn serialize<S: Serializer>(of: &Precision, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(of.name())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Precision, D::Error> {
        let name = String::deserialize(from)?;
        let known = "the precision is one of f32, f32-strict, bf16";
        Precision::from_name(&name).ok_or_else(|| D::Error::custom(known))
    }
}

/// Settings that may differ when a run is resumed: they change no weight.
pub(super) const FREE: [&str; 8] = [
    "activation_checkpointing",
    "evaluate_every",
    "metric",
    "patience",
    "checkpoint_every",
    "keep_checkpoints",
    "log_every",
    "evaluation_batch_tokens",
];

impl TrainOptions {
    /// Refuses what no run can have and the parts do not check themselves.
    pub(super) fn check(&self) -> Result<(), TrainError> {
        let refuse = |setting, found: String, expected: &str| {
            Err(TrainError::Setting {
                setting,
                found,
                expected: expected.to_owned(),
            })
        };
        if self.accumulation == 0 {
            return refuse(
                "the number of accumulated batches",
                "0".into(),
                "at least 1",
            );
        }
        if let Length::Epochs(epochs) = self.length
            && !(epochs > 0.0 && epochs < 1e9)
        {
            return refuse(
                "the number of epochs",
                epochs.to_string(),
                "a number above 0",
            );
        }
        if let Some(norm) = self.max_gradient_norm
            && !(norm > 0.0 && norm.is_finite())
        {
            return refuse("the largest gradient norm", norm.to_string(), "above 0");
        }
        if !(0.0..1.0).contains(&self.label_smoothing) {
            let found = self.label_smoothing.to_string();
            return refuse("label smoothing", found, "a number from 0 to below 1");
        }
        if self.evaluation_batch_tokens == 0 {
            return refuse(
                "the tokens of an evaluation batch",
                "0".into(),
                "at least 1",
            );
        }
        if self.precision == Precision::Int8 {
            let found = self.precision.name().to_owned();
            return refuse("the precision of training", found, "f32 or bf16");
        }
        Ok(())
    }

    pub(super) fn sampler(&self) -> SamplerOptions {
        SamplerOptions {
            batch: self.batch,
            shuffle: true,
            pool: self.length_pool,
            drop_last: false,
        }
    }

    /// The number of updates of the whole run.
    pub(super) fn steps(&self, sampler: &Sampler) -> u64 {
        let epochs = match self.length {
            Length::Steps(steps) => return steps,
            Length::Epochs(epochs) => epochs,
        };
        let (whole, part) = (epochs.floor(), epochs.fract());
        let batches: u64 = match self.batch {
            // All epochs are alike.
            BatchSize::Examples(_) => whole as u64 * sampler.batches(0),
            BatchSize::Tokens(_) => (0..whole as u32).map(|epoch| sampler.batches(epoch)).sum(),
        };
        let rest = match part > 0.0 {
            true => (sampler.batches(whole as u32) as f64 * part).ceil() as u64,
            false => 0,
        };
        (batches + rest).div_ceil(self.accumulation as u64)
    }
}
