//! `bertha search`: the lines of a file nearest to a query, by meaning.

use std::path::{Path, PathBuf};

use bertha_kernels::Isa;
use bertha_tasks::{Encoder, top_k};
use clap::{Args, ValueEnum};
use ndarray::Array2;
use serde::Serialize;

use crate::args::{Global, ModelDir, OutputFile, Run, TextFile, positive, with_run};
use crate::cache::{self, Key};
use crate::commands::embed::Vectors;
use crate::failure::{Failure, Result};
use crate::input::{Fields, Input, InputFormat, Item};
use crate::output::Output;
use crate::progress::Progress;

/// Find the lines of a file nearest to a query, by meaning
#[derive(Args, Debug)]
#[command(
    long_about = "Finds the lines of a file whose meaning is nearest to a query: every line is embedded, and \
ranked by the cosine of its vector with the query's. Exact; blank lines are left out. With --cache the \
vectors are kept, so that the next search need only embed the query.",
    after_long_help = HELP,
    mut_arg("input", |arg| arg.help(
        "Read queries from a file, `-` for standard input: one a line, or JSON lines with `text`"
    ))
)]
pub struct Search {
    #[command(flatten)]
    model: ModelDir,
    /// File to search: one text a line, or JSON lines with a `text` field
    #[arg(short, long, value_name = "FILE")]
    corpus: PathBuf,
    /// What --corpus holds, as --input-format
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    corpus_format: InputFormat,
    /// What to look for; without any, --input is read, else standard input
    #[arg(value_name = "QUERY", conflicts_with = "input")]
    queries: Vec<String>,
    #[command(flatten)]
    file: TextFile,
    #[command(flatten)]
    output: OutputFile,
    /// Lines to find for each query
    #[arg(short = 'k', long, value_name = "K", default_value_t = 5, value_parser = positive)]
    top_k: usize,
    /// Keep the vectors of the corpus in a file, by default CORPUS.bertha-cache; they are used again
    /// as long as corpus, model and options are the same to the byte
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true)]
    cache: Option<Option<PathBuf>>,
    /// json: a line for each query; text: for reading
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    vectors: Vectors,
    /// Text to put before each query, in place of the folder's default prompt; empty for none
    #[arg(long, value_name = "TEXT", conflicts_with = "prompt_name")]
    prompt: Option<String>,
    /// Name of the folder's prompt to put before each query, such as `query`
    #[arg(long, value_name = "NAME")]
    prompt_name: Option<String>,
    /// Text to put before each line of the corpus; empty for none
    #[arg(long, value_name = "TEXT", conflicts_with = "corpus_prompt_name")]
    corpus_prompt: Option<String>,
    /// Name of the folder's prompt to put before each line of the corpus, such as `document`
    #[arg(long, value_name = "NAME")]
    corpus_prompt_name: Option<String>,
    #[command(flatten)]
    run: Run,
}

const HELP: &str = "\
Examples:
  bertha search --model models/all-MiniLM-L6-v2 --corpus notes.txt \"reset my password\"
  bertha search --model models/all-MiniLM-L6-v2 --corpus notes.txt --cache --format text \"refunds\"
  bertha search --model models/e5-small --corpus docs.jsonl --input queries.txt \\
      --prompt \"query: \" --corpus-prompt \"passage: \"

Output:
  A line for each query, its hits best first. `line` counts the lines of the file from 1, `score`
  is the cosine, from -1 to 1:
    {\"index\":0,\"query\":\"refunds\",\"hits\":[{\"line\":12,\"score\":0.61,\"text\":\"Money back …\"},…]}
  With --format text: score, line and text of each hit, a tab between them; where there are several
  queries, each stands on a line of its own before its hits.";

/// How hits are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A JSON object for each query
    #[default]
    Json,
    /// Score, line and text
    Text,
}

#[derive(Serialize)]
struct Line<'a> {
    index: usize,
    query: &'a str,
    hits: Vec<Hit<'a>>,
}

#[derive(Serialize)]
struct Hit<'a> {
    line: usize,
    score: f32,
    text: &'a str,
}

impl Search {
    /// Runs the command.
    pub fn run(&self, global: &Global) -> Result<()> {
        let mut queries = Input::open(&self.queries, &self.file, Fields::TEXT)?;
        let cache = match (&self.cache, self.corpus.as_path()) {
            (Some(_), corpus) if corpus == Path::new("-") => {
                return Err(Failure::usage(
                    "--cache needs a corpus in a file, and this one comes from standard input",
                ));
            }
            (Some(None), corpus) => Some(cache::beside(corpus)),
            (Some(path), _) => path.clone(),
            (None, _) => None,
        };
        let corpus = Corpus::read(&self.corpus, self.corpus_format)?;
        let asked = [&self.prompt, &self.prompt_name];
        let corpus_asked = [&self.corpus_prompt, &self.corpus_prompt_name];
        // Before the model is loaded: one that is replaced meanwhile is not taken for its successor.
        let cache = match cache {
            None => None,
            Some(path) => Some((path, self.key(&corpus)?)),
        };
        let mut encoder = self.encoder(corpus_asked)?;
        let vectors = corpus_vectors(global, &corpus, &encoder, cache)?;
        if asked != corpus_asked {
            // One model at a time in memory.
            drop(encoder);
            encoder = self.encoder(asked)?;
        }

        let mut output = Output::open(self.output.output.as_deref())?;
        let mut progress =
            Progress::new("queries", global, output.is_terminal(), queries.counter());
        let several = queries.counter()() != Some(1);
        let mut done = 0;
        loop {
            let piece = queries.piece()?;
            if piece.is_empty() {
                break;
            }
            let texts: Vec<&str> = piece.iter().map(Item::text).collect();
            let embedded = encoder
                .embed(&texts)
                .map_err(|error| Failure::task(error, |i| queries.place(piece[i].number)))?;
            for (query, vector) in texts.iter().zip(embedded.rows()) {
                let hits = top_k(vector, vectors.view(), self.top_k);
                let hits = hits.into_iter().map(|hit| Hit {
                    line: corpus.items[hit.index].number,
                    score: hit.score,
                    text: corpus.items[hit.index].text(),
                });
                self.write(&mut output, done, query, hits.collect(), several)?;
                done += 1;
                progress.at(done);
            }
            output.flush()?;
        }
        drop(progress);
        queries.refuse_empty()?;
        output.finish()
    }

    /// The encoder with a prompt, given as text or by name.
    fn encoder(&self, [prompt, prompt_name]: [&Option<String>; 2]) -> Result<Encoder> {
        let mut builder = self.vectors.on(Encoder::builder(self.model.path()?))?;
        if let Some(prompt) = prompt {
            builder = builder.prompt(prompt);
        }
        if let Some(name) = prompt_name {
            builder = builder.prompt_name(name);
        }
        with_run!(builder, &self.run)
            .build()
            .map_err(Failure::loading)
    }

    /// Over all that the corpus' vectors depend on, to the last bit.
    fn key(&self, corpus: &Corpus) -> Result<Key> {
        let mut key = Key::default();
        key.add(env!("CARGO_PKG_VERSION").as_bytes());
        let isa = Isa::from_env()?;
        key.add(isa.name().as_bytes());
        let options = format!(
            "{}, {} {}, limit {:?}, cut {:?}, prompt {:?}, prompt name {:?}",
            self.vectors.key(),
            self.run.precise.precision.name(),
            // Products of bf16 then are summed in another order.
            isa.multiplies_bf16(),
            self.run.max_length,
            self.run.truncate(),
            self.corpus_prompt,
            self.corpus_prompt_name
        );
        key.add(options.as_bytes());
        key.add_model(self.model.path()?)?;
        for item in &corpus.items {
            key.add(item.text().as_bytes());
        }
        Ok(key)
    }

    fn write(
        &self,
        output: &mut Output,
        index: usize,
        query: &str,
        hits: Vec<Hit<'_>>,
        several: bool,
    ) -> Result<()> {
        if self.format == Format::Json {
            return output.line(&Line { index, query, hits });
        }
        if several {
            output.bytes(format!("{query}\n").as_bytes())?;
        }
        for Hit { line, score, text } in hits {
            let text = text.replace(['\n', '\r', '\t'], " ");
            output.bytes(format!("{score:.4}\t{line}\t{text}\n").as_bytes())?;
        }
        Ok(())
    }
}

/// The vectors of a corpus: from its cache, else from the model.
fn corpus_vectors(
    global: &Global,
    corpus: &Corpus,
    encoder: &Encoder,
    cache: Option<(PathBuf, Key)>,
) -> Result<Array2<f32>> {
    let rows = corpus.items.len();
    if let Some((path, key)) = &cache
        && let Some(vectors) = cache::load(path, key, rows, encoder.dimension())?
    {
        return Ok(vectors);
    }
    let texts: Vec<&str> = corpus.items.iter().map(Item::text).collect();
    let mut progress = Progress::new("lines", global, false, move || Some(rows));
    let vectors = encoder
        .embed_with(&texts, &mut |done| progress.at(done))
        .map_err(|error| Failure::task(error, |i| corpus.place(i)))?;
    drop(progress);
    if let Some((path, key)) = &cache {
        cache::store(path, key, &vectors);
    }
    Ok(vectors)
}

/// The lines to search.
struct Corpus {
    items: Vec<Item>,
    name: String,
}

impl Corpus {
    fn read(path: &Path, format: InputFormat) -> Result<Self> {
        let file = TextFile {
            input: Some(path.to_path_buf()),
            input_format: format,
        };
        let mut input = Input::open_file(&file, Fields::TEXT)?;
        let mut items = Vec::new();
        loop {
            let piece = input.piece()?;
            if piece.is_empty() {
                break;
            }
            items.extend(
                piece
                    .into_iter()
                    .filter(|item| !item.text().trim().is_empty()),
            );
        }
        let name = input.name().to_owned();
        match items.is_empty() {
            false => Ok(Self { items, name }),
            true => Err(Failure::new(format!(
                "{name}: there is nothing to search: expected one text a line, or JSON lines"
            ))),
        }
    }

    fn place(&self, index: usize) -> String {
        format!("{}, line {}", self.name, self.items[index].number)
    }
}
