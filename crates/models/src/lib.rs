//! Architectures, one file each, and the registry that finds them by `model_type`.
//!
//! [`load`] reads a Hugging Face model folder (`config.json` and `model.safetensors`, whole or in
//! shards) into a [`Model`]. What a model gives is named as in `transformers`, and matches it.
//!
//! Adding an architecture is one file beside `bert.rs` and one line in `registry.rs`.
#![forbid(unsafe_code)]

mod bert;
mod config;
mod error;
mod folder;
mod loss;
mod model;
mod registry;
mod training;

pub use bert::{Bert, BertConfig};
pub use config::Config;
pub use error::ModelError;
pub use folder::{load, load_with_head};
pub use loss::{Targets, loss};
pub use model::{ForwardOptions, Head, Model, ModelInfo, Outputs, ProblemType};
pub use registry::{Architecture, REGISTRY, architecture};
pub use training::TrainableModel;
