//! `bertha fill-mask`: words for the masks of texts.

use bertha_tasks::{FillMask as Task, FillMaskOptions, MaskPrediction};
use clap::Args;
use serde::Serialize;

use crate::args::{Global, ModelDir, OutputFile, Run, Texts, positive, with_run};
use crate::commands::each_piece;
use crate::failure::{Failure, Result};
use crate::input::{Fields, Item};
use crate::output::Output;

/// Guess the words behind `[MASK]`
#[derive(Args, Debug)]
#[command(
    long_about = "Guesses the words behind the mask token of texts ([MASK] for BERT), as transformers' \
fill-mask pipeline does. The model must have been trained by masked language modelling, and saved with \
that head.",
    after_long_help = HELP
)]
pub struct FillMask {
    #[command(flatten)]
    model: ModelDir,
    #[command(flatten)]
    texts: Texts,
    #[command(flatten)]
    output: OutputFile,
    /// Words for each mask
    #[arg(short = 'k', long, value_name = "N", default_value_t = 5, value_parser = positive)]
    top_k: usize,
    /// Choose from these words only (comma-separated, or given again); their scores are those among
    /// all words
    #[arg(long, value_name = "WORD,…", value_delimiter = ',')]
    targets: Vec<String>,
    #[command(flatten)]
    run: Run,
}

const HELP: &str = "\
Examples:
  bertha fill-mask --model DIR \"Paris is the [MASK] of France.\"
  bertha fill-mask --model DIR --top-k 2 --targets good,bad \"The film was [MASK].\"
  bertha fill-mask --model DIR --input texts.txt > guesses.jsonl

Input:
  A file holds one text a line, or JSON lines with a `text` field. Every text needs a mask.

Output:
  A line for each text: for each of its masks the words, best first. `sequence` is the text with
  the word in place, as the tokenizer writes it. On one line:
    {\"index\":0,\"masks\":[[
      {\"score\":0.998,\"token\":3007,\"token_str\":\"capital\",\"sequence\":\"paris is the capital …\"},…]]}";

#[derive(Serialize)]
struct Line<'a> {
    index: usize,
    masks: &'a [Vec<MaskPrediction>],
}

impl FillMask {
    /// Runs the command.
    pub fn run(&self, global: &Global) -> Result<()> {
        let input = self.texts.open(Fields::TEXT)?;
        let model = with_run!(Task::builder(self.model.path()?), &self.run).build();
        let model = model.map_err(Failure::loading)?;
        let options = FillMaskOptions {
            top_k: self.top_k,
            targets: self.targets.clone(),
        };
        let output = Output::open(self.output.output.as_deref())?;
        each_piece(global, input, output, |input, items, first, output| {
            let texts: Vec<&str> = items.iter().map(Item::text).collect();
            let filled = model.fill_batch(&texts, &options);
            let filled =
                filled.map_err(|error| Failure::task(error, |i| input.place(items[i].number)))?;
            for (masks, index) in filled.iter().zip(first..) {
                output.line(&Line { index, masks })?;
            }
            Ok(())
        })
    }
}
