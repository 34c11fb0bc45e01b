//! Answers found in a context, as `transformers`' question-answering pipeline gives them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bertha_autograd::Session;
use bertha_models::{Head, ModelInfo};
use bertha_tokenizer::{
    EncodeOptions, Encoding, Input, OffsetKind, SpecialToken, Tokenizer, Truncation,
    TruncationStrategy,
};
use serde::Serialize;

use crate::builder::Task;
use crate::chars::Chars;
use crate::engine::{Engine, Sequence, finite};
use crate::spans::{Window, best_spans};
use crate::{TaskBuilder, TaskError};

/// The longest sequence unless told otherwise.
const MAX_SEQ_LEN: usize = 384;
/// The longest overlap of windows unless told otherwise.
const DOC_STRIDE: usize = 128;

/// A window's logits of its tokens to start, and to end, an answer.
type StartEnd = (Vec<f32>, Vec<f32>);

/// Finds the words of a context that answer a question.
///
/// A context that is too long for the model is read in overlapping windows.
///
/// Cheap to clone, `Send + Sync`; clones share the model.
///
/// ```no_run
/// use bertha_tasks::QuestionAnswerer;
///
/// let model = QuestionAnswerer::from_dir("models/bert-squad")?;
/// let best = &model.answer("Who wrote it?", "The letter was written by Mary Shelley.")?[0];
/// println!("{} {:.3}", best.answer, best.score);
/// # Ok::<(), bertha_tasks::TaskError>(())
/// ```
#[derive(Clone)]
pub struct QuestionAnswerer {
    inner: Arc<Inner>,
}

struct Inner {
    engine: Engine,
    /// Stands for "no answer" where it is.
    cls: Option<u32>,
}

/// How [`QuestionAnswerer::answer_with`] looks for answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnswerOptions {
    /// Answers to give at most; default 1.
    pub top_k: usize,
    /// Tokens that a window of the context repeats from the one before; by default 128, but at most
    /// half of `max_seq_len` and what the question leaves of a window.
    pub doc_stride: Option<usize>,
    /// The longest answer in tokens; default 15.
    pub max_answer_len: usize,
    /// The longest sequence of question and context in tokens; by default 384, but at most the limit.
    pub max_seq_len: Option<usize>,
    /// The longest question in tokens (default 64); a longer one is cut, with a warning, as
    /// `transformers` documents it (and its fast tokenizers leave undone).
    pub max_question_len: usize,
    /// Whether the answer may be that there is none: an empty text from 0 to 0.
    pub handle_impossible_answer: bool,
    /// Whether an answer that starts or ends within a word is extended to the whole word; default
    /// true.
    pub align_to_words: bool,
}

impl Default for AnswerOptions {
    fn default() -> Self {
        Self {
            top_k: 1,
            doc_stride: None,
            max_answer_len: 15,
            max_seq_len: None,
            max_question_len: 64,
            handle_impossible_answer: false,
            align_to_words: true,
        }
    }
}

/// A stretch of the context.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Answer {
    /// Its probability: start times end, summed where windows found the same words.
    pub score: f32,
    /// Where it starts in the context, in characters.
    pub start: usize,
    /// Where it ends in the context, in characters.
    pub end: usize,
    /// The words.
    pub answer: String,
}

impl Task for QuestionAnswerer {
    const HEAD: Head = Head::QuestionAnswering;

    fn from_engine(engine: Engine) -> Result<Self, TaskError> {
        let cls = engine.tokenizer().special_token(SpecialToken::Cls);
        let cls = cls.map(|(_, id)| id);
        Ok(Self {
            inner: Arc::new(Inner { engine, cls }),
        })
    }
}

impl QuestionAnswerer {
    /// Loads a model folder.
    ///
    /// # Errors
    /// When a file is missing or corrupt, or the model has no question-answering head.
    pub fn from_dir(dir: impl AsRef<Path>) -> Result<Self, TaskError> {
        Self::builder(dir.as_ref()).build()
    }

    /// Loads a model folder with options.
    pub fn builder(dir: impl Into<PathBuf>) -> TaskBuilder<Self> {
        TaskBuilder::new(dir.into())
    }

    /// The best answer to a question that a context holds.
    ///
    /// # Errors
    /// As [`QuestionAnswerer::answer_with`].
    pub fn answer(&self, question: &str, context: &str) -> Result<Vec<Answer>, TaskError> {
        self.answer_with(question, context, &AnswerOptions::default())
    }

    /// The best answers to a question that a context holds, best first.
    ///
    /// # Errors
    /// When question or context is empty, the question leaves no room for the context, or an option is
    /// out of range.
    pub fn answer_with(
        &self,
        question: &str,
        context: &str,
        options: &AnswerOptions,
    ) -> Result<Vec<Answer>, TaskError> {
        options.check()?;
        for (what, text) in [("question", question), ("context", context)] {
            if text.trim().is_empty() {
                return Err(TaskError::Empty { what });
            }
        }
        let encoding = self.windows(question, context, options)?;
        let windows: Vec<&Encoding> = [&encoding]
            .into_iter()
            .chain(encoding.overflowing())
            .collect();
        let logits = self.logits(&windows)?;

        // Aligning to words may make several candidates one: more are taken than asked for.
        let candidates = match options.align_to_words {
            true => options.top_k.saturating_mul(2).saturating_add(10),
            false => options.top_k,
        };
        let chars = Chars::new(context);
        let mut answers = Answers::default();
        let mut none = f64::INFINITY;
        for (encoding, (start, end)) in windows.iter().zip(&logits) {
            let window = Window::new(encoding, self.inner.cls, start, end);
            none = none.min(window.no_answer());
            for span in best_spans(&window, candidates, options.max_answer_len) {
                let (start, end) = match options.align_to_words {
                    true => whole_words(encoding, span.first, span.last),
                    false => (
                        encoding.offsets()[span.first].0,
                        encoding.offsets()[span.last].1,
                    ),
                };
                answers.add(start as usize, end as usize, span.score, &chars);
            }
        }
        Ok(answers.best(options, none))
    }

    /// The folder's tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        self.inner.engine.tokenizer()
    }

    /// The session that the model runs in.
    pub fn session(&self) -> &Session {
        self.inner.engine.session()
    }

    /// The facts of the model.
    pub fn info(&self) -> &ModelInfo {
        self.inner.engine.info()
    }

    /// Question and context as tokens, in as many windows as they need.
    fn windows(
        &self,
        question: &str,
        context: &str,
        options: &AnswerOptions,
    ) -> Result<Encoding, TaskError> {
        let engine = &self.inner.engine;
        let tokenizer = engine.tokenizer();
        let limit = self.sequence_limit(options)?;
        let (question, question_tokens) = self.question(question, options.max_question_len)?;
        let whole = tokenizer.encode((question, context), &EncodeOptions::default())?;
        if !whole.sequence_ids().contains(&Some(1)) {
            return Err(TaskError::Empty { what: "context" });
        }
        if whole.len() <= limit {
            return Ok(whole);
        }
        let fixed = question_tokens + tokenizer.num_special_tokens(true);
        let room = match limit.checked_sub(fixed) {
            None | Some(0) => {
                return Err(TaskError::QuestionTooLong {
                    tokens: fixed,
                    limit,
                });
            }
            Some(room) => room,
        };
        let stride = match options.doc_stride {
            None => DOC_STRIDE.min(limit / 2).min(room - 1),
            Some(stride) if stride < room => stride,
            Some(stride) => {
                return Err(TaskError::InvalidOption {
                    option: "doc_stride",
                    found: stride.to_string(),
                    expected: format!("less than {room}, the tokens of context in a window"),
                });
            }
        };
        let windows = Truncation::new(limit)
            .strategy(TruncationStrategy::OnlySecond)
            .stride(stride);
        let input = Input::Pair(question, context);
        let options = EncodeOptions::default().truncation(Some(windows));
        Ok(tokenizer.encode(input, &options)?)
    }

    /// The longest sequence.
    fn sequence_limit(&self, options: &AnswerOptions) -> Result<usize, TaskError> {
        let positions = self.info().max_tokens;
        match options.max_seq_len {
            None => Ok(MAX_SEQ_LEN.min(self.inner.engine.limit().tokens)),
            Some(asked) if (1..=positions).contains(&asked) => Ok(asked),
            Some(asked) => Err(TaskError::InvalidOption {
                option: "max_seq_len",
                found: asked.to_string(),
                expected: format!("1 to {positions}, the model's positions"),
            }),
        }
    }

    /// The question, cut to `limit` tokens, and their number.
    fn question<'q>(&self, question: &'q str, limit: usize) -> Result<(&'q str, usize), TaskError> {
        let options = EncodeOptions::default()
            .special_tokens(false)
            .offsets(OffsetKind::Bytes);
        let encoding = self.tokenizer().encode(question, &options)?;
        let tokens = encoding.len();
        if tokens <= limit {
            return Ok((question, tokens));
        }
        // WordPiece takes the longest piece first, so that what is before a cut between two pieces
        // is cut into the same pieces again.
        let end = encoding.offsets()[limit - 1].1 as usize;
        tracing::warn!("the question of {tokens} tokens was cut to {limit} (`max_question_len`)");
        Ok((question.get(..end).unwrap_or(question), limit))
    }

    /// The logits of each window's tokens to start and to end an answer.
    fn logits(&self, windows: &[&Encoding]) -> Result<Vec<StartEnd>, TaskError> {
        let engine = &self.inner.engine;
        let sequences: Vec<Sequence<'_>> = windows
            .iter()
            .map(|encoding| Sequence { text: 0, encoding })
            .collect();
        let mut all = vec![(Vec::new(), Vec::new()); windows.len()];
        engine.run(&sequences, None, |ran| {
            let outputs = &ran.outputs;
            let start = engine.output(outputs.start_logits.as_ref(), "start_logits")?;
            let end = engine.output(outputs.end_logits.as_ref(), "end_logits")?;
            let (start, end) = (start.as_slice()?, end.as_slice()?);
            finite(start, "logits", 0)?;
            finite(end, "logits", 0)?;
            for (place, &i) in ran.members.iter().enumerate() {
                let rows = ran.batch.range(place);
                all[i] = (start[rows.clone()].to_vec(), end[rows].to_vec());
            }
            Ok(())
        })?;
        Ok(all)
    }
}

impl std::fmt::Debug for QuestionAnswerer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("QuestionAnswerer")
            .field("folder", &self.inner.engine.dir())
            .finish_non_exhaustive()
    }
}

impl AnswerOptions {
    fn check(&self) -> Result<(), TaskError> {
        let sizes = [
            ("top_k", self.top_k),
            ("max_answer_len", self.max_answer_len),
            ("max_question_len", self.max_question_len),
        ];
        match sizes.into_iter().find(|&(_, size)| size == 0) {
            None => Ok(()),
            Some((option, _)) => Err(TaskError::InvalidOption {
                option,
                found: "0".into(),
                expected: "1 or more".into(),
            }),
        }
    }
}

/// The characters of the whole words that tokens `first` to `last` belong to, as far as the window
/// shows them.
fn whole_words(encoding: &Encoding, first: usize, last: usize) -> (u32, u32) {
    let (words, sequences) = (encoding.word_ids(), encoding.sequence_ids());
    let offsets = encoding.offsets();
    let together = |a: usize, b: usize| {
        words[a].is_some() && words[a] == words[b] && sequences[a] == sequences[b]
    };
    if words[first].is_none() || words[last].is_none() {
        return (offsets[first].0, offsets[last].1);
    }
    let start = (0..first).rev().take_while(|&i| together(i, first)).last();
    let end = (last + 1..words.len())
        .take_while(|&i| together(i, last))
        .last();
    (
        offsets[start.unwrap_or(first)].0,
        offsets[end.unwrap_or(last)].1,
    )
}

/// Answers so far, each of another text.
#[derive(Default)]
struct Answers {
    found: Vec<Found>,
}

struct Found {
    score: f64,
    start: usize,
    end: usize,
    answer: String,
    /// The answer in lower case: answers that differ in case alone are one.
    key: String,
}

impl Answers {
    fn add(&mut self, start: usize, end: usize, score: f64, context: &Chars<'_>) {
        let answer = context.slice(start..end);
        let key = answer.to_lowercase();
        match self.found.iter_mut().find(|found| found.key == key) {
            Some(found) => found.score += score,
            None => self.found.push(Found {
                score,
                start,
                end,
                answer: answer.to_owned(),
                key,
            }),
        }
    }

    /// The best answers; `none` is the score of there being none.
    fn best(self, options: &AnswerOptions, none: f64) -> Vec<Answer> {
        let mut answers: Vec<(f64, usize, usize, String)> = self
            .found
            .into_iter()
            .map(|found| (found.score, found.start, found.end, found.answer))
            .collect();
        if options.handle_impossible_answer {
            answers.push((none, 0, 0, String::new()));
        }
        answers.sort_by(|a, b| b.0.total_cmp(&a.0));
        answers.truncate(options.top_k);
        answers
            .into_iter()
            .map(|(score, start, end, answer)| Answer {
                score: score as f32,
                start,
                end,
                answer,
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_out_of_range_are_named() {
        let default = AnswerOptions::default;
        for (option, options) in [
            (
                "top_k",
                AnswerOptions {
                    top_k: 0,
                    ..default()
                },
            ),
            (
                "max_answer_len",
                AnswerOptions {
                    max_answer_len: 0,
                    ..default()
                },
            ),
            (
                "max_question_len",
                AnswerOptions {
                    max_question_len: 0,
                    ..default()
                },
            ),
        ] {
            let error = options.check().unwrap_err().to_string();
            assert!(
                error.contains(option) && error.contains("1 or more"),
                "{error}"
            );
        }
        default().check().unwrap();
    }

    #[test]
    fn equal_answers_add_up_and_no_answer_competes() {
        let chars = Chars::new("The cat saw the Cat.");
        let mut answers = Answers::default();
        answers.add(4, 7, 0.25, &chars);
        answers.add(0, 7, 0.375, &chars);
        answers.add(16, 19, 0.25, &chars);
        let options = AnswerOptions {
            top_k: 2,
            handle_impossible_answer: true,
            ..AnswerOptions::default()
        };
        let best = answers.best(&options, 0.4375);
        let expected = [(0.5, 4, 7, "cat"), (0.4375, 0, 0, "")];
        assert_eq!(best.len(), 2);
        for (found, (score, start, end, answer)) in best.iter().zip(expected) {
            assert_eq!((found.score, found.start, found.end), (score, start, end));
            assert_eq!(found.answer, answer);
        }
    }
}
