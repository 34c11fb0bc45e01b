//! `bertha binarize`: a fine-tuned model becomes one of signs.

use std::path::PathBuf;

use bertha_autograd::Session;
use bertha_compress::{Distillation, binarized_config, pack_binarized};
use bertha_models::{Config, TrainableModel, load_with_head};
use bertha_nn::Binarization;
use bertha_tensor::Tensor;
use bertha_tokenizer::Tokenizer;
use bertha_train::collate::BatchSize;
use bertha_train::trainer::Trainer;
use clap::{Args, ValueEnum};

use crate::args::{Global, ModelDir};
use crate::commands::model_folder::write_packed;
use crate::commands::task_data::{Reading, TaskName};
use crate::commands::training::{Defaults, Training, limit_threads};
use crate::failure::{Failure, Result};

/// Make a fine-tuned model one of signs: a bit for each weight, each input and each attention weight
#[derive(Args, Debug)]
#[command(
    long_about = "Makes a fine-tuned BERT one of signs: the weights and inputs of its layers, its word table and its \
attention weights have one bit each. The student starts as its teacher and learns from it on the teacher's task; \
what is saved is packed, and runs packed.",
    after_long_help = HELP
)]
pub struct Binarize {
    /// The task that the teacher knows
    #[arg(long, value_enum)]
    task: TaskName,
    /// Folder of the fine-tuned model
    #[arg(short = 'm', long, visible_alias = "model", value_name = "DIR")]
    teacher: PathBuf,
    /// Examples to learn from
    #[arg(long, value_name = "FILE")]
    train: PathBuf,
    /// Examples to judge by: the model that does best on them is kept
    #[arg(long, value_name = "FILE")]
    dev: Option<PathBuf>,
    /// How
    #[arg(long, value_enum, default_value_t)]
    method: Method,
    /// Match directions of queries, keys, values and hidden states with the teacher's: on for bibert, off
    /// for naive and bit
    #[arg(long, value_name = "BOOL")]
    direction_matching: Option<bool>,
    /// Bits of inputs and attention weights, with --method bit. A model with more than one is not packed: it
    /// is the teacher of one with fewer
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=8))]
    activation_bits: u32,
    /// Share of the task's own loss beside the teacher's
    #[arg(long, value_name = "SHARE", default_value_t = 0.5)]
    hard_loss: f64,
    #[command(flatten)]
    reading: Reading,
    #[command(flatten)]
    training: Training,
}

/// How a model is binarized.
#[derive(Clone, Copy, Debug, Default, PartialEq, ValueEnum)]
enum Method {
    /// BiBERT: a key is attended to where its score is above 0, and directions are matched
    #[default]
    Bibert,
    /// Signs of everything, attention weights too: they are all 1
    Naive,
    /// BiT: inputs on two levels that learn, of softmaxes and activations 0 and another; hidden states
    /// are matched
    Bit,
}

const HELP: &str = "\
Examples:
  bertha finetune --task classify --model bert-base --train train.tsv --dev dev.tsv --output sst2
  bertha binarize --task classify --teacher sst2 --train train.tsv --dev dev.tsv \\
      --output sst2-binary
  bertha classify --model sst2-binary \"What a wonderful film.\"
  bertha binarize --task classify --teacher sst2 --train train.tsv --dev dev.tsv \\
      --method naive --direction-matching true --epochs 5 --output half
  bertha binarize --task classify --teacher sst2 --train train.tsv --dev dev.tsv \\
      --method bit --activation-bits 2 --output sst2-step
  bertha binarize --task classify --teacher sst2-step --train train.tsv --dev dev.tsv \\
      --method bit --output sst2-bit

Input:
  As `bertha finetune`'s; the teacher must have been trained on the same labels.

Defaults:
  10 epochs, batches of 16 examples, learning rate 1e-4 after a tenth of the updates.

Output:
  The folder is that of a run, as `bertha finetune` leaves it, with the packed model in it. Two
  lines: the run's, as finetune's, then
    {\"output\":\"sst2-binary\",\"bytes\":…,\"bytes_before\":…,\"weights\":…}
  With --activation-bits above 1 only the first: the folder holds weights of floats, and runs as they.
  Checkpoints in the folder hold the weights that are trained, as floats; `bertha evaluate` runs
  both.";

impl Binarize {
    /// Runs the command.
    pub fn run(&self, global: &Global) -> Result<()> {
        let training = &self.training;
        limit_threads(training.threads);
        let dir = ModelDir::new(&self.teacher).transformer()?;
        let task = self.task.task();
        let mut config = Config::from_file(dir.join("config.json"))?;
        let max_length = self.reading.max_length(task, config.max_tokens()?)?;
        let tokenizer = Tokenizer::from_dir(&dir)?;
        let load = |path, labels| {
            self.reading
                .load(task, path, &tokenizer, max_length, labels)
        };
        let train = load(&self.train, None)?;
        let labels = train.labels.as_ref();
        let dev = self.dev.as_ref().map(|dev| load(dev, labels)).transpose()?;
        task.configure(&mut config, labels);
        let session = Session::new(training.threads)?;
        let head = task.head();
        let teacher = load_with_head(&dir, head, &session)?;
        let binarization = match self.method {
            Method::Bibert => Binarization::BiBert,
            Method::Naive => Binarization::Naive,
            Method::Bit => Binarization::Bit {
                bits: self.activation_bits,
            },
        };
        if binarization.activation_bits() != self.activation_bits {
            return Err(Failure::usage(format!(
                "--activation-bits {} goes with --method bit: inputs of the others have one bit",
                self.activation_bits
            )));
        }
        let taught = config.binarization()?;
        let config = binarized_config(&config, binarization);
        let model = TrainableModel::from_dir(&dir, config, head, &session, training.seed)?;
        if taught.is_some_and(|taught| taught != binarization) {
            forget_levels(&model)?;
        }
        let matches = self
            .direction_matching
            .unwrap_or(self.method == Method::Bibert);
        let mut objective = Distillation::new(teacher);
        objective.hard = self.hard_loss;
        if matches {
            objective = objective.matching_directions();
        } else if self.method == Method::Bit {
            objective = objective.matching_hidden_states();
        }
        let options = training.options(&Defaults {
            epochs: 10.0,
            batch: BatchSize::Examples(16),
            learning_rate: 1e-4,
            warmup_ratio: 0.1,
        });
        let trainer = Trainer::new(session.clone(), model, task, train.data.examples, options);
        let mut trainer = trainer.objective(objective);
        if let Some(dev) = dev {
            trainer = trainer.evaluation(dev.data);
        }
        let outcome = training.run(global, trainer, &dir)?;
        if binarization.activation_bits() > 1 {
            return Ok(());
        }
        let packed = pack_binarized(&session, &outcome.model)?;
        write_packed(&packed, &dir, &training.output)
    }
}

/// Lets levels of inputs begin anew: those of a teacher are for other bits.
fn forget_levels(model: &TrainableModel) -> Result<()> {
    for parameter in &model.parameters {
        let name = parameter.name();
        if name.ends_with("_level") || name.ends_with("_ceiling") {
            parameter.set(Tensor::full(0.0_f32, parameter.shape())?)?;
        }
    }
    Ok(())
}
