use std::path::Path;

use bertha_tensor::{Checkpoint, DType, Tensor, save_safetensors};
use serde_json::json;

use crate::run::{Desk, Ran, bertha, golden, tolerance};

fn forward(model: &Path, input: &str, output: &str, more: &[&str]) -> Ran {
    let model = model.to_str().unwrap();
    let words = [
        "forward", "--model", model, "--input", input, "--output", output,
    ];
    bertha(&[&words, more].concat())
}

fn values(file: &Checkpoint, name: &str) -> Vec<f32> {
    file.get(name).unwrap().to_vec::<f32>().unwrap()
}

fn ids(values: Vec<i64>, shape: &[usize]) -> Tensor {
    Tensor::from_vec(values, shape).unwrap()
}

/// Writes a file of inputs, as transformers makes them or worse.
fn inputs(desk: &Desk, tensors: &[(&str, Tensor)]) -> String {
    let path = desk.path("in.safetensors");
    let named: Vec<(&str, &Tensor)> = tensors.iter().map(|(name, t)| (*name, t)).collect();
    save_safetensors(&path, &named, None).unwrap();
    path
}

#[test]
fn every_tensor_is_as_in_transformers() {
    let mut folders = 0;
    for entry in std::fs::read_dir(golden("bert")).unwrap() {
        let folder = entry.unwrap().path();
        let Ok(expected) = Checkpoint::open(folder.join("expected.safetensors")) else {
            continue;
        };
        folders += 1;
        let desk = Desk::new();
        let output = desk.path("out.safetensors");
        let input = folder.join("inputs.safetensors");
        let lines = forward(
            &folder,
            input.to_str().unwrap(),
            &output,
            &["--hidden-states"],
        )
        .lines();
        let found = Checkpoint::open(&output).unwrap();
        for name in found.names() {
            assert_eq!(
                lines[0]["tensors"][name],
                json!(found.info(name).unwrap().shape)
            );
        }
        for name in expected.names() {
            let at = format!("{}, {name}", folder.display());
            assert!(found.contains(name), "{at} is missing");
            assert_eq!(
                found.info(name).unwrap(),
                expected.info(name).unwrap(),
                "{at}"
            );
            let (found, expected) = (values(&found, name), values(&expected, name));
            let scale = expected
                .iter()
                .fold(f32::MIN_POSITIVE, |max, v| max.max(v.abs()));
            for (found, expected) in found.iter().zip(&expected) {
                let close = (found - expected).abs() <= tolerance() as f32 * scale;
                assert!(close, "{at}: {found} for {expected}");
                assert!(
                    *expected != 0.0 || *found == 0.0,
                    "{at}: {found} on padding"
                );
            }
        }
        assert_eq!(desk.files(), ["out.safetensors"]);
    }
    assert!(folders >= 18, "fixtures are missing: {folders}");
}

#[test]
fn hidden_states_only_when_asked() {
    let desk = Desk::new();
    let folder = golden("bert/base_pooler");
    let output = desk.path("out.safetensors");
    let input = folder.join("inputs.safetensors");
    forward(&folder, input.to_str().unwrap(), &output, &[]).lines();
    let names: Vec<String> = Checkpoint::open(&output)
        .unwrap()
        .names()
        .map(str::to_owned)
        .collect();
    assert_eq!(names, ["last_hidden_state", "pooler_output"]);
}

#[test]
fn ids_of_other_integers_and_no_mask_are_taken() {
    let desk = Desk::new();
    let folder = golden("bert/base_pooler");
    let output = desk.path("out.safetensors");
    let run = |tensors: &[(&str, Tensor)]| {
        let input = inputs(&desk, tensors);
        forward(&folder, &input, &output, &[]).lines();
        values(&Checkpoint::open(&output).unwrap(), "last_hidden_state")
    };
    let tokens = vec![5, 6, 7, 8, 9, 10];
    let long = run(&[("input_ids", ids(tokens.clone(), &[2, 3]))]);
    let short = tokens.iter().map(|&id| id as i32).collect();
    let short = Tensor::from_vec::<i32>(short, &[2, 3]).unwrap();
    let mask = Tensor::full(1i32, &[2, 3]).unwrap();
    let types = Tensor::zeros(DType::I32, &[2, 3]).unwrap();
    let of_i32 = [
        ("input_ids", short),
        ("attention_mask", mask),
        ("token_type_ids", types),
    ];
    assert_eq!(run(&of_i32), long);
}

#[test]
fn padding_is_zero_on_either_side_and_in_between() {
    let desk = Desk::new();
    let folder = golden("bert/base_pooler");
    let output = desk.path("out.safetensors");
    let run = |mask: [i64; 4]| {
        let tensors = [
            ("input_ids", ids(vec![5, 6, 7, 8], &[1, 4])),
            ("attention_mask", ids(mask.to_vec(), &[1, 4])),
        ];
        let input = inputs(&desk, &tensors);
        forward(&folder, &input, &output, &[]).lines();
        let rows = values(&Checkpoint::open(&output).unwrap(), "last_hidden_state");
        let width = rows.len() / 4;
        let zero = |row: &[f32]| row.iter().all(|&value| value == 0.0);
        let rows = rows.chunks_exact(width).map(|row| i64::from(!zero(row)));
        assert_eq!(rows.collect::<Vec<_>>(), mask);
    };
    for mask in [[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 1, 1], [1, 0, 0, 1]] {
        run(mask);
    }
}

#[test]
fn wrong_inputs_are_named() {
    let desk = Desk::new();
    let folder = golden("bert/base_pooler");
    let output = desk.path("out.safetensors");
    let refused = |tensors: &[(&str, Tensor)], parts: &[&str]| {
        let input = inputs(&desk, tensors);
        forward(&folder, &input, &output, &[]).refused(1, parts);
        assert_eq!(desk.files(), ["in.safetensors"], "{parts:?}");
    };
    let good = || ids(vec![1, 2, 3, 4], &[2, 2]);
    refused(&[("ids", good())], &["in.safetensors", "input_ids"]);
    refused(
        &[("input_ids", ids(vec![1, 2], &[2]))],
        &["in.safetensors", "input_ids", "[2]", "[batch, length]"],
    );
    let floats = Tensor::zeros(DType::F32, &[2, 2]).unwrap();
    refused(
        &[("input_ids", floats.clone())],
        &["input_ids", "f32", "integer"],
    );
    refused(
        &[("input_ids", good()), ("attention_mask", floats)],
        &["attention_mask", "f32"],
    );
    refused(
        &[
            ("input_ids", good()),
            ("attention_mask", ids(vec![1, 1], &[1, 2])),
        ],
        &["attention_mask", "[1, 2]", "[2, 2]"],
    );
    refused(
        &[
            ("input_ids", good()),
            ("attention_mask", ids(vec![1, 2, 1, 1], &[2, 2])),
        ],
        &["attention_mask[0, 1]", "2", "0 or 1"],
    );
    refused(
        &[
            ("input_ids", good()),
            ("attention_mask", ids(vec![1, 1, 0, 0], &[2, 2])),
        ],
        &["sequence 1", "no real token"],
    );
    refused(
        &[("input_ids", ids(vec![1, -2], &[1, 2]))],
        &["input_ids[0, 1]", "-2"],
    );
    refused(
        &[("input_ids", ids(vec![1, 999_999], &[1, 2]))],
        &["input_ids[0, 1]", "999999", "vocabulary of 61"],
    );
    refused(
        &[
            ("input_ids", good()),
            ("token_type_ids", ids(vec![0, 0, 9, 0], &[2, 2])),
        ],
        &["9"],
    );
    refused(
        &[("input_ids", ids(vec![1; 5000], &[1, 5000]))],
        &["positions"],
    );
    refused(
        &[("input_ids", ids(vec![], &[0, 4]))],
        &["[0, 4]", "at least one sequence"],
    );
    refused(&[("input_ids", ids(vec![], &[2, 0]))], &["in.safetensors"]);
    refused(
        &[("input_ids", good()), ("position_ids", good())],
        &["position_ids", "not supported"],
    );
    let extra = inputs(&desk, &[("input_ids", good()), ("labels", good())]);
    let ran = forward(&folder, &extra, &output, &[]);
    assert!(ran.err.contains("`labels` is not used"), "{}", ran.err);
    assert_eq!(ran.lines_beside_warnings().len(), 1);
}

#[test]
fn losses_and_gradients_are_as_in_transformers_for_every_kind_of_label() {
    for name in [
        "bert_question",
        "roberta_token",
        "electra_discriminator",
        "albert_sequence",
    ] {
        let folder = golden("families").join(name);
        let desk = Desk::new();
        let output = desk.path("out.safetensors");
        let input = folder.join("inputs.safetensors");
        forward(&folder, input.to_str().unwrap(), &output, &["--grad"]).lines();
        let found = Checkpoint::open(&output).unwrap();
        let expected = Checkpoint::open(folder.join("expected.safetensors")).unwrap();
        for key in expected.names() {
            if key != "loss" && !key.starts_with("grad.") {
                continue;
            }
            let (found, expected) = (values(&found, key), values(&expected, key));
            assert_eq!(found.len(), expected.len(), "{name}, {key}");
            let scale = expected.iter().fold(0.01, |max: f32, v| max.max(v.abs()));
            for (found, expected) in found.iter().zip(&expected) {
                let close = (found - expected).abs() <= 1e-4 * scale;
                assert!(close, "{name}, {key}: {found} for {expected}");
            }
        }
    }
}

#[test]
fn wrong_answers_to_questions_are_named() {
    let desk = Desk::new();
    let folder = golden("families/bert_question");
    let output = desk.path("out.safetensors");
    let refused = |answers: &[(&str, Tensor)], parts: &[&str]| {
        let mut tensors = vec![
            ("input_ids", ids(vec![5, 6, 7, 8, 9, 0], &[2, 3])),
            ("attention_mask", ids(vec![1, 1, 1, 1, 1, 0], &[2, 3])),
        ];
        tensors.extend_from_slice(answers);
        let input = inputs(&desk, &tensors);
        forward(&folder, &input, &output, &["--grad"]).refused(1, parts);
        assert_eq!(desk.files(), ["in.safetensors"], "{parts:?}");
    };
    let starts = || ("start_positions", ids(vec![0, 1], &[2]));
    refused(&[], &["in.safetensors", "start_positions"]);
    refused(&[starts()], &["in.safetensors", "end_positions"]);
    refused(
        &[starts(), ("end_positions", ids(vec![2, 2], &[2]))],
        &["in.safetensors", "end_positions[1] is 2", "its tokens"],
    );
    refused(
        &[starts(), ("end_positions", ids(vec![2], &[1]))],
        &["end_positions", "[1]", "integers [2]"],
    );
}
