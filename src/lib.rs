//! A from-scratch engine for encoder transformers on the CPU, in pure Rust.
//!
//! ```no_run
//! use bertha::Encoder;
//!
//! let encoder = Encoder::from_dir("models/all-MiniLM-L6-v2")?;
//! let embeddings = encoder.embed(&["A cat sits on the mat.", "Where is the cat?"])?;
//! println!("{:?}", bertha::cosine_similarity(embeddings.view(), embeddings.view()));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! | to | use |
//! | --- | --- |
//! | embed texts | [`Encoder`] |
//! | compare and search embeddings | [`cosine_similarity`], [`top_k`] |
//! | fill masks, classify, tag, answer | [`FillMask`], [`TextClassifier`], [`TokenClassifier`], [`QuestionAnswerer`] |
//! | tokenize | [`tokenizer`] |
//! | run a model on ids | [`models`] |
//! | build layers | [`nn`] |
//! | compute gradients | [`autograd`] |
//! | train | `train`, with the feature of that name |
//! | make a model smaller | `compress`, with the feature of that name |
//! | hold and exchange numbers | [`tensor`] |
//!
//! A model folder is Hugging Face's: `config.json`, `model.safetensors`, `tokenizer.json` or
//! `vocab.txt`, and for sentence embeddings `modules.json`.
#![forbid(unsafe_code)]

pub use bertha_autograd as autograd;
#[cfg(feature = "compress")]
pub use bertha_compress as compress;
pub use bertha_kernels as kernels;
pub use bertha_models as models;
pub use bertha_nn as nn;
pub use bertha_tasks as tasks;
pub use bertha_tensor as tensor;
pub use bertha_tokenizer as tokenizer;
#[cfg(feature = "train")]
pub use bertha_train as train;

pub use bertha_tasks::*;
