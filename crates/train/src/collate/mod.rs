//! From examples to batches, packed end to end and never padded.
//!
//! A [`Sampler`] says which examples make a batch; [`collate`] packs them with what is to be said of
//! them, masked by a [`Masker`] where a model is to guess; [`pack_blocks`] and [`sentence_pairs`] make
//! the examples of pre-training out of a corpus.

mod collator;
mod masking;
mod pack;
mod pairs;
mod sampler;

pub use collator::{Targets, TrainingBatch, collate};
pub use masking::{Masked, Masker, MaskingOptions, Selection};
pub use pack::{PackOptions, pack_blocks};
pub use pairs::{PairObjective, PairOptions, sentence_pairs};
pub use sampler::{BatchSize, Cursor, Sampler, SamplerOptions, deal};
