//! A training loop without the trainer: `cargo run --release -p bertha-train --example train_plain -- MODEL_DIR`
//!
//! Teaches a model to tell questions from statements, with nothing but the parts.

use std::error::Error;

use bertha_autograd::ops::{self, CrossEntropyOptions};
use bertha_autograd::{Gradients, Session};
use bertha_models::{Config, ForwardOptions, Head, TrainableModel};
use bertha_tokenizer::{Input, Tokenizer};
use bertha_train::collate::{Batches, Cursor, Sampler, SamplerOptions, collate};
use bertha_train::data::text_examples;
use bertha_train::optim::{
    GroupOptions, Optimizer, OptimizerConfig, ParameterGroups, clip_factor, global_norm,
};
use bertha_train::random::Seed;

fn main() -> Result<(), Box<dyn Error>> {
    let dir = std::env::args()
        .nth(1)
        .ok_or("usage: train_plain MODEL_DIR")?;
    let texts = [
        "who came in ?",
        "he came in .",
        "is this the house ?",
        "this is the house .",
        "will she read it ?",
        "she will read it .",
        "were they old ?",
        "they were old .",
    ];
    let classes = [1, 0, 1, 0, 1, 0, 1, 0];

    let session = Session::new(None)?;
    let tokenizer = Tokenizer::from_dir(&dir)?;
    let inputs: Vec<Input<'_>> = texts.iter().map(|text| Input::Single(text)).collect();
    let examples = text_examples(&tokenizer, &inputs, 32)?.with_classes(&classes)?;
    let config = Config::from_file(format!("{dir}/config.json"))?;
    let head = Head::SequenceClassification;
    let model = TrainableModel::from_dir(&dir, config, head, &session, 42)?;
    let shapes = model.parameters.iter().map(|p| (p.name(), p.shape()));
    let groups = ParameterGroups::new(shapes, &GroupOptions::default())?;
    let mut optimizer = Optimizer::new(OptimizerConfig::adamw(), groups)?;
    let sampler = Sampler::new(examples.lengths(), SamplerOptions::default(), Seed::new(42))?;
    let mut batches = Batches::new(sampler, Cursor::default());
    let mut gradients = Gradients::new();

    for step in 0..60 {
        let batch = collate(&examples, &batches.next_batch().0, None)?;
        let labels: Vec<i64> = batch
            .examples
            .iter()
            .map(|&i| classes[i as usize].into())
            .collect();
        let pass = session.training(42, step);
        let outputs = model
            .model
            .forward(&pass, &batch.batch, &ForwardOptions::default())?;
        let logits = outputs.logits.ok_or("the model has no classifier")?;
        let loss = ops::cross_entropy(&pass, logits, &labels, &CrossEntropyOptions::default())?;
        gradients.clear();
        loss.backward(&pass, &mut gradients)?;
        let slices: Result<Vec<_>, _> = gradients
            .iter()
            .map(|(p, g)| Ok::<_, Box<dyn Error>>((p.name(), g.as_slice::<f32>()?)))
            .collect();
        let scale = clip_factor(global_norm(session.exec(), slices?)?, 1.0);
        optimizer.step_parameters(session.exec(), &model.parameters, &gradients, 1e-3, scale)?;
        if step % 10 == 9 {
            println!(
                "update {:3}: loss {:.4}",
                step + 1,
                loss.tensor().item::<f32>()?
            );
        }
    }
    Ok(())
}
