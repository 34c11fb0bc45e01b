//! Whatever a folder or a caller holds: the right error, which names the thing, and never a panic.

mod support;

use std::fmt::Debug;
use std::fs;
use std::path::{Path, PathBuf};

use bertha::models::ModelError;
use bertha::nn::NnError;
use bertha::tensor::{Checkpoint, FileError, Tensor, save_safetensors};
use bertha::tokenizer::TokenizerError;
use bertha::{
    Aggregation, AnswerOptions, ClassifyOptions, Encoder, FillMask, FillMaskOptions, Precision,
    QuestionAnswerer, TagOptions, TaskError, TextClassifier, TextInput, TokenClassifier,
};
use serde_json::{Value, json};
use support::wrong_values;
use tempfile::TempDir;

/// A copy of a folder of `tests/golden/`, to be damaged.
struct Folder(TempDir);

impl Folder {
    fn of(name: &str) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
        let folder = tempfile::tempdir().unwrap();
        copy(&root.join(name), folder.path());
        Self(folder)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.file(name), content).unwrap();
    }

    fn remove(&self, name: &str) {
        fs::remove_file(self.file(name)).unwrap();
    }

    fn json(&self, name: &str) -> Value {
        serde_json::from_slice(&fs::read(self.file(name)).unwrap()).unwrap()
    }

    /// Sets a key of a JSON file; null removes it.
    fn set(&self, name: &str, key: &str, value: Value) {
        let mut json = self.json(name);
        match value {
            Value::Null => drop(json.as_object_mut().unwrap().remove(key)),
            value => json[key] = value,
        }
        self.write(name, json.to_string());
    }

    /// Rewrites the weights; `change` may alter a tensor or drop it.
    fn rewrite(&self, change: impl Fn(&str, Tensor) -> Option<Tensor>) {
        let path = self.file("model.safetensors");
        let weights = Checkpoint::open(&path).unwrap();
        let tensors: Vec<(String, Tensor)> = weights
            .names()
            .filter_map(|name| {
                let tensor = change(name, weights.get(name).unwrap())?;
                Some((name.to_owned(), tensor.copy()))
            })
            .collect();
        drop(weights);
        let named: Vec<_> = tensors
            .iter()
            .map(|(name, tensor)| (&**name, tensor))
            .collect();
        save_safetensors(&path, &named, None).unwrap();
    }

    fn encoder(&self) -> Result<Encoder, TaskError> {
        Encoder::from_dir(self.path())
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).unwrap()),
        }
    }
}

/// The error, which must say all of `parts`.
#[track_caller]
fn refused<T: Debug>(result: Result<T, TaskError>, parts: &[&str]) -> TaskError {
    let error = result.expect_err("this must be refused");
    let text = error.to_string();
    for part in parts {
        assert!(text.contains(part), "\"{part}\" is not in: {text}");
    }
    error
}

#[test]
fn a_folder_without_its_files() {
    let missing = Encoder::from_dir("no/such/folder");
    let error = refused(missing, &["no/such/folder", "config.json", "model folder"]);
    assert!(
        matches!(error, TaskError::Model(ModelError::Read { .. })),
        "{error:?}"
    );

    let folder = Folder::of("sentence/mean");
    folder.remove("model.safetensors");
    let error = refused(folder.encoder(), &["no weights", "model.safetensors"]);
    assert!(
        matches!(
            error,
            TaskError::Model(ModelError::File(FileError::NoWeights { .. }))
        ),
        "{error:?}"
    );
    folder.write("pytorch_model.bin", "");
    refused(folder.encoder(), &["pytorch_model.bin", "save_pretrained"]);

    let folder = Folder::of("sentence/mean");
    folder.remove("tokenizer.json");
    folder.remove("vocab.txt");
    let error = refused(folder.encoder(), &["tokenizer.json", "vocab.txt"]);
    assert!(
        matches!(
            error,
            TaskError::Tokenizer(TokenizerError::NoTokenizer { .. })
        ),
        "{error:?}"
    );
}

#[test]
fn a_missing_shard() {
    let folder = Folder::of("bert/sharded");
    folder.remove("model-00002-of-00003.safetensors");
    refused(
        folder.encoder(),
        &[
            "model.safetensors.index.json",
            "model-00002-of-00003.safetensors",
        ],
    );
}

#[test]
fn weights_that_are_cut_or_corrupt() {
    let folder = Folder::of("sentence/mean");
    let whole = fs::read(folder.file("model.safetensors")).unwrap();
    for length in [0, 4, 8, 100, whole.len() / 2, whole.len() - 1] {
        folder.write("model.safetensors", &whole[..length]);
        let error = refused(folder.encoder(), &["model.safetensors"]);
        assert!(
            matches!(error, TaskError::Model(ModelError::File(_))),
            "{length}: {error:?}"
        );
    }
    let mut huge = whole.clone();
    huge[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    folder.write("model.safetensors", huge);
    refused(folder.encoder(), &["model.safetensors"]);
    let mut no_json = whole;
    no_json[8] = b'!';
    folder.write("model.safetensors", no_json);
    refused(folder.encoder(), &["model.safetensors"]);
}

#[test]
fn tensors_that_do_not_fit() {
    let query = "encoder.layer.0.attention.self.query.weight";
    let folder = Folder::of("sentence/mean");
    folder.rewrite(|name, tensor| match name == query {
        true => Some(Tensor::from_vec(vec![0.0f32; 12 * 11], &[12, 11]).unwrap()),
        false => Some(tensor),
    });
    let error = refused(
        folder.encoder(),
        &["model.safetensors", query, "[12, 11]", "[12, 12]"],
    );
    let wrong = matches!(
        error,
        TaskError::Model(ModelError::Nn(NnError::WrongShape { .. }))
    );
    assert!(wrong, "{error:?}");

    let folder = Folder::of("sentence/mean");
    folder.rewrite(|name, tensor| (name != query).then_some(tensor));
    let error = refused(folder.encoder(), &["model.safetensors", query, "missing"]);
    let missing = matches!(
        error,
        TaskError::Model(ModelError::Nn(NnError::MissingTensor { .. }))
    );
    assert!(missing, "{error:?}");

    let folder = Folder::of("sentence/mean");
    folder.rewrite(|name, tensor| match name == query {
        true => Some(Tensor::from_vec(vec![0i64; 144], &[12, 12]).unwrap()),
        false => Some(tensor),
    });
    refused(
        folder.encoder(),
        &["model.safetensors", query, "i64", "f32"],
    );
}

#[test]
fn configurations_that_cannot_be() {
    let folder = Folder::of("sentence/mean");
    let with = |key: &str, value: Value| {
        let before = folder.json("config.json");
        folder.set("config.json", key, value);
        let result = folder.encoder();
        folder.write("config.json", before.to_string());
        result
    };
    refused(
        with("model_type", json!("llama")),
        &["config.json", "llama", "bert"],
    );
    refused(
        with("model_type", Value::Null),
        &["config.json", "`model_type` is missing"],
    );
    refused(
        with("num_attention_heads", json!(5)),
        &["config.json", "`num_attention_heads` is 5", "12"],
    );
    refused(
        with("hidden_size", json!(0)),
        &["config.json", "`hidden_size` is 0"],
    );
    refused(with("hidden_size", json!(-12)), &["`hidden_size` is -12"]);
    refused(with("hidden_size", json!(12.5)), &["`hidden_size` is 12.5"]);
    refused(
        with("hidden_size", json!(24)),
        &["embeddings", "[195, 12]", "[195, 24]"],
    );
    refused(
        with("vocab_size", json!(1e12)),
        &["`vocab_size` is 1000000000000.0"],
    );
    refused(
        with("vocab_size", json!("many")),
        &["`vocab_size` is \"many\"", "whole number"],
    );
    refused(
        with("num_hidden_layers", json!(2)),
        &["encoder.layer.1", "missing"],
    );
    refused(
        with("layer_norm_eps", json!(-1)),
        &["`layer_norm_eps` is -1"],
    );
    refused(
        with("hidden_act", json!("sine")),
        &["config.json", "`hidden_act`", "sine", "gelu"],
    );
    refused(
        with("position_embedding_type", json!("relative_key")),
        &["relative_key", "absolute"],
    );
    refused(with("is_decoder", json!(true)), &["`is_decoder` is true"]);
    refused(
        with("id2label", json!({"0": "A", "7": "B"})),
        &["`id2label`"],
    );
    folder.write("config.json", "{");
    refused(
        folder.encoder(),
        &["config.json", "not a model configuration"],
    );
    folder.write("config.json", "[]");
    refused(folder.encoder(), &["config.json", "not an object"]);
}

/// Every key of every JSON file with every kind of wrong value: an error or a model, never a panic.
#[test]
fn no_value_of_any_key_panics() {
    let mut refusals = 0;
    for (name, files) in [
        (
            "sentence/dense",
            &[
                "config.json",
                "sentence_bert_config.json",
                "config_sentence_transformers.json",
                "tokenizer_config.json",
                "1_Pooling/config.json",
                "2_Dense/config.json",
            ][..],
        ),
        (
            "pipelines/classify_single",
            &["config.json", "tokenizer_config.json"],
        ),
    ] {
        let folder = Folder::of(name);
        for file in files {
            let before = folder.json(file);
            let mut keys: Vec<&str> = before.as_object().unwrap().keys().map(|k| &**k).collect();
            if *file == "sentence_bert_config.json" {
                keys.extend(["max_seq_length", "do_lower_case"]);
            }
            for key in keys {
                for value in &wrong_values() {
                    let mut changed = before.clone();
                    changed[key] = value.clone();
                    folder.write(file, changed.to_string());
                    let result = match name.starts_with("sentence") {
                        true => folder
                            .encoder()
                            .and_then(|e| e.embed(&["a river"]))
                            .map(drop),
                        false => TextClassifier::from_dir(folder.path())
                            .and_then(|c| c.classify("a river"))
                            .map(drop),
                    };
                    refusals += usize::from(result.is_err());
                }
            }
            folder.write(file, before.to_string());
        }
    }
    assert!(refusals > 200, "only {refusals} were refused");
}

/// Bytes changed here and there in the weights and the tokenizer: an error or a model, never a panic.
#[test]
fn no_damage_of_a_file_panics() {
    // A generator of its own, so that a failure repeats.
    let mut state = 0x2545_f491_4f6c_dd1du64;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as usize % below
    };
    let folder = Folder::of("sentence/mean");
    for file in [
        "model.safetensors",
        "tokenizer.json",
        "config.json",
        "modules.json",
    ] {
        let whole = fs::read(folder.file(file)).unwrap();
        for round in 0..60 {
            let mut bytes = whole.clone();
            for _ in 0..1 + round % 3 {
                // The header of the weights is where damage can mislead.
                let at = random(bytes.len().min(4000));
                bytes[at] = random(256) as u8;
            }
            if round % 10 == 9 {
                bytes.truncate(random(whole.len()));
            }
            folder.write(file, bytes);
            drop(
                folder
                    .encoder()
                    .and_then(|encoder| encoder.embed(&["a river", ""])),
            );
        }
        folder.write(file, whole);
    }
    folder.encoder().unwrap();
}

#[test]
fn modules_that_bertha_does_not_run() {
    let folder = Folder::of("sentence/mean");
    folder.set("1_Pooling/config.json", "pooling_mode", json!("median"));
    refused(
        folder.encoder(),
        &["1_Pooling", "`pooling_mode`", "median", "mean"],
    );

    let folder = Folder::of("sentence/mean");
    let mut modules = folder.json("modules.json");
    modules[1]["type"] = json!("sentence_transformers.models.CNN");
    folder.write("modules.json", modules.to_string());
    refused(
        folder.encoder(),
        &["modules.json", "module 1", "CNN", "Pooling"],
    );

    let folder = Folder::of("sentence/dense");
    folder.set("2_Dense/config.json", "in_features", json!(13));
    refused(folder.encoder(), &["2_Dense", "`in_features` is 13", "12"]);
    // Two poolings side by side are twice as wide.
    let folder = Folder::of("sentence/dense");
    folder.set(
        "1_Pooling/config.json",
        "pooling_mode",
        json!(["cls", "mean"]),
    );
    refused(folder.encoder(), &["2_Dense", "`in_features` is 12", "24"]);
    let folder = Folder::of("sentence/dense");
    folder.remove("2_Dense/model.safetensors");
    refused(folder.encoder(), &["2_Dense", "no weights"]);
    let folder = Folder::of("sentence/dense");
    folder.set("2_Dense/config.json", "out_features", json!(8));
    refused(
        folder.encoder(),
        &["2_Dense", "linear.weight", "[7, 12]", "[8, 12]"],
    );
}

#[test]
fn a_tokenizer_of_another_model() {
    let folder = Folder::of("sentence/mean");
    folder.set("config.json", "vocab_size", json!(150));
    folder.rewrite(
        |name, tensor| match name == "embeddings.word_embeddings.weight" {
            true => {
                let values = tensor.to_vec::<f32>().unwrap();
                Some(Tensor::from_slice(&values[..150 * 12], &[150, 12]).unwrap())
            }
            false => Some(tensor),
        },
    );
    let encoder = folder.encoder().unwrap();
    encoder.embed(&["a b c"]).unwrap();
    let error = refused(
        encoder.embed(&["a b c", "in a river"]),
        &["text 1", "\"river\"", "id 156", "150"],
    );
    assert!(
        matches!(
            error,
            TaskError::BeyondVocabulary {
                index: 1,
                id: 156,
                ..
            }
        ),
        "{error:?}"
    );

    let folder = Folder::of("sentence/mean");
    folder.write("tokenizer.json", "{");
    refused(folder.encoder(), &["tokenizer.json"]);
}

#[test]
fn empty_input() {
    let encoder = Folder::of("sentence/mean").encoder().unwrap();
    let none: [&str; 0] = [];
    assert_eq!(encoder.embed(&none).unwrap().dim(), (0, 12));
    assert_eq!(encoder.embed(&["", " \n"]).unwrap().dim(), (2, 12));

    let folder = Folder::of("pipelines/fill_mask");
    let model = FillMask::from_dir(folder.path()).unwrap();
    assert!(
        model
            .fill_batch(&none, &FillMaskOptions::default())
            .unwrap()
            .is_empty()
    );
    let error = refused(
        model.fill_batch(&["[MASK]", "", "a"], &FillMaskOptions::default()),
        &["text 1", "no mask", "[MASK]"],
    );
    assert!(
        matches!(error, TaskError::NoMask { index: 1, .. }),
        "{error:?}"
    );

    let folder = Folder::of("pipelines/classify_single");
    let model = TextClassifier::from_dir(folder.path()).unwrap();
    assert!(
        model
            .classify_batch(&[], &ClassifyOptions::default())
            .unwrap()
            .is_empty()
    );
    assert_eq!(model.classify("").unwrap().len(), 1);

    let folder = Folder::of("pipelines/tag");
    let model = TokenClassifier::from_dir(folder.path()).unwrap();
    assert!(model.tag("").unwrap().is_empty());
    for aggregation in [Aggregation::Simple, Aggregation::First] {
        let options = TagOptions {
            aggregation,
            stride: Some(3),
            ..TagOptions::default()
        };
        assert_eq!(
            model.tag_batch(&["", " "], &options).unwrap(),
            [vec![], vec![]]
        );
    }

    let folder = Folder::of("pipelines/answer");
    let model = QuestionAnswerer::from_dir(folder.path()).unwrap();
    refused(model.answer("", "John works."), &["question is empty"]);
    refused(model.answer("Who?", " \t"), &["context is empty"]);
    // Nothing that the tokenizer keeps.
    refused(model.answer("Who?", "\u{200b}"), &["context is empty"]);
}

#[test]
fn texts_that_are_too_long() {
    let long = "the river ".repeat(100);
    let folder = Folder::of("sentence/mean");
    let encoder = folder.encoder().unwrap();
    assert_eq!(encoder.max_length(), 32);
    let cut = encoder.embed(&[&long]).unwrap();
    assert_eq!(
        cut,
        encoder.embed(&["the river ".repeat(15)]).unwrap(),
        "32 tokens count"
    );

    let strict = Encoder::builder(folder.path())
        .truncate(false)
        .build()
        .unwrap();
    let error = refused(
        strict.embed(&["a", &long]),
        &[
            "text 1",
            "202 tokens",
            "limit of 32",
            "model_max_length",
            "tokenizer_config.json",
        ],
    );
    assert!(matches!(
        error,
        TaskError::TooLong {
            index: 1,
            tokens: 202,
            limit: 32,
            ..
        }
    ));
    let shorter = Encoder::builder(folder.path())
        .truncate(false)
        .max_length(9)
        .build()
        .unwrap();
    refused(shorter.embed(&[&long]), &["limit of 9", "max_length"]);

    // Nobody set a limit: the model's positions do, and nothing is cut unless asked for.
    folder.set("tokenizer_config.json", "model_max_length", json!(1e30));
    let unlimited = folder.encoder().unwrap();
    assert_eq!(unlimited.max_length(), 48);
    refused(
        unlimited.embed(&[&long]),
        &["text 0", "48", "the model's positions", "truncate(true)"],
    );
    let asked = Encoder::builder(folder.path())
        .truncate(true)
        .build()
        .unwrap();
    asked.embed(&[&long]).unwrap();

    let folder = Folder::of("pipelines/classify_single");
    let strict = TextClassifier::builder(folder.path())
        .truncate(false)
        .build()
        .unwrap();
    let pair = TextInput::Pair("a", &long);
    refused(
        strict.classify_batch(&["a".into(), pair], &ClassifyOptions::default()),
        &["text 1", "204 tokens", "48"],
    );

    let folder = Folder::of("pipelines/fill_mask");
    let model = FillMask::from_dir(folder.path()).unwrap();
    refused(
        model.fill(&format!("{long} [MASK]")),
        &["text 0", "no mask", "cut"],
    );

    let folder = Folder::of("pipelines/answer");
    let model = QuestionAnswerer::from_dir(folder.path()).unwrap();
    refused(
        model.answer(&long, &long),
        &["question has 67 tokens", "48", "max_question_len"],
    );
}

#[test]
fn weights_that_are_no_numbers() {
    let poison = |name: &str, tensor: &str| {
        let folder = Folder::of(name);
        folder.rewrite(|found, values| {
            let mut copy = values.to_vec::<f32>().unwrap();
            if found.ends_with(tensor) {
                copy.fill(f32::NAN);
            }
            Some(Tensor::from_vec(copy, values.shape()).unwrap())
        });
        folder
    };
    let inner = "layer.0.output.dense.weight";
    let folder = poison("sentence/mean", inner);
    let error = refused(
        folder.encoder().unwrap().embed(&["a"]),
        &["embedding of text 0", "not finite"],
    );
    assert!(
        matches!(error, TaskError::NotFinite { index: 0, .. }),
        "{error:?}"
    );
    // Every pooling shows it, and so does a dense layer behind it.
    for name in [
        "cls",
        "max",
        "mean_sqrt_len",
        "weightedmean",
        "lasttoken",
        "dense",
    ] {
        let folder = poison(&format!("sentence/{name}"), inner);
        refused(
            folder.encoder().unwrap().embed(&["a river"]),
            &["not finite"],
        );
    }
    // A word that is damaged spoils its own text alone.
    let folder = Folder::of("sentence/mean");
    folder.rewrite(|name, tensor| {
        let mut values = tensor.to_vec::<f32>().unwrap();
        if name == "embeddings.word_embeddings.weight" {
            values[156 * 12] = f32::INFINITY;
        }
        Some(Tensor::from_vec(values, tensor.shape()).unwrap())
    });
    let encoder = folder.encoder().unwrap();
    encoder.embed(&["a city"]).unwrap();
    refused(encoder.embed(&["a city", "a city", "a river"]), &["text 2"]);

    let folder = poison("pipelines/fill_mask", inner);
    let model = FillMask::from_dir(folder.path()).unwrap();
    refused(model.fill("a [MASK]"), &["logits of text 0", "not finite"]);
    let folder = poison("pipelines/classify_single", "classifier.weight");
    let model = TextClassifier::from_dir(folder.path()).unwrap();
    refused(model.classify("a"), &["logits of text 0", "not finite"]);
    let folder = poison("pipelines/tag", "classifier.bias");
    let model = TokenClassifier::from_dir(folder.path()).unwrap();
    refused(model.tag("a"), &["logits of text 0", "not finite"]);
    let folder = poison("pipelines/answer", "qa_outputs.weight");
    let model = QuestionAnswerer::from_dir(folder.path()).unwrap();
    refused(model.answer("Who?", "John."), &["not finite"]);
}

#[test]
fn heads_that_are_not_there() {
    let folder = Folder::of("sentence/mean");
    let path = folder.path();
    let error = refused(
        TextClassifier::from_dir(path),
        &[
            "model.safetensors",
            "no sequence-classification head",
            "classifier",
        ],
    );
    assert!(
        matches!(error, TaskError::Model(ModelError::MissingHead { .. })),
        "{error:?}"
    );
    refused(
        TokenClassifier::from_dir(path),
        &["no token-classification head"],
    );
    refused(
        QuestionAnswerer::from_dir(path),
        &["no question-answering head", "qa_outputs"],
    );
    refused(FillMask::from_dir(path), &["no masked-LM head"]);

    let folder = Folder::of("pipelines/tag");
    folder.set("config.json", "id2label", json!({"0": "O", "1": "PER"}));
    refused(
        TokenClassifier::from_dir(folder.path()),
        &["classifier.weight", "[5, 24]", "[2, 24]"],
    );
}

#[test]
fn options_out_of_range() {
    let folder = Folder::of("sentence/mean");
    let builder = || Encoder::builder(folder.path());
    let encoder = builder().precision(Precision::F32).build().unwrap();
    refused(builder().threads(0).build(), &["0"]);
    refused(
        builder().batch_tokens(0).build(),
        &["batch_tokens", "1 or more"],
    );
    refused(builder().max_length(0).build(), &["max_length", "1 to 48"]);
    refused(
        builder().max_length(49).build(),
        &["max_length", "49", "1 to 48"],
    );
    let session = encoder.session().clone();
    refused(
        builder().session(session).threads(2).build(),
        &["threads", "session"],
    );
    // Room for the special tokens alone.
    let tiny = builder().max_length(1).build().unwrap();
    refused(tiny.embed(&["a river"]), &["1", "special tokens"]);

    let folder = Folder::of("pipelines/fill_mask");
    let model = FillMask::from_dir(folder.path()).unwrap();
    let fill = |options: FillMaskOptions| model.fill_batch(&["[MASK]"], &options);
    let default = FillMaskOptions::default;
    refused(
        fill(FillMaskOptions {
            top_k: 0,
            ..default()
        }),
        &["top_k", "1 or more"],
    );
    let targets = vec!["\u{200b}".to_owned(), String::new()];
    refused(
        fill(FillMaskOptions {
            targets,
            ..default()
        }),
        &["targets", "other words"],
    );
    let all = fill(FillMaskOptions {
        top_k: usize::MAX,
        ..default()
    })
    .unwrap();
    assert_eq!(all[0][0].len(), 195, "no more than the vocabulary");

    let folder = Folder::of("pipelines/classify_single");
    let model = TextClassifier::from_dir(folder.path()).unwrap();
    let options = ClassifyOptions {
        top_k: Some(0),
        ..ClassifyOptions::default()
    };
    refused(
        model.classify_batch(&["a".into()], &options),
        &["top_k", "1 or more"],
    );

    let folder = Folder::of("pipelines/tag");
    let model = TokenClassifier::from_dir(folder.path()).unwrap();
    let tag = |aggregation, stride| {
        let options = TagOptions {
            aggregation,
            stride: Some(stride),
            ..TagOptions::default()
        };
        model.tag_batch(&["a"], &options)
    };
    refused(tag(Aggregation::None, 4), &["stride", "aggregation"]);
    refused(tag(Aggregation::First, 46), &["stride", "46"]);
    tag(Aggregation::First, 45).unwrap();

    let folder = Folder::of("pipelines/answer");
    let model = QuestionAnswerer::from_dir(folder.path()).unwrap();
    let context = "John Smith lives in a house. ".repeat(9);
    let answer = |options: AnswerOptions| model.answer_with("Who?", &context, &options);
    let default = AnswerOptions::default;
    refused(
        answer(AnswerOptions {
            top_k: 0,
            ..default()
        }),
        &["top_k"],
    );
    refused(
        answer(AnswerOptions {
            max_answer_len: 0,
            ..default()
        }),
        &["max_answer_len"],
    );
    refused(
        answer(AnswerOptions {
            max_seq_len: Some(49),
            ..default()
        }),
        &["max_seq_len", "1 to 48"],
    );
    refused(
        answer(AnswerOptions {
            max_seq_len: Some(3),
            ..default()
        }),
        &["question", "3 tokens"],
    );
    refused(
        answer(AnswerOptions {
            doc_stride: Some(48),
            ..default()
        }),
        &["doc_stride", "48"],
    );
    let huge = AnswerOptions {
        top_k: usize::MAX,
        max_answer_len: usize::MAX,
        max_question_len: usize::MAX,
        ..default()
    };
    assert!(answer(huge).unwrap().len() > 100);
}
