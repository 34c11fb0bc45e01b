//! Fifty steps of AdamW follow PyTorch's, from the tiny masked LM of tests/golden/bert/masked_lm_tied
//! (tests/golden/make_loss_curve.py).

use std::path::PathBuf;

use bertha_autograd::ops::Reduction;
use bertha_autograd::{Gradients, Session};
use bertha_models::{Config, ForwardOptions, Head, Targets, TrainableModel, loss};
use bertha_nn::Batch;
use bertha_tensor::Checkpoint;
use bertha_train::optim::{
    GroupOptions, Optimizer, OptimizerConfig, ParameterGroups, clip_factor, global_norm,
};

fn golden(part: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/golden")
        .join(part)
}

#[test]
fn fifty_steps_of_adamw_follow_pytorch() {
    let session = Session::new(Some(2)).unwrap();
    let dir = golden("bert/masked_lm_tied");
    let config = Config::from_file(dir.join("config.json")).unwrap();
    let trainable = TrainableModel::from_dir(&dir, config, Head::MaskedLm, &session, 0).unwrap();
    let shapes = trainable.parameters.iter().map(|p| (p.name(), p.shape()));
    let groups = ParameterGroups::new(shapes, &GroupOptions::default()).unwrap();
    let mut optimizer = Optimizer::new(OptimizerConfig::adamw(), groups).unwrap();

    let batches = Checkpoint::open(golden("loss_curve/batches.safetensors")).unwrap();
    let (ids, labels) = (
        batches.get("input_ids").unwrap(),
        batches.get("labels").unwrap(),
    );
    let &[count, rows, tokens] = ids.shape() else {
        panic!("{:?}", ids.shape())
    };
    let (ids, labels) = (
        ids.to_vec::<i64>().unwrap(),
        labels.to_vec::<i64>().unwrap(),
    );
    let expected = Checkpoint::open(golden("loss_curve/expected.safetensors")).unwrap();
    let losses = expected.get("losses").unwrap().to_vec::<f32>().unwrap();
    assert_eq!(losses.len(), 50);

    let mut gradients = Gradients::new();
    for (step, &expected) in losses.iter().enumerate() {
        let range = step % count * rows * tokens..(step % count + 1) * rows * tokens;
        let sequences: Vec<Vec<u32>> = ids[range.clone()]
            .chunks_exact(tokens)
            .map(|row| row.iter().map(|&id| id as u32).collect())
            .collect();
        let batch = Batch::from_sequences(&sequences).unwrap();
        let outputs = trainable
            .model
            .forward(&session, &batch, &ForwardOptions::default())
            .unwrap();
        let targets = Targets::Classes(&labels[range]);
        let loss = loss(&session, Head::MaskedLm, &outputs, targets, Reduction::Mean).unwrap();
        let found = loss.tensor().item::<f32>().unwrap();
        let error = (found - expected).abs() / expected;
        assert!(error <= 1e-4, "step {step}: {found}, expected {expected}");
        gradients.clear();
        loss.backward(&session, &mut gradients).unwrap();
        let slices = gradients
            .iter()
            .map(|(p, g)| (p.name(), g.as_slice().unwrap()));
        let norm = global_norm(session.exec(), slices).unwrap();
        let scale = clip_factor(norm, 1.0);
        optimizer
            .step_parameters(
                session.exec(),
                &trainable.parameters,
                &gradients,
                3e-3,
                scale,
            )
            .unwrap();
    }
    for parameter in &trainable.parameters {
        // No loss depends on a key's bias: Adam makes steps of what rounding left of its gradient.
        if parameter.name().ends_with("key.bias") {
            continue;
        }
        let golden = expected
            .get(parameter.name())
            .unwrap()
            .to_vec::<f32>()
            .unwrap();
        let found = parameter.value().to_vec::<f32>().unwrap();
        for (found, golden) in found.iter().zip(&golden) {
            assert!(
                (found - golden).abs() <= 1e-3,
                "{}: {found}, expected {golden}",
                parameter.name()
            );
        }
    }
}
