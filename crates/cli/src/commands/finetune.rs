//! `bertha finetune`: teaches a pre-trained model a task.

use std::path::PathBuf;
use std::sync::Arc;

use bertha_autograd::Session;
use bertha_compress::{QuantizationAware, STEP, with_rounded_inputs};
use bertha_models::{Config, TrainableModel};
use bertha_tokenizer::Tokenizer;
use bertha_train::collate::BatchSize;
use bertha_train::trainer::Trainer;
use clap::Args;

use crate::args::{Global, GlobalTokens, ModelDir};
use crate::commands::model_folder::write_packed;
use crate::commands::quantization_aware::QuantizationAwareArgs;
use crate::commands::task_data::{Reading, TaskName};
use crate::commands::training::{Defaults, Training, limit_threads};
use crate::failure::Result;

/// Teach a pre-trained model a task
#[derive(Args, Debug)]
#[command(
    long_about = "Teaches a pre-trained model a task from labelled examples: to classify texts or pairs of texts, \
to give them numbers, to tag words, to answer questions. The head of the task is made new where the model \
has none. The trained folder is read by bertha's commands and by transformers.",
    after_long_help = HELP
)]
pub struct Finetune {
    /// What to teach
    #[arg(long, value_enum)]
    task: TaskName,
    #[command(flatten)]
    model: ModelDir,
    /// Examples to learn from
    #[arg(long, value_name = "FILE")]
    train: PathBuf,
    /// Examples to judge by: the model that does best on them is kept
    #[arg(long, value_name = "FILE")]
    dev: Option<PathBuf>,
    #[command(flatten)]
    reading: Reading,
    #[command(flatten)]
    global_tokens: GlobalTokens,
    #[command(flatten)]
    quantization: QuantizationAwareArgs,
    #[command(flatten)]
    training: Training,
}

const HELP: &str = "\
Examples:
  bertha finetune --task classify --model bert-base --train train.tsv --dev dev.tsv --output sst2
  bertha finetune --task classify --model bert-base --train mnli.jsonl --text-column premise \\
      --text-pair-column hypothesis --learning-rate 3e-5 --epochs 2 --output mnli
  bertha finetune --task tag --model bert-base --train train.conll --dev dev.conll --output ner
  bertha finetune --task answer --model bert-base --train train-v2.0.json --output squad
  bertha finetune --task classify --model sst2 --train train.tsv --dev dev.tsv \\
      --quantize int2 --estimator lsq --output sst2-int2        learns as 2 bits, and is packed
  bertha finetune --task classify --model sst2 --train train.tsv --dev dev.tsv \\
      --quantize int4 --quantize-inputs 8 --output sst2-w4a8    inputs of layers have 8 bits too
  bertha finetune … --resume        goes on after Ctrl-C or a crash, to the same model

Input:
  classify, multi-label, regress: a table with a text and a label column (.tsv, .csv, .jsonl).
  tag: CoNLL, a word and its tag a line, blank lines between sentences.
  answer: SQuAD's JSON, version 1 or 2.

Defaults:
  3 epochs, batches of 32 examples, learning rate 5e-5 falling to 0 in a straight line.

Output:
  One line when it is done; the measures on --dev go to standard error as they come.
    {\"output\":\"sst2\",\"step\":…,\"loss\":…,\"tokens_per_second\":…,
     \"best\":{\"step\":…,\"metric\":\"accuracy\",\"value\":…},\"evaluation\":{…},…}
  (on one line). The folder holds the model, its record and picture, and checkpoints.
  With --quantize or --quantize-as the model is packed, and a second line says
    {\"output\":\"sst2-int2\",\"bytes\":…,\"bytes_before\":…,\"weights\":24}
  The measures are those of the rounded weights; checkpoints hold what these are rounded from.";

impl Finetune {
    /// Runs the command.
    pub fn run(&self, global: &Global) -> Result<()> {
        let training = &self.training;
        limit_threads(training.threads);
        let dir = self.model.transformer()?;
        let task = self.task.task();
        let mut config = Config::from_file(dir.join("config.json"))?;
        if let Some(rule) = self.global_tokens.rule {
            // The trained folder says so too.
            config.set_global_tokens(rule);
        }
        let positions = config.max_tokens()?;
        let max_length = self.reading.max_length(task, positions)?;
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
        let settings = self.quantization.settings()?;
        if let Some(rounding) = self.quantization.inputs()? {
            config = with_rounded_inputs(&config, rounding);
        }
        let mut model = TrainableModel::from_dir(&dir, config, head, &session, training.seed)?;
        if !model.fresh.is_empty() {
            tracing::info!("new layers: {}", model.fresh.join(", "));
        }
        let aware = match &settings {
            Some(settings) => {
                let estimator = self.quantization.estimator();
                let aware = QuantizationAware::new(&session, &mut model, settings, estimator)?;
                Some(Arc::new(aware))
            }
            None => None,
        };
        let mut options = training.options(&Defaults {
            epochs: 3.0,
            batch: BatchSize::Examples(32),
            learning_rate: 5e-5,
            warmup_ratio: 0.0,
        });
        // Scales that learn are no weights.
        options.groups.no_decay.push(STEP.to_owned());
        let mut trainer = Trainer::new(session, model, task, train.data.examples, options);
        if let Some(aware) = &aware {
            trainer = trainer.rounding(Arc::clone(aware));
        }
        if let Some(dev) = dev {
            trainer = trainer.evaluation(dev.data);
        }
        let outcome = training.run(global, trainer, &dir)?;
        match aware {
            Some(aware) => write_packed(&aware.pack(&outcome.model)?, &dir, &training.output),
            None => Ok(()),
        }
    }
}
