//! `bertha binarize`: a fine-tuned model becomes one of signs.

use std::convert::identity;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bertha_autograd::Session;
use bertha_compress::{
    Distillation, QuantizationAware, Quantized, binarized_config, binary_weights, pack_binarized,
    split_weights, ternary_weights, with_rounded_inputs,
};
use bertha_models::{Config, TrainableModel, load_with_head};
use bertha_nn::{Binarization, InputEstimator, InputRounding};
use bertha_tensor::Tensor;
use bertha_tokenizer::Tokenizer;
use bertha_train::collate::BatchSize;
use bertha_train::data::Examples;
use bertha_train::trainer::{EvaluationData, Outcome, Task, Trainer};
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
    /// for naive
    #[arg(long, value_name = "BOOL")]
    direction_matching: Option<bool>,
    /// Bits of inputs. With bit several, such as 2,1, are steps: each has its folder in --output, and teaches
    /// the next; one of more bits than one is not packed
    #[arg(long, value_name = "N,…", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=8))]
    activation_bits: Vec<u32>,
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
    /// BinaryBERT: ternary weights learn first, then two binary ones in place of each, whose sum it is;
    /// inputs have 8 bits, or as many as --activation-bits says
    Binarybert,
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
      --method bit --activation-bits 2,1 --output sst2-bit
  bertha binarize --task classify --teacher sst2 --train train.tsv --dev dev.tsv \\
      --method binarybert --activation-bits 4 --output sst2-1-4

Input:
  As `bertha finetune`'s; the teacher must have been trained on the same labels.

Defaults:
  10 epochs, batches of 16 examples, learning rate 1e-4 after a tenth of the updates.

Output:
  The folder is that of a run, as `bertha finetune` leaves it, with the packed model in it. Two
  lines: the run's, as finetune's, then
    {\"output\":\"sst2-binary\",\"bytes\":…,\"bytes_before\":…,\"weights\":…}
  A step of several (sst2-bit/2-bits, sst2-1-4/ternary) has a line and a folder of its own, which
  holds the weights that are trained.
  Checkpoints in the folder hold the weights that are trained, as floats; `bertha evaluate` runs
  both.";

impl Binarize {
    /// Runs the command.
    pub fn run(&self, global: &Global) -> Result<()> {
        let training = &self.training;
        limit_threads(training.threads);
        let bits = self.bits()?;
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
        let stages = Stages {
            global,
            training,
            session: Session::new(training.threads)?,
            task,
            train: train.data.examples,
            dev: dev.map(|dev| dev.data),
            hard_loss: self.hard_loss,
        };
        let folder = training.output.as_path();
        let packed = match self.method {
            Method::Binarybert => Some(stages.split(&dir, &config, bits[0])?),
            Method::Bit => stages.by_steps(&dir, &config, &bits)?,
            Method::Bibert | Method::Naive => {
                let bibert = self.method == Method::Bibert;
                let of = match bibert {
                    true => Binarization::BiBert,
                    false => Binarization::Naive,
                };
                let teach = match self.direction_matching.unwrap_or(bibert) {
                    true => Distillation::matching_directions,
                    false => identity,
                };
                let outcome = stages.binarized(&dir, &config, of, teach, folder)?;
                Some(pack_binarized(&stages.session, &outcome.model)?)
            }
        };
        match packed {
            Some(packed) => write_packed(&packed, &dir, folder),
            // More bits than one are not packed.
            None => Ok(()),
        }
    }

    /// Bits of inputs, of one step after the other.
    fn bits(&self) -> Result<Vec<u32>> {
        let found = &self.activation_bits;
        let wrong = |what: &str| {
            let given: Vec<String> = found.iter().map(u32::to_string).collect();
            Err(Failure::usage(format!(
                "--activation-bits {}: {what}",
                given.join(",")
            )))
        };
        if self.direction_matching.is_some()
            && !matches!(self.method, Method::Bibert | Method::Naive)
        {
            return Err(Failure::usage(
                "--direction-matching goes with --method bibert and naive",
            ));
        }
        match (self.method, &found[..]) {
            (Method::Bibert | Method::Naive, []) | (Method::Bit, []) => Ok(vec![1]),
            (Method::Bibert | Method::Naive, _) => wrong(
                "inputs of bibert and naive have one bit; others go with --method bit and binarybert",
            ),
            (Method::Bit, several) if several.is_sorted_by(|a, b| a > b) => Ok(several.to_vec()),
            (Method::Bit, _) => wrong("steps have fewer bits each, such as 2,1"),
            (Method::Binarybert, []) => Ok(vec![8]),
            (Method::Binarybert, &[bits]) if bits > 1 => Ok(vec![bits]),
            (Method::Binarybert, _) => wrong("binarybert has one number of bits, 2 to 8"),
        }
    }
}

/// What a student learns from its teacher beside its outputs.
type Teach = fn(Distillation) -> Distillation;

/// What the steps of a binarization share.
struct Stages<'a> {
    global: &'a Global,
    training: &'a Training,
    session: Session,
    task: Task,
    train: Examples,
    dev: Option<EvaluationData>,
    hard_loss: f64,
}

impl Stages<'_> {
    /// A student of the model in a folder, whose latent weights learn as signs.
    fn binarized(
        &self,
        dir: &Path,
        config: &Config,
        binarization: Binarization,
        teach: Teach,
        folder: &Path,
    ) -> Result<Outcome> {
        let taught = Config::from_file(dir.join("config.json"))?.binarization()?;
        let config = binarized_config(config, binarization);
        let (head, seed) = (self.task.head(), self.training.seed);
        let model = TrainableModel::from_dir(dir, config, head, &self.session, seed)?;
        if taught.is_some_and(|taught| taught != binarization) {
            forget_levels(&model)?;
        }
        self.learn(model, None, (dir, teach), folder)
    }

    /// BiT's steps, from more bits of inputs to fewer, each the teacher of the next; packed if the last has one.
    fn by_steps(&self, dir: &Path, config: &Config, bits: &[u32]) -> Result<Option<Quantized>> {
        let last = self.training.output.as_path();
        let mut teacher = dir.to_path_buf();
        for (i, &bits_now) in bits.iter().enumerate() {
            let folder = match i + 1 == bits.len() {
                true => last.to_path_buf(),
                false => last.join(format!("{bits_now}-bits")),
            };
            let of = Binarization::Bit { bits: bits_now };
            let teach = Distillation::matching_hidden_states;
            let outcome = self.binarized(&teacher, config, of, teach, &folder)?;
            if bits_now == 1 {
                return Ok(Some(pack_binarized(&self.session, &outcome.model)?));
            }
            teacher = folder;
        }
        Ok(None)
    }

    /// BinaryBERT's two steps: ternary weights learn, are split, and learn on as binary ones.
    fn split(&self, dir: &Path, config: &Config, bits: u32) -> Result<Quantized> {
        let estimator = InputEstimator::LearnedSteps;
        let config = with_rounded_inputs(config, InputRounding { bits, estimator });
        let (head, seed) = (self.task.head(), self.training.seed);
        let mut model = TrainableModel::from_dir(dir, config, head, &self.session, seed)?;
        let ternary = Arc::new(ternary_weights(&self.session, &mut model)?);
        let folder = self.training.output.join("ternary");
        let of: (_, Teach) = (dir, Distillation::matching_hidden_states);
        let outcome = self.learn(model, Some(Arc::clone(&ternary)), of, &folder)?;
        let (checkpoint, config) = split_weights(&ternary, &outcome.model)?;
        let session = &self.session;
        let mut model = TrainableModel::from_checkpoint(&checkpoint, config, head, session, seed)?;
        let binary = Arc::new(binary_weights(session, &mut model)?);
        let of: (_, Teach) = (dir, identity);
        let rounding = Some(Arc::clone(&binary));
        let outcome = self.learn(model, rounding, of, &self.training.output)?;
        Ok(binary.pack(&outcome.model)?)
    }

    /// Trains a student in a folder of its own.
    fn learn(
        &self,
        model: TrainableModel,
        rounding: Option<Arc<QuantizationAware>>,
        (teacher, teach): (&Path, Teach),
        folder: &Path,
    ) -> Result<Outcome> {
        let session = self.session.clone();
        let teaches = load_with_head(teacher, self.task.head(), &session)?;
        let mut objective = Distillation::new(teaches);
        objective.hard = self.hard_loss;
        let options = self.training.options(&Defaults {
            epochs: 10.0,
            batch: BatchSize::Examples(16),
            learning_rate: 1e-4,
            warmup_ratio: 0.1,
        });
        let trainer = Trainer::new(session, model, self.task, self.train.clone(), options);
        let mut trainer = trainer.objective(teach(objective));
        if let Some(rounding) = rounding {
            trainer = trainer.rounding(rounding);
        }
        if let Some(dev) = &self.dev {
            trainer = trainer.evaluation(dev.clone());
        }
        self.training.run_in(self.global, trainer, teacher, folder)
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
