//! Models of signs: as they are trained, with latent weights of floats, and as they are packed.

use std::collections::BTreeMap;

use bertha_autograd::Session;
use bertha_models::{Config, TrainableModel};
use bertha_nn::{Binarization, QuantizedMatrix};
use serde_json::json;

use crate::names::{ends_as, is_in_pooler, is_word_table, layer_of};
use crate::{CompressError, Quantized, linear_layers};

/// The configuration of a binarized model, trained or packed.
pub fn binarized_config(config: &Config, binarization: Binarization) -> Config {
    let mut config = config.clone();
    config.set(
        "quantization_config",
        json!({ "quant_method": "bertha", "binarization": binarization.name() }),
    );
    config
}

/// Packs a binarized model's weights: a bit for each value of the encoder's linear layers, of the pooler and of the word
/// table, and a scale for each row; all else stays f32.
///
/// # Errors
/// When the model is not one that was trained to be binarized.
pub fn pack_binarized(
    session: &Session,
    model: &TrainableModel,
) -> Result<Quantized, CompressError> {
    if model.config.binarization()?.is_none() {
        return Err(CompressError::Settings(
            "the model was not trained to be binarized: its configuration names no binarization"
                .into(),
        ));
    }
    let linear = linear_layers(&*model.model, session)?;
    let linear: Vec<String> = linear.into_iter().flatten().collect();
    let mut packed = Quantized {
        config: model.config.clone(),
        tensors: BTreeMap::new(),
        metadata: BTreeMap::new(),
        layers: Vec::new(),
    };
    for parameter in &model.parameters {
        let (name, value) = (parameter.name(), parameter.value());
        let table = is_word_table(name);
        let inside = layer_of(name).is_some() || is_in_pooler(name);
        let layer = inside && linear.iter().any(|weight| ends_as(name, weight));
        if !table && !layer {
            packed.tensors.insert(name.to_owned(), value);
            continue;
        }
        let matrix = QuantizedMatrix::binarized(session, &value, table)?;
        packed.put(name, &value, &matrix, false)?;
    }
    Ok(packed)
}
