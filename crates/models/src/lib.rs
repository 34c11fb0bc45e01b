//! Architectures, one file each, and the registry that finds them by `model_type`.
//!
//! [`load`] reads a Hugging Face model folder (`config.json` and `model.safetensors`, whole or in
//! shards) into a [`Model`]. What a model gives is named as in `transformers`, and matches it.
//!
//! `encoder` and `heads` are what BERT and its relatives share; a file such as `bert.rs` says how one differs. Adding an
//! architecture is one such file and one line in `registry.rs`.
#![forbid(unsafe_code)]

mod albert;
mod bert;
mod bigbird;
mod config;
mod convert;
mod deberta;
mod distilbert;
mod electra;
mod encoder;
mod error;
mod family;
mod folder;
mod globals;
mod heads;
mod longformer;
mod loss;
mod model;
mod modernbert;
mod mpnet;
mod nomic;
mod registry;
mod roberta;
mod training;

pub use config::Config;
pub use convert::{Converted, LongModel, convert};
pub use encoder::{Biases, Dropout, EncoderConfig, HeadConfig, LayerKind, NormOrder, Positions};
pub use error::ModelError;
pub use folder::{load, load_checkpoint, load_configured, load_with_head};
pub use globals::GlobalRule;
pub use loss::{Targets, loss};
pub use model::{ForwardOptions, Head, Model, ModelInfo, Outputs, ProblemType};
pub use registry::{Architecture, REGISTRY, architecture};
pub use training::{TrainableModel, write_folder};
