//! Weights in codes of 1 to 8 bits: what a code stands for, and how values become codes.
//!
//! Groups of values along a row of a matrix share a scale, and in asymmetric formats a zero point:
//! `value = (level[code] − zero)·scale`. A group never goes over the end of a row; the last one of a row may be shorter.
//!
//! | book | levels | scale of a group |
//! | --- | --- | --- |
//! | [`CodeBook::Symmetric`] | `−2^(b−1)+1 … 2^(b−1)−1` | largest magnitude over the largest level |
//! | [`CodeBook::Asymmetric`] | `0 … 2^b−1`, less the zero point | range over `2^b−1` |
//! | [`CodeBook::Nf4`] | quantiles of the normal distribution (Dettmers et al. 2023, <https://arxiv.org/abs/2305.14314>) | largest magnitude |
//! | [`CodeBook::Fp4`] | a sign, and 0, 1/192, 1/6, 1/4, 1/3, 1/2, 2/3, 1 (bitsandbytes) | largest magnitude |
//! | [`CodeBook::E2m1`] | a sign, and 0, ½, 1, 1½, 2, 3, 4, 6, over 6 (OCP microscaling formats) | largest magnitude |
//! | [`CodeBook::Sign`] | −1, 1 | mean magnitude (Rastegari et al. 2016, <https://arxiv.org/abs/1603.05279>) |
//!
//! - `code_book`: the levels;
//! - `group`: scales, codes and values of a group;
//! - `bits`: codes as bytes;
//! - `dynamic`: scales themselves in 8 bits (double quantization);
//! - `steps`: inputs as whole multiples of one step.

mod bits;
mod code_book;
mod dynamic;
mod group;
mod steps;
#[cfg(test)]
mod tests;

pub use bits::{pack_codes, packed_len, unpack_codes};
pub use code_book::CodeBook;
pub use dynamic::{DynamicScales, SCALE_BLOCK, dynamic_map};
pub use group::{Group, Range, decode_group, encode_group, fit_group};
pub use steps::round_to_steps;
