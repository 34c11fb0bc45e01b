//! Layers that are computed again in the backward pass give the same gradients, bit for bit, of less memory.

mod support;

use std::path::Path;

use bertha::autograd::ops::Reduction;
use bertha::autograd::{Gradients, Session};
use bertha::models::{Config, ForwardOptions, Head, Targets, TrainableModel, loss};
use bertha::nn::Batch;
use support::read_batch;

/// The bytes of the loss and of every gradient of a training pass, dropout on, and the most bytes in use beside the
/// parameters.
fn pass(
    config: &Config,
    from: Option<&Path>,
    batch: &Batch,
    checkpointing: bool,
) -> (Vec<Vec<u8>>, usize) {
    let session = Session::new(Some(2)).unwrap();
    let head = Head::TokenClassification;
    let trainable = match from {
        Some(dir) => TrainableModel::from_dir(dir, config.clone(), head, &session, 1).unwrap(),
        None => TrainableModel::new(config.clone(), head, &session, 1).unwrap(),
    };
    let labels: Vec<i64> = (0..batch.tokens() as i64).map(|i| i % 2).collect();
    let run = || {
        let session = session.training(3, 1).checkpointing(checkpointing);
        let outputs = trainable
            .model
            .forward(&session, batch, &ForwardOptions::default())
            .unwrap();
        let targets = Targets::Classes(&labels);
        let loss = loss(&session, head, &outputs, targets, Reduction::Mean).unwrap();
        drop(outputs);
        let mut gradients = Gradients::new();
        loss.backward(&session, &mut gradients).unwrap();
        let mut all = vec![loss.into_tensor().as_bytes().unwrap().to_vec()];
        all.extend(trainable.parameters.iter().map(|parameter| {
            let gradient = gradients.get(parameter);
            gradient.map_or_else(Vec::new, |gradient| gradient.as_bytes().unwrap().to_vec())
        }));
        all
    };
    // Once to pack the weights, which stay.
    run();
    let before = session.pool().stats().used_bytes;
    session.pool().reset_peak();
    let gradients = run();
    (gradients, session.pool().stats().peak_used_bytes - before)
}

#[test]
fn gradients_have_the_same_bits() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    for (folder, dropout) in [
        ("families/roberta_token", "hidden_dropout_prob"),
        // A bias that layers share, layers that share weights, rotary positions, global tokens, blocks, vectors of distances.
        ("families/mpnet_token", "hidden_dropout_prob"),
        ("families/albert_token", "hidden_dropout_prob"),
        ("families/modernbert_token", "embedding_dropout"),
        ("families/longformer_token", "hidden_dropout_prob"),
        ("families/big_bird_token", "hidden_dropout_prob"),
        ("families/deberta_token", "hidden_dropout_prob"),
    ] {
        let folder = root.join(folder);
        let mut config = Config::from_file(folder.join("config.json")).unwrap();
        config.set(dropout, 0.2);
        if folder.ends_with("longformer_token") {
            config.set("global_tokens", "first");
        }
        let (batch, _) = read_batch(&folder);
        let (plain, _) = pass(&config, Some(&folder), &batch, false);
        let (again, _) = pass(&config, Some(&folder), &batch, true);
        assert!(plain.iter().filter(|gradient| !gradient.is_empty()).count() > 10);
        assert!(plain == again, "{folder:?}");
    }
}

#[test]
fn the_memory_of_a_deep_model_is_a_part() {
    let config = r#"{"model_type": "bert", "vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 12,
        "num_attention_heads": 2, "intermediate_size": 128, "max_position_embeddings": 128}"#;
    let config = Config::from_json(config.as_bytes(), "config.json").unwrap();
    let batch = Batch::from_sequences(&vec![vec![7; 128]; 4]).unwrap();
    let (plain, all) = pass(&config, None, &batch, false);
    let (again, less) = pass(&config, None, &batch, true);
    assert!(plain == again);
    assert!(3 * less < all, "{less} bytes for {all}");
}
