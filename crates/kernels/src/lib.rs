//! CPU kernels of bertha: slices in, slices out.
//!
//! A folder per operation: its contract in `mod.rs`, a plain scalar `reference.rs` to read first, the
//! fast forward pass beside it (backward passes will stand there too). What all operations share is
//! in this folder:
//!
//! - [`Isa`] is the proof that an instruction set may be used; it exists only where the machine has it;
//! - [`Exec`] is what an operation runs with: an [`Isa`] and a thread team;
//! - `simd` is the small vector trait over which element-wise kernels are written once.
//!
//! Results do not depend on the number of threads, nor on which other rows are computed in the same
//! call: work is split over outputs, and each output's sums have one fixed order. Between
//! instruction sets results differ by rounding only.
//!
//! Slices of wrong lengths are programming errors and panic; the layers above check what files and
//! users bring.
#![warn(unreachable_pub)]

mod activation;
mod attention;
mod buffer;
mod cores;
mod embedding;
mod error;
mod exec;
mod gemm;
mod isa;
mod norm;
mod operations;
mod roofline;
mod simd;
mod softmax;
mod team;

pub use activation::{Activation, activate};
pub use attention::{AttentionShape, Mask, Segments, Strided, attention};
pub use buffer::AlignedBytes;
pub use cores::default_threads;
pub use embedding::{EmbeddingTables, embedding_layer_norm};
pub use error::KernelError;
pub use exec::Exec;
pub use gemm::{Epilogue, PackedWeights, WeightSource, gemm};
pub use isa::Isa;
pub use norm::{add_layer_norm, layer_norm_in_place};
pub use operations::operations;
pub use roofline::peak_flops;
pub use softmax::softmax;

/// The plain scalar forms that tests compare against and readers read first.
pub mod reference {
    pub use crate::activation::reference::activate;
    pub use crate::attention::reference::attention;
    pub use crate::embedding::reference::embedding_layer_norm;
    pub use crate::gemm::reference::gemm;
    pub use crate::norm::reference::layer_norm;
    pub use crate::softmax::reference::softmax;
}
