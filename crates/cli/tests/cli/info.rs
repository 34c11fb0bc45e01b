use serde_json::{Value, json};

use crate::run::{bertha, command, golden, run};

fn info(folder: &str) -> Value {
    let model = golden(folder);
    bertha(&["info", "--model", model.to_str().unwrap()])
        .lines()
        .remove(0)
}

#[test]
fn a_sentence_encoder_is_described() {
    let found = info("sentence/mean");
    let architecture = json!({
        "model_type": "bert", "head": "none", "layers": 1, "hidden_size": 12, "heads": 2, "head_size": 6,
        "intermediate_size": 19, "vocab_size": 195, "max_tokens": 48
    });
    assert_eq!(found["architecture"], architecture);
    let embedding = &found["embedding"];
    assert_eq!(embedding["dimension"], 12);
    assert_eq!(embedding["pooling"], json!(["mean"]));
    assert_eq!(embedding["normalized"], true);
    assert_eq!(embedding["max_length"], 32);
    assert_eq!(embedding["truncates"], true);
    assert!(
        embedding["max_length_source"]
            .as_str()
            .unwrap()
            .contains("tokenizer_config.json")
    );
    assert_eq!(found["tokenizer"]["vocab_size"], 195);
    assert_eq!(found["tokenizer"]["special_tokens"]["mask"], "[MASK]");

    let file = golden("sentence/mean/model.safetensors");
    let size = std::fs::metadata(file).unwrap().len();
    assert_eq!(found["memory"]["file_bytes"], size);
    assert_eq!(
        found["weights"]["files"],
        json!([{"file": "model.safetensors", "bytes": size}])
    );
    let number = |value: &Value| value.as_u64().unwrap();
    let memory = &found["memory"];
    assert!(number(&memory["weight_bytes"]) >= 4 * number(&found["parameters"]));
    assert_eq!(
        number(&memory["total_bytes"]),
        number(&memory["weight_bytes"]) + number(&memory["activation_bytes"])
    );
}

#[test]
fn the_memory_of_training_is_predicted() {
    let model = golden("pipelines/fill_mask");
    let model = model.to_str().unwrap();
    let training = |tokens: &str, more: &[&str]| {
        let mut words = vec![
            "info",
            "--model",
            model,
            "--train",
            "--batch-tokens",
            tokens,
        ];
        words.extend(more);
        let found = bertha(&words).lines().remove(0);
        let number = |key: &str| found["training"][key].as_u64().unwrap();
        let parts = ["weight", "gradient", "optimizer", "activation"];
        let parts: u64 = parts
            .iter()
            .map(|part| number(&format!("{part}_bytes")))
            .sum();
        assert_eq!(number("total_bytes"), parts);
        assert_eq!(number("optimizer_bytes"), 2 * number("gradient_bytes"));
        (number("activation_bytes"), number("total_bytes"))
    };
    let (plain, _) = training("5000", &[]);
    let (half, _) = training("2500", &[]);
    let (again, _) = training("5000", &["--activation-checkpointing"]);
    // One layer, which is kept or computed again as a whole.
    assert!(again > plain / 2, "{again} for {plain}");
    let ratio = plain as f64 / half as f64;
    assert!((1.6..2.4).contains(&ratio), "{ratio}");
    bertha(&["info", "--model", model, "--max-length", "9"]).refused(2, &["required arguments"]);
}

#[test]
fn training_in_bf16_packs_weights_in_half_the_bytes() {
    let model = golden("pipelines/fill_mask");
    let model = model.to_str().unwrap();
    let training = |precision: &str| {
        let words = [
            "info",
            "--model",
            model,
            "--train",
            "--precision",
            precision,
        ];
        let found = bertha(&words).lines().remove(0);
        assert_eq!(found["training"]["precision"], precision);
        found["training"]["weight_bytes"].as_u64().unwrap()
    };
    assert!(training("bf16") < training("f32"));
}

#[test]
fn prompts_dense_layers_and_several_poolings_show() {
    assert_eq!(
        info("sentence/prompt")["embedding"]["prompt"],
        "what is it: "
    );
    assert_eq!(
        info("sentence/concatenated")["embedding"]["pooling"],
        json!(["cls", "max", "mean"])
    );
    assert_eq!(info("sentence/concatenated")["embedding"]["dimension"], 36);
}

#[test]
fn heads_labels_and_shards_show() {
    let found = info("pipelines/classify_single");
    assert_eq!(found["architecture"]["head"], "sequence-classification");
    assert_eq!(found["architecture"]["labels"].as_array().unwrap().len(), 3);
    assert_eq!(found["embedding"], Value::Null);
    assert_eq!(
        info("pipelines/fill_mask")["architecture"]["head"],
        "masked-LM"
    );
    // A folder without a tokenizer is a model all the same.
    let found = info("bert/sharded");
    assert_eq!(found["tokenizer"], Value::Null);
    assert_eq!(found["weights"]["files"].as_array().unwrap().len(), 3);
    assert!(info("bert/bf16")["weights"]["dtypes"]["bf16"].is_u64());
}

#[test]
fn the_kernels_that_run_are_named() {
    let model = golden("bert/base_pooler");
    let words = ["info", "-m", model.to_str().unwrap(), "--threads", "3"];
    let available = bertha(&words).lines().remove(0)["machine"]["available"].clone();
    for isa in available.as_array().unwrap() {
        let isa = isa.as_str().unwrap();
        let mut command = command(&words);
        command.env("BERTHA_ISA", isa);
        let machine = run(command, b"").lines().remove(0)["machine"].take();
        assert_eq!(machine["instruction_set"], isa);
        assert_eq!(machine["threads"], 3);
        for operation in [
            "gemm",
            "attention",
            "layer_norm",
            "softmax",
            "gelu",
            "embedding",
        ] {
            let kernel = machine["kernels"][operation].as_str().unwrap();
            assert!(kernel.starts_with(isa), "{operation}: {kernel}");
        }
    }
}

#[test]
fn a_batch_beyond_all_memory_is_told_not_tripped_over() {
    let model = golden("sentence/mean");
    let words = [
        "info",
        "-m",
        model.to_str().unwrap(),
        "--batch-tokens",
        "18446744073709551615",
    ];
    let found = bertha(&words).lines().remove(0);
    assert_eq!(found["memory"]["total_bytes"], u64::MAX);
}

#[test]
fn a_text_to_read() {
    let model = golden("sentence/mean");
    let ran = bertha(&["info", "-m", model.to_str().unwrap(), "--format", "text"]);
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
    let text = String::from_utf8(ran.out).unwrap();
    for part in [
        "bert, head: none",
        "layers 1",
        "pooling: mean, of length 1",
        "32 tokens",
        "gemm: ",
    ] {
        assert!(text.contains(part), "\"{part}\" is not in:\n{text}");
    }
}
