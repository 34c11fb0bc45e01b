//! Activation functions, on their own or fused into a product's last pass.

mod backward;
mod forward;
mod gated;
pub(crate) mod reference;

pub use backward::activate_backward;
pub use forward::activate;
pub(crate) use forward::{GeluErf, GeluErfCoarse, GeluTanh, Identity, Relu, Sigmoid, Silu, Tanh};
pub use gated::{gate, gate_backward};

/// An activation function.
///
/// NaN gives NaN. Errors are bounded in units in the last place (ULP) of the result, down to where it is
/// subnormal; of −∞ the GELUs and SiLU give the limit, −0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Activation {
    /// `x`.
    #[default]
    None,
    /// `x·Φ(x)` with the exact normal distribution: `x/2·(1 + erf(x/√2))`
    /// (Hendrycks & Gimpel 2016, <https://arxiv.org/abs/1606.08415>), within 4 ULP (5 on the portable tier); fused into products of
    /// bf16 and of bytes in the matrix unit, within 2⁻¹⁴·max(1, |x|).
    GeluErf,
    /// The tanh form of GELU: `x/2·(1 + tanh(√(2/π)·(x + 0.044715·x³)))`, within 3 ULP.
    GeluTanh,
    /// `max(x, 0)`.
    Relu,
    /// `x/(1 + e⁻ˣ)`, within 3 ULP.
    Silu,
    /// `tanh(x)`, within 2 ULP.
    Tanh,
    /// `1/(1 + e⁻ˣ)`, within 3 ULP.
    Sigmoid,
}

impl Activation {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::None,
        Self::GeluErf,
        Self::GeluTanh,
        Self::Relu,
        Self::Silu,
        Self::Tanh,
        Self::Sigmoid,
    ];
}
