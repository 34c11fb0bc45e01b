//! Whole sentence-transformers folders against sentence-transformers (`tests/golden/sentence/`): every pooling,
//! normalisation, dense layers, prompts, limits.

use std::path::{Path, PathBuf};

use bertha::autograd::Session;
use bertha::kernels::{Exec, Isa};
use bertha::tensor::Checkpoint;
use bertha::tokenizer::EncodeOptions;
use bertha::{Encoder, EncoderBuilder, Pooling, TaskError};
use ndarray::{Array2, Axis, Ix2, s};

/// Largest difference over largest value, as the fixtures' README states it.
const TOLERANCE: f32 = 1e-5;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/sentence")
}

fn folders() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root()).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut folders: Vec<_> = paths.filter(|path| path.is_dir()).collect();
    folders.sort();
    assert!(folders.len() >= 13, "fixtures are missing: {folders:?}");
    folders
}

/// The texts and their ids, cut to 32.
fn texts() -> (Vec<String>, Vec<Vec<u32>>) {
    let json = std::fs::read(root().join("texts.json")).unwrap();
    let items: Vec<serde_json::Value> = serde_json::from_slice(&json).unwrap();
    assert_eq!(items.len(), 13);
    let text = |item: &serde_json::Value| item["text"].as_str().unwrap().to_owned();
    let id = |id: &serde_json::Value| id.as_u64().unwrap() as u32;
    let ids = |item: &serde_json::Value| item["ids"].as_array().unwrap().iter().map(id).collect();
    items.iter().map(|item| (text(item), ids(item))).unzip()
}

fn golden(folder: &Path, name: &str) -> Array2<f32> {
    let expected = Checkpoint::open(folder.join("expected.safetensors")).unwrap();
    let array = expected.get(name).unwrap().to_ndarray::<f32>().unwrap();
    array.into_dimensionality::<Ix2>().unwrap()
}

fn assert_close(found: &Array2<f32>, expected: &Array2<f32>, at: &str) {
    assert_eq!(found.dim(), expected.dim(), "{at}");
    // A NaN must not be lost in the maximum.
    let largest = |values: Array2<f32>| {
        values.fold(0.0f32, |max, v| match v.abs() {
            v if v > max || v.is_nan() => v,
            _ => max,
        })
    };
    let difference = largest(found - expected) / largest(expected.clone());
    assert!(difference <= TOLERANCE, "{at}: {difference:e}");
}

fn bits(embeddings: &Array2<f32>) -> Vec<u32> {
    embeddings.iter().map(|value| value.to_bits()).collect()
}

fn builder(name: &str) -> EncoderBuilder {
    Encoder::builder(root().join(name))
}

#[test]
fn every_folder_embeds_as_in_sentence_transformers_on_every_instruction_set() {
    let (texts, _) = texts();
    for folder in folders() {
        let expected = golden(&folder, "embeddings");
        for isa in Isa::available() {
            let session = Session::from_exec(Exec::with_isa(isa, 2));
            let encoder = Encoder::builder(&folder).session(session).build().unwrap();
            let at = format!("{}, {isa}", folder.display());
            assert_eq!(encoder.dimension(), expected.ncols(), "{at}");
            assert_close(&encoder.embed(&texts).unwrap(), &expected, &at);
        }
    }
}

#[test]
fn token_ids_are_the_same_within_each_folders_limit() {
    let (texts, ids) = texts();
    for folder in folders() {
        let encoder = Encoder::from_dir(&folder).unwrap();
        let limit = match folder.file_name().unwrap().to_str() {
            Some("legacy") => 20,
            _ => 32,
        };
        assert_eq!(encoder.max_length(), limit, "{folder:?}");
        if limit == 32 {
            let options = EncodeOptions::truncated(limit);
            for (text, ids) in texts.iter().zip(&ids) {
                let encoding = encoder.tokenizer().encode(text, &options).unwrap();
                assert_eq!(encoding.ids(), ids, "{folder:?}: {text}");
            }
        }
    }
}

#[test]
fn prompts_by_name_by_text_and_none() {
    let (texts, _) = texts();
    for name in ["prompt", "prompt_excluded"] {
        let folder = root().join(name);
        for (prompt_name, prompt) in [("query", "what is it: "), ("passage", "passage: ")] {
            let expected = golden(&folder, &format!("embeddings.{prompt_name}"));
            let by_name = builder(name).prompt_name(prompt_name).build().unwrap();
            let by_text = builder(name).prompt(prompt).build().unwrap();
            let both = builder(name)
                .prompt(prompt)
                .prompt_name("no such")
                .build()
                .unwrap();
            let at = format!("{name}, {prompt_name}");
            let found = by_name.embed(&texts).unwrap();
            assert_close(&found, &expected, &at);
            for other in [by_text, both] {
                assert_eq!(bits(&other.embed(&texts).unwrap()), bits(&found), "{at}");
            }
        }
        let none = builder(name).prompt("").build().unwrap();
        let expected = golden(&folder, "embeddings.none");
        assert_close(&none.embed(&texts).unwrap(), &expected, name);
    }
    let error = builder("prompt")
        .prompt_name("no such")
        .build()
        .unwrap_err();
    let error = error.to_string();
    for part in [
        "config_sentence_transformers.json",
        "no such",
        "passage",
        "query",
    ] {
        assert!(error.contains(part), "{part} in {error}");
    }
}

#[test]
fn a_text_that_is_all_prompt_has_nothing_to_pool() {
    // Alone the prompt is l, ##o, ##n, ##d; before "on" it is part of one token.
    let encoder = builder("prompt_excluded").prompt("lond").build().unwrap();
    encoder.embed(&["on a good river"]).unwrap();
    let error = encoder.embed(&["on a good river", "on"]).unwrap_err();
    assert!(
        matches!(
            error,
            TaskError::OnlyPrompt {
                index: 1,
                tokens: 3,
                prompt: 5
            }
        ),
        "{error}"
    );
}

#[test]
fn the_caller_may_choose_pooling_and_normalisation() {
    let (texts, _) = texts();
    let embed = |builder: EncoderBuilder| builder.build().unwrap().embed(&texts).unwrap();
    // All folders are about one model, so that one can be told to do what another says.
    for (name, mode) in [
        ("cls", Pooling::Cls),
        ("max", Pooling::Max),
        ("mean_sqrt_len", Pooling::MeanSqrtLen),
        ("weightedmean", Pooling::WeightedMean),
    ] {
        let expected = bits(&embed(builder(name)));
        assert_eq!(
            bits(&embed(builder("plain").pooling(mode))),
            expected,
            "{name}"
        );
    }
    for (name, mode) in [("mean", Pooling::Mean), ("lasttoken", Pooling::LastToken)] {
        let expected = bits(&embed(builder(name)));
        let normalised = embed(builder("plain").pooling(mode).normalize(true));
        assert_eq!(bits(&normalised), expected, "{name}");
        let twice = embed(builder(name).normalize(true));
        assert_eq!(bits(&twice), expected, "{name}: normalised once");
        let raw = embed(builder(name).normalize(false));
        let plain = embed(builder("plain").pooling(mode));
        assert_eq!(bits(&raw), bits(&plain), "{name}: not normalised");
        assert_ne!(bits(&raw), expected, "{name}: not normalised");
    }
}

#[test]
fn concatenated_poolings_stand_side_by_side() {
    let (texts, _) = texts();
    let together = builder("concatenated").normalize(false).build().unwrap();
    let together = together.embed(&texts).unwrap();
    for (i, mode) in [Pooling::Cls, Pooling::Max, Pooling::Mean]
        .into_iter()
        .enumerate()
    {
        let alone = builder("plain")
            .pooling(mode)
            .build()
            .unwrap()
            .embed(&texts)
            .unwrap();
        let part = together.slice(s![.., 12 * i..12 * (i + 1)]).to_owned();
        assert_eq!(bits(&part), bits(&alone), "{mode}");
    }
}

#[test]
fn the_same_bits_in_any_company_and_for_any_number_of_threads() {
    let (texts, _) = texts();
    for name in ["mean", "dense", "prompt_excluded"] {
        let all = builder(name)
            .threads(1)
            .build()
            .unwrap()
            .embed(&texts)
            .unwrap();
        for (threads, batch_tokens) in [(1, 1), (2, 40), (3, 70), (8, 1 << 20)] {
            let encoder = builder(name).threads(threads).batch_tokens(batch_tokens);
            let found = encoder.build().unwrap().embed(&texts).unwrap();
            assert_eq!(
                bits(&found),
                bits(&all),
                "{name}, {threads} threads, {batch_tokens}"
            );
        }
        let encoder = builder(name).build().unwrap();
        // Enough texts to be tokenized on several threads.
        let many: Vec<&String> = texts.iter().cycle().take(1000 * texts.len()).collect();
        let found = encoder.embed(&many).unwrap();
        for (i, row) in found.axis_iter(Axis(0)).enumerate() {
            assert_eq!(row, all.row(i % texts.len()), "{name}, text {i}");
        }
        for (i, text) in texts.iter().enumerate() {
            let alone = encoder.embed(&[text]).unwrap();
            assert_eq!(alone.row(0), all.row(i), "{name}: {text}");
        }
    }
}

#[test]
fn no_texts_are_no_embeddings_and_progress_counts_texts() {
    let encoder = builder("mean").batch_tokens(30).build().unwrap();
    let none: [&str; 0] = [];
    assert_eq!(encoder.embed(&none).unwrap().dim(), (0, 12));
    let (texts, _) = texts();
    let mut steps = Vec::new();
    encoder
        .embed_with(&texts, &mut |done| steps.push(done))
        .unwrap();
    assert!(steps.len() > 1 && steps.is_sorted(), "{steps:?}");
    assert_eq!(steps.last(), Some(&texts.len()));
}

#[test]
fn tasks_are_shared_between_threads() {
    fn shared<T: Send + Sync + Clone + 'static>() {}
    shared::<Encoder>();
    shared::<bertha::FillMask>();
    shared::<bertha::TextClassifier>();
    shared::<bertha::TokenClassifier>();
    shared::<bertha::QuestionAnswerer>();
}
