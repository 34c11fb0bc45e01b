//! Training of vocabularies: WordPiece, BPE, byte-level BPE and Unigram, and the folders that hold them.
//!
//! A corpus of any length is counted ([`WordCounter`]): what is kept of it are its distinct words and how often each
//! occurs ([`WordCounts`]). A [`TokenizerTrainer`] learns a vocabulary from the counts, and a [`TrainedTokenizer`] is
//! written as a folder that `transformers` and this crate load ([`TrainedTokenizer::save`]).
//!
//! Everything is deterministic: the same words give the same files, whatever the order of the texts and the number of
//! threads.

mod atomic;
mod byte_level;
mod counts;
mod error;
mod files;
mod folder;
mod hash;
mod letters;
mod merges;
mod parallel;
mod special;
mod text;
mod trainer;
mod unigram;

pub use counts::{WordCounter, WordCounts};
pub use error::TrainError;
pub use trainer::{TokenizerKind, TokenizerTrainer, TrainedTokenizer};
