//! `bertha train-tokenizer`: the vocabulary of a corpus, as a folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

use bertha_autograd::Session;
use bertha_tokenizer::train::{
    TokenizerKind, TokenizerTrainer, TrainError, TrainedTokenizer, WordCounter, WordCounts,
};
use clap::Args;
use clap::builder::PossibleValuesParser;
use rayon::{ThreadPool, ThreadPoolBuilder};
use serde::Serialize;

use crate::args::{Global, TextFile, flag, positive};
use crate::failure::{Failure, Result};
use crate::input::{Fields, Input, InputFormat};
use crate::lines;
use crate::output::Output;
use crate::progress::Progress;

/// Learn the vocabulary of a tokenizer from a corpus
#[derive(Args, Debug)]
#[command(
    long_about = "Learns the vocabulary of a tokenizer from a corpus and writes it as a folder that Hugging \
Face's transformers loads. The corpus may be larger than memory: only its distinct words and their counts \
are kept. The same corpus gives the same files, whatever the number of threads.",
    after_long_help = HELP
)]
pub struct TrainTokenizer {
    /// Kind of tokenizer
    #[arg(
        long = "type",
        value_name = "TYPE",
        value_parser = PossibleValuesParser::new(TokenizerKind::ALL.map(TokenizerKind::name)),
    )]
    kind: String,
    /// Tokens to have, special tokens and single characters included
    #[arg(long, value_name = "N", value_parser = positive, default_value_t = 30_000)]
    vocab_size: usize,
    /// Files of the corpus, `-` for standard input: one text a line, or JSON lines
    #[arg(long, value_name = "FILE", num_args = 1.., required = true)]
    data: Vec<PathBuf>,
    /// What --data holds: `auto` takes .jsonl, .ndjson and what begins with a JSON object that has a
    /// text for JSON lines, and else a text a line
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    input_format: InputFormat,
    /// Folder to write; its files appear only when complete
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// Replace the tokenizer that the folder has
    #[arg(long)]
    overwrite: bool,
    /// Make capitals small, and with wordpiece take accents away; default of wordpiece
    #[arg(long, overrides_with = "cased", help_heading = "Training")]
    lowercase: bool,
    /// Keep capitals and accents; default of the other types
    #[arg(long, overrides_with = "lowercase", help_heading = "Training")]
    cased: bool,
    /// Join neighbours only if they occur together so often; not for unigram
    #[arg(long, value_name = "N", default_value_t = 2, help_heading = "Training")]
    min_frequency: u64,
    /// Keep only the N most frequent characters, 0 for all; raise it for Chinese and Japanese. Not
    /// for byte-level-bpe
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1000,
        help_heading = "Training"
    )]
    limit_alphabet: usize,
    /// Special tokens in the order of their ids, in place of the type's own
    #[arg(long, value_name = "TOKEN", num_args = 1.., help_heading = "Training")]
    special_tokens: Vec<String>,
    /// Threads, at most; by default one for each physical core that the process may use
    #[arg(long, value_name = "N", value_parser = positive, help_heading = "Training")]
    threads: Option<usize>,
}

const HELP: &str = "\
Examples:
  bertha train-tokenizer --type wordpiece --data corpus.txt --output my-tokenizer
  bertha train-tokenizer --type byte-level-bpe --vocab-size 50000 --data a.txt b.jsonl --output DIR
  zcat *.gz | bertha train-tokenizer --type unigram --vocab-size 8000 --data - --output DIR

  Then: bertha tokenize --model my-tokenizer \"Hello world\"

Types:
  wordpiece       BERT: words, and pieces of words that begin with ##; lowercase unless --cased
  bpe             merges of characters; a word begins with ▁, its space
  byte-level-bpe  GPT-2, RoBERTa, ModernBERT: merges of bytes, so that no text is unknown
  unigram         XLM-RoBERTa, ALBERT: pieces with probabilities; a word begins with ▁

Special tokens:
  wordpiece has [PAD] [UNK] [CLS] [SEP] [MASK], the others have <s> <pad> </s> <unk> <mask>. Tokens
  of --special-tokens with one of these names (or <cls>, <sep>) have its role, further ones none.

Memory:
  It grows with the distinct words of the corpus, not with its length.

Output:
  DIR has tokenizer.json, tokenizer_config.json, special_tokens_map.json, and vocab.txt (wordpiece)
  or vocab.json and merges.txt (bpe, byte-level-bpe). On standard output a line that tells of it:
    {\"output\":\"my-tokenizer\",\"type\":\"wordpiece\",\"vocab_size\":30000,\"texts\":120000,…}";

#[derive(Serialize)]
struct Line<'a> {
    output: &'a Path,
    r#type: &'a str,
    vocab_size: usize,
    lowercase: bool,
    special_tokens: &'a [String],
    texts: u64,
    bytes: u64,
    words: u64,
    distinct_words: usize,
    characters: Characters,
}

#[derive(Serialize)]
struct Characters {
    seen: usize,
    kept: usize,
    coverage: f64,
}

impl TrainTokenizer {
    /// Runs the command.
    pub fn run(&self, global: &Global) -> Result<()> {
        let Some(kind) = TokenizerKind::ALL
            .into_iter()
            .find(|kind| kind.name() == self.kind)
        else {
            return Err(Failure::usage(format!("there is no type {}", self.kind)));
        };
        let mut trainer = TokenizerTrainer::new(kind)
            .vocab_size(self.vocab_size)
            .min_frequency(self.min_frequency)
            .limit_alphabet(Some(self.limit_alphabet).filter(|&limit| limit > 0));
        let lowercase = flag(self.lowercase, self.cased).unwrap_or(kind.lowercase());
        trainer = trainer.lowercase(lowercase);
        if !self.special_tokens.is_empty() {
            trainer = trainer.special_tokens(&self.special_tokens);
        }
        // Before the work, so that one need not wait for the news that it was in vain.
        trainer.check().map_err(failure)?;
        for path in self.data.iter().filter(|path| **path != Path::new("-")) {
            let found = fs::metadata(path).map_err(|error| Failure::io(path, "read", &error))?;
            // A pipe can be opened only once.
            if found.is_file() || found.is_dir() {
                drop(self.open(path)?);
            }
        }
        if self.output.exists() && !self.output.is_dir() {
            return Err(Failure::new(format!(
                "{}: this is a file, expected a folder or nothing",
                self.output.display()
            )));
        }
        if !self.overwrite {
            TrainedTokenizer::check_vacant(&self.output).map_err(failure)?;
        }
        let threads = Session::new(self.threads)?.exec().threads();
        let pool = ThreadPoolBuilder::new().num_threads(threads).build()?;

        let mut counter = trainer.counter();
        self.count(global, &mut counter, &pool)?;
        let (texts, bytes) = (counter.texts(), counter.bytes());
        let words = pool.install(|| counter.finish());
        if words.is_empty() {
            return Err(failure(TrainError::NoWords).within(self.names()));
        }
        let trained = train(&trainer, kind, &words, &pool, global)?;
        trained
            .save(&self.output, self.overwrite)
            .map_err(failure)?;
        self.warn(&trained);
        let mut output = Output::stdout();
        output.line(&Line {
            output: &self.output,
            r#type: kind.name(),
            vocab_size: trained.tokens().len(),
            lowercase,
            special_tokens: trained.special_tokens(),
            texts,
            bytes,
            words: words.total(),
            distinct_words: words.len(),
            characters: Characters {
                seen: trained.characters_seen(),
                kept: trained.alphabet_size(),
                coverage: trained.coverage(),
            },
        })?;
        output.finish()
    }

    fn open(&self, path: &Path) -> Result<Input> {
        let file = TextFile {
            input: Some(path.to_path_buf()),
            input_format: self.input_format,
        };
        Input::open_file(&file, Fields::TEXT)
    }

    fn count(&self, global: &Global, counter: &mut WordCounter, pool: &ThreadPool) -> Result<()> {
        let count = |path: &PathBuf| path.is_file().then(|| lines::count(path)).flatten();
        let total = || self.data.iter().map(count).sum();
        let mut progress = Progress::new("texts", global, false, total);
        for path in &self.data {
            let mut input = self.open(path)?;
            loop {
                let piece = input.piece()?;
                if piece.is_empty() {
                    break;
                }
                let texts: Vec<&str> = piece.iter().map(|item| item.text()).collect();
                pool.install(|| counter.add_texts(&texts));
                progress.at(counter.texts() as usize);
            }
        }
        Ok(())
    }

    fn warn(&self, trained: &TrainedTokenizer) {
        let size = trained.tokens().len();
        if size < self.vocab_size {
            tracing::warn!(
                "the vocabulary has {size} tokens, fewer than --vocab-size {}: the corpus has no more to learn",
                self.vocab_size
            );
        }
        let coverage = trained.coverage();
        if coverage < 0.999 {
            tracing::warn!(
                "{:.2} % of the corpus' characters are not among the {} that --limit-alphabet keeps of {}: the \
                 tokenizer will not know them",
                100.0 * (1.0 - coverage),
                trained.alphabet_size(),
                trained.characters_seen()
            );
        }
    }

    fn names(&self) -> String {
        let names = self.data.iter().map(|path| path.display().to_string());
        names.collect::<Vec<_>>().join(", ")
    }
}

/// Trains on the pool, and shows how far it is from this thread.
fn train(
    trainer: &TokenizerTrainer,
    kind: TokenizerKind,
    words: &WordCounts,
    pool: &ThreadPool,
    global: &Global,
) -> Result<TrainedTokenizer> {
    let what = match kind {
        TokenizerKind::Unigram => "rounds",
        _ => "tokens",
    };
    let total = AtomicUsize::new(0);
    let (send, receive) = mpsc::channel();
    let trained = thread::scope(|scope| {
        let total = &total;
        let training = scope.spawn(move || {
            let mut tell = |done, of| {
                total.store(of, Ordering::Relaxed);
                // The other end listens until this one is gone.
                let _ = send.send(done);
            };
            pool.install(|| trainer.train_with(words, &mut tell))
        });
        let total = || Some(total.load(Ordering::Relaxed));
        let mut progress = Progress::new(what, global, false, total);
        for done in receive {
            progress.at(done);
        }
        drop(progress);
        training.join()
    });
    match trained {
        Ok(trained) => trained.map_err(failure),
        // Its message is on standard error already.
        Err(_) => Err(Failure::new("training broke off")),
    }
}

/// A trainer's error in the words of the command line.
fn failure(error: TrainError) -> Failure {
    match error {
        TrainError::VocabularyTooSmall {
            vocab_size,
            special,
            alphabet,
        } => Failure::usage(format!(
            "--vocab-size is {vocab_size}, expected at least {}: {special} special tokens and {alphabet} tokens of \
             one character; ask for more, or for fewer characters with --limit-alphabet",
            special + alphabet
        )),
        TrainError::InvalidOption {
            option,
            found,
            expected,
        } => {
            let flag = option.replace('_', "-");
            Failure::usage(format!("--{flag} is {found}, expected {expected}"))
        }
        TrainError::Exists { path, file } => Failure::new(format!(
            "{} has a tokenizer already ({file}): choose another folder, or replace it with --overwrite",
            path.display()
        )),
        error => Failure::from(error),
    }
}
