//! `bertha embed`: texts in, vectors out.

use bertha_tasks::{Encoder, EncoderBuilder, Pooling};
use clap::Args;
use ndarray::ArrayView2;
use serde::Serialize;

use crate::args::{Global, ModelDir, OutputFile, Run, Texts, flag, with_run};
use crate::failure::{Failure, Result};
use crate::input::Fields;
use crate::output::Output;
use crate::progress::Progress;
use crate::rows::{Format, RowFile};

/// Turn texts into vectors
#[derive(Args, Debug)]
#[command(
    long_about = "Turns texts into vectors, as sentence-transformers does: the folder's modules.json says \
how token vectors become one, and whether it has length 1. The closer two texts are in meaning, the \
larger the cosine of their vectors.",
    after_long_help = HELP
)]
pub struct Embed {
    #[command(flatten)]
    model: ModelDir,
    #[command(flatten)]
    texts: Texts,
    #[command(flatten)]
    output: OutputFile,
    /// Format of the output; by default what --output ends in (.npy, .safetensors), else jsonl
    #[arg(long, value_enum)]
    format: Option<Format>,
    #[command(flatten)]
    vectors: Vectors,
    #[command(flatten)]
    prompt: Prompt,
    #[command(flatten)]
    run: Run,
}

const HELP: &str = "\
Examples:
  bertha embed --model models/all-MiniLM-L6-v2 \"A cat sits on the mat.\"
  bertha embed --model models/all-MiniLM-L6-v2 --input texts.txt --output vectors.npy
  zcat texts.jsonl.gz | bertha embed --model models/all-MiniLM-L6-v2 > vectors.jsonl

Input:
  A file holds one text a line (an empty line is an empty text), or JSON lines with a `text` field.

Output:
  jsonl        a line for each text, in the order of the input, with the numbers in full:
               {\"index\":0,\"embedding\":[0.12653524,-0.03285073,…]}
  npy          one float32 array [texts, dimension], for numpy.load
  safetensors  the same as a tensor named `embeddings`";

/// How token vectors become one.
#[derive(Args, Clone, Debug)]
pub struct Vectors {
    /// How token vectors become one, in place of the folder's way
    #[arg(
        long,
        value_name = "MODE",
        value_parser = clap::builder::PossibleValuesParser::new(Pooling::ALL.map(Pooling::name)),
    )]
    pooling: Option<String>,
    /// Give vectors length 1, whatever the folder says
    #[arg(long, overrides_with = "no_normalize")]
    normalize: bool,
    /// Leave vectors at the length they have, whatever the folder says
    #[arg(long, overrides_with = "normalize")]
    no_normalize: bool,
}

impl Vectors {
    /// Sets the options on a builder.
    pub fn on(&self, mut builder: EncoderBuilder) -> Result<EncoderBuilder> {
        if let Some(name) = &self.pooling {
            builder = builder.pooling(name.parse::<Pooling>().map_err(Failure::usage)?);
        }
        if let Some(normalize) = flag(self.normalize, self.no_normalize) {
            builder = builder.normalize(normalize);
        }
        Ok(builder)
    }

    /// The options in words that differ where they do, for a cache.
    pub fn key(&self) -> String {
        let normalize = flag(self.normalize, self.no_normalize);
        format!("pooling {:?}, normalize {normalize:?}", self.pooling)
    }
}

/// What is put before each text.
#[derive(Args, Debug)]
struct Prompt {
    /// Text to put before each text, in place of the folder's default prompt; empty for none
    #[arg(long, value_name = "TEXT", conflicts_with = "prompt_name")]
    prompt: Option<String>,
    /// Name of the folder's prompt to put before each text, such as `query`
    #[arg(long, value_name = "NAME")]
    prompt_name: Option<String>,
}

#[derive(Serialize)]
struct Line<'a> {
    index: usize,
    embedding: &'a [f32],
}

/// Where vectors go.
enum Sink {
    Lines(Output),
    Rows(RowFile),
}

impl Embed {
    /// Runs the command.
    pub fn run(&self, global: &Global) -> Result<()> {
        let path = self.output.output.as_deref();
        let format = self.format.unwrap_or_else(|| Format::of(path));
        let mut input = self.texts.open(Fields::TEXT)?;
        let mut builder = self.vectors.on(Encoder::builder(self.model.path()?))?;
        if let Some(prompt) = &self.prompt.prompt {
            builder = builder.prompt(prompt);
        }
        if let Some(name) = &self.prompt.prompt_name {
            builder = builder.prompt_name(name);
        }
        let encoder = with_run!(builder, &self.run).build();
        let encoder = encoder.map_err(Failure::loading)?;
        // Before the work, so that one need not wait for the news that it was in vain.
        let mut sink = match format {
            Format::Jsonl => Sink::Lines(Output::open(path)?),
            _ => Sink::Rows(RowFile::create(path, format, encoder.dimension())?),
        };
        let mut progress = Progress::new("texts", global, sink.is_terminal(), input.counter());
        let mut done = 0;
        loop {
            let piece = input.piece()?;
            if piece.is_empty() {
                break;
            }
            let texts: Vec<&str> = piece.iter().map(|item| item.text()).collect();
            let vectors = encoder
                .embed_with(&texts, &mut |more| progress.at(done + more))
                .map_err(|error| Failure::task(error, |i| input.place(piece[i].number)))?;
            sink.write(done, vectors.view())?;
            done += piece.len();
        }
        drop(progress);
        input.refuse_empty()?;
        sink.finish()
    }
}

impl Sink {
    fn is_terminal(&self) -> bool {
        match self {
            Self::Lines(output) => output.is_terminal(),
            Self::Rows(_) => false,
        }
    }

    fn write(&mut self, first: usize, vectors: ArrayView2<'_, f32>) -> Result<()> {
        let output = match self {
            Self::Rows(file) => return file.push(vectors),
            Self::Lines(output) => output,
        };
        for (vector, index) in vectors.rows().into_iter().zip(first..) {
            // Rows of a fresh array lie in order; `to_vec` is for the type's sake.
            match vector.as_slice() {
                Some(embedding) => output.line(&Line { index, embedding })?,
                None => output.line(&Line {
                    index,
                    embedding: &vector.to_vec(),
                })?,
            }
        }
        output.flush()
    }

    fn finish(self) -> Result<()> {
        match self {
            Self::Lines(output) => output.finish(),
            Self::Rows(file) => file.finish(),
        }
    }
}
