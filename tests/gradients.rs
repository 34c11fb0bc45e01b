//! Losses and the gradients of every parameter equal PyTorch's, on the tiny BERTs of `tests/golden/bert`; the script that
//! made the numbers is `tests/golden/make_gradients.py`.

use std::path::PathBuf;

use bertha::autograd::ops::Reduction;
use bertha::autograd::{Gradients, Session};
use bertha::models::{Config, ForwardOptions, Head, Targets, TrainableModel, loss};
use bertha::nn::Batch;
use bertha::tensor::{Checkpoint, DType, Tensor};

fn golden(part: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(part)
}

/// Frobenius norm.
fn norm(tensor: &Tensor) -> f64 {
    let squares = tensor.to_vec::<f32>().unwrap().into_iter();
    squares.map(|x| f64::from(x).powi(2)).sum::<f64>().sqrt()
}

/// Frobenius norm of the difference over that of what is expected.
fn relative_error(found: &Tensor, expected: &Tensor) -> f64 {
    assert_eq!(found.shape(), expected.shape());
    let (found, expected) = (
        found.to_vec::<f32>().unwrap(),
        expected.to_vec::<f32>().unwrap(),
    );
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
    let difference = norm(&mut found.iter().zip(&expected).map(|(a, b)| f64::from(a - b)));
    difference / norm(&mut expected.iter().map(|&b| f64::from(b))).max(1e-12)
}

struct Run {
    loss: Tensor,
    gradients: Vec<(String, Option<Tensor>)>,
}

fn run(name: &str, threads: usize) -> Run {
    let session = Session::new(Some(threads)).unwrap();
    let dir = golden("bert").join(name);
    let config = Config::from_file(dir.join("config.json")).unwrap();
    let head = config.head();
    let trainable = TrainableModel::from_dir(&dir, config, head, &session, 0).unwrap();
    assert!(trainable.fresh.is_empty(), "{:?}", trainable.fresh);
    let inputs = Checkpoint::open(dir.join("inputs.safetensors")).unwrap();
    let optional = |name| inputs.contains(name).then(|| inputs.get(name).unwrap());
    let (mask, types) = (optional("attention_mask"), optional("token_type_ids"));
    let batch = Batch::from_padded(
        &inputs.get("input_ids").unwrap(),
        mask.as_ref(),
        types.as_ref(),
    )
    .unwrap();
    let labels =
        Checkpoint::open(golden("gradients").join(name).join("labels.safetensors")).unwrap();
    let labels = labels.get("labels").unwrap();

    let outputs = trainable
        .model
        .forward(&session, &batch, &ForwardOptions::default())
        .unwrap();
    let (values, classes);
    let targets = match head {
        Head::MaskedLm | Head::TokenClassification => {
            classes = batch.pack(&labels).unwrap();
            Targets::Classes(&classes)
        }
        _ if labels.dtype() == DType::F32 => {
            values = labels.to_vec::<f32>().unwrap();
            Targets::Values(&values)
        }
        _ => {
            classes = labels.to_vec::<i64>().unwrap();
            Targets::Classes(&classes)
        }
    };
    let loss = loss(&session, head, &outputs, targets, Reduction::Mean).unwrap();
    let mut gradients = Gradients::new();
    loss.backward(&session, &mut gradients).unwrap();
    let gradients = trainable
        .parameters
        .iter()
        .map(|parameter| {
            (
                parameter.name().to_owned(),
                gradients.get(parameter).cloned(),
            )
        })
        .collect();
    Run {
        loss: loss.into_tensor(),
        gradients,
    }
}

fn check(name: &str) {
    let expected =
        Checkpoint::open(golden("gradients").join(name).join("expected.safetensors")).unwrap();
    let found = run(name, 2);
    let error = relative_error(&found.loss, &expected.get("loss").unwrap());
    assert!(error <= 1e-5, "{name}: the loss is {error:e} off");
    let total = (found.gradients.iter())
        .filter_map(|(_, gradient)| gradient.as_ref())
        .map(|gradient| norm(gradient).powi(2))
        .sum::<f64>()
        .sqrt();
    let mut seen = 0;
    for (parameter, gradient) in &found.gradients {
        // `transformers` has two names for the decoder's bias: untied, the gradient is under the other.
        let names = [
            format!("grad.{parameter}"),
            format!("grad.{parameter}").replace("predictions.bias", "predictions.decoder.bias"),
        ];
        let key = names.iter().find(|key| expected.contains(key));
        let key = key.unwrap_or(&names[0]);
        let Some(gradient) = gradient else {
            assert!(
                !expected.contains(key),
                "{name}: no gradient for {parameter}"
            );
            continue;
        };
        seen += 1;
        // A key's bias adds the same to all scores of a query: the softmax is as it was, the gradient is 0.
        if parameter.ends_with("key.bias") {
            assert!(
                norm(gradient) <= 1e-6 * total,
                "{name}: the gradient of {parameter} is {gradient}, expected 0"
            );
            continue;
        }
        let error = relative_error(gradient, &expected.get(key).unwrap());
        assert!(
            error <= 1e-4,
            "{name}: the gradient of {parameter} is {error:e} off"
        );
    }
    assert_eq!(
        seen,
        expected.len() - 1,
        "{name}: gradients of other parameters are expected"
    );

    let alone = run(name, 1);
    for ((parameter, a), (_, b)) in found.gradients.iter().zip(&alone.gradients) {
        let bits = |tensor: &Option<Tensor>| {
            tensor
                .as_ref()
                .map(|tensor| tensor.as_bytes().unwrap().to_vec())
        };
        assert_eq!(
            bits(a),
            bits(b),
            "{name}: {parameter} depends on the number of threads"
        );
    }
}

#[test]
fn masked_lm_with_a_tied_decoder() {
    check("masked_lm_tied");
}

#[test]
fn masked_lm_with_a_decoder_of_its_own() {
    check("masked_lm_untied");
}

#[test]
fn sequence_classification() {
    check("sequence_classification");
}

#[test]
fn regression() {
    check("sequence_regression");
}

#[test]
fn token_classification() {
    check("token_classification");
}
