//! From `model_type` to architecture.

use bertha_nn::Weights;

use crate::{Bert, Config, Head, Model, ModelError};

/// How to load an architecture: its configuration, its weights, and the head that is wanted.
pub type Loader = fn(&Config, &Weights<'_>, Head) -> Result<Box<dyn Model>, ModelError>;

/// An architecture that bertha has.
#[derive(Clone, Copy, Debug)]
pub struct Architecture {
    /// `model_type` in config.json.
    pub model_type: &'static str,
    /// What the names of its classes in `transformers` begin with.
    pub class_prefix: &'static str,
    /// Its loader.
    pub load: Loader,
}

/// Every architecture, a line each.
pub const REGISTRY: &[Architecture] = &[Architecture {
    model_type: "bert",
    class_prefix: "Bert",
    load: Bert::load,
}];

/// The architecture that a configuration names.
///
/// # Errors
/// When bertha does not have it.
pub fn architecture(config: &Config) -> Result<&'static Architecture, ModelError> {
    let model_type = config.model_type()?;
    let found = REGISTRY.iter().find(|a| a.model_type == model_type);
    found.ok_or_else(|| ModelError::UnknownModelType {
        file: config.file().to_path_buf(),
        found: model_type.to_owned(),
        known: REGISTRY
            .iter()
            .map(|a| a.model_type)
            .collect::<Vec<_>>()
            .join(", "),
    })
}
