//! A converted model is the old one on short texts, and takes long ones.

mod support;

use std::path::{Path, PathBuf};

use bertha::autograd::Session;
use bertha::kernels::Isa;
use bertha::models::{Config, ForwardOptions, Head, LongModel, convert, load};
use bertha::nn::Batch;
use bertha::tensor::Tensor;
use support::{named, read_batch, relative_difference, tolerance};

const LONGFORMER: LongModel = LongModel::Longformer { window: 40 };
const BIG_BIRD: LongModel = LongModel::BigBird {
    block: 3,
    random: 1,
};

fn golden(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(folder)
}

fn outputs(dir: &Path, batch: &Batch, columns: usize) -> Vec<(String, Tensor)> {
    let session = Session::new(Some(2)).unwrap();
    let model = load(dir, &session).unwrap();
    let outputs = model.forward(&session, batch, &ForwardOptions::default());
    named(model.info(), &outputs.unwrap(), batch, columns)
}

#[test]
fn short_texts_give_what_they_gave() {
    for (folder, to, head) in [
        ("families/roberta_masked_lm", LONGFORMER, Head::MaskedLm),
        (
            "families/roberta_sequence",
            LONGFORMER,
            Head::SequenceClassification,
        ),
        (
            "families/roberta_token",
            LONGFORMER,
            Head::TokenClassification,
        ),
        (
            "families/roberta_question",
            LONGFORMER,
            Head::QuestionAnswering,
        ),
        ("families/roberta_base", LONGFORMER, Head::Base),
        (
            "families/bert_question",
            LONGFORMER,
            Head::QuestionAnswering,
        ),
        ("bert/masked_lm_untied", LONGFORMER, Head::MaskedLm),
        (
            "bert/sequence_classification",
            LONGFORMER,
            Head::SequenceClassification,
        ),
        ("families/roberta_masked_lm", BIG_BIRD, Head::MaskedLm),
        (
            "families/roberta_token",
            BIG_BIRD,
            Head::TokenClassification,
        ),
        ("bert/masked_lm_tied", BIG_BIRD, Head::MaskedLm),
    ] {
        let old = golden(folder);
        let (batch, columns) = read_batch(&old);
        let limit = Config::from_file(old.join("config.json"))
            .unwrap()
            .max_tokens()
            .unwrap();
        let dir = tempfile::tempdir().unwrap();
        let converted = convert(&old, to, 2 * limit + 10, Some(2)).unwrap();
        assert_eq!(converted.config.head(), head, "{folder}");
        assert!(
            converted.dropped.is_empty(),
            "{folder}: {:?}",
            converted.dropped
        );
        converted.save(dir.path()).unwrap();
        let (before, after) = (
            outputs(&old, &batch, columns),
            outputs(dir.path(), &batch, columns),
        );
        for (name, before) in before.iter().filter(|(name, _)| name != "pooler_output") {
            let (_, after) = after.iter().find(|(other, _)| other == name).unwrap();
            let difference = relative_difference(after, before);
            let most = tolerance(Isa::from_env().unwrap());
            assert!(
                difference < most,
                "{folder} to {to:?}, {name}: {difference}"
            );
        }

        // Texts as long as promised, and no longer.
        let session = Session::new(Some(1)).unwrap();
        let model = load(dir.path(), &session).unwrap();
        assert_eq!(model.info().max_tokens, 2 * limit + 10);
        let run = |len: usize| {
            let batch = Batch::from_sequences(&[vec![5; len]]).unwrap();
            model.forward(&session, &batch, &ForwardOptions::default())
        };
        assert!(run(2 * limit + 10).is_ok(), "{folder}");
        assert!(run(2 * limit + 11).is_err(), "{folder}");
    }
}

#[test]
fn positions_repeat_and_global_projections_are_copies() {
    let old = golden("families/roberta_base");
    let before = bertha::tensor::Checkpoint::open_dir(&old).unwrap();
    let converted = convert(&old, LONGFORMER, 40, None).unwrap();
    let rows = |tensor: &Tensor| tensor.to_vec::<f32>().unwrap();
    let name = "embeddings.position_embeddings.weight";
    let (old_rows, new) = (
        rows(&before.get(name).unwrap()),
        rows(&converted.tensors[name]),
    );
    let width = 18;
    assert_eq!(new.len(), 42 * width);
    for row in 2..42 {
        let from = 2 + (row - 2) % 15;
        assert_eq!(
            new[row * width..][..width],
            old_rows[from * width..][..width]
        );
    }
    // Padding keeps its row.
    assert_eq!(new[..2 * width], old_rows[..2 * width]);
    let layer = "encoder.layer.1.attention.self";
    for projection in ["query", "key", "value"] {
        let global = &converted.tensors[&format!("{layer}.{projection}_global.weight")];
        let local = &converted.tensors[&format!("{layer}.{projection}.weight")];
        assert_eq!(rows(global), rows(local));
    }
}

#[test]
fn a_longformer_gets_its_global_projections_anew_and_more_positions() {
    let converted = convert(
        golden("families/longformer_masked_lm"),
        LONGFORMER,
        50,
        None,
    )
    .unwrap();
    let rows = |name: &str| converted.tensors[name].to_vec::<f32>().unwrap();
    let layer = "longformer.encoder.layer.0.attention.self";
    assert_eq!(
        rows(&format!("{layer}.value_global.bias")),
        rows(&format!("{layer}.value.bias"))
    );
    assert_eq!(
        rows("longformer.embeddings.position_embeddings.weight").len(),
        52 * 18
    );
}

#[test]
fn heads_that_would_be_another_function_are_left_out_and_named() {
    let converted = convert(golden("families/roberta_sequence"), BIG_BIRD, 40, None).unwrap();
    assert_eq!(converted.config.head(), Head::Base);
    assert_eq!(converted.dropped.len(), 4, "{:?}", converted.dropped);
    assert!(
        converted
            .dropped
            .iter()
            .all(|name| name.starts_with("classifier."))
    );
}

#[test]
fn what_cannot_be_converted_is_refused() {
    for (folder, to, tokens, expected) in [
        ("families/albert_base", LONGFORMER, 40, "albert"),
        ("families/roberta_base", LONGFORMER, 14, "from 15"),
        (
            "families/roberta_base",
            LongModel::Longformer { window: 5 },
            40,
            "even",
        ),
        (
            "families/roberta_base",
            LongModel::BigBird {
                block: 9,
                random: 3,
            },
            40,
            "within 40",
        ),
        ("families/longformer_base", BIG_BIRD, 40, "roberta"),
    ] {
        let error = convert(golden(folder), to, tokens, None)
            .unwrap_err()
            .to_string();
        assert!(error.contains(expected), "{folder}: {error}");
    }
}
