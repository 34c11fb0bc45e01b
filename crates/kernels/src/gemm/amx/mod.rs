//! The product on AMX: blocks of 32 rows by 32 columns in tiles, along all of K.
//!
//! - `rows`: inputs, packed into tiles for each product: as bf16, as two bf16 each, or as bytes with a scale;
//! - `panels`: weights, packed into tiles once;
//! - `matmul`: the gradient of a weight, with both operands packed as it runs;
//! - `chain`: two products in a row, the first into the second's tiles;
//! - `driver`: tasks, and the last pass over a block, done while the matrix unit works on the next.
//!
//! An f32 product is three products of bf16: each operand is the sum of its nearest bf16 and what that leaves, rounded to
//! bf16 too, `x ≈ high + low`, and `low·low` is left out. What `x` loses is below `2⁻¹⁷·|x|`, what is left out of a product
//! below `2⁻¹⁶·|x·w|`, both of either sign, so that the error of a sum of many is far below: about `4·10⁻⁶` of the result, in
//! Frobenius' norm. The split loses more where values leave bf16's range of normal numbers, so rows of inputs beyond
//! [`rows::plain`] are multiplied one by one, by f32 multiply-adds, and weights beyond it take the f32 kernel
//! altogether.

mod chain;
mod driver;
mod matmul;
mod panels;
mod rows;
#[cfg(test)]
mod tests;

pub(super) use chain::{chains, gemm_chain};
pub(super) use driver::{Inputs, Weights, gemm};
pub(super) use matmul::matmul;
pub(crate) use matmul::turn;
pub(crate) use panels::PackTiles;
pub(super) use panels::panel_bytes;
pub(crate) use rows::Float;
pub(super) use rows::plain_weights;
