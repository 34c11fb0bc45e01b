//! `bertha quickstart`: from a text to a model that guesses words, by the commands that a user would give.

use std::fs;
use std::path::{Path, PathBuf};

use bertha_tasks::{Encoder, Pooling, cosine_similarity};
use clap::{Args, Parser};
use serde::Serialize;
use serde_json::json;

use crate::args::{Cli, Global, positive};
use crate::failure::{Failure, Result};
use crate::output::Output;
use crate::progress;

/// Train a small BERT on a book, and try it: about a minute
#[derive(Args, Debug)]
#[command(
    long_about = "Trains a small BERT from nothing on a book that comes with the program, Stevenson's Treasure Island \
(1883, in the public domain), in about a minute; then has it guess words and compare two sentences. Each step is a \
command of its own, which is shown before it runs.",
    after_long_help = HELP
)]
pub struct Quickstart {
    /// Folder to write
    #[arg(short, long, value_name = "DIR", default_value = "bertha-quickstart")]
    output: PathBuf,
    /// Updates to train for: more take longer, and teach more
    #[arg(long, value_name = "N", visible_alias = "max-steps", value_parser = positive, default_value_t = 1500)]
    steps: usize,
    /// Another text to learn from, in place of the book: a sentence or paragraph a line
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// Threads, at most; by default one for each physical core that the process may use
    #[arg(long, value_name = "N", value_parser = positive)]
    threads: Option<usize>,
}

const HELP: &str = "\
Examples:
  bertha quickstart
  bertha quickstart --steps 20000 --output treasure     guesses better, in a quarter of an hour
  bertha quickstart --data notes.txt --output notes
  bertha fill-mask --model bertha-quickstart/model 'jim was hiding in the [MASK] .'     afterwards

What to expect:
  In a minute it learns which words are common, and something of their order: perplexity on the held
  out pages falls from 1500, a guess among all tokens, to a sixth of that. A model that guesses as
  people do has seen thousands of times as much text.

Output:
  DIR/book.txt, DIR/held-out.txt   the text: what is learned, and what judges it
  DIR/config.json                  the sizes of the model
  DIR/tokenizer                    its vocabulary
  DIR/model                        the model, with metrics.jsonl and the picture curve.svg
  On standard output the lines of the commands, and at last one that compares two sentences:
    {\"texts\":[\"…\",\"…\"],\"cosine\":0.9}
  The commands themselves are shown on standard error.";

/// The book, a paragraph a line.
const BOOK: &str = include_str!("../../data/treasure-island.txt");

/// Tokens of the vocabulary.
const VOCABULARY: usize = 1500;

/// What is guessed.
const MASKED: [&str; 3] = [
    "the captain was standing on the [MASK] of the ship .",
    "i had never seen the old [MASK] before .",
    "\" no , \" said the [MASK] , and he went away .",
];

/// What is compared.
const COMPARED: [&str; 2] = [
    "The ship came to the island in the morning.",
    "We saw the island from the ship at last.",
];

#[derive(Serialize)]
struct Line {
    texts: [&'static str; 2],
    cosine: f32,
}

impl Quickstart {
    /// Runs the command.
    pub fn run(&self, global: &Global) -> Result<()> {
        let dir = self.output.as_path();
        let model = dir.join("model");
        if model.exists() {
            return Err(Failure::new(format!(
                "{}: the folder has a model already: give another with --output",
                dir.display()
            )));
        }
        let text = match &self.data {
            None => BOOK.to_owned(),
            Some(path) => {
                let bytes = fs::read(path).map_err(|error| Failure::io(path, "read", &error))?;
                String::from_utf8(bytes).map_err(|error| {
                    let at = error.utf8_error().valid_up_to();
                    Failure::new(format!(
                        "{}: not UTF-8 (byte {at}): convert the file to UTF-8",
                        path.display()
                    ))
                })?
            }
        };
        let (book, held_out) = (dir.join("book.txt"), dir.join("held-out.txt"));
        fs::create_dir_all(dir).map_err(|error| Failure::io(dir, "make the folder", &error))?;
        let (learned, judging) = split(&text)?;
        for (path, text) in [(&book, learned), (&held_out, judging)] {
            fs::write(path, text).map_err(|error| Failure::io(path, "write", &error))?;
        }

        // Two layers of 128, and nothing dropped: it sees each page but a few times.
        let config = json!({
            "model_type": "bert", "architectures": ["BertForMaskedLM"], "vocab_size": VOCABULARY,
            "hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 512,
            "hidden_act": "gelu", "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
            "max_position_embeddings": 128, "type_vocab_size": 2, "initializer_range": 0.05,
            "layer_norm_eps": 1e-12, "pad_token_id": 0,
        });
        let config_file = dir.join("config.json");
        fs::write(&config_file, format!("{config:#}\n"))
            .map_err(|error| Failure::io(&config_file, "write", &error))?;

        let path = |path: &Path| path.display().to_string();
        let (tokenizer, model) = (path(&dir.join("tokenizer")), path(&model));
        let word = |word: &str| match word {
            "BOOK" => path(&book),
            "HELD_OUT" => path(&held_out),
            "CONFIG" => path(&config_file),
            "TOKENIZER" => tokenizer.clone(),
            "MODEL" => model.clone(),
            "STEPS" => self.steps.to_string(),
            "VOCABULARY" => VOCABULARY.to_string(),
            word => word.to_owned(),
        };
        let words = |command: &str| command.split_whitespace().map(word).collect::<Vec<_>>();
        let learn = words(
            "train-tokenizer --type wordpiece --vocab-size VOCABULARY --data BOOK --output TOKENIZER",
        );
        let mut train = words(
            "pretrain --config CONFIG --tokenizer TOKENIZER --data BOOK --dev HELD_OUT --output MODEL \
             --steps STEPS --max-length 32 --batch-tokens 1024 --learning-rate 3e-3 --save-steps 0",
        );
        if let Some(threads) = self.threads {
            train.extend(["--threads".to_owned(), threads.to_string()]);
        }
        let mut guess = words("fill-mask --model MODEL --top-k 3");
        guess.extend(MASKED.map(str::to_owned));
        for command in [learn, train, guess] {
            run(global, &command)?;
        }

        let encoder = Encoder::builder(&model).pooling(Pooling::Mean).build();
        let embedded = encoder.map_err(Failure::loading)?.embed(&COMPARED);
        let embedded = embedded.map_err(Failure::loading)?;
        let mut output = Output::stdout();
        output.line(&Line {
            texts: COMPARED,
            cosine: cosine_similarity(embedded.view(), embedded.view())[[0, 1]],
        })?;
        output.finish()?;
        if !global.quiet {
            progress::message(&format!(
                "The model is in {model}; its loss curve is {model}/curve.svg. Try:\n  \
                 bertha fill-mask --model {model} \"jim was hiding in the [MASK] .\"\n"
            ));
        }
        Ok(())
    }
}

/// What is learned, and the last twentieth of the lines, which judges it.
fn split(text: &str) -> Result<(String, String)> {
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    if lines.len() < 2 {
        return Err(Failure::new(
            "--data has fewer than two lines: give a text with a sentence or paragraph a line",
        ));
    }
    let (learned, judging) = lines.split_at(lines.len() - lines.len().div_ceil(20));
    let joined = |lines: &[&str]| lines.iter().map(|line| format!("{line}\n")).collect();
    Ok((joined(learned), joined(judging)))
}

/// Shows a command, and runs it.
fn run(global: &Global, words: &[String]) -> Result<()> {
    if !global.quiet {
        let shown = words.iter().map(|word| match word.contains([' ', '"']) {
            true => format!("'{word}'"),
            false => word.clone(),
        });
        let shown: Vec<_> = shown.collect();
        progress::message(&format!("\n$ bertha {}\n", shown.join(" ")));
    }
    let all = ["bertha"]
        .into_iter()
        .chain(words.iter().map(String::as_str));
    let mut cli = Cli::try_parse_from(all).map_err(|error| Failure::new(error.to_string()))?;
    cli.global = *global;
    super::run(&cli)
}
