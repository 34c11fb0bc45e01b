//! Activation functions by the names that configurations give them.

use bertha_kernels::Activation;

use crate::NnError;

/// The activation that `transformers` calls `name` (`hidden_act` in config.json).
///
/// `gelu` is the exact erf form; `gelu_new`, `gelu_pytorch_tanh` and `gelu_fast` are one tanh form.
///
/// # Errors
/// When the name is not known.
pub fn activation_from_name(name: &str) -> Result<Activation, NnError> {
    Ok(match name {
        "gelu" | "gelu_python" => Activation::GeluErf,
        "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" => Activation::GeluTanh,
        "relu" => Activation::Relu,
        "silu" | "swish" => Activation::Silu,
        "tanh" => Activation::Tanh,
        "linear" => Activation::None,
        _ => return Err(NnError::UnknownActivation(name.to_owned())),
    })
}
