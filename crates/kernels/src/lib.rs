//! CPU kernels of bertha: slices in, slices out.
//!
//! A folder per operation: its contract in `mod.rs`, a plain scalar `reference.rs` to read first, the
//! fast forward pass and the backward pass beside it. What all operations share is
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
#[cfg(target_arch = "x86_64")]
mod amx;
mod attention;
mod bf16;
mod binary;
mod buffer;
mod cores;
mod distance;
mod dropout;
mod embedding;
mod error;
mod exec;
mod float;
mod gemm;
mod isa;
mod loss;
mod norm;
mod operations;
mod optimizer;
mod quant;
mod random;
mod roofline;
mod rope;
mod simd;
mod softmax;
mod team;
#[cfg(test)]
mod testing;

pub use activation::{Activation, activate, activate_backward, gate, gate_backward};
pub use attention::{
    AttentionDropout, AttentionGradients, AttentionInputs, AttentionKept, AttentionShape,
    BlockPlan, Mask, RelativeBias, Segments, Strided, attention, attention_backward,
    masked_attention_backward,
};
pub use bf16::{from_bf16, round_to_bf16, to_bf16};
pub use binary::{
    Attends, BinaryAttentionShape, BinaryWeights, binarize_rows, binarize_rows_backward,
    binary_attention, gemm_binary, pack_signs,
};
pub use buffer::AlignedBytes;
pub use cores::default_threads;
pub use distance::{DistanceGradients, DistanceTerms, distance_scores, distance_scores_backward};
pub use dropout::{Dropout, dropout, dropout_add};
pub use embedding::{EmbeddingTables, embedding_backward, embedding_layer_norm, embedding_sum};
pub use error::KernelError;
pub use exec::Exec;
pub use float::Float;
pub use gemm::{
    Epilogue, Int8Weights, LowBitSource, LowBitWeights, Matrix, PackedFormat, PackedWeights,
    WeightSource, batched_matmul, column_sums, gemm, gemm_chain, gemm_int8, gemm_keeping,
    gemm_low_bit, gemm_tn, matmul, matmul_in, quantize_row_int8, quantize_rows_int8,
};
pub use isa::Isa;
pub use loss::{CrossEntropy, Labels, binary_cross_entropy, cross_entropy, mean_squared_error};
pub use norm::{
    add_layer_norm, add_layer_norm_keeping, layer_norm_backward, layer_norm_in_place,
    layer_norm_keeping,
};
pub use operations::{Operands, operations, product_kernel};
pub use optimizer::{Adam, AdamRule, Lamb, Parameter, Sgd, adam, lamb, scale, sgd, squared_norm};
pub use quant::{
    CodeBook, DynamicScales, Group, Range as GroupRange, SCALE_BLOCK, decode_group, dynamic_map,
    encode_group, fit_group, pack_codes, packed_len, round_to_steps, unpack_codes,
};
pub use random::philox4x32;
pub use roofline::{peak_flops, peak_operations};
pub use rope::{RotaryTable, rope};
pub use softmax::{log_softmax, log_softmax_backward, softmax, softmax_backward};

/// The plain scalar forms that tests compare against and readers read first.
pub mod reference {
    pub use crate::activation::reference::{activate, activate_backward, gate, gate_backward};
    pub use crate::attention::reference::{MaskedGradients, attention, attention_backward};
    pub use crate::binary::reference::{binary_attention, gemm_binary, sign};
    pub use crate::dropout::reference::{dropout, dropout_factor};
    pub use crate::embedding::reference::{embedding_backward, embedding_layer_norm};
    pub use crate::gemm::reference::{column_sums, gemm, gemm_int8, matmul};
    pub use crate::loss::reference::{binary_cross_entropy, cross_entropy, mean_squared_error};
    pub use crate::norm::reference::{layer_norm, layer_norm_backward};
    pub use crate::optimizer::reference::{adam, lamb, sgd};
    pub use crate::rope::reference::rope;
    pub use crate::softmax::reference::{
        log_softmax, log_softmax_backward, softmax, softmax_backward,
    };
}
