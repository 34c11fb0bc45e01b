//! From `model_type` to architecture.

use bertha_nn::Weights;

use crate::albert::ALBERT;
use crate::bert::BERT;
use crate::distilbert::DISTILBERT;
use crate::electra::ELECTRA;
use crate::roberta::{CAMEMBERT, ROBERTA, XLM_ROBERTA};
use crate::{Config, Head, Model, ModelError};

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
pub const REGISTRY: &[Architecture] = &[
    architecture_of("bert", "Bert", |c, w, h| BERT.load(c, w, h)),
    architecture_of("roberta", "Roberta", |c, w, h| ROBERTA.load(c, w, h)),
    architecture_of("xlm-roberta", "XLMRoberta", |c, w, h| {
        XLM_ROBERTA.load(c, w, h)
    }),
    architecture_of("camembert", "Camembert", |c, w, h| CAMEMBERT.load(c, w, h)),
    architecture_of("distilbert", "DistilBert", |c, w, h| {
        DISTILBERT.load(c, w, h)
    }),
    architecture_of("electra", "Electra", |c, w, h| ELECTRA.load(c, w, h)),
    architecture_of("albert", "Albert", |c, w, h| ALBERT.load(c, w, h)),
];

const fn architecture_of(
    model_type: &'static str,
    class_prefix: &'static str,
    load: Loader,
) -> Architecture {
    Architecture {
        model_type,
        class_prefix,
        load,
    }
}

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
