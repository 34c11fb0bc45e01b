//! `bertha evaluate`: how good a model is on labelled examples.

use std::path::PathBuf;

use bertha_autograd::Session;
use bertha_models::load_with_head;
use bertha_tokenizer::Tokenizer;
use bertha_train::data::LabelMap;
use bertha_train::random::Seed;
use bertha_train::trainer::{Scores, Task, evaluate};
use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::args::{ModelDir, OutputFile, Precise, positive};
use crate::commands::task_data::{Reading, TaskName, masked_lines};
use crate::commands::training::limit_threads;
use crate::failure::Result;
use crate::output::Output;

/// Measure a model on labelled examples
#[derive(Args, Debug)]
#[command(
    long_about = "Measures how good a model is on labelled examples, with the measures that the field reports: accuracy, \
F1, Matthews' and rank correlation, entities as seqeval counts, SQuAD's exact match and F1, perplexity.",
    after_long_help = HELP
)]
pub struct Evaluate {
    /// What the model was taught
    #[arg(long, value_enum)]
    task: EvaluatedTask,
    #[command(flatten)]
    model: ModelDir,
    /// Examples with the right answers
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    #[command(flatten)]
    reading: Reading,
    #[command(flatten)]
    output: OutputFile,
    /// What the masks of masked-lm follow from
    #[arg(long, value_name = "N", default_value_t = 42)]
    seed: u64,
    /// Threads, at most; by default one for each physical core that the process may use
    #[arg(long, value_name = "N", value_parser = positive, help_heading = "Running")]
    threads: Option<usize>,
    /// Tokens to run at a time: bounds memory, never changes a result
    #[arg(long, value_name = "N", value_parser = positive, default_value = "4096", help_heading = "Running")]
    batch_tokens: usize,
    #[command(flatten)]
    precise: Precise,
}

const HELP: &str = "\
Examples:
  bertha evaluate --task classify --model sst2 --data dev.tsv
  bertha evaluate --task tag --model ner --data test.conll
  bertha evaluate --task masked-lm --model bert-base --data held-out.txt

Input:
  As for `bertha finetune`; for masked-lm a text a line.

Output:
  One line.
    {\"task\":\"classify\",\"examples\":…,\"tokens\":…,
     \"metrics\":{\"accuracy\":…,\"f1\":…,\"loss\":…,…}}";

/// The tasks of finetune, and pre-training's.
#[derive(Clone, Copy, Debug)]
enum EvaluatedTask {
    Finetuned(TaskName),
    MaskedLm,
}

impl ValueEnum for EvaluatedTask {
    fn value_variants<'a>() -> &'a [Self] {
        &[
            Self::Finetuned(TaskName::Classify),
            Self::Finetuned(TaskName::MultiLabel),
            Self::Finetuned(TaskName::Regress),
            Self::Finetuned(TaskName::Tag),
            Self::Finetuned(TaskName::Answer),
            Self::MaskedLm,
        ]
    }

    fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
        match self {
            Self::Finetuned(task) => task.to_possible_value(),
            Self::MaskedLm => {
                let value = clap::builder::PossibleValue::new("masked-lm");
                Some(value.help("Guessing masked tokens"))
            }
        }
    }
}

#[derive(Serialize)]
struct Line<'a> {
    task: Task,
    examples: usize,
    tokens: usize,
    metrics: &'a Scores,
}

impl Evaluate {
    /// Runs the command.
    pub fn run(&self) -> Result<()> {
        limit_threads(self.threads);
        let dir = self.model.transformer()?;
        let task = match self.task {
            EvaluatedTask::Finetuned(task) => task.task(),
            EvaluatedTask::MaskedLm => Task::MaskedLm,
        };
        let session = Session::new(self.threads)?.with_precision(self.precise.precision);
        let model = load_with_head(&dir, task.head(), &session)?;
        let tokenizer = Tokenizer::from_dir(&dir)?;
        let max_length = self.reading.max_length(task, model.info().max_tokens)?;
        let (data, masker) = match task {
            Task::MaskedLm => {
                let (data, masker) = masked_lines(&self.data, &tokenizer, max_length)?;
                (data, Some(masker))
            }
            _ => {
                let labels = LabelMap::new(model.info().labels.clone())?;
                let labels = Some(&labels);
                let found = self
                    .reading
                    .load(task, &self.data, &tokenizer, max_length, labels)?;
                (found.data, None)
            }
        };
        let settings = (self.batch_tokens, Seed::new(self.seed));
        let metrics = evaluate(
            &session,
            model.as_ref(),
            task,
            &data,
            masker.as_ref(),
            settings,
        )?;
        let mut output = Output::open(self.output.output.as_deref())?;
        output.line(&Line {
            task,
            examples: data.examples.len(),
            tokens: data.examples.tokens(),
            metrics: &metrics,
        })?;
        output.finish()
    }
}
