//! From `model_type` to architecture.

use bertha_nn::Weights;

use crate::albert::ALBERT;
use crate::bert::BERT;
use crate::bigbird::BIG_BIRD;
use crate::deberta::{self, DEBERTA};
use crate::distilbert::DISTILBERT;
use crate::electra::ELECTRA;
use crate::encoder::EncoderConfig;
use crate::longformer::LONGFORMER;
use crate::modernbert::MODERN_BERT;
use crate::mpnet::MPNET;
use crate::nomic::NOMIC_BERT;
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
    /// Reads what the configuration says of the encoder.
    pub encoder: fn(&Config) -> Result<EncoderConfig, ModelError>,
}

/// A line of the registry for a relative of BERT.
macro_rules! relative_of_bert {
    ($class_prefix:literal, $family:path) => {
        Architecture {
            model_type: $family.model_type,
            class_prefix: $class_prefix,
            load: |config, weights, head| $family.load(config, weights, head),
            encoder: $family.config,
        }
    };
}

/// Every architecture, a line each.
pub const REGISTRY: &[Architecture] = &[
    relative_of_bert!("Bert", BERT),
    relative_of_bert!("Roberta", ROBERTA),
    relative_of_bert!("XLMRoberta", XLM_ROBERTA),
    relative_of_bert!("Camembert", CAMEMBERT),
    relative_of_bert!("DistilBert", DISTILBERT),
    relative_of_bert!("Electra", ELECTRA),
    relative_of_bert!("Albert", ALBERT),
    relative_of_bert!("MPNet", MPNET),
    relative_of_bert!("Longformer", LONGFORMER),
    relative_of_bert!("BigBird", BIG_BIRD),
    relative_of_bert!("ModernBert", MODERN_BERT),
    relative_of_bert!("NomicBert", NOMIC_BERT),
    Architecture {
        load: |config, weights, head| deberta::of(config, weights)?.load(config, weights, head),
        ..relative_of_bert!("DebertaV2", DEBERTA)
    },
];

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
