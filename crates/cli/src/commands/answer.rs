//! `bertha answer`: the words of a context that answer a question.

use std::path::PathBuf;

use bertha_tasks::{Answer as Found, AnswerOptions, QuestionAnswerer};
use clap::Args;
use serde::Serialize;

use crate::args::{Global, GlobalTokens, ModelDir, OutputFile, Precise, TextFile, positive};
use crate::commands::each_piece;
use crate::failure::{Failure, Result};
use crate::input::{Fields, Input, Plain, read_text};
use crate::output::Output;

/// Find the answer to a question in a context
#[derive(Args, Debug)]
#[command(
    long_about = "Finds the words of a context that answer a question, as transformers' question-answering \
pipeline does. A context that is too long for the model is read in overlapping windows.",
    after_long_help = HELP,
    mut_arg("input", |arg| arg.help(
        "Read questions, contexts or both from a file, `-` for standard input: see Input below"
    ))
)]
pub struct Answer {
    #[command(flatten)]
    model: ModelDir,
    /// Question
    #[arg(long, value_name = "TEXT")]
    question: Option<String>,
    /// Context to find the answer in
    #[arg(long, value_name = "TEXT", conflicts_with = "context_file")]
    context: Option<String>,
    /// File that is the context, `-` for standard input
    #[arg(long, value_name = "FILE")]
    context_file: Option<PathBuf>,
    #[command(flatten)]
    file: TextFile,
    #[command(flatten)]
    output: OutputFile,
    /// Answers for each question
    #[arg(short = 'k', long, value_name = "N", default_value_t = 1, value_parser = positive)]
    top_k: usize,
    /// The answer may be that there is none: an empty text from 0 to 0
    #[arg(long)]
    impossible: bool,
    /// Do not extend answers to whole words
    #[arg(long)]
    no_align_to_words: bool,
    /// Longest answer in tokens
    #[arg(long, value_name = "N", default_value_t = 15, value_parser = positive)]
    max_answer_len: usize,
    /// Longest question in tokens; a longer one is cut, with a warning
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = positive)]
    max_question_len: usize,
    /// Longest window of question and context in tokens [default: 384, or the model's limit]
    #[arg(long, value_name = "N", value_parser = positive)]
    max_seq_len: Option<usize>,
    /// Tokens of context that a window repeats from the one before [default: 128, or what fits]
    #[arg(long, value_name = "N")]
    doc_stride: Option<usize>,
    /// Threads, at most; by default one for each physical core that the process may use
    #[arg(long, value_name = "N", value_parser = positive, help_heading = "Running")]
    threads: Option<usize>,
    /// Tokens to run at a time [default: 2048]: bounds memory, never changes a result
    #[arg(long, value_name = "N", value_parser = positive, help_heading = "Running")]
    batch_tokens: Option<usize>,
    #[command(flatten)]
    precise: Precise,
    #[command(flatten)]
    global_tokens: GlobalTokens,
}

const HELP: &str = "\
Examples:
  bertha answer --model DIR --question \"Who wrote it?\" --context \"It was written by Mary Shelley.\"
  bertha answer --model DIR --question \"Where is it set?\" --context-file book.txt --top-k 3
  bertha answer --model DIR --context-file book.txt --input questions.txt
  bertha answer --model DIR --input pairs.jsonl > answers.jsonl

Input:
  --input holds JSON lines with `question` and `context`. With --context or --context-file, plain
  lines are questions. With --question, plain lines are contexts: each is searched for an answer.

Output:
  A line for each question, its answers best first. start and end count characters of the context.
    {\"index\":0,\"answers\":[{\"score\":0.87,\"start\":18,\"end\":30,\"answer\":\"Mary Shelley\"}]}";

#[derive(Serialize)]
struct Line<'a> {
    index: usize,
    answers: &'a [Found],
}

impl Answer {
    /// Runs the command.
    pub fn run(&self, global: &Global) -> Result<()> {
        let context = match (&self.context, &self.context_file) {
            (Some(context), _) => Some(context.clone()),
            (None, Some(path)) => Some(read_text(path)?),
            (None, None) => None,
        };
        let input = self.input(context.is_some())?;
        let mut builder = QuestionAnswerer::builder(self.model.path()?);
        if let Some(threads) = self.threads {
            builder = builder.threads(threads);
        }
        builder = builder.precision(self.precise.precision);
        if let Some(tokens) = self.batch_tokens {
            builder = builder.batch_tokens(tokens);
        }
        if let Some(rule) = self.global_tokens.rule {
            builder = builder.global_tokens(rule);
        }
        let model = builder.build().map_err(Failure::loading)?;
        let options = AnswerOptions {
            top_k: self.top_k,
            doc_stride: self.doc_stride,
            max_answer_len: self.max_answer_len,
            max_seq_len: self.max_seq_len,
            max_question_len: self.max_question_len,
            handle_impossible_answer: self.impossible,
            align_to_words: !self.no_align_to_words,
        };
        let mut output = Output::open(self.output.output.as_deref())?;
        let Some(input) = input else {
            let both = self.question.as_deref().zip(context.as_deref());
            let (question, context) = both.unwrap_or_default();
            let answers = model.answer_with(question, context, &options);
            let answers = answers.map_err(|error| Failure::task(error, |_| "the text".into()))?;
            let answers = answers.as_slice();
            output.line(&Line { index: 0, answers })?;
            return output.finish();
        };
        each_piece(global, input, output, |input, items, first, output| {
            for (item, index) in items.iter().zip(first..) {
                let question = item.first.as_deref().or(self.question.as_deref());
                let context = item.second.as_deref().or(context.as_deref());
                let both = question.zip(context);
                let (question, context) = both.unwrap_or_default();
                let place = input.place(item.number);
                let answers = model
                    .answer_with(question, context, &options)
                    .map_err(|error| Failure::task(error, |_| "the text".into()).within(place))?;
                let answers = answers.as_slice();
                output.line(&Line { index, answers })?;
            }
            Ok(())
        })
    }

    /// The questions and contexts of `--input`, or none where the options say it all.
    fn input(&self, has_context: bool) -> Result<Option<Input>> {
        let has_question = self.question.is_some();
        if has_question && has_context {
            return match self.file.input {
                None => Ok(None),
                Some(_) => Err(Failure::usage(
                    "--input brings questions or contexts: leave out --question or the context",
                )),
            };
        }
        if self.file.input.is_none() {
            let missing = match (has_question, has_context) {
                (true, false) => {
                    "no context: give --context TEXT, --context-file FILE, or --input FILE"
                }
                (false, true) => "no question: give --question TEXT, or --input FILE",
                _ => "no question: give --question TEXT with --context-file FILE, or --input FILE",
            };
            return Err(Failure::usage(missing));
        }
        let fields = Fields {
            first: "question",
            second: Some("context"),
            required: [!has_question, !has_context],
            plain: match (has_question, has_context) {
                (true, false) => Plain::Second,
                (false, true) => Plain::First,
                _ => Plain::Refused,
            },
        };
        Input::open_file(&self.file, fields).map(Some)
    }
}
