use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::run::{bertha, golden};

fn embedding(folder: &str, text: &str) -> Vec<f64> {
    let line = bertha(&["embed", "--model", folder, text])
        .lines()
        .remove(0);
    let values = line["embedding"].as_array().unwrap();
    values.iter().map(|value| value.as_f64().unwrap()).collect()
}

fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

#[test]
fn a_quantized_folder_is_smaller_and_runs_as_the_old_one() {
    let dir = tempfile::tempdir().unwrap();
    let model = golden("sentence/mean");
    let model = model.to_str().unwrap();
    let texts = dir.path().join("texts.txt");
    fs::write(
        &texts,
        "the river is old\nparis and london\njohn lived in berlin\n",
    )
    .unwrap();
    let texts = texts.to_str().unwrap();
    let text = "the river is old and long";
    let before = embedding(model, text);
    for (name, words, least) in [
        ("int8", &["--to", "int8", "--embeddings", "int8"][..], 0.99),
        ("nf4", &["--to", "nf4", "--double-quantization"], 0.9),
        (
            "gptq",
            &["--to", "int4", "--method", "gptq", "--calibrate", texts],
            0.9,
        ),
        (
            "budget",
            &[
                "--to",
                "int2",
                "--calibrate",
                texts,
                "--error-budget",
                "0.4",
            ],
            0.8,
        ),
    ] {
        let out = dir.path().join(name);
        let out = out.to_str().unwrap();
        let mut line = vec!["quantize", "--model", model, "--output", out];
        line.extend(words);
        let lines = bertha(&line).lines();
        let all: &Value = lines.last().unwrap();
        assert_eq!(
            all["weights"].as_u64().unwrap() as usize,
            lines.len() - 1,
            "{name}"
        );
        assert!(
            all["bytes"].as_u64() < all["bytes_before"].as_u64(),
            "{name}"
        );
        let similarity = cosine(&before, &embedding(out, text));
        assert!(
            similarity > least && similarity < 1.0 - 1e-12,
            "{name}: {similarity}"
        );
        bertha(&line).refused(1, &["--overwrite"]);
    }
    let int8 = dir.path().join("int8");
    let int8 = int8.to_str().unwrap();
    let again = dir.path().join("again");
    let again = again.to_str().unwrap();
    bertha(&[
        "quantize", "--model", int8, "--to", "nf4", "--output", again,
    ])
    .refused(1, &["is quantized already"]);
    assert!(
        !Path::new(again).exists(),
        "nothing is left of what was refused"
    );
    bertha(&[
        "quantize", "--model", model, "--to", "int4", "--method", "awq", "--output", again,
    ])
    .refused(2, &["--calibrate"]);
    bertha(&[
        "quantize", "--model", model, "--method", "qbert", "--to", "int4", "--output", again,
    ])
    .refused(2, &["--average-bits"]);
    bertha(&[
        "quantize", "--model", model, "--to", "int8", "--output", model,
    ])
    .refused(2, &["is the folder that is read"]);
}

#[test]
fn a_classifier_becomes_one_of_signs_and_one_of_few_bits() {
    let dir = tempfile::tempdir().unwrap();
    let teacher = golden("pipelines/classify_single");
    let teacher = teacher.to_str().unwrap();
    let (train, out) = (dir.path().join("train.tsv"), dir.path().join("binary"));
    let labels: Vec<String> = {
        let config: Value =
            serde_json::from_slice(&fs::read(Path::new(teacher).join("config.json")).unwrap())
                .unwrap();
        let labels = config["id2label"].as_object().unwrap();
        labels
            .values()
            .map(|label| label.as_str().unwrap().to_owned())
            .collect()
    };
    let mut table = String::from("text\tlabel\n");
    for i in 0..24 {
        table.push_str(&format!(
            "word {i} and word {}\t{}\n",
            i * 7,
            labels[i % labels.len()]
        ));
    }
    fs::write(&train, table).unwrap();
    let (train, out) = (train.to_str().unwrap(), out.to_str().unwrap());
    let shared = [
        "-q",
        "--task",
        "classify",
        "--model",
        teacher,
        "--train",
        train,
        "--dev",
        train,
        "--steps",
        "3",
        "--batch-size",
        "8",
    ];
    for (method, bits, steps) in [
        ("bibert", None, vec![]),
        ("bit", Some("2,1"), vec!["2-bits"]),
        ("binarybert", Some("4"), vec!["ternary"]),
    ] {
        let out = format!("{out}-{method}");
        let mut words = vec!["binarize", "--method", method, "--output", &out];
        words.extend(shared);
        words.extend(bits.iter().flat_map(|bits| ["--activation-bits", bits]));
        let lines = bertha(&words).lines();
        assert_eq!(lines.len(), 2 + steps.len(), "{method}");
        let (trained, packed) = (&lines[steps.len()], &lines[steps.len() + 1]);
        assert!(packed["bytes"].as_u64() < packed["bytes_before"].as_u64());
        // Evaluated packed, it is what training evaluated.
        let found = bertha(&[
            "evaluate", "--task", "classify", "--model", &out, "--data", train,
        ])
        .lines();
        let (packed, trained) = (&found[0]["metrics"]["loss"], &trained["evaluation"]["loss"]);
        let difference = packed.as_f64().unwrap() - trained.as_f64().unwrap();
        assert!(difference.abs() < 1e-5, "{method}: {packed} {trained}");
        let folders = steps.iter().map(|step| format!("{out}/{step}"));
        for folder in folders.chain([out.clone()]) {
            let scored = bertha(&["classify", "--model", &folder, "word 3 and word 21"]).lines();
            assert!(scored[0]["labels"][0]["score"].as_f64().unwrap() > 0.0);
        }
        // A run that is complete is not made again.
        words.push("--resume");
        assert_eq!(bertha(&words).lines().len(), 2 + steps.len(), "{method}");
    }
    for (method, bits, told) in [
        ("bibert", "2", "have one bit"),
        ("bit", "1,2", "fewer bits each"),
        ("binarybert", "1", "2 to 8"),
    ] {
        let mut words = vec!["binarize", "--method", method, "--output", out];
        words.extend(shared);
        words.extend(["--activation-bits", bits]);
        bertha(&words).refused(2, &[told]);
    }

    // So is one that learned as few bits.
    for (options, weights) in [
        (["--quantize", "int4", "--quantize-embeddings", "nf4"], 1),
        (["--quantize", "int2", "--estimator", "lsq"], 0),
        (["--quantize", "int4", "--quantize-inputs", "8"], 0),
    ] {
        let out = dir.path().join(options.concat());
        let out = out.to_str().unwrap();
        let mut words = vec!["finetune", "--group-size", "8", "--output", out];
        words.extend(shared);
        words.extend(options);
        let lines = bertha(&words).lines();
        assert_eq!(lines.len(), 2);
        let packed = lines[1]["weights"].as_u64().unwrap();
        assert!(packed >= 6 + weights, "{packed}");
        let found = bertha(&[
            "evaluate", "--task", "classify", "--model", out, "--data", train,
        ])
        .lines();
        let loss = found[0]["metrics"]["loss"].as_f64().unwrap();
        let trained = lines[0]["evaluation"]["loss"].as_f64().unwrap();
        assert!((loss - trained).abs() < 1e-5, "{loss} {trained}");
        assert!(
            !fs::read(Path::new(out).join("model.safetensors"))
                .unwrap()
                .is_empty()
        );
    }

    let mixed = dir.path().join("mixed");
    let lines = bertha(&[
        "quantize",
        "--model",
        teacher,
        "--method",
        "qbert",
        "--average-bits",
        "2.5",
        "--train",
        train,
        "--slices",
        "2",
        "--slice-examples",
        "6",
        "--output",
        mixed.to_str().unwrap(),
    ])
    .lines();
    let bits: Vec<u64> = lines
        .iter()
        .filter_map(|line| line["bits"].as_u64())
        .collect();
    assert!(
        !bits.is_empty() && bits.iter().all(|&bits| bits == 2 || bits == 3),
        "{bits:?}"
    );
    assert!(mixed.join("sensitivities.svg").exists());
    bertha(&["classify", "--model", mixed.to_str().unwrap(), "word 3"]).lines();

    // And one that learned as that mixture.
    let (from, out) = (mixed.to_str().unwrap(), dir.path().join("learned"));
    let lines = bertha(&[
        "finetune",
        "-q",
        "--task",
        "classify",
        "--model",
        teacher,
        "--train",
        train,
        "--steps",
        "2",
        "--quantize-as",
        from,
        "--output",
        out.to_str().unwrap(),
    ])
    .lines();
    let formats = |dir: &Path| {
        let tensors = bertha_tensor::Checkpoint::open_dir(dir).unwrap();
        tensors.metadata().clone()
    };
    assert_eq!(lines[1]["weights"], 6);
    assert_eq!(formats(&out), formats(&mixed));
    let whole = [
        "finetune", "--task", "classify", "--model", teacher, "--train", train,
    ];
    let refuse = |options: &[&str], parts: &[&str]| {
        let out = dir.path().join("refused");
        let out = ["--output", out.to_str().unwrap()];
        let words: Vec<&str> = whole.iter().chain(options).chain(&out).copied().collect();
        bertha(&words).refused(2, parts);
    };
    refuse(
        &["--quantize-as", teacher],
        &["no weight of it is quantized"],
    );
    refuse(
        &["--quantize", "int4", "--quantize-as", from],
        &["--quantize-as"],
    );
}
