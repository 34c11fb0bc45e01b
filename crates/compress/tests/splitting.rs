//! BinaryBERT: two binary weights give what the ternary one gave that they were split from, and run packed.

use std::path::{Path, PathBuf};

use bertha_autograd::Session;
use bertha_compress::{
    QuantizationAware, binary_weights, split_weights, ternary_weights, with_rounded_inputs,
};
use bertha_models::{Config, ForwardOptions, Model, TrainableModel, load};
use bertha_nn::{Batch, InputEstimator, InputRounding};
use bertha_train::trainer::WeightRounding;

fn golden(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/golden")
        .join(folder)
}

fn outputs(model: &dyn Model, session: &Session) -> Vec<f32> {
    let sequences = [vec![3u32, 5, 7, 2], vec![4], vec![9, 8, 7, 6, 5, 4, 3]];
    let batch = Batch::from_sequences(&sequences).unwrap();
    let outputs = model.forward(session, &batch, &ForwardOptions::default());
    let outputs = outputs.unwrap();
    let all = [Some(outputs.last_hidden_state), outputs.logits];
    let values = all.iter().flatten();
    values
        .flat_map(|values| values.as_slice().unwrap().to_vec())
        .collect()
}

/// What the model gives with its weights rounded.
fn rounded(aware: &QuantizationAware, model: &TrainableModel, session: &Session) -> Vec<f32> {
    let mut own = Vec::new();
    for parameter in &model.parameters {
        if let Some(value) = aware.round(parameter).unwrap() {
            own.push((parameter, parameter.value()));
            parameter.set(value).unwrap();
        }
    }
    let found = outputs(&*model.model, &session.no_grad());
    for (parameter, value) in own {
        parameter.set(value).unwrap();
    }
    found
}

fn assert_close(a: &[f32], b: &[f32], tolerance: f32, what: &str) {
    assert_eq!(a.len(), b.len());
    for (a, b) in a.iter().zip(b) {
        assert!((a - b).abs() < tolerance, "{what}: {a} and {b}");
    }
}

#[test]
fn split_models_give_what_ternary_ones_gave() {
    let session = Session::new(Some(2)).unwrap();
    let dir = tempfile::tempdir().unwrap();
    for folder in [
        "bert/sequence_classification",
        "families/roberta_sequence",
        "families/albert_sequence",
        "families/modernbert_masked_lm",
    ] {
        for bits in [None, Some(8)] {
            let of = golden(folder);
            let mut config = Config::from_file(of.join("config.json")).unwrap();
            if let Some(bits) = bits {
                let estimator = InputEstimator::LearnedSteps;
                config = with_rounded_inputs(&config, InputRounding { bits, estimator });
            }
            let head = config.head();
            let mut model = TrainableModel::from_dir(of, config, head, &session, 1).unwrap();
            let ternary = ternary_weights(&session, &mut model).unwrap();
            // Steps of inputs begin.
            outputs(&*model.model, &session.training(1, 0));
            let before = rounded(&ternary, &model, &session);
            let (checkpoint, config) = split_weights(&ternary, &model).unwrap();
            let mut model =
                TrainableModel::from_checkpoint(&checkpoint, config, head, &session, 1).unwrap();
            assert!(model.fresh.is_empty(), "{:?}", model.fresh);
            let binary = binary_weights(&session, &mut model).unwrap();
            let after = rounded(&binary, &model, &session);
            // A value in the middle between two levels may go either way.
            let tolerance = if bits.is_some() { 0.05 } else { 1e-4 };
            assert_close(&before, &after, tolerance, folder);
            let packed = binary.pack(&model).unwrap();
            packed.save(dir.path()).unwrap();
            let loaded = load(dir.path(), &session).unwrap();
            assert_close(&after, &outputs(&*loaded, &session), 1e-4, folder);
        }
    }
}
