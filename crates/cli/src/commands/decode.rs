//! `bertha decode`: token ids back into text.

use std::path::PathBuf;

use bertha_tokenizer::Tokenizer;
use clap::Args;
use serde::Serialize;
use serde_json::Value;

use crate::args::{Global, ModelDir, OutputFile, TextFile};
use crate::commands::each_piece;
use crate::failure::{Failure, Result};
use crate::input::{Fields, Input, InputFormat};
use crate::output::Output;

/// Turn token ids back into text
#[derive(Args, Debug)]
#[command(
    long_about = "Turns token ids back into text, as Hugging Face's tokenizers does. The text is not always the \
one that the ids came from: what the tokenizer changed (capitals, accents, spaces) stays changed. Needs only \
the folder's tokenizer.json or vocab.txt.",
    after_long_help = HELP
)]
pub struct Decode {
    #[command(flatten)]
    model: ModelDir,
    /// Token ids: plain numbers are one sequence together, else every argument is one; without any,
    /// --input is read, else standard input
    #[arg(value_name = "IDS", conflicts_with = "input")]
    ids: Vec<String>,
    /// Read sequences from a file, `-` for standard input: one a line
    #[arg(short, long, value_name = "FILE")]
    input: Option<PathBuf>,
    #[command(flatten)]
    output: OutputFile,
    /// Keep the model's own tokens, such as `[CLS]` and `[SEP]`, in the text
    #[arg(long)]
    keep_special_tokens: bool,
}

const HELP: &str = "\
Examples:
  bertha decode --model models/all-MiniLM-L6-v2 101 7592 2088 102
  bertha decode --model models/all-MiniLM-L6-v2 \"[101,7592,102]\" \"[101,2088,102]\"
  bertha tokenize --model DIR --input texts.txt | bertha decode --model DIR

Input:
  A sequence a line, each in one of these forms; an empty line is an empty sequence:
    101 7592 2088 102              numbers between spaces or commas
    [101,7592,2088,102]            a JSON array
    {\"ids\":[101,7592,2088,102],…}  a line of `bertha tokenize`; `input_ids` is taken, too

Output:
  A line for each sequence, in the order of the input:
    {\"text\":\"hello world\"}";

#[derive(Serialize)]
struct Line {
    text: String,
}

impl Decode {
    /// Runs the command.
    pub fn run(&self, global: &Global) -> Result<()> {
        let file = TextFile {
            input: self.input.clone(),
            input_format: InputFormat::Text,
        };
        let numbers = |ids: &String| ids.parse::<u32>().is_ok();
        let sequences = match self.ids.iter().all(numbers) {
            true if !self.ids.is_empty() => vec![self.ids.join(" ")],
            _ => self.ids.clone(),
        };
        if sequences.is_empty()
            && self.input.is_none()
            && std::io::IsTerminal::is_terminal(&std::io::stdin())
        {
            return Err(Failure::usage(
                "no ids: give them as arguments, in a file with --input FILE, or on standard input",
            ));
        }
        let input = Input::open(&sequences, &file, Fields::TEXT)?;
        let tokenizer = Tokenizer::from_dir(self.model.transformer()?)?;
        let output = Output::open(self.output.output.as_deref())?;
        each_piece(global, input, output, |input, items, _, output| {
            for item in items {
                let place = || match self.ids.is_empty() {
                    true => input.place(item.number),
                    false if sequences.len() == 1 => "the sequence".into(),
                    false => format!("sequence {} of the command line", item.number),
                };
                let ids = parse(item.text())
                    .map_err(|problem| Failure::new(format!("{}: {problem}", place())))?;
                let text = tokenizer
                    .decode(&ids, !self.keep_special_tokens)
                    .map_err(|error| Failure::tokenizer(&error).within(place()))?;
                output.line(&Line { text })?;
            }
            Ok(())
        })
    }
}

/// The ids of a line.
fn parse(line: &str) -> std::result::Result<Vec<u32>, String> {
    let line = line.trim();
    if !line.starts_with(['[', '{']) {
        let parts = line.split(|c: char| c == ',' || c.is_whitespace());
        let number = |part: &str| part.parse().map_err(|_| no_id(part));
        return parts.filter(|part| !part.is_empty()).map(number).collect();
    }
    let value: Value = serde_json::from_str(line).map_err(|error| {
        // It counts lines of its own, of which there is one.
        let reason = error.to_string();
        let reason = reason.split(" at line ").next().unwrap_or_default();
        format!("not JSON ({reason} at column {})", error.column())
    })?;
    let ids = match &value {
        Value::Object(object) => object
            .get("ids")
            .or_else(|| object.get("input_ids"))
            .ok_or("no `ids` in the object, expected an array of token ids")?,
        other => other,
    };
    let Value::Array(ids) = ids else {
        return Err(no_id(&ids.to_string()));
    };
    let number = |id: &Value| {
        let number = id.as_u64().and_then(|id| u32::try_from(id).ok());
        number.ok_or_else(|| no_id(&id.to_string()))
    };
    ids.iter().map(number).collect()
}

fn no_id(found: &str) -> String {
    let shown: String = found.chars().take(60).collect();
    format!(
        "found {shown}, expected token ids: whole numbers up to {}",
        u32::MAX
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_in_every_form() {
        for line in [
            "1 20,3",
            " 1, 20 ,\t3 ",
            "[1,20,3]",
            r#"{"tokens": ["a"], "ids": [1, 20, 3]}"#,
            r#"{"input_ids": [1, 20, 3], "attention_mask": [1, 1, 1]}"#,
        ] {
            assert_eq!(parse(line), Ok(vec![1, 20, 3]), "{line}");
        }
        assert_eq!(parse(""), Ok(vec![]));
        assert_eq!(parse("[]"), Ok(vec![]));
        for (line, part) in [
            ("1 x", "found x"),
            ("-1", "found -1"),
            ("4294967296", "found 4294967296"),
            ("[1, 2.5]", "found 2.5"),
            ("[[1]]", "found [1]"),
            ("[1", "not JSON (EOF while parsing a list at column 2)"),
            ("{}", "no `ids`"),
            (r#"{"ids": "1"}"#, "found \"1\""),
        ] {
            let problem = parse(line).unwrap_err();
            assert!(problem.contains(part), "{line}: {problem}");
        }
    }
}
