//! `bertha classify`: classes for texts, or for pairs of texts.

use bertha_tasks::{ClassifyOptions, Function, Label, TextClassifier, TextInput};
use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::args::{Global, ModelDir, OutputFile, Run, Texts, positive, with_run};
use crate::commands::each_piece;
use crate::failure::{Failure, Result};
use crate::input::Fields;
use crate::output::Output;

/// Put texts, or pairs of texts, into classes
#[derive(Args, Debug)]
#[command(
    long_about = "Puts texts, or pairs of texts, into the classes that a model was fine-tuned for, as \
transformers' text-classification pipeline does. The folder's config.json names the classes (id2label).",
    after_long_help = HELP
)]
pub struct Classify {
    #[command(flatten)]
    model: ModelDir,
    #[command(flatten)]
    texts: Texts,
    /// Second text, read together with every TEXT
    #[arg(long, value_name = "TEXT")]
    text_pair: Option<String>,
    #[command(flatten)]
    output: OutputFile,
    /// Classes for each text: a number, or `all`
    #[arg(short = 'k', long, value_name = "N", default_value = "1", value_parser = top_k)]
    top_k: TopK,
    /// What makes scores of the model's logits; by default what its config.json implies
    #[arg(long, value_enum)]
    function: Option<Scores>,
    #[command(flatten)]
    pub(crate) run: Run,
}

const HELP: &str = "\
Examples:
  bertha classify --model DIR \"What a wonderful film.\"
  bertha classify --model DIR --top-k all --input reviews.txt
  bertha classify --model DIR --text-pair \"Nobody is awake.\" \"A man sleeps.\"

Input:
  A file holds one text a line, or JSON lines with a `text` field and perhaps a `text_pair`.

Output:
  A line for each text, its classes best first.
    {\"index\":0,\"labels\":[{\"label\":\"POSITIVE\",\"score\":0.9998}]}";

/// How many classes; none for all.
#[derive(Clone, Copy, Debug)]
struct TopK(Option<usize>);

fn top_k(text: &str) -> std::result::Result<TopK, String> {
    match text {
        "all" => Ok(TopK(None)),
        _ => match positive(text) {
            Ok(count) => Ok(TopK(Some(count))),
            Err(problem) => Err(format!("{problem}, or `all`")),
        },
    }
}

/// What makes scores of logits.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Scores {
    /// Scores of all classes add up to 1
    Softmax,
    /// Each class has a score from 0 to 1 of its own
    Sigmoid,
    /// The logits themselves
    None,
}

#[derive(Serialize)]
struct Line<'a> {
    index: usize,
    labels: &'a [Label],
}

impl Classify {
    /// Runs the command.
    pub fn run(&self, global: &Global) -> Result<()> {
        let input = self.texts.open(Fields::PAIR)?;
        let model = with_run!(TextClassifier::builder(self.model.path()?), &self.run).build();
        let model = model.map_err(Failure::loading)?;
        let options = ClassifyOptions {
            top_k: self.top_k.0,
            function: self.function.map(|function| match function {
                Scores::Softmax => Function::Softmax,
                Scores::Sigmoid => Function::Sigmoid,
                Scores::None => Function::None,
            }),
        };
        let output = Output::open(self.output.output.as_deref())?;
        each_piece(global, input, output, |input, items, first, output| {
            let inputs: Vec<TextInput<'_>> = items
                .iter()
                .map(|item| item.pair(self.text_pair.as_deref()))
                .collect();
            let classified = model.classify_batch(&inputs, &options);
            let classified = classified
                .map_err(|error| Failure::task(error, |i| input.place(items[i].number)))?;
            for (labels, index) in classified.iter().zip(first..) {
                output.line(&Line { index, labels })?;
            }
            Ok(())
        })
    }
}
