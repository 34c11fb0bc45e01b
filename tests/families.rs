//! BERT's relatives and their heads against `transformers`, on the tiny models of `tests/golden/families/`: outputs,
//! losses, gradients, and that what is saved has `transformers`' names.

mod support;

use std::path::{Path, PathBuf};

use bertha::autograd::ops::Reduction;
use bertha::autograd::{Gradients, Session};
use bertha::kernels::{Exec, Isa};
use bertha::models::{Config, ForwardOptions, Head, Targets, TrainableModel, load, loss};
use bertha::nn::Batch;
use bertha::tensor::{Checkpoint, Tensor};
use serde_json::json;
use support::{named, read_batch, relative_difference, tolerance, wrong_values};

const GRADIENT_TOLERANCE: f32 = 1e-4;

/// The places of each sequence's global tokens, where a folder's inputs say.
fn read_globals(folder: &Path, batch: &Batch) -> Option<Vec<Vec<u32>>> {
    let inputs = Checkpoint::open(folder.join("inputs.safetensors")).unwrap();
    let mask = inputs.get("global_attention_mask").ok()?;
    let mask = batch.pack(&mask).unwrap();
    let sequence = |i| {
        let mask = &mask[batch.range(i)];
        (0..)
            .zip(mask)
            .filter(|(_, mask)| **mask == 1)
            .map(|(place, _)| place)
            .collect()
    };
    Some((0..batch.len()).map(sequence).collect())
}

fn fixtures() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/families");
    let entries = std::fs::read_dir(&root).expect("tests/golden/families is in the repository");
    let mut folders: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    assert!(folders.len() >= 55, "fixtures are missing from {root:?}");
    folders
}

#[test]
fn every_tensor_matches_transformers_on_every_instruction_set() {
    for folder in fixtures() {
        let expected = Checkpoint::open(folder.join("expected.safetensors")).unwrap();
        let (batch, columns) = read_batch(&folder);
        let globals = read_globals(&folder, &batch);
        let options = ForwardOptions {
            hidden_states: true,
            logit_rows: None,
            global_tokens: globals.as_deref(),
        };
        for isa in Isa::available() {
            let session = Session::from_exec(Exec::with_isa(isa, 2));
            let model = load(&folder, &session).unwrap();
            let outputs = model.forward(&session, &batch, &options).unwrap();
            let found = named(model.info(), &outputs, &batch, columns);
            for name in expected.names() {
                if name == "loss" || name.starts_with("grad.") {
                    continue;
                }
                let at = format!("{}, {name}, {isa}", folder.display());
                let (_, found) = (found.iter().find(|(key, _)| key == name))
                    .unwrap_or_else(|| panic!("{at}: not given"));
                let golden = expected.get(name).unwrap();
                assert_eq!(found.shape(), golden.shape(), "{at}");
                let difference = relative_difference(found, &golden);
                assert!(difference <= tolerance(isa), "{at}: {difference}");
            }
        }
    }
}

/// The loss of a fixture and every parameter's gradient.
fn gradients(folder: &Path, inputs: &Checkpoint) -> (Tensor, Vec<(String, Option<Tensor>)>) {
    let session = Session::new(Some(2)).unwrap();
    let config = Config::from_file(folder.join("config.json")).unwrap();
    let head = config.head();
    let trainable = TrainableModel::from_dir(folder, config, head, &session, 0).unwrap();
    assert!(
        trainable.fresh.is_empty(),
        "{folder:?}: {:?}",
        trainable.fresh
    );
    let (batch, _) = read_batch(folder);
    let globals = read_globals(folder, &batch);
    let options = ForwardOptions {
        global_tokens: globals.as_deref(),
        ..ForwardOptions::default()
    };
    let outputs = trainable.model.forward(&session, &batch, &options).unwrap();
    let tensor = |name: &str| inputs.get(name).unwrap();
    let places = |name: &str| -> Vec<u32> {
        let places = tensor(name).to_vec::<i64>().unwrap();
        places.into_iter().map(|place| place as u32).collect()
    };
    let (classes, pairs, replaced, starts, ends);
    let targets = match head {
        Head::SequenceClassification => {
            classes = tensor("labels").to_vec::<i64>().unwrap();
            Targets::Classes(&classes)
        }
        Head::PreTraining => {
            let [_, label] = trainable.model.info().pair_names();
            classes = batch.pack(&tensor("labels")).unwrap();
            pairs = tensor(label).to_vec::<i64>().unwrap();
            Targets::PreTraining {
                tokens: &classes,
                pairs: &pairs,
                pairs_reduction: Reduction::Mean,
            }
        }
        Head::ReplacedTokenDetection => {
            replaced = (batch.pack(&tensor("labels")).unwrap().iter())
                .map(|&label| label as f32)
                .collect::<Vec<_>>();
            Targets::MultiLabel(&replaced)
        }
        Head::QuestionAnswering => {
            (starts, ends) = (places("start_positions"), places("end_positions"));
            Targets::Spans {
                batch: &batch,
                starts: &starts,
                ends: &ends,
            }
        }
        _ => {
            classes = batch.pack(&tensor("labels")).unwrap();
            Targets::Classes(&classes)
        }
    };
    let loss = loss(&session, head, &outputs, targets, Reduction::Mean).unwrap();
    let mut gradients = Gradients::new();
    loss.backward(&session, &mut gradients).unwrap();
    let named = (trainable.parameters.iter())
        .map(|parameter| {
            let gradient = gradients.get(parameter).cloned();
            (parameter.name().to_owned(), gradient)
        })
        .collect();
    (loss.into_tensor(), named)
}

#[test]
fn losses_and_gradients_match_pytorch() {
    let mut checked = 0;
    for folder in fixtures() {
        let inputs = Checkpoint::open(folder.join("inputs.safetensors")).unwrap();
        if !inputs.contains("labels") && !inputs.contains("start_positions") {
            continue;
        }
        checked += 1;
        let expected = Checkpoint::open(folder.join("expected.safetensors")).unwrap();
        let (loss, gradients) = gradients(&folder, &inputs);
        let error = relative_difference(&loss, &expected.get("loss").unwrap());
        let most = tolerance(Isa::from_env().unwrap());
        assert!(error <= most, "{folder:?}: loss {error:e} off");
        let largest = (expected.names().filter(|name| name.starts_with("grad.")))
            .flat_map(|name| expected.get(name).unwrap().to_vec::<f32>().unwrap())
            .fold(0.0, |largest: f32, value| largest.max(value.abs()));
        let mut seen = 0;
        for (parameter, gradient) in gradients {
            let key = format!("grad.{parameter}");
            let (true, Some(gradient)) = (expected.contains(&key), &gradient) else {
                assert_eq!(
                    expected.contains(&key),
                    gradient.is_some(),
                    "{folder:?}: {parameter} has a gradient on one side only"
                );
                continue;
            };
            seen += 1;
            let golden = expected.get(&key).unwrap();
            let values = golden.to_vec::<f32>().unwrap();
            let error = if values.iter().all(|&value| value == 0.0) {
                // 0 but for rounding: to be compared with the others.
                let found = gradient.to_vec::<f32>().unwrap();
                found.iter().fold(0.0, |m: f32, v| m.max(v.abs())) / largest
            } else {
                relative_difference(gradient, &golden)
            };
            assert!(
                error <= GRADIENT_TOLERANCE,
                "{folder:?}: the gradient of {parameter} is {error:e} off"
            );
        }
        let wanted = expected.names().filter(|name| name.starts_with("grad."));
        assert_eq!(seen, wanted.count(), "{folder:?}: other parameters");
    }
    assert!(checked >= 46, "{checked} fixtures with labels");
}

/// Every key of every configuration with every kind of wrong value: an error or a model that runs, never a panic.
#[test]
fn no_value_of_any_key_panics() {
    let session = Session::new(Some(1)).unwrap();
    let (mut refused, mut run) = (0, 0);
    let heads = ["base", "masked_lm"];
    let chosen = |folder: &PathBuf| {
        heads
            .iter()
            .any(|head| folder.to_string_lossy().ends_with(head))
    };
    for folder in fixtures().into_iter().filter(chosen) {
        let (batch, _) = read_batch(&folder);
        let config = std::fs::read(folder.join("config.json")).unwrap();
        let config: serde_json::Value = serde_json::from_slice(&config).unwrap();
        let changed = tempfile::tempdir().unwrap();
        let (from, to) = (&folder, changed.path());
        std::fs::copy(from.join("model.safetensors"), to.join("model.safetensors")).unwrap();
        for key in config.as_object().unwrap().keys() {
            for value in &wrong_values() {
                let mut config = config.clone();
                config[key] = value.clone();
                std::fs::write(to.join("config.json"), config.to_string()).unwrap();
                let result = load(to, &session).and_then(|model| {
                    let outputs = model.forward(&session, &batch, &ForwardOptions::default());
                    outputs.map(drop)
                });
                match result {
                    Ok(()) => run += 1,
                    Err(_) => refused += 1,
                }
            }
        }
    }
    assert!(run > 500 && refused > 500, "{run} run, {refused} refused");
}

#[test]
fn deberta_refuses_what_it_does_not_compute() {
    let folder = fixtures()
        .into_iter()
        .find(|folder| folder.ends_with("deberta_masked_lm"))
        .unwrap();
    let session = Session::new(Some(1)).unwrap();
    let changed = tempfile::tempdir().unwrap();
    let copy = |name: &str| {
        std::fs::copy(folder.join(name), changed.path().join(name)).unwrap();
    };
    for (key, value, parts) in [
        (
            "conv_kernel_size",
            json!(3),
            ["`conv_kernel_size` is 3", "convolution"],
        ),
        ("embedding_size", json!(9), ["`embedding_size` is 9", "18"]),
        (
            "pos_att_type",
            json!("p2p"),
            ["`pos_att_type`", "\"p2p\" is neither"],
        ),
        (
            "position_buckets",
            json!(2),
            ["`position_buckets` is 2", "from 4"],
        ),
        (
            "relative_attention",
            json!(false),
            ["`relative_attention`", "pos_att_type"],
        ),
        ("position_buckets", json!(6), ["rel_embeddings", "[12, 18]"]),
    ] {
        copy("model.safetensors");
        copy("config.json");
        let file = changed.path().join("config.json");
        let mut config: serde_json::Value =
            serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        config[key] = value;
        std::fs::write(&file, config.to_string()).unwrap();
        let error = load(changed.path(), &session).err().unwrap().to_string();
        for part in parts {
            assert!(error.contains(part), "{key}: {error}");
        }
    }
}

#[test]
fn nomic_bert_reads_its_first_configuration_too() {
    let folder =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/families/nomic_bert_base");
    let session = Session::new(Some(1)).unwrap();
    let (batch, _) = read_batch(&folder);
    let forward = |folder: &Path| {
        let model = load(folder, &session).unwrap();
        let outputs = model.forward(&session, &batch, &ForwardOptions::default());
        outputs.unwrap().last_hidden_state.into_tensor()
    };
    let old = tempfile::tempdir().unwrap();
    std::fs::copy(
        folder.join("model.safetensors"),
        old.path().join("model.safetensors"),
    )
    .unwrap();
    let config = r#"{"model_type": "nomic_bert", "architectures": ["NomicBertModel"], "n_embd": 18, "n_layer": 2,
        "n_head": 3, "n_inner": 23, "n_positions": 17, "vocab_size": 37, "layer_norm_epsilon": 1e-12,
        "activation_function": "swiglu", "rotary_emb_base": 1000, "rotary_emb_fraction": 1.0,
        "rotary_emb_interleaved": false, "rotary_scaling_factor": null, "qkv_proj_bias": false, "prenorm": false}"#;
    std::fs::write(old.path().join("config.json"), config).unwrap();
    let (ours, theirs) = (forward(&folder), forward(old.path()));
    assert_eq!(ours.as_bytes().unwrap(), theirs.as_bytes().unwrap());
    let scaled = config.replace("null", "2.0");
    std::fs::write(old.path().join("config.json"), scaled).unwrap();
    let error = load(old.path(), &session).err().unwrap().to_string();
    assert!(error.contains("rotary_scaling_factor"), "{error}");
}

#[test]
fn what_is_saved_is_what_transformers_saved() {
    let session = Session::new(Some(1)).unwrap();
    for folder in fixtures() {
        let config = Config::from_file(folder.join("config.json")).unwrap();
        let head = config.head();
        let class = config.architecture_class().unwrap().to_owned();
        let trainable = TrainableModel::from_dir(&folder, config, head, &session, 0).unwrap();
        let saved = tempfile::tempdir().unwrap();
        trainable.save(saved.path()).unwrap();
        let again = Config::from_file(saved.path().join("config.json")).unwrap();
        assert_eq!(again.architecture_class(), Some(class.as_str()));
        let ours = Checkpoint::open_dir(saved.path()).unwrap();
        let theirs = Checkpoint::open_dir(&folder).unwrap();
        for name in ours.names() {
            let golden = theirs.get(name);
            let golden = golden.unwrap_or_else(|_| panic!("{folder:?} has no {name}"));
            let ours = ours.get(name).unwrap();
            assert_eq!(
                ours.as_bytes().unwrap(),
                golden.as_bytes().unwrap(),
                "{name}"
            );
        }
        // `transformers` saves a pooler with every BigBird, also where nothing reads it.
        let unread = |name: &str| name.starts_with("bert.pooler") && class.starts_with("BigBird");
        for name in theirs.names().filter(|name| !unread(name)) {
            assert!(ours.contains(name), "{folder:?}: {name} is not saved");
        }
    }
}
