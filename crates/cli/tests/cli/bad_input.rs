//! Whatever a user or a disk brings: one line of error that names the thing, a code that is not 0,
//! nothing half-written, and never a panic.

use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::run::{Desk, Ran, bertha, bertha_reads, command, golden, run};

fn mean() -> String {
    golden("sentence/mean").to_str().unwrap().to_owned()
}

fn embed(model: &str) -> Ran {
    bertha(&["embed", "-m", model, "the river"])
}

/// Sets a key of a JSON file; null removes it.
fn set(folder: &str, file: &str, key: &str, value: Value) {
    let path = Path::new(folder).join(file);
    let mut json: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    match value {
        Value::Null => drop(json.as_object_mut().unwrap().remove(key)),
        value => json[key] = value,
    }
    std::fs::write(path, json.to_string()).unwrap();
}

#[test]
fn wrong_usage_is_code_2() {
    for words in [
        &["embed", "text"][..],
        &["embed", "-m", "x", "--threads", "0", "text"],
        &["embed", "-m", "x", "--batch-tokens", "0", "text"],
        &["embed", "-m", "x", "--max-length", "-1", "text"],
        &["embed", "-m", "x", "--format", "csv", "text"],
        &["embed", "-m", "x", "--pooling", "median", "text"],
        &[
            "embed",
            "-m",
            "x",
            "--prompt",
            "a",
            "--prompt-name",
            "b",
            "text",
        ],
        &["embed", "-m", "x", "--input", "f", "text"],
        &["classify", "-m", "x", "--top-k", "some", "text"],
        &["classify", "-m", "x", "--function", "relu", "text"],
        &["tag", "-m", "x", "--aggregation", "best", "text"],
        &["search", "-m", "x", "query"],
        &["forward", "-m", "x", "--input", "f"],
        &["no-such-command"],
        &["embed", "--no-such-flag"],
    ] {
        bertha(words).refused(2, &[]);
    }
    bertha(&["answer", "-m", "x", "--question", "q"]).refused(2, &["no context"]);
    bertha(&["answer", "-m", "x", "--context", "c"]).refused(2, &["no question"]);
    bertha(&[
        "answer",
        "-m",
        "x",
        "--context-file",
        "/no/such/file",
        "--question",
        "q",
    ])
    .refused(1, &["/no/such/file"]);
    bertha(&["forward", "-m", "x", "-i", "-", "-o", "o"]).refused(2, &["--input"]);
    bertha(&["search", "-m", "x", "-c", "-", "--cache", "q"]).refused(2, &["--cache"]);
    let bare = bertha::<&str>(&[]);
    assert_eq!((bare.code, bare.out.len()), (Some(2), 0));
    assert!(bare.err.contains("Usage: bertha"), "{}", bare.err);
}

#[test]
fn options_beyond_the_model_are_named_by_their_flags() {
    bertha(&["embed", "-m", &mean(), "--max-length", "49", "text"])
        .refused(2, &["--max-length is 49", "1 to 48"]);
    bertha(&["embed", "-m", &mean(), "--threads", "999999", "text"]).refused(1, &["999999"]);
    for command in ["embed", "tokenize"] {
        let words = [command, "-m", &mean(), "--max-length", "1", "text"];
        bertha(&words).refused(2, &["--max-length is 1", "2 special tokens"]);
    }
    let words = [
        "embed",
        "-m",
        &mean(),
        "--max-length",
        "3",
        "--no-truncate",
        "the old man",
    ];
    bertha(&words).refused(1, &["5 tokens", "limit of 3 (--max-length)"]);
    let answer = golden("pipelines/answer");
    let words = [
        "answer",
        "-m",
        answer.to_str().unwrap(),
        "--question",
        "q",
        "--context",
        "c",
    ];
    bertha(&[&words[..], &["--max-seq-len", "9999"]].concat())
        .refused(2, &["--max-seq-len is 9999"]);
    let tag = golden("pipelines/tag");
    bertha(&["tag", "-m", tag.to_str().unwrap(), "--stride", "3", "text"])
        .refused(2, &["--stride is 3", "aggregation"]);
    let prompt = golden("sentence/prompt");
    bertha(&[
        "embed",
        "-m",
        prompt.to_str().unwrap(),
        "--prompt-name",
        "poem",
        "text",
    ])
    .refused(1, &["poem", "query", "passage"]);
}

#[test]
fn an_instruction_set_that_is_not_there() {
    let mut embed = command(&["embed", "-m", &mean(), "text"]);
    embed.env("BERTHA_ISA", "sse9");
    run(embed, b"").refused(1, &["BERTHA_ISA", "sse9", "avx512"]);
}

#[test]
fn folders_that_are_no_models() {
    let desk = Desk::new();
    for command in ["embed", "fill-mask", "classify", "tag", "tokenize"] {
        bertha(&[command, "-m", "no/such/folder", "text"])
            .refused(1, &["no/such/folder", "config.json"]);
    }
    bertha(&["info", "-m", "no/such/folder"]).refused(1, &["no/such/folder"]);
    let file = desk.write("file", "x");
    embed(&file).refused(1, &[&file, "is a file"]);
    let empty = desk.path("empty");
    std::fs::create_dir(&empty).unwrap();
    embed(&empty).refused(1, &["config.json", "model.safetensors"]);
    bertha(&["tokenize", "-m", &empty, "text"]).refused(1, &["tokenizer.json", "vocab.txt"]);
}

#[test]
fn damaged_models() {
    let damaged = |damage: &dyn Fn(&str), parts: &[&str]| {
        let desk = Desk::new();
        let model = desk.model("sentence/mean");
        damage(&model);
        embed(&model).refused(1, parts);
        bertha(&["info", "-m", &model]).refused(1, parts);
    };
    let weights = |model: &str| format!("{model}/model.safetensors");
    let config = "config.json";
    damaged(
        &|model| std::fs::remove_file(weights(model)).unwrap(),
        &["no weights", "model.safetensors"],
    );
    damaged(
        &|model| std::fs::write(weights(model), "").unwrap(),
        &["model.safetensors"],
    );
    damaged(
        &|model| std::fs::write(weights(model), [0xff; 4096]).unwrap(),
        &["model.safetensors"],
    );
    damaged(
        &|model| {
            let bytes = std::fs::read(weights(model)).unwrap();
            std::fs::write(weights(model), &bytes[..bytes.len() - 100]).unwrap();
        },
        &["model.safetensors"],
    );
    damaged(
        &|model| std::fs::write(format!("{model}/config.json"), "{").unwrap(),
        &["config.json"],
    );
    damaged(
        &|model| set(model, config, "model_type", json!("llama")),
        &["config.json", "llama", "bert"],
    );
    damaged(
        &|model| set(model, config, "model_type", Value::Null),
        &["config.json", "model_type"],
    );
    damaged(
        &|model| set(model, config, "hidden_size", json!(24)),
        &["shape", "12", "24"],
    );
    damaged(
        &|model| set(model, config, "num_hidden_layers", json!(2)),
        &["missing", "layer.1"],
    );
    damaged(
        &|model| set(model, config, "num_hidden_layers", json!(-1)),
        &["config.json", "num_hidden_layers", "-1"],
    );
    damaged(
        &|model| set(model, config, "num_attention_heads", json!(5)),
        &["num_attention_heads", "divisor"],
    );
    damaged(
        &|model| set(model, config, "hidden_act", json!("softplus")),
        &["hidden_act", "softplus", "gelu"],
    );
    damaged(
        &|model| std::fs::write(format!("{model}/tokenizer.json"), "{").unwrap(),
        &["tokenizer.json"],
    );
    damaged(
        &|model| std::fs::write(format!("{model}/modules.json"), "{}").unwrap(),
        &["modules.json"],
    );
    damaged(
        &|model| {
            set(
                model,
                "1_Pooling/config.json",
                "pooling_mode",
                json!("median"),
            )
        },
        &["1_Pooling", "median"],
    );
}

#[test]
fn a_model_without_the_head() {
    for (command, head) in [
        ("fill-mask", "masked-LM"),
        ("classify", "sequence-classification"),
        ("tag", "token-classification"),
    ] {
        bertha(&[command, "-m", &mean(), "the [MASK]"]).refused(1, &["model.safetensors", head]);
    }
    let words = [
        "answer",
        "-m",
        &mean(),
        "--question",
        "who",
        "--context",
        "he",
    ];
    bertha(&words).refused(1, &["question-answering"]);
}

#[test]
fn inputs_that_are_no_texts() {
    let desk = Desk::new();
    let model = mean();
    for command in ["embed", "tokenize"] {
        let with = |content: &[u8]| {
            let file = desk.write("input.txt", content);
            bertha(&[command, "-m", &model, "-i", &file])
        };
        with(b"").refused(1, &["input.txt is empty"]);
        with(b"caf\xe9\n").refused(1, &["input.txt, line 1", "UTF-8", "0xe9", "column 4"]);
        let missing = desk.path("missing.txt");
        bertha(&[command, "-m", &model, "-i", &missing])
            .refused(1, &["missing.txt", "cannot read"]);
        let folder = desk.path("");
        bertha(&[command, "-m", &model, "-i", &folder]).refused(1, &[&folder]);
        bertha_reads(&[command, "-m", &model], b"").refused(1, &["standard input is empty"]);
        bertha_reads(&[command, "-m", &model, "-i", "-"], b"\xff")
            .refused(1, &["standard input, line 1"]);
    }
    let lines = |name: &str, content: &str| {
        let file = desk.write(name, content);
        bertha(&[
            "embed",
            "-m",
            &model,
            "-q",
            "-o",
            &desk.path("out"),
            "-i",
            &file,
        ])
    };
    lines("a.jsonl", "{\"text\": \"a\"}\n{\"text\": 3}\n")
        .refused(1, &["a.jsonl, line 2", "`text` is 3", "a string"]);
    lines("a.jsonl", "{\"text\": \"a\"}\n{\"id\": 3}\n")
        .refused(1, &["a.jsonl, line 2", "`text` is missing"]);
    lines("a.jsonl", "{\"text\": \"a\"}\n\nplain\n")
        .refused(1, &["a.jsonl, line 3", "not JSON", "column 1"]);
    lines("a.jsonl", "[1]\n").refused(1, &["a.jsonl, line 1", "no object"]);
    lines("a.txt", "{\"text\": \"a\"}\nplain\n").refused(1, &["a.txt, line 2", "not JSON"]);
    lines("a.txt", &format!("{}\u{e9}", "fine\n".repeat(3))).lines();
    let mut late = "the river\n".repeat(40_000).into_bytes();
    late.extend(b"\xff\n");
    let file = desk.write("late.txt", late);
    let out = desk.path("late.npy");
    bertha(&["embed", "-m", &model, "-i", &file, "-o", &out]).refused(1, &["late.txt, line 40001"]);
    assert_eq!(
        desk.files(),
        ["a.jsonl", "a.txt", "input.txt", "late.txt", "out"],
        "nothing is half-written"
    );
}

#[test]
fn corpora_and_contexts_that_are_no_texts() {
    let desk = Desk::new();
    let model = mean();
    for (content, parts) in [
        (&b""[..], ["corpus.txt", "nothing to search"]),
        (b"\n  \n\n", ["corpus.txt", "nothing to search"]),
        (b"fine\n\xff\n", ["corpus.txt, line 2", "UTF-8"]),
    ] {
        let corpus = desk.write("corpus.txt", content);
        bertha(&["search", "-m", &model, "-c", &corpus, "query"]).refused(1, &parts);
    }
    bertha(&["search", "-m", &model, "-c", "/no/such/corpus", "query"])
        .refused(1, &["/no/such/corpus"]);
    let answer = golden("pipelines/answer");
    let answer = |context: &str| {
        bertha(&[
            "answer",
            "-m",
            answer.to_str().unwrap(),
            "--question",
            "who",
            "--context-file",
            context,
        ])
    };
    answer(&desk.write("context.txt", b"fine\nca\xff\n"))
        .refused(1, &["context.txt, line 2", "column 3"]);
    answer(&desk.write("context.txt", " \n")).refused(1, &["context is empty"]);
}

#[test]
fn texts_that_a_task_refuses_are_named_by_their_lines() {
    let desk = Desk::new();
    let model = mean();
    let file = desk.write("texts.txt", format!("the man\n{}\n", "river ".repeat(60)));
    bertha(&["embed", "-m", &model, "--no-truncate", "-i", &file])
        .refused(1, &["texts.txt, line 2 has", "limit of 32", "--truncate"]);
    let long = "river ".repeat(60);
    bertha(&["embed", "-m", &model, "--no-truncate", &long])
        .refused(1, &["the text has 62 tokens"]);
    let fill = golden("pipelines/fill_mask");
    let fill = fill.to_str().unwrap();
    let file = desk.write("masks.txt", "the [MASK]\nthe river\n");
    bertha(&["fill-mask", "-m", fill, "-i", &file])
        .refused(1, &["masks.txt, line 2 has no mask", "[MASK]"]);
    bertha(&["fill-mask", "-m", fill, "a [MASK]", "the river"])
        .refused(1, &["text 2 of the command line has no mask"]);
}

#[test]
fn an_id_beyond_the_vocabulary() {
    let desk = Desk::new();
    let model = desk.model("sentence/mean");
    let path = format!("{model}/tokenizer.json");
    let mut tokenizer: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let ids = tokenizer["model"]["vocab"].as_object_mut().unwrap();
    ids.insert("zebra".into(), json!(5000));
    std::fs::write(&path, tokenizer.to_string()).unwrap();
    let ran = bertha(&["embed", "-m", &model, "the river", "zebra"]);
    ran.refused(
        1,
        &["text 2 of the command line", "\"zebra\"", "5000", "195"],
    );
}

#[test]
fn outputs_that_cannot_be_written() {
    let desk = Desk::new();
    let missing = desk.path("no/such/folder/out.jsonl");
    let folder = desk.path("");
    for output in [&missing, &folder] {
        bertha(&["embed", "-m", &mean(), "-o", output, "text"]).refused(1, &[output]);
        let npy = [
            "embed",
            "-m",
            &mean(),
            "--format",
            "npy",
            "-o",
            output,
            "text",
        ];
        bertha(&npy).refused(1, &[output]);
        bertha(&["tokenize", "-m", &mean(), "-o", output, "text"]).refused(1, &[output]);
    }
    let input = golden("bert/base_pooler/inputs.safetensors");
    let model = golden("bert/base_pooler");
    let words = [
        "forward",
        "-m",
        model.to_str().unwrap(),
        "-i",
        input.to_str().unwrap(),
        "-o",
        &missing,
    ];
    bertha(&words).refused(1, &[&missing]);
    assert!(desk.files().is_empty());
}

#[cfg(target_os = "linux")]
#[test]
fn a_disk_that_is_full() {
    let full = || {
        std::fs::OpenOptions::new()
            .write(true)
            .open("/dev/full")
            .unwrap()
    };
    let model = mean();
    for words in [
        &["embed", "-m", &model, "text"][..],
        &["embed", "-m", &model, "--format", "npy", "text"],
        &["tokenize", "-m", &model, "text"],
        &["info", "-m", &model],
    ] {
        let output = command(words)
            .stdin(Stdio::null())
            .stdout(full())
            .output()
            .unwrap();
        let err = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{words:?}: {err}");
        assert!(
            err.starts_with("error: cannot write to standard output: No space left"),
            "{words:?}: {err}"
        );
    }
    bertha(&["embed", "-m", &model, "-o", "/dev/full", "text"])
        .refused(1, &["/dev/full", "No space left"]);
    bertha(&[
        "embed",
        "-m",
        &model,
        "--format",
        "npy",
        "-o",
        "/dev/full",
        "text",
    ])
    .refused(1, &["/dev/full", "No space left"]);
    // Nothing can be said on a standard error that is full, but the code tells.
    let status = command(&["embed", "-m", "no/such/folder", "text"])
        .stderr(full())
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(1));
}

#[cfg(unix)]
#[test]
fn a_reader_that_has_read_enough_is_no_failure() {
    use std::io::{BufRead, BufReader};

    let desk = Desk::new();
    let file = desk.write(
        "texts.txt",
        "the old man went to the river\n".repeat(20_000),
    );
    let mut child = command(&["embed", "-m", &mean(), "-i", &file])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut from = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    from.read_line(&mut line).unwrap();
    assert!(line.starts_with("{\"index\":0,"), "{line}");
    drop(from);
    let output = child.wait_with_output().unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), err.as_str()), (Some(0), ""));
}

#[cfg(unix)]
#[test]
fn words_that_are_no_utf8() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    let mut embed = command(&["embed", "-m", &mean()]);
    embed.arg(OsStr::from_bytes(b"caf\xe9"));
    run(embed, b"").refused(2, &["UTF-8"]);
}
