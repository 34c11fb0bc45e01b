//! `bertha tag`: names, places and the like in texts.

use bertha_tasks::{Aggregation, Entity, TagOptions, TokenClassifier};
use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::args::{Global, ModelDir, OutputFile, Run, Texts, with_run};
use crate::commands::each_piece;
use crate::failure::{Failure, Result};
use crate::input::{Fields, Item};
use crate::output::Output;

/// Find names, places and the like in texts
#[derive(Args, Debug)]
#[command(
    long_about = "Labels the tokens of texts, or the entities that they make up (names, places, parts of \
speech), as transformers' token-classification pipeline does. The folder's config.json names the labels \
(id2label).",
    after_long_help = HELP
)]
pub struct Tag {
    #[command(flatten)]
    model: ModelDir,
    #[command(flatten)]
    texts: Texts,
    #[command(flatten)]
    output: OutputFile,
    /// How tokens become entities
    #[arg(short, long, value_enum, default_value_t)]
    aggregation: Together,
    /// Labels to leave out (comma-separated, or given again); an empty one leaves none out
    #[arg(
        long,
        value_name = "LABEL,…",
        value_delimiter = ',',
        default_value = "O"
    )]
    ignore_labels: Vec<String>,
    /// Read a text beyond the limit in windows that overlap by N tokens, in place of cutting it; needs
    /// an aggregation
    #[arg(long, value_name = "N")]
    stride: Option<usize>,
    #[command(flatten)]
    run: Run,
}

const HELP: &str = "\
Examples:
  bertha tag --model DIR --aggregation simple \"Ada Lovelace lived in London.\"
  bertha tag --model DIR --aggregation first --stride 32 --input articles.txt
  bertha tag --model DIR --ignore-labels \"\" \"Every token, even those labelled O.\"

Input:
  A file holds one text a line, or JSON lines with a `text` field.

Output:
  A line for each text. start and end count characters of the text. Without aggregation each token
  has its own label and its place among the tokens:
    {\"index\":0,\"entities\":[
      {\"entity\":\"B-PER\",\"score\":0.99,\"index\":1,\"word\":\"ada\",\"start\":0,\"end\":3},…]}
  With aggregation:
    {\"index\":0,\"entities\":[
      {\"entity_group\":\"PER\",\"score\":0.99,\"word\":\"ada lovelace\",\"start\":0,\"end\":12},…]}
  (each on one line).";

/// How tokens become entities.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Together {
    /// Every token by itself
    #[default]
    None,
    /// Neighbouring tokens of one label
    Simple,
    /// As simple, each word by its first token
    First,
    /// As simple, each word by the mean of its tokens
    Average,
    /// As simple, each word by its most certain token
    Max,
}

#[derive(Serialize)]
struct Line<'a> {
    index: usize,
    entities: &'a [Entity],
}

impl Tag {
    /// Runs the command.
    pub fn run(&self, global: &Global) -> Result<()> {
        let input = self.texts.open(Fields::TEXT)?;
        let model = with_run!(TokenClassifier::builder(self.model.path()?), &self.run).build();
        let model = model.map_err(Failure::loading)?;
        let options = TagOptions {
            aggregation: match self.aggregation {
                Together::None => Aggregation::None,
                Together::Simple => Aggregation::Simple,
                Together::First => Aggregation::First,
                Together::Average => Aggregation::Average,
                Together::Max => Aggregation::Max,
            },
            ignore_labels: self.ignore_labels.clone(),
            stride: self.stride,
        };
        let output = Output::open(self.output.output.as_deref())?;
        each_piece(global, input, output, |input, items, first, output| {
            let texts: Vec<&str> = items.iter().map(Item::text).collect();
            let tagged = model.tag_batch(&texts, &options);
            let tagged =
                tagged.map_err(|error| Failure::task(error, |i| input.place(items[i].number)))?;
            for (entities, index) in tagged.iter().zip(first..) {
                output.line(&Line { index, entities })?;
            }
            Ok(())
        })
    }
}
