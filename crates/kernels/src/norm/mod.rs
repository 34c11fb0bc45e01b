//! Layer normalisation (Ba et al. 2016, <https://arxiv.org/abs/1607.06450>).

mod forward;
pub(crate) mod reference;
pub(crate) mod rows;
mod training;

pub use forward::{add_layer_norm, layer_norm_in_place};
pub use training::{add_layer_norm_keeping, layer_norm_backward, layer_norm_keeping};
