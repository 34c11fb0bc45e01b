//! Products of signs: `y = α·(sign(x)·sign(W)ᵀ)`, one bit for each value.
//!
//! A bit is 1 where a value is not negative, so −0 is 1, and what is no number is 0. For bits `x` and `w` of K values the
//! product of their signs is `K − 2·popcount(x xor w)` (Rastegari et al. 2016, <https://arxiv.org/abs/1603.05279>): a whole
//! number, the same on every instruction set. Bits beyond K are 0 in both, and count for nothing.
//!
//! - `weights`: the bits of a weight, eight rows side by side;
//! - `gemm`: the product and its last pass;
//! - `popcount`: the sums of a tile on each instruction set;
//! - `estimator`: binarized weights as they learn;
//! - `attention`: attention whose scores, weights and values are bits.

mod attention;
mod estimator;
mod gemm;
mod popcount;
pub(crate) mod reference;
#[cfg(test)]
mod tests;
mod weights;

pub use attention::{Attends, BinaryAttentionShape, binary_attention};
pub use estimator::{binarize_rows, binarize_rows_backward};
pub use gemm::{gemm_binary, pack_signs};
pub use weights::BinaryWeights;

/// Bits of a word.
pub(crate) const WORD: usize = 64;
/// Rows of a weight whose words lie side by side.
pub(crate) const COLUMNS: usize = 8;
/// Rows of a tile.
pub(crate) const ROWS: usize = 4;
/// Panels of a tile: its last pass then has as many columns as other products' on AVX2.
pub(crate) const PANELS: usize = 2;
