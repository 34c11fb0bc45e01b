//! Models of signs: as they are trained, with latent weights of floats, and as they are packed.

use std::collections::BTreeMap;

use bertha_autograd::Session;
use bertha_models::{Config, TrainableModel};
use bertha_nn::{Binarization, BitInputs, INPUT_THRESHOLD, QuantizedMatrix};
use bertha_tensor::Tensor;
use serde_json::json;

use crate::names::{ends_as, is_in_pooler, is_word_table, layer_of};
use crate::{CompressError, Quantized, linear_layers};

/// The configuration of a binarized model, trained or packed.
pub fn binarized_config(config: &Config, binarization: Binarization) -> Config {
    let mut config = config.clone();
    config.set(
        "quantization_config",
        json!({
            "quant_method": "bertha",
            "binarization": binarization.name(),
            "activation_bits": binarization.activation_bits(),
        }),
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
    let Some(binarization) = model.config.binarization()? else {
        return Err(CompressError::Settings(
            "the model was not trained to be binarized: its configuration names no binarization"
                .into(),
        ));
    };
    if binarization.activation_bits() != 1 {
        return Err(CompressError::Settings(format!(
            "inputs of {} bits are a step on the way to those of one, and run as floats: make it the teacher of one whose inputs have \
             one bit",
            binarization.activation_bits()
        )));
    }
    let linear = linear_layers(&*model.model, session)?;
    if let Binarization::Bit { .. } = binarization {
        return pack_bit(session, model, binarization, &linear);
    }
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
        let matrix = QuantizedMatrix::binarized(session, &value, binarization, table)?;
        packed.put(name, &value, &matrix, false)?;
    }
    Ok(packed)
}

/// BiT's: what inputs learned goes into scales, biases and thresholds.
fn pack_bit(
    session: &Session,
    model: &TrainableModel,
    binarization: Binarization,
    linear: &[Vec<String>],
) -> Result<Quantized, CompressError> {
    let mut values: BTreeMap<String, Tensor> = BTreeMap::new();
    for parameter in &model.parameters {
        values.insert(parameter.name().to_owned(), parameter.value());
    }
    let mut packed = Quantized {
        config: model.config.clone(),
        tensors: BTreeMap::new(),
        metadata: BTreeMap::new(),
        layers: Vec::new(),
    };
    for names in linear {
        let weights: Vec<String> = (names.iter())
            .filter_map(|name| values.keys().find(|parameter| ends_as(parameter, name)))
            .cloned()
            .collect();
        // What is stacked shares its inputs, which the first of them keeps.
        let Some(first) = weights.first().and_then(|name| name.strip_suffix("weight")) else {
            continue;
        };
        let find = |name: &str| values.get(&format!("{first}{name}")).cloned();
        let Some(inputs) = BitInputs::find(find)? else {
            continue;
        };
        let first = first.to_owned();
        for name in &weights {
            let Some(value) = values.remove(name) else {
                continue;
            };
            let value = value.contiguous();
            let &[rows, columns] = value.shape() else {
                continue;
            };
            let weight = inputs.weight(&value)?;
            let bias = format!("{}bias", name.strip_suffix("weight").unwrap_or(name));
            if let Some(values) = values.get_mut(&bias) {
                let moved = weight.bias(values.contiguous().as_slice()?);
                *values = Tensor::from_vec(moved, &[rows])?;
            }
            let thresholds = Tensor::from_vec(inputs.thresholds(columns), &[columns])?;
            packed
                .tensors
                .insert(format!("{first}{INPUT_THRESHOLD}"), thresholds);
            let shape = (rows, columns);
            let matrix = QuantizedMatrix::of_signs(shape, weight.scales, &weight.signs, false)?;
            packed.put(name, &value, &matrix, false)?;
        }
        values.retain(|name, _| {
            let of = name.strip_prefix(&first);
            !of.is_some_and(|of| matches!(of, "input_level" | "input_ceiling" | "input_shift"))
        });
    }
    for (name, value) in values {
        match is_word_table(&name) {
            true => {
                let matrix = QuantizedMatrix::binarized(session, &value, binarization, true)?;
                packed.put(&name, &value, &matrix, false)?;
            }
            false => {
                packed.tensors.insert(name, value);
            }
        }
    }
    Ok(packed)
}
