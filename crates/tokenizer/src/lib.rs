//! Tokenizers of bertha: text in, token ids with exact offsets out.
//!
//! A [`Tokenizer`] is read from a model folder (`tokenizer.json`, `vocab.txt`, `vocab.json` with `merges.txt`, or a
//! sentencepiece model) and gives the same tokens, offsets, word ids and windows as Hugging Face's `tokenizers` 0.22:
//! WordPiece, BPE, Unigram and WordLevel, with the normalizers, pre-tokenizers, post-processors and decoders of encoder
//! models, added tokens, truncation with overlapping windows, and decoding.
//!
//! ```no_run
//! use bertha_tokenizer::{EncodeOptions, Tokenizer};
//!
//! # fn main() -> Result<(), bertha_tokenizer::TokenizerError> {
//! let tokenizer = Tokenizer::from_dir("models/all-MiniLM-L6-v2")?;
//! let encoding = tokenizer.encode("Where is the river?", &EncodeOptions::truncated(256))?;
//! let tokens: Vec<&str> = tokenizer.tokens(&encoding).collect();
//! assert_eq!(tokens, ["[CLS]", "where", "is", "the", "river", "?", "[SEP]"]);
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

mod added;
mod decoder;
mod encoding;
mod error;
mod load;
mod matcher;
mod model;
mod normalizer;
mod options;
mod pattern;
mod pre_tokenizer;
mod scan;
mod special;
mod template;
mod tokenizer;
#[cfg(feature = "train")]
pub mod train;
mod truncation;
mod unicode;
mod work;

pub use encoding::Encoding;
pub use error::TokenizerError;
pub use options::{
    BertOptions, Direction, EncodeOptions, Input, OffsetKind, Padding, PaddingStrategy, Truncation,
    TruncationStrategy,
};
pub use special::SpecialToken;
pub use tokenizer::Tokenizer;

/// The files that a tokenizer may be saved as, in a model folder.
pub const TOKENIZER_FILES: [&str; 11] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "sentencepiece.bpe.model",
    "spiece.model",
    "spm.model",
    "tokenizer.model",
];
