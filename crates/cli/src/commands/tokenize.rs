//! `bertha tokenize`: the tokens of texts.

use bertha_tokenizer::{EncodeOptions, Encoding, Tokenizer, Truncation};
use clap::Args;
use serde::Serialize;

use crate::args::{Global, ModelDir, OutputFile, Texts, positive};
use crate::commands::each_piece;
use crate::failure::{Failure, Result};
use crate::input::Fields;
use crate::output::Output;

/// Show the tokens of texts
#[derive(Args, Debug)]
#[command(
    long_about = "Shows the tokens that a model's tokenizer makes of texts, token for token as Hugging \
Face's tokenizers does. Needs only the folder's tokenizer.json or vocab.txt.",
    after_long_help = HELP
)]
pub struct Tokenize {
    #[command(flatten)]
    model: ModelDir,
    #[command(flatten)]
    texts: Texts,
    /// Second text, joined to every TEXT as a pair
    #[arg(long, value_name = "TEXT")]
    text_pair: Option<String>,
    #[command(flatten)]
    output: OutputFile,
    /// Leave out the model's own tokens, such as `[CLS]` and `[SEP]`
    #[arg(long)]
    no_special_tokens: bool,
    /// Cut to N tokens, special tokens included; by default texts stay whole
    #[arg(long, value_name = "N", value_parser = positive)]
    max_length: Option<usize>,
}

const HELP: &str = "\
Examples:
  bertha tokenize --model models/all-MiniLM-L6-v2 \"Hello world\"
  bertha tokenize --model models/all-MiniLM-L6-v2 --text-pair \"It sleeps.\" \"A cat.\"
  bertha tokenize --model models/all-MiniLM-L6-v2 --no-special-tokens --input texts.txt

Input:
  A file holds one text a line, or JSON lines with a `text` field and perhaps a `text_pair`.

Output:
  A line for each text. Offsets count characters of the text (of the second text where type_ids
  says 1); special tokens have [0,0]. On one line:
    {\"ids\":[101,7592,2088,102],\"tokens\":[\"[CLS]\",\"hello\",\"world\",\"[SEP]\"],
     \"offsets\":[[0,0],[0,5],[6,11],[0,0]],\"type_ids\":[0,0,0,0]}";

#[derive(Serialize)]
struct Line<'a> {
    ids: &'a [u32],
    tokens: Vec<&'a str>,
    offsets: &'a [(u32, u32)],
    type_ids: &'a [u32],
}

impl Tokenize {
    /// Runs the command.
    pub fn run(&self, global: &Global) -> Result<()> {
        let input = self.texts.open(Fields::PAIR)?;
        let tokenizer = Tokenizer::from_dir(self.model.transformer()?)?;
        let options = EncodeOptions::default()
            .special_tokens(!self.no_special_tokens)
            .truncation(self.max_length.map(Truncation::new))
            .overflow(false);
        let output = Output::open(self.output.output.as_deref())?;
        each_piece(global, input, output, |input, items, _, output| {
            for item in items {
                let encoding: Encoding = tokenizer
                    .encode(item.pair(self.text_pair.as_deref()), &options)
                    .map_err(|error| Failure::tokenizer(&error).within(input.place(item.number)))?;
                output.line(&Line {
                    ids: encoding.ids(),
                    tokens: tokenizer.tokens(&encoding).collect(),
                    offsets: encoding.offsets(),
                    type_ids: encoding.type_ids(),
                })?;
            }
            Ok(())
        })
    }
}
