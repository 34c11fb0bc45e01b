//! Optimizers: which parameters learn how ([`ParameterGroups`]), by what rule ([`OptimizerConfig`]),
//! with what memory ([`Optimizer`]). The arithmetic is the kernels', in vectors and on all threads.

mod clip;
mod config;
mod ema;
mod groups;
mod optimizer;
mod rules;
mod state;

pub use clip::{clip_factor, global_norm};
pub use config::OptimizerConfig;
pub use ema::Ema;
pub use groups::{GroupOptions, ParameterGroups, ParameterRule};
pub use optimizer::{Optimizer, StepReport};

/// One parameter as an optimizer sees it. `value` and `gradient` have the product of `shape` elements,
/// row-major; a parameter without a gradient in this step is left out.
#[derive(Debug)]
pub struct ParameterView<'a> {
    /// Its name in the weights' file.
    pub name: &'a str,
    /// Size of each dimension.
    pub shape: &'a [usize],
    /// The weights, which an update changes.
    pub value: &'a mut [f32],
    /// The gradient of the loss.
    pub gradient: &'a [f32],
}
