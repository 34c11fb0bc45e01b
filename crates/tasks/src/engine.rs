//! What every task runs on: a model, its tokenizer and a session. Texts become tokens on the
//! session's threads, tokens become batches of a budget, and batches run through the model.

use std::ops::Range;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::thread;

use bertha_autograd::Session;
use bertha_models::{Config, ForwardOptions, Head, Model, ModelInfo, Outputs, load_configured};
use bertha_nn::Batch;
use bertha_tokenizer::{EncodeOptions, Encoding, Input, Tokenizer, Truncation};
use rayon::prelude::*;

use crate::TaskError;
use crate::batching::{plan, windows};
use crate::builder::Settings;
use crate::limit::{Limit, LimitSource, truncation_side};
use crate::workers::Workers;

/// About how many tokens are held at a time: enough to sort by length, some ten megabytes.
const HELD_TOKENS: usize = 1 << 18;

/// A loaded model with all it takes to run texts through it.
pub struct Engine {
    dir: PathBuf,
    model: Box<dyn Model>,
    tokenizer: Tokenizer,
    session: Session,
    limit: Limit,
    truncation: Truncation,
    batch_tokens: usize,
    workers: Workers,
}

/// A tokenized text, or one window of it.
#[derive(Clone, Copy)]
pub(crate) struct Sequence<'a> {
    /// The text's place in the caller's list.
    pub(crate) text: usize,
    pub(crate) encoding: &'a Encoding,
}

/// What the model gave for a batch.
pub(crate) struct Ran<'a> {
    /// The sequences of the batch, as places in the list that was run.
    pub(crate) members: &'a [usize],
    pub(crate) batch: &'a Batch,
    pub(crate) outputs: Outputs,
}

impl Engine {
    /// Loads the model folder `dir` with a head. `configured` is the limit that the folder sets.
    pub(crate) fn load(
        dir: &Path,
        head: Head,
        settings: &Settings,
        configured: Option<(usize, LimitSource)>,
    ) -> Result<Self, TaskError> {
        let session = settings.session()?;
        let (model, tokenizer) = load_both(dir, head, settings, &session)?;
        let limit = Limit::resolve(
            settings.max_length,
            settings.truncate,
            configured,
            model.info().max_tokens,
        )?;
        let stored = tokenizer.truncation().map(|stored| stored.direction);
        let side = truncation_side(dir)?.or(stored).unwrap_or_default();
        Ok(Self {
            dir: dir.to_path_buf(),
            truncation: Truncation::new(limit.tokens).direction(side),
            workers: Workers::new(session.exec().threads()),
            batch_tokens: settings.batch_tokens(),
            model,
            tokenizer,
            session,
            limit,
        })
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn info(&self) -> &ModelInfo {
        self.model.info()
    }

    pub(crate) fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    pub(crate) fn session(&self) -> &Session {
        &self.session
    }

    pub(crate) fn limit(&self) -> &Limit {
        &self.limit
    }

    /// Truncation to the limit.
    pub(crate) fn truncation(&self) -> Truncation {
        self.truncation
    }

    /// Cuts a list of texts of the given sizes in bytes into stretches to be held at a time.
    pub(crate) fn stretches(
        &self,
        bytes: impl Iterator<Item = usize>,
    ) -> impl Iterator<Item = Range<usize>> {
        let ends = windows(bytes, HELD_TOKENS.max(self.batch_tokens));
        let starts = [0].into_iter().chain(ends.clone());
        starts.zip(ends).map(|(start, end)| start..end)
    }

    /// Tokenizes, in the order of the inputs.
    pub(crate) fn encode(
        &self,
        inputs: &[Input<'_>],
        options: &EncodeOptions,
    ) -> Result<Vec<Encoding>, TaskError> {
        let encode = |input: &Input<'_>| self.tokenizer.encode(*input, options);
        let bytes = inputs.iter().copied().map(input_bytes).sum();
        let encodings: Vec<_> = match self.workers.worth(inputs.len(), bytes) {
            Some(pool) => pool.install(|| inputs.par_iter().map(encode).collect()),
            None => inputs.iter().map(encode).collect(),
        };
        // In order, so that of several errors the first text's is told.
        encodings
            .into_iter()
            .map(|encoding| Ok(encoding?))
            .collect()
    }

    /// Tokenizes within the limit: a longer text is cut and counted in `cut`, or refused. `first` is
    /// the place of the first input in the caller's list.
    pub(crate) fn encode_within_limit(
        &self,
        inputs: &[Input<'_>],
        first: usize,
        cut: &mut usize,
    ) -> Result<Vec<Encoding>, TaskError> {
        let truncation = self.limit.truncate.then_some(self.truncation);
        let options = EncodeOptions::default().truncation(truncation);
        let encodings = self.encode(inputs, &options)?;
        for (i, encoding) in encodings.iter().enumerate() {
            if !encoding.overflowing().is_empty() {
                *cut += 1;
            } else if encoding.len() > self.limit.tokens {
                return Err(self.limit.too_long(first + i, encoding.len()));
            }
        }
        Ok(encodings)
    }

    /// Runs sequences in batches, longest first, and hands each batch's outputs to `take`.
    ///
    /// Where `rows` is given, logits are computed only for the tokens of a sequence that it names.
    pub(crate) fn run(
        &self,
        sequences: &[Sequence<'_>],
        rows: Option<&dyn Fn(usize) -> Vec<u32>>,
        mut take: impl FnMut(Ran<'_>) -> Result<(), TaskError>,
    ) -> Result<(), TaskError> {
        for sequence in sequences {
            self.check(sequence)?;
        }
        let lengths: Vec<usize> = sequences.iter().map(|s| s.encoding.len()).collect();
        for members in plan(&lengths, self.batch_tokens) {
            let mut batch = Batch::new();
            let mut wanted = Vec::new();
            for &i in &members {
                let start = batch.tokens() as u32;
                if let Some(rows) = rows {
                    wanted.extend(rows(i).into_iter().map(|row| start + row));
                }
                let encoding = sequences[i].encoding;
                // Absent types are all 0, without a row to carry them.
                let types = Some(encoding.type_ids()).filter(|t| t.iter().any(|&t| t != 0));
                batch.push(encoding.ids(), types)?;
            }
            let options = ForwardOptions {
                hidden_states: false,
                logit_rows: rows.map(|_| wanted.as_slice()),
                global_tokens: None,
            };
            let outputs = self.model.forward(&self.session, &batch, &options)?;
            take(Ran {
                members: &members,
                batch: &batch,
                outputs,
            })?;
        }
        Ok(())
    }

    /// Refuses what the model cannot take, in the words of the caller's texts.
    fn check(&self, sequence: &Sequence<'_>) -> Result<(), TaskError> {
        let Sequence { text, encoding } = *sequence;
        if encoding.is_empty() {
            return Err(TaskError::NoTokens { index: text });
        }
        let vocabulary = self.info().vocab_size;
        let beyond = encoding.ids().iter().find(|&&id| id as usize >= vocabulary);
        match beyond {
            None => Ok(()),
            Some(&id) => Err(TaskError::BeyondVocabulary {
                index: text,
                token: self.tokenizer.id_to_token(id).unwrap_or("?").to_owned(),
                id,
                vocabulary,
            }),
        }
    }

    /// The head's logits and their number of columns.
    pub(crate) fn logits<'a>(&self, outputs: &'a Outputs) -> Result<(&'a [f32], usize), TaskError> {
        let logits = self.output(outputs.logits.as_ref(), "logits")?;
        let columns = logits.shape().last().copied().unwrap_or(0);
        Ok((logits.as_slice()?, columns))
    }

    /// An output that the head should give.
    pub(crate) fn output<'a, V>(
        &self,
        output: Option<&'a V>,
        what: &'static str,
    ) -> Result<&'a V, TaskError> {
        output.ok_or(TaskError::NoOutput {
            what,
            model_type: self.info().model_type,
        })
    }

    /// Refuses a head whose classes are not as many as their names.
    pub(crate) fn check_classes(&self, found: usize) -> Result<(), TaskError> {
        let expected = self.info().labels.len();
        match found == expected {
            true => Ok(()),
            false => Err(TaskError::LabelCount { found, expected }),
        }
    }
}

/// Refuses results that are no numbers.
pub(crate) fn finite(values: &[f32], what: &'static str, text: usize) -> Result<(), TaskError> {
    match values.iter().all(|value| value.is_finite()) {
        true => Ok(()),
        false => Err(TaskError::NotFinite { what, index: text }),
    }
}

/// The size of an input's texts.
pub(crate) fn input_bytes(input: Input<'_>) -> usize {
    match input {
        Input::Single(text) => text.len(),
        Input::Pair(first, second) => first.len() + second.len(),
    }
}

/// Loads the model and, where there is a thread for it, the tokenizer at the same time.
fn load_both(
    dir: &Path,
    head: Head,
    settings: &Settings,
    session: &Session,
) -> Result<(Box<dyn Model>, Tokenizer), TaskError> {
    let mut config = Config::from_file(dir.join("config.json"))?;
    if let Some(rule) = settings.global_tokens {
        config.set_global_tokens(rule);
    }
    let load_tokenizer = || Tokenizer::from_dir(dir);
    if session.exec().threads() == 1 {
        let model = load_configured(dir, &config, head, session)?;
        return Ok((model, load_tokenizer()?));
    }
    thread::scope(|scope| {
        let other = thread::Builder::new().spawn_scoped(scope, load_tokenizer);
        let model = load_configured(dir, &config, head, session)?;
        let tokenizer = match other {
            Ok(other) => other.join().unwrap_or_else(|panic| resume_unwind(panic)),
            // The system has no thread to give.
            Err(_) => load_tokenizer(),
        };
        Ok((model, tokenizer?))
    })
}
