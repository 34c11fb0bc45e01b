//! The commands, a file each.

mod answer;
mod bench;
mod binarize;
mod classify;
mod convert;
mod decode;
mod embed;
mod evaluate;
mod fill_mask;
mod finetune;
mod formats;
mod forward;
mod info;
mod model_folder;
mod pretrain;
mod quantization_aware;
mod quantize;
mod quickstart;
mod search;
mod tag;
mod task_data;
mod tokenize;
mod train_tokenizer;
mod training;

use clap::Subcommand;

use crate::args::{Cli, Global};
use crate::failure::Result;
use crate::input::{Input, Item};
use crate::output::Output;
use crate::progress::Progress;

/// What bertha can be told to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    Quickstart(quickstart::Quickstart),
    Embed(embed::Embed),
    Search(search::Search),
    FillMask(fill_mask::FillMask),
    Classify(classify::Classify),
    Tag(tag::Tag),
    Answer(answer::Answer),
    Tokenize(tokenize::Tokenize),
    Decode(decode::Decode),
    TrainTokenizer(train_tokenizer::TrainTokenizer),
    Forward(forward::Forward),
    Pretrain(Box<pretrain::Pretrain>),
    Finetune(Box<finetune::Finetune>),
    Evaluate(evaluate::Evaluate),
    Convert(convert::Convert),
    Quantize(Box<quantize::Quantize>),
    Binarize(Box<binarize::Binarize>),
    Info(info::Info),
    Bench(bench::Bench),
}

/// Runs what the command line asks for.
pub fn run(cli: &Cli) -> Result<()> {
    let global = &cli.global;
    match &cli.command {
        Command::Quickstart(quickstart) => quickstart.run(global),
        Command::Embed(embed) => embed.run(global),
        Command::Search(search) => search.run(global),
        Command::FillMask(fill_mask) => fill_mask.run(global),
        Command::Classify(classify) => classify.run(global),
        Command::Tag(tag) => tag.run(global),
        Command::Answer(answer) => answer.run(global),
        Command::Tokenize(tokenize) => tokenize.run(global),
        Command::Decode(decode) => decode.run(global),
        Command::TrainTokenizer(train) => train.run(global),
        Command::Forward(forward) => forward.run(),
        Command::Pretrain(pretrain) => pretrain.run(global),
        Command::Finetune(finetune) => finetune.run(global),
        Command::Evaluate(evaluate) => evaluate.run(),
        Command::Convert(convert) => convert.run(),
        Command::Quantize(quantize) => quantize.run(),
        Command::Binarize(binarize) => binarize.run(global),
        Command::Info(info) => info.run(),
        Command::Bench(bench) => bench.run(),
    }
}

/// Works through an input piece by piece: `work` gets the items of a piece, the index of its first
/// and the output, and writes a line for each.
fn each_piece(
    global: &Global,
    mut input: Input,
    mut output: Output,
    mut work: impl FnMut(&Input, &[Item], usize, &mut Output) -> Result<()>,
) -> Result<()> {
    let mut progress = Progress::new("texts", global, output.is_terminal(), input.counter());
    let mut done = 0;
    loop {
        let piece = input.piece()?;
        if piece.is_empty() {
            break;
        }
        // Small steps, for the sake of the progress and of whoever reads along.
        for items in piece.chunks(STEP) {
            work(&input, items, done, &mut output)?;
            done += items.len();
            progress.at(done);
            output.flush()?;
        }
    }
    drop(progress);
    input.refuse_empty()?;
    output.finish()
}

/// Texts that a head's command works on between two signs of progress.
const STEP: usize = 512;
