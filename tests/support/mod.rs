//! Reading fixtures and comparing with them.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::path::Path;

use bertha::kernels::Isa;
use bertha::models::{ModelInfo, Outputs};
use bertha::nn::Batch;
use bertha::tensor::{Checkpoint, Tensor};
use serde_json::{Value, json};

/// Values that a key of a configuration should not have, or not each key.
pub fn wrong_values() -> Vec<Value> {
    vec![
        json!(null),
        json!(true),
        json!(0),
        json!(-1),
        json!(3),
        json!(u64::MAX),
        json!(1e300),
        json!(""),
        json!("x"),
        json!([]),
        json!([0]),
        json!({}),
        json!({"0": 1}),
        json!("c2p"),
    ]
}

/// The batch in a folder's inputs.safetensors, and its columns.
pub fn read_batch(folder: &Path) -> (Batch, usize) {
    let inputs = Checkpoint::open(folder.join("inputs.safetensors")).unwrap();
    let optional = |name| inputs.contains(name).then(|| inputs.get(name).unwrap());
    let ids = inputs.get("input_ids").unwrap();
    let mask = optional("attention_mask");
    let types = optional("token_type_ids");
    let batch = Batch::from_padded(&ids, mask.as_ref(), types.as_ref()).unwrap();
    (batch, ids.shape()[1])
}

/// Every tensor of a forward pass under `transformers`' name, token rows padded back.
pub fn named(
    info: &ModelInfo,
    outputs: &Outputs,
    batch: &Batch,
    columns: usize,
) -> Vec<(String, Tensor)> {
    let pad = |tensor: &Tensor| batch.pad(tensor, columns).unwrap();
    let mut tensors = vec![(
        "last_hidden_state".to_owned(),
        pad(outputs.last_hidden_state.tensor()),
    )];
    if let Some(pooled) = &outputs.pooler_output {
        tensors.push(("pooler_output".to_owned(), pooled.tensor().clone()));
    }
    if let Some(logits) = &outputs.logits {
        let logits = logits.tensor();
        let per_token = logits.shape()[0] == batch.tokens() && batch.tokens() != batch.len();
        let logits = if per_token {
            pad(logits)
        } else {
            logits.clone()
        };
        let name = match outputs.pair_logits {
            Some(_) => "prediction_logits",
            None => "logits",
        };
        tensors.push((name.to_owned(), logits));
    }
    if let Some(pairs) = &outputs.pair_logits {
        tensors.push((info.pair_names()[0].to_owned(), pairs.tensor().clone()));
    }
    for (name, logits) in [
        ("start_logits", &outputs.start_logits),
        ("end_logits", &outputs.end_logits),
    ] {
        if let Some(logits) = logits {
            tensors.push((name.to_owned(), pad(logits.tensor())));
        }
    }
    for (i, state) in outputs.hidden_states.iter().enumerate() {
        tensors.push((format!("hidden_states.{i}"), pad(state.tensor())));
    }
    tensors
}

/// Largest difference over largest value that the fixtures' README allows in f32; of products of halves, which have an error of up to
/// 10⁻⁵ each, more.
pub fn tolerance(isa: Isa) -> f32 {
    match isa.multiplies_halves() {
        true => 1e-4,
        false => 1e-5,
    }
}

/// Largest difference over largest value.
pub fn relative_difference(found: &Tensor, expected: &Tensor) -> f32 {
    let (found, expected) = (
        found.to_vec::<f32>().unwrap(),
        expected.to_vec::<f32>().unwrap(),
    );
    let scale = expected
        .iter()
        .fold(f32::MIN_POSITIVE, |m, v| m.max(v.abs()));
    let pairs = found.iter().zip(&expected);
    let difference = pairs.map(|(a, b)| (a - b).abs());
    // A NaN must not be lost in the maximum.
    difference.fold(
        0.0,
        |max: f32, d| if d > max || d.is_nan() { d } else { max },
    ) / scale
}
