//! Optimizers: which parameters learn how ([`ParameterGroups`]), by what rule ([`rules`]), with what
//! memory ([`Optimizer`]).

mod clip;
mod ema;
mod groups;
mod optimizer;
pub mod rules;
mod state;

pub use clip::{clip_factor, global_norm};
pub use ema::Ema;
pub use groups::{GroupOptions, ParameterGroups, ParameterRule};
pub use optimizer::{Optimizer, OptimizerConfig, StepReport};

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
