//! What can go wrong in training, in words that name the file, the option or the folder.

use std::path::PathBuf;

/// Why a vocabulary could not be trained or not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// A file of text could not be read.
    #[error("cannot read {file}: {source}")]
    Read {
        /// The file.
        file: String,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A file of text is not UTF-8.
    #[error(
        "{file}, line {line} is not valid UTF-8 (byte 0x{byte:02x} at column {column}): convert the file to UTF-8"
    )]
    NotUtf8 {
        /// The file.
        file: String,
        /// Line, counted from 1.
        line: u64,
        /// Place of the first bad byte in its line, in bytes, counted from 1.
        column: usize,
        /// The first bad byte.
        byte: u8,
    },
    /// A line is no text: another kind of file, or an endless device.
    #[error(
        "{file}, line {line} is longer than {limit} bytes and has no space: expected a file of text"
    )]
    LineTooLong {
        /// The file.
        file: String,
        /// Line, counted from 1.
        line: u64,
        /// The longest line without a space that is read.
        limit: usize,
    },
    /// There is nothing to learn from.
    #[error("the corpus has no words: expected at least one text that is not blank")]
    NoWords,
    /// The special tokens and single characters alone are more than the vocabulary may hold.
    #[error(
        "vocab_size is {vocab_size}, expected at least {}: {special} special tokens and {alphabet} tokens of one \
         character; ask for more, or for fewer characters with limit_alphabet",
        special + alphabet
    )]
    VocabularyTooSmall {
        /// The size asked for.
        vocab_size: usize,
        /// Special tokens.
        special: usize,
        /// Tokens of one character (with and without the prefix of WordPiece).
        alphabet: usize,
    },
    /// The distinct words together are longer than positions in 32 bits can tell.
    #[error(
        "the distinct words have {symbols} characters together, expected fewer than {limit}: train on a part of the corpus"
    )]
    TooManySymbols {
        /// Characters of all distinct words.
        symbols: u64,
        /// The least number that is too many.
        limit: u64,
    },
    /// The counts do not fit in 64 bits.
    #[error(
        "the counts of the words, each times its length, add up to more than 18446744073709551615"
    )]
    CountsTooLarge,
    /// An option that makes no sense.
    #[error("{option} is {found}, expected {expected}")]
    InvalidOption {
        /// The option.
        option: &'static str,
        /// Its value.
        found: String,
        /// What would be right.
        expected: String,
    },
    /// The folder holds a tokenizer already.
    #[error("{path} has a tokenizer already ({file}): choose another folder, or overwrite it")]
    Exists {
        /// The folder.
        path: PathBuf,
        /// A file of the tokenizer that is there.
        file: &'static str,
    },
    /// A file of the tokenizer could not be written.
    #[error("cannot write {path}: {source}")]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
}
