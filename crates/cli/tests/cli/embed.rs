use bertha_tensor::{Checkpoint, npy};
use ndarray::{Array2, Ix2};
use serde_json::{Value, json};

use crate::run::{Desk, bertha, bertha_reads, golden};

fn model(name: &str) -> String {
    let folder = golden("sentence").join(name);
    folder.to_str().unwrap().to_owned()
}

fn texts() -> Vec<String> {
    let json = std::fs::read(golden("sentence/texts.json")).unwrap();
    let items: Vec<Value> = serde_json::from_slice(&json).unwrap();
    let text = |item: &Value| item["text"].as_str().unwrap().to_owned();
    items.iter().map(text).collect()
}

/// The texts as JSON lines, since some have line ends of their own.
fn json_lines() -> String {
    let line = |text: &String| format!("{}\n", json!({"text": text, "id": 7}));
    texts().iter().map(line).collect()
}

fn expected(folder: &str, name: &str) -> Array2<f32> {
    let file =
        Checkpoint::open(golden("sentence").join(folder).join("expected.safetensors")).unwrap();
    let array = file.get(name).unwrap().to_ndarray::<f32>().unwrap();
    array.into_dimensionality::<Ix2>().unwrap()
}

/// The vectors of JSON lines, whose indices must count.
#[track_caller]
fn vectors(lines: &[Value]) -> Array2<f32> {
    let width = lines[0]["embedding"].as_array().unwrap().len();
    let mut numbers = Vec::new();
    for (i, line) in lines.iter().enumerate() {
        assert_eq!(line["index"], i);
        let row = line["embedding"].as_array().unwrap();
        assert_eq!(row.len(), width);
        numbers.extend(row.iter().map(|number| number.as_f64().unwrap() as f32));
    }
    Array2::from_shape_vec((lines.len(), width), numbers).unwrap()
}

#[track_caller]
fn assert_close(found: &Array2<f32>, expected: &Array2<f32>) {
    assert_eq!(found.dim(), expected.dim());
    let scale = expected
        .iter()
        .fold(0.0f32, |max, value| max.max(value.abs()));
    for (found, expected) in found.iter().zip(expected) {
        assert!(
            (found - expected).abs() <= 1e-5 * scale,
            "{found} for {expected}"
        );
    }
}

#[test]
fn texts_from_anywhere_embed_as_in_sentence_transformers() {
    let desk = Desk::new();
    let file = desk.write("texts.jsonl", json_lines());
    let expected = expected("mean", "embeddings");
    let model = model("mean");
    let mut words = vec![
        "embed".to_owned(),
        "--model".into(),
        model.clone(),
        "--".into(),
    ];
    words.extend(texts());
    let by_words = bertha(&words).lines_beside_warnings();
    assert_close(&vectors(&by_words), &expected);

    let by_file = bertha(&["embed", "-m", &model, "--input", &file]);
    assert_eq!(by_file.lines_beside_warnings(), by_words);
    for words in [
        &["embed", "-m", &model][..],
        &["embed", "-m", &model, "-i", "-"],
    ] {
        // The first line tells that these are JSON lines.
        let by_pipe = bertha_reads(words, json_lines().as_bytes());
        assert_eq!(by_pipe.lines_beside_warnings(), by_words);
    }
}

#[test]
fn binary_formats_hold_the_same_bits() {
    let desk = Desk::new();
    let file = desk.write("texts.jsonl", json_lines());
    let model = model("dense");
    let embed = |more: &[&str]| {
        let words = [&["embed", "-m", &model, "-q", "-i", &file], more].concat();
        let ran = bertha(&words);
        assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
        ran.out
    };
    let lines: Vec<Value> = String::from_utf8(embed(&[]))
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let lines = vectors(&lines);
    assert_close(&lines, &expected("dense", "embeddings"));

    // By name, by option, and over a pipe, where one cannot go back to the header.
    let npy = desk.path("a.npy");
    assert!(embed(&["-o", &npy]).is_empty());
    let other = desk.path("b.bin");
    assert!(embed(&["-o", &other, "--format", "npy"]).is_empty());
    let bytes = std::fs::read(&npy).unwrap();
    assert_eq!(std::fs::read(&other).unwrap(), bytes);
    assert_eq!(embed(&["--format", "npy"]), bytes);
    let read = npy::read(&npy).unwrap().to_ndarray::<f32>().unwrap();
    assert_eq!(read, lines.clone().into_dyn());

    let tensors = desk.path("a.safetensors");
    assert!(embed(&["-o", &tensors]).is_empty());
    assert_eq!(
        embed(&["--format", "safetensors"]),
        std::fs::read(&tensors).unwrap()
    );
    let read = Checkpoint::open(&tensors).unwrap();
    let read = read.get("embeddings").unwrap().to_ndarray::<f32>().unwrap();
    assert_eq!(read, lines.into_dyn());

    let jsonl = desk.path("a.jsonl");
    assert!(embed(&["-o", &jsonl]).is_empty());
    assert_eq!(std::fs::read(&jsonl).unwrap(), embed(&[]));
    assert_eq!(
        desk.files(),
        ["a.jsonl", "a.npy", "a.safetensors", "b.bin", "texts.jsonl"]
    );
}

#[test]
fn an_existing_file_is_replaced_whole() {
    let desk = Desk::new();
    let output = desk.write(
        "out.jsonl",
        "what was there before, longer than what comes".repeat(100),
    );
    let ran = bertha(&["embed", "-m", &model("mean"), "-o", &output, "the man"]);
    assert_eq!(
        (ran.code, ran.out.len(), ran.err.as_str()),
        (Some(0), 0, "")
    );
    let text = std::fs::read_to_string(&output).unwrap();
    assert!(
        text.starts_with("{\"index\":0,\"embedding\":[") && text.ends_with("]}\n"),
        "{text}"
    );
    assert_eq!(text.lines().count(), 1);
}

#[test]
fn pooling_normalisation_and_prompts_are_options() {
    let desk = Desk::new();
    let file = desk.write("texts.jsonl", json_lines());
    let embed = |name: &str, more: &[&str]| {
        let model = model(name);
        vectors(&bertha(&[&["embed", "-q", "-m", &model, "-i", &file], more].concat()).lines())
    };
    assert_close(
        &embed("plain", &["--pooling", "cls"]),
        &expected("cls", "embeddings"),
    );
    assert_close(
        &embed("plain", &["--pooling", "mean", "--normalize"]),
        &expected("mean", "embeddings"),
    );
    let raw = embed("mean", &["--no-normalize"]);
    assert_eq!(raw, embed("plain", &["--pooling", "mean"]));
    assert_close(&embed("prompt", &[]), &expected("prompt", "embeddings"));
    assert_close(
        &embed("prompt", &["--prompt-name", "passage"]),
        &expected("prompt", "embeddings.passage"),
    );
    assert_close(
        &embed("prompt", &["--prompt", "passage: "]),
        &expected("prompt", "embeddings.passage"),
    );
    assert_close(
        &embed("prompt", &["--prompt", ""]),
        &expected("prompt", "embeddings.none"),
    );
}

#[test]
fn an_older_folder_has_its_model_one_below() {
    let desk = Desk::new();
    let old = desk.model("sentence/mean");
    let below = format!("{old}/0_Transformer");
    std::fs::create_dir(&below).unwrap();
    for name in [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "vocab.txt",
        "tokenizer_config.json",
    ] {
        std::fs::rename(format!("{old}/{name}"), format!("{below}/{name}")).unwrap();
    }
    let modules = std::fs::read_to_string(format!("{old}/modules.json")).unwrap();
    let modules = modules.replacen("\"path\": \"\"", "\"path\": \"0_Transformer\"", 1);
    std::fs::write(format!("{old}/modules.json"), modules).unwrap();
    let new = model("mean");
    for command in ["embed", "tokenize"] {
        let of = |model: &str| bertha(&[command, "-m", model, "the river"]).lines();
        assert_eq!(of(&old), of(&new));
    }
    let info = bertha(&["info", "-m", &old]).lines().remove(0);
    assert_eq!(info["embedding"]["pooling"], json!(["mean"]));
    assert_eq!(info["architecture"]["hidden_size"], 12);
}

#[test]
fn threads_and_batches_change_no_bit() {
    let desk = Desk::new();
    let file = desk.write("texts.jsonl", json_lines());
    let embed = |more: &[&str]| {
        bertha(&[&["embed", "-q", "-m", &model("mean"), "-i", &file], more].concat()).lines()
    };
    let all = embed(&[]);
    for more in [
        ["--threads", "1"],
        ["--threads", "3"],
        ["--batch-tokens", "1"],
        ["--batch-tokens", "100000"],
    ] {
        assert_eq!(embed(&more), all, "{more:?}");
    }
}

#[test]
fn texts_that_were_cut_are_counted_once() {
    let desk = Desk::new();
    // More texts than a piece holds.
    let mut lines = "the old man went to the river\n".repeat(20_000);
    lines.push_str("the man\n");
    let file = desk.write("texts.txt", lines);
    let model = model("mean");
    let ran = bertha(&[
        "embed",
        "-m",
        &model,
        "-i",
        &file,
        "--max-length",
        "6",
        "-o",
        &desk.path("out.npy"),
    ]);
    assert_eq!(ran.code, Some(0));
    assert_eq!(
        ran.err,
        "warning: 20000 of 20001 texts were cut: longer than 6 tokens (--max-length)\n"
    );
    let shape = npy::read(desk.path("out.npy")).unwrap().shape().to_vec();
    assert_eq!(shape, [20_001, 12]);
    let quiet = bertha(&[
        "embed",
        "-q",
        "-m",
        &model,
        "--max-length",
        "4",
        "a good river in a city",
    ]);
    assert_eq!(quiet.lines().len(), 1);
}
