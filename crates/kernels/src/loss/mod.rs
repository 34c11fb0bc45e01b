//! Losses over rows of logits, with their gradients in the same pass: a row is read once from memory, and its gradient
//! takes the logits' place.
//!
//! Losses are not reduced: the caller sums them, and gives the gradients' `scale` (of a mean: one over the number of
//! rows, or of the labels' weights).

mod cross_entropy;
mod pointwise;
pub(crate) mod reference;
#[cfg(test)]
mod tests;

pub use cross_entropy::{CrossEntropy, Labels, cross_entropy};
pub use pointwise::{binary_cross_entropy, mean_squared_error};
