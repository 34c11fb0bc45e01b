//! What a task can refuse.

use std::path::PathBuf;

use bertha_autograd::AutogradError;
use bertha_kernels::KernelError;
use bertha_models::ModelError;
use bertha_nn::NnError;
use bertha_tensor::{FileError, TensorError};
use bertha_tokenizer::TokenizerError;

/// Why a task could not be set up or carried out.
///
/// Texts are counted from 0, in the order in which they were given.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TaskError {
    /// A file could not be read.
    #[error("{file}: {source}", file = file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file is not the JSON that it should be.
    #[error("{file}: expected a JSON {expected}: {reason}", file = file.display())]
    NotJson {
        /// The file.
        file: PathBuf,
        /// `object` or `list`.
        expected: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// A key of a JSON file is missing, of another type, or out of range.
    #[error("{file}: `{key}` is {found}, expected {expected}", file = file.display())]
    Key {
        /// The file.
        file: PathBuf,
        /// The key.
        key: String,
        /// What was found.
        found: String,
        /// What was expected.
        expected: String,
    },
    /// A module of a sentence-transformers folder that bertha does not have, or not in that place.
    #[error(
        "{file}: module {index} is \"{found}\", expected {expected}",
        file = file.display()
    )]
    Module {
        /// modules.json.
        file: PathBuf,
        /// The module's place in the list.
        index: usize,
        /// Its type.
        found: String,
        /// What bertha runs there.
        expected: &'static str,
    },
    /// There is no prompt of that name.
    #[error(
        "{file}: no prompt is named \"{name}\"; {known}",
        file = file.display()
    )]
    UnknownPrompt {
        /// config_sentence_transformers.json.
        file: PathBuf,
        /// The name asked for.
        name: String,
        /// The names there are, as a phrase.
        known: String,
    },
    /// An option out of range.
    #[error("option `{option}` is {found}, expected {expected}")]
    InvalidOption {
        /// The option's name.
        option: &'static str,
        /// Its value.
        found: String,
        /// What it may be.
        expected: String,
    },
    /// A text is longer than the limit, and truncation was not asked for.
    #[error(
        "text {index} has {tokens} tokens, more than the limit of {limit} ({source_of_limit}): {remedy}"
    )]
    TooLong {
        /// The text.
        index: usize,
        /// Its tokens, special tokens included.
        tokens: usize,
        /// The limit.
        limit: usize,
        /// Where the limit comes from.
        source_of_limit: String,
        /// What to do about it.
        remedy: &'static str,
    },
    /// A text of which the tokenizer leaves nothing, not even special tokens.
    #[error("text {index} has no tokens: give some text")]
    NoTokens {
        /// The text.
        index: usize,
    },
    /// A text that has no more tokens with its prompt than the prompt has alone, where the prompt's are
    /// not pooled.
    #[error(
        "text {index} has {tokens} tokens with its prompt, and the prompt's {prompt} are left out of the pooling \
         (`include_prompt`), so that nothing is left: end the prompt with a space or a punctuation mark"
    )]
    OnlyPrompt {
        /// The text.
        index: usize,
        /// Its tokens with the prompt, special tokens included.
        tokens: usize,
        /// The prompt's tokens, the special token before it included.
        prompt: usize,
    },
    /// A question that leaves no room for the context.
    #[error(
        "the question has {tokens} tokens, which leaves no room for the context within {limit} tokens: \
         shorten it, or lower `max_question_len`"
    )]
    QuestionTooLong {
        /// Its tokens, special tokens of the pair included.
        tokens: usize,
        /// The longest sequence.
        limit: usize,
    },
    /// The tokenizer gives an id that the model's word table does not have.
    #[error(
        "text {index} has token \"{token}\" with id {id}, but the model's vocabulary has {vocabulary} \
         words: tokenizer and model do not belong together"
    )]
    BeyondVocabulary {
        /// The text.
        index: usize,
        /// The token.
        token: String,
        /// Its id.
        id: u32,
        /// Rows of the word table (`vocab_size`).
        vocabulary: usize,
    },
    /// The model gives a result that is no number.
    #[error(
        "the {what} of text {index} is not finite (NaN or infinity): the weights are damaged or their \
         values are beyond f32; fetch the model again"
    )]
    NotFinite {
        /// `embedding` or `logits`.
        what: &'static str,
        /// The text.
        index: usize,
    },
    /// The tokenizer has no mask token.
    #[error("{folder}: the tokenizer has no mask token: choose a model trained by masked language modelling",
        folder = folder.display())]
    NoMaskToken {
        /// The model folder.
        folder: PathBuf,
    },
    /// The text has no mask to fill.
    #[error("text {index} has no mask to fill{hint}: write {mask} where a word is wanted")]
    NoMask {
        /// The text.
        index: usize,
        /// The mask token.
        mask: String,
        /// Whether truncation may have taken it, as a phrase, or nothing.
        hint: &'static str,
    },
    /// None of the targets has a token.
    #[error("none of the targets {targets:?} has a token in the vocabulary: give other words")]
    NoTarget {
        /// The targets.
        targets: Vec<String>,
    },
    /// A text that must say something is empty.
    #[error("the {what} is empty: give some text")]
    Empty {
        /// `question` or `context`.
        what: &'static str,
    },
    /// The head does not give what the task needs.
    #[error("the model gives no {what}: `model_type` {model_type} has no head for this task here")]
    NoOutput {
        /// The missing output.
        what: &'static str,
        /// The architecture.
        model_type: &'static str,
    },
    /// The model's classes and the names for them differ in number.
    #[error("the model gives {found} classes, but config.json names {expected} (`id2label`)")]
    LabelCount {
        /// Classes that the head gives.
        found: usize,
        /// Names in the configuration.
        expected: usize,
    },
    /// The model could not be loaded or run.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The tokenizer could not be loaded or refused a text.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// Weights could not be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// A tensor could not be made or read as asked.
    #[error(transparent)]
    Tensor(#[from] TensorError),
    /// A layer refused.
    #[error(transparent)]
    Nn(#[from] NnError),
    /// An operation refused.
    #[error(transparent)]
    Autograd(#[from] AutogradError),
    /// The kernels refused: an unknown instruction set in `BERTHA_ISA`.
    #[error(transparent)]
    Kernel(#[from] KernelError),
}

impl TaskError {
    /// The text that the error is about, by its place in the caller's list, where it is about one.
    pub fn text_index(&self) -> Option<usize> {
        match self {
            Self::TooLong { index, .. }
            | Self::NoTokens { index }
            | Self::OnlyPrompt { index, .. }
            | Self::BeyondVocabulary { index, .. }
            | Self::NotFinite { index, .. }
            | Self::NoMask { index, .. } => Some(*index),
            _ => None,
        }
    }
}
