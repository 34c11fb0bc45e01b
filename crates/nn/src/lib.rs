//! The layers that architectures are made of.
//!
//! Every layer loads itself from [`Weights`] (a checkpoint seen from a path prefix, for inference or to be trained)
//! and runs on packed tokens: a [`Batch`] lays its sequences end to end, and no layer computes on padding.
#![forbid(unsafe_code)]

mod activation;
mod attention;
mod batch;
mod binary_attention;
mod block_pattern;
mod disentangled;
mod elastic;
mod embedding;
mod error;
pub mod estimators;
mod feed_forward;
mod global_tokens;
mod initializer;
mod layer_norm;
mod linear;
mod mt19937;
mod packing;
mod pooling;
mod quantized;
mod relative_bias;
mod rotary;
mod weights;

pub use activation::activation_from_name;
pub use attention::{AttentionContext, GlobalProjections, Pattern, SelfAttention};
pub use batch::Batch;
pub use bertha_kernels::Activation;
pub use block_pattern::BlockPattern;
pub use disentangled::{Disentangled, DistanceBuckets, DistanceProjection, DistanceTable};
pub use elastic::{BitInputs, BitWeight, InputEstimator, InputRounding};
pub use embedding::{EmbeddingNames, EmbeddingSizes, Embeddings};
pub use error::NnError;
pub use estimators::Binarization;
pub use feed_forward::FeedForward;
pub use global_tokens::GlobalTokens;
pub use initializer::{Initial, Initializer, ParameterSet};
pub use layer_norm::LayerNorm;
pub use linear::{Bias, Linear};
pub use packing::INPUT_THRESHOLD;
pub use pooling::{Pooling, l2_normalize, pool};
pub use quantized::{QuantizedMatrix, WeightFormat};
pub use relative_bias::RelativePositionBias;
pub use rotary::Rotary;
pub use weights::Weights;
