//! BERT and its heads against `transformers`, on the tiny models of `tests/golden/bert/`.

mod support;

use std::path::{Path, PathBuf};

use bertha::autograd::Session;
use bertha::kernels::{Exec, Isa};
use bertha::models::{ForwardOptions, Head, load, load_with_head};
use bertha::nn::Batch;
use bertha::tensor::Checkpoint;
use support::{named, read_batch, relative_difference, tolerance};

fn fixtures() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/bert");
    let entries = std::fs::read_dir(&root).expect("tests/golden/bert is in the repository");
    let mut folders: Vec<_> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
        .collect();
    folders.sort();
    assert!(folders.len() >= 18, "fixtures are missing from {root:?}");
    folders
}

fn options() -> ForwardOptions<'static> {
    ForwardOptions {
        hidden_states: true,
        logit_rows: None,
        global_tokens: None,
    }
}

#[test]
fn every_tensor_matches_transformers_on_every_instruction_set() {
    for folder in fixtures() {
        let expected = Checkpoint::open(folder.join("expected.safetensors")).unwrap();
        let (batch, columns) = read_batch(&folder);
        for isa in Isa::available() {
            let session = Session::from_exec(Exec::with_isa(isa, 2));
            let model = load(&folder, &session).unwrap();
            let outputs = model.forward(&session, &batch, &options()).unwrap();
            let tensors = named(model.info(), &outputs, &batch, columns);
            let mut names: Vec<_> = expected.names().map(str::to_owned).collect();
            for (name, found) in &tensors {
                // transformers' heads do not give the encoder's own outputs.
                if !expected.contains(name) {
                    continue;
                }
                names.retain(|other| other != name);
                let golden = expected.get(name).unwrap();
                let at = format!("{}, {name}, {isa}", folder.display());
                assert_eq!(found.shape(), golden.shape(), "{at}");
                let difference = relative_difference(found, &golden);
                assert!(difference <= tolerance(isa), "{at}: {difference}");
            }
            assert!(
                names.is_empty(),
                "{}: not given: {names:?}",
                folder.display()
            );
        }
    }
}

#[test]
fn the_same_bits_for_any_number_of_threads_and_any_company() {
    for folder in fixtures() {
        let (batch, _) = read_batch(&folder);
        let bits = |threads: usize, batch: &Batch| -> Vec<u32> {
            let session = Session::from_exec(Exec::with_isa(Isa::best(), threads));
            let model = load(&folder, &session).unwrap();
            let outputs = model.forward(&session, batch, &options()).unwrap();
            let values = outputs.last_hidden_state.as_slice().unwrap();
            values.iter().map(|value| value.to_bits()).collect()
        };
        let together = bits(1, &batch);
        for threads in [2, 3, 8] {
            assert!(
                together == bits(threads, &batch),
                "{folder:?}, {threads} threads"
            );
        }
        let width = together.len() / batch.tokens();
        for i in 0..batch.len() {
            let range = batch.range(i);
            let mut alone = Batch::new();
            let types = batch.type_ids().map(|types| &types[range.clone()]);
            alone
                .push(&batch.input_ids()[range.clone()], types)
                .unwrap();
            let expected = &together[range.start * width..range.end * width];
            assert!(
                bits(2, &alone) == expected,
                "{folder:?}, sequence {i} alone"
            );
        }
    }
}

#[test]
fn only_the_asked_rows_get_logits() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/bert/masked_lm_tied");
    let session = Session::new(Some(1)).unwrap();
    let model = load(&folder, &session).unwrap();
    let (batch, _) = read_batch(&folder);
    let all = model
        .forward(&session, &batch, &ForwardOptions::default())
        .unwrap();
    let rows = [3, 0];
    let some = ForwardOptions {
        logit_rows: Some(&rows),
        global_tokens: None,
        ..ForwardOptions::default()
    };
    let some = model.forward(&session, &batch, &some).unwrap();
    let (all, some) = (all.logits.unwrap(), some.logits.unwrap());
    let vocabulary = model.info().vocab_size;
    assert_eq!(some.shape(), [2, vocabulary]);
    let all = all.as_slice().unwrap();
    let expected: Vec<f32> = rows
        .iter()
        .flat_map(|&row| &all[row as usize * vocabulary..][..vocabulary])
        .copied()
        .collect();
    assert_eq!(some.as_slice().unwrap(), expected);
}

#[test]
fn a_head_that_is_not_there_is_named() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/bert/base_pooler");
    let session = Session::new(Some(1)).unwrap();
    for (head, name) in [
        (Head::MaskedLm, "cls.predictions.transform.dense"),
        (Head::TokenClassification, "classifier"),
        (Head::QuestionAnswering, "qa_outputs"),
    ] {
        let error = load_with_head(&folder, head, &session)
            .err()
            .unwrap()
            .to_string();
        assert!(
            error.contains(name) && error.contains("model.safetensors"),
            "{error}"
        );
    }
}

#[test]
fn ids_types_and_positions_outside_their_tables_are_errors() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/bert/base_pooler");
    let session = Session::new(Some(1)).unwrap();
    let model = load(&folder, &session).unwrap();
    let error = |ids: Vec<u32>, types: Option<Vec<u32>>| {
        let mut batch = Batch::new();
        batch.push(&[1, 2], None).unwrap();
        batch.push(&ids, types.as_deref()).unwrap();
        let result = model.forward(&session, &batch, &ForwardOptions::default());
        result.err().unwrap().to_string()
    };
    let vocabulary = model.info().vocab_size as u32;
    let message = error(vec![1, vocabulary], None);
    assert!(
        message.contains(&format!("token id {vocabulary}")),
        "{message}"
    );
    let message = error(vec![1, 1], Some(vec![0, 9]));
    assert!(message.contains("token type 9"), "{message}");
    let message = error(vec![1; model.info().max_tokens + 1], None);
    assert!(
        message.contains("sequence 1") && message.contains("truncation"),
        "{message}"
    );
}
