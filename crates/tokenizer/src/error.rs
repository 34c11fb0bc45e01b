//! What can go wrong, in words that name the file, the component or the token.

use std::path::PathBuf;

/// Why a tokenizer could not be loaded or a text not be encoded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizerError {
    /// A file could not be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A folder holds nothing that a tokenizer can be built from.
    #[error(
        "no tokenizer in {path}: expected tokenizer.json, vocab.txt, vocab.json with merges.txt, or a sentencepiece model (*.model)"
    )]
    NoTokenizer {
        /// The folder.
        path: PathBuf,
    },
    /// A file is not UTF-8.
    #[error(
        "{file}: line {line} is not valid UTF-8 (byte {byte} of the file); convert the file to UTF-8"
    )]
    NotUtf8 {
        /// The file.
        file: String,
        /// Line, counted from 1.
        line: usize,
        /// Offset of the first bad byte.
        byte: usize,
    },
    /// A file is not the JSON it should be.
    #[error("{file}: {}", one_line(source))]
    Json {
        /// The file.
        file: String,
        /// What is wrong, with line and column.
        source: serde_json::Error,
    },
    /// A part of tokenizer.json that this crate does not have.
    #[error("{file}: unknown {kind} \"{}\"; known are {known}", one_line(name))]
    UnknownComponent {
        /// The file.
        file: String,
        /// `normalizer`, `pre_tokenizer`, `model`, `post_processor` or `decoder`.
        kind: &'static str,
        /// The component's `type` in the file.
        name: String,
        /// The types that are known.
        known: &'static str,
    },
    /// A value in a file is missing or makes no sense.
    #[error("{file}: {}: {}", one_line(key), one_line(problem))]
    Invalid {
        /// The file.
        file: String,
        /// The key, as a path.
        key: String,
        /// What was found and what was expected.
        problem: String,
    },
    /// Special tokens alone exceed the length limit.
    #[error(
        "truncation to {max_length} tokens leaves no room for the {special} special tokens; \
         raise max_length or encode without special tokens"
    )]
    LimitTooSmall {
        /// The limit asked for.
        max_length: usize,
        /// Special tokens that the template adds.
        special: usize,
    },
    /// A window must move forward.
    #[error(
        "truncation stride {stride} must be smaller than the {room} tokens of a window \
         (max_length {max_length} less special tokens, halved when both texts of a pair are cut)"
    )]
    StrideTooLarge {
        /// The stride asked for.
        stride: usize,
        /// Tokens of text that fit a window.
        room: usize,
        /// The limit asked for.
        max_length: usize,
    },
    /// The windows of a long input would take an absurd amount of memory.
    #[error(
        "truncation makes {windows:?} windows of the texts and keeps every combination, of {tokens} tokens each: \
         too many; switch overflow off, raise max_length, lower stride or cut one text only"
    )]
    TooManyWindows {
        /// Windows of each text of the template.
        windows: Vec<usize>,
        /// Tokens of the first combination.
        tokens: usize,
    },
    /// `only_second` was asked for with one text.
    #[error(
        "truncation strategy only_second needs a pair of texts, found one; use longest_first or only_first"
    )]
    NoSecondText,
    /// The text that may be cut is too short for the cut.
    #[error(
        "truncation strategy {strategy} must remove {remove} tokens to fit {max_length}, but that text has only \
         {found}; use longest_first or raise max_length"
    )]
    TextTooShort {
        /// `only_first` or `only_second`.
        strategy: &'static str,
        /// Tokens to remove.
        remove: usize,
        /// Tokens that the text has.
        found: usize,
        /// The limit asked for.
        max_length: usize,
    },
    /// An id that no token has.
    #[error("token id {id} is not in the vocabulary of {size} tokens (largest id {largest})")]
    UnknownId {
        /// The id.
        id: u32,
        /// Tokens in the vocabulary.
        size: usize,
        /// The largest id that has a token.
        largest: u32,
    },
    /// A text has characters that the vocabulary lacks, and no token stands for the unknown.
    #[error(
        "{} cannot be spelled by the vocabulary, and the model has no unknown token",
        one_line(&format!("{word:?}"))
    )]
    Unspellable {
        /// The word, or its beginning.
        word: String,
    },
    /// Offsets are kept in 32 bits.
    #[error("a text of {bytes} bytes is too long: one text may have up to 4294967295; split it")]
    TextTooLong {
        /// Its length.
        bytes: usize,
    },
}

/// Text from a file, on one line: control characters in it are written as escapes, so that no file can forge a line of
/// a log.
fn one_line(text: &impl ToString) -> String {
    let text = text.to_string();
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}
