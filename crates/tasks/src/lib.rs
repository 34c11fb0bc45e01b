//! What a user asks of an encoder: embed, search, fill a mask, classify, tag, answer.
//!
//! Every task takes a Hugging Face model folder and gives what the library of that folder's origin
//! gives: [`Encoder`] follows sentence-transformers, [`FillMask`], [`TextClassifier`],
//! [`TokenClassifier`] and [`QuestionAnswerer`] follow `transformers`' pipelines. They are immutable
//! once built, `Send + Sync` and cheap to clone (clones share the model).
//!
//! Texts are tokenized on the session's threads, sorted by length and run in batches of a token
//! budget without padding; results come back in the order of the input. A text gives the same bits
//! whatever it is batched with and however many threads run.
//!
//! ```no_run
//! use bertha_tasks::{Encoder, top_k};
//!
//! let encoder = Encoder::from_dir("models/all-MiniLM-L6-v2")?;
//! let corpus = encoder.embed(&["A cat sits on the mat.", "Stocks fell today."])?;
//! let query = encoder.embed(&["Where is the kitten?"])?;
//! let best = &top_k(query.row(0), corpus.view(), 1)[0];
//! println!("line {} with {:.3}", best.index, best.score);
//! # Ok::<(), bertha_tasks::TaskError>(())
//! ```
#![forbid(unsafe_code)]

mod batching;
mod builder;
mod chars;
mod encoder;
mod encoder_builder;
mod engine;
mod error;
mod fill_mask;
mod json;
mod limit;
mod question_answerer;
mod scores;
mod search;
mod sentence_transformers;
mod spans;
mod text_classifier;
mod token_classifier;
mod words;
mod workers;

pub use bertha_autograd::Precision;
pub use bertha_models::GlobalRule;
pub use bertha_nn::Pooling;
pub use bertha_tokenizer::Input as TextInput;
pub use builder::TaskBuilder;
pub use encoder::Encoder;
pub use encoder_builder::EncoderBuilder;
pub use error::TaskError;
pub use fill_mask::{FillMask, FillMaskOptions, MaskPrediction};
pub use question_answerer::{Answer, AnswerOptions, QuestionAnswerer};
pub use search::{Hit, cosine_similarity, top_k};
pub use sentence_transformers::transformer_dir;
pub use text_classifier::{ClassifyOptions, Function, Label, TextClassifier};
pub use token_classifier::{Entity, TagOptions, TokenClassifier};
pub use words::Aggregation;
