//! `pretrain`, `finetune` and `evaluate`, and that the other commands read what they leave.

use std::path::Path;

use serde_json::{Value, json};

use crate::run::{Desk, Ran, bertha, golden};

fn model() -> String {
    golden("pipelines/fill_mask").to_str().unwrap().to_owned()
}

/// Sentences, and whether the word in their middle is `we` or `it`.
fn sentences() -> Vec<(String, bool)> {
    let words = ["the", "a", "on", "in", "and", "of"];
    (0..40)
        .map(|i| {
            let word = |k: usize| words[(i * k + k / 3) % words.len()];
            let first = i * 7 % 5 % 2 == 0;
            let key = if first { "we" } else { "it" };
            (format!("{} {} {key} {}", word(1), word(5), word(7)), first)
        })
        .collect()
}

/// Runs a command line and further words, quietly.
fn quiet(line: &str, more: &[&str]) -> Ran {
    let words: Vec<&str> = line
        .split(' ')
        .chain(["-q", "--threads", "2"])
        .chain(more.iter().copied())
        .collect();
    bertha(&words)
}

/// What a run that succeeded printed.
#[track_caller]
fn one(ran: Ran) -> Value {
    let mut lines = ran.lines();
    assert_eq!(lines.len(), 1);
    lines.remove(0)
}

const FAST: &str = "--epochs 12 --batch-size 8 --learning-rate 1e-2 --save-steps 0";

/// Fine-tunes, evaluates, and checks the measure.
fn finetune(
    desk: &Desk,
    task: &str,
    file: &str,
    more: &[&str],
    metric: &str,
    least: f64,
) -> String {
    let output = desk.path(task);
    let line = format!(
        "finetune --task {task} --model {} --train {file} --dev {file} --output {output} {FAST}",
        model()
    );
    let summary = one(quiet(&line, more));
    assert_eq!(summary["end"], "complete");
    let value = summary["evaluation"][metric].as_f64().unwrap();
    assert!(value >= least, "{summary}");
    for name in [
        "config.json",
        "model.safetensors",
        "vocab.txt",
        "metrics.jsonl",
        "curve.svg",
    ] {
        assert!(Path::new(&output).join(name).exists(), "{name}");
    }
    let line = format!("evaluate --task {task} --model {output} --data {file}");
    let found = one(quiet(&line, more));
    let found = found["metrics"][metric].as_f64().unwrap();
    // Weights for inference are packed otherwise than those that are trained.
    assert!((found - value).abs() < 1e-5, "{found} {value}");
    output
}

#[test]
fn a_classifier_is_taught_measured_and_used() {
    let desk = Desk::new();
    let rows: String = sentences()
        .iter()
        .map(|(text, first)| format!("{text}\t{}\n", if *first { "good" } else { "bad" }))
        .collect();
    let file = desk.write("train.tsv", format!("sentence\tlabel\n{rows}"));
    let output = finetune(&desk, "classify", &file, &[], "accuracy", 0.95);
    let found = bertha(&["classify", "-q", "-m", &output, "the a we on"]).lines();
    assert_eq!(found[0]["labels"][0]["label"], "good");
    let config = std::fs::read_to_string(Path::new(&output).join("config.json")).unwrap();
    let config: Value = serde_json::from_str(&config).unwrap();
    assert_eq!(
        config["architectures"],
        json!(["BertForSequenceClassification"])
    );
    assert_eq!(config["id2label"], json!({"0": "bad", "1": "good"}));
    // The columns may have other names, or none.
    let file = desk.write("other.csv", format!("x,y\n{}", rows.replace('\t', ",")));
    let line = format!(
        "evaluate --task classify --model {output} --data {file} --text-column x --label-column y"
    );
    assert!(one(quiet(&line, &[]))["metrics"]["f1"].as_f64().unwrap() > 0.9);
    let file = desk.write("bare.tsv", &rows);
    let line = format!("evaluate --task classify --model {output} --data {file} --no-header");
    let found = one(quiet(&line, &[]));
    assert_eq!(found["examples"], 40);
    assert!(found["metrics"]["accuracy"].as_f64().unwrap() > 0.9);
}

#[test]
fn labels_and_numbers_are_taught() {
    let desk = Desk::new();
    let lines: String = sentences()
        .iter()
        .map(|(text, first)| {
            let labels = if *first { vec!["x", "y"] } else { vec!["z"] };
            let score = if *first { 1.0 } else { -1.0 };
            json!({"text": text, "labels": labels, "score": score}).to_string() + "\n"
        })
        .collect();
    let file = desk.write("train.jsonl", lines);
    let output = finetune(&desk, "multi-label", &file, &[], "micro_f1", 0.95);
    let found = bertha(&["classify", "-q", "-m", &output, "-k", "all", "the a we on"]).lines();
    let scores = found[0]["labels"].as_array().unwrap();
    assert!(scores[0]["score"].as_f64().unwrap() > 0.5);
    assert!(scores[1]["score"].as_f64().unwrap() > 0.5);
    assert_eq!(scores[2]["label"], "z");
    let output = finetune(&desk, "regress", &file, &[], "pearson", 0.9);
    let found = bertha(&["classify", "-q", "-m", &output, "the a we on"]).lines();
    assert!(
        found[0]["labels"][0]["score"].as_f64().unwrap() > 0.0,
        "{found:?}"
    );
}

#[test]
fn a_tagger_is_taught() {
    let desk = Desk::new();
    let lines: String = sentences()
        .iter()
        .map(|(text, _)| {
            let tag = |word: &str| {
                if ["we", "it"].contains(&word) {
                    "B-KEY"
                } else {
                    "O"
                }
            };
            let words = text
                .split(' ')
                .map(|word| format!("{word} x {}\n", tag(word)));
            words.collect::<String>() + "\n"
        })
        .collect();
    let file = desk.write("train.conll", lines);
    let output = finetune(&desk, "tag", &file, &[], "f1", 0.95);
    let found = bertha(&["tag", "-q", "-m", &output, "-a", "first", "the a we on"]).lines();
    let entities = found[0]["entities"].as_array().unwrap();
    assert_eq!(entities.len(), 1);
    assert_eq!(
        (&entities[0]["word"], &entities[0]["start"]),
        (&json!("we"), &json!(6))
    );
}

#[test]
fn a_reader_is_taught() {
    let desk = Desk::new();
    let paragraphs: Vec<Value> = sentences()
        .iter()
        .enumerate()
        .map(|(i, (text, first))| {
            let answer = if *first { "we" } else { "it" };
            let start = text.find(&format!(" {answer} ")).unwrap() + 1;
            let answers = json!([{"text": answer, "answer_start": start}]);
            json!({"context": text, "qas": [{"id": i.to_string(), "question": "the", "answers": answers}]})
        })
        .collect();
    let file = json!({"version": "1.1", "data": [{"title": "x", "paragraphs": paragraphs}]});
    let file = desk.write("train.json", file.to_string());
    let output = finetune(&desk, "answer", &file, &[], "exact", 80.0);
    let words = [
        "answer",
        "-q",
        "-m",
        &output,
        "--question",
        "the",
        "--context",
        "the a we on",
    ];
    let found = bertha(&words).lines();
    assert!(found[0].to_string().contains("\"we\""), "{found:?}");
}

#[test]
fn a_model_is_pretrained_stopped_and_resumed() {
    let desk = Desk::new();
    let text: String = sentences()
        .iter()
        .map(|(text, _)| format!("{text}.\n"))
        .collect();
    let data = desk.write("text.txt", text.repeat(3));
    let config = std::fs::read(Path::new(&model()).join("config.json")).unwrap();
    let config = desk.write("config.json", config);
    let line = |output: &str, steps: usize| {
        format!(
            "pretrain --config {config} --tokenizer {} --data {data} --dev {data} --output {output} \
             --batch-tokens 256 --learning-rate 5e-3 --max-length 32 --steps {steps} --save-steps 5",
            model()
        )
    };
    let output = desk.path("run");
    let summary = one(quiet(&line(&output, 30), &[]));
    assert_eq!(summary["step"], 30);
    let training = std::fs::read(Path::new(&output).join("training.json")).unwrap();
    let training: Value = serde_json::from_slice(&training).unwrap();
    assert_eq!(training["setup"]["options"]["learning_rate"], 5e-3);
    let loss = |folder: &str| {
        let line = format!("evaluate --task masked-lm --model {folder} --data {data}");
        one(quiet(&line, &[]))["metrics"]["loss"].as_f64().unwrap()
    };
    assert!(loss(&output) < 4.0, "a random guess is {}", 195f64.ln());
    let found = bertha(&["fill-mask", "-q", "-m", &output, "the a [MASK] on"]).lines();
    assert!(!found[0].to_string().is_empty());
    // The folder is taken; with --resume there is nothing left to do, and the model is the same.
    let file = Path::new(&output).join("model.safetensors");
    let before = std::fs::read(&file).unwrap();
    quiet(&line(&output, 30), &[]).refused(1, &["resume", "another folder"]);
    quiet(&line(&output, 60), &["--resume"]).refused(1, &["options.length", "30"]);
    one(quiet(&line(&output, 30), &["--resume"]));
    assert!(std::fs::read(&file).unwrap() == before);
    // Without its last checkpoint it makes the last updates again.
    std::fs::remove_dir_all(Path::new(&output).join("checkpoints/step-30")).unwrap();
    one(quiet(&line(&output, 30), &["--resume"]));
    assert!(std::fs::read(&file).unwrap() == before);
    // And from the model one goes on with other texts.
    let line = format!(
        "pretrain --model {output} --data {data} --output {} --steps 2",
        desk.path("more")
    );
    assert_eq!(one(quiet(&line, &["--whole-word-masking"]))["step"], 2);
}

#[cfg(unix)]
#[test]
fn a_signal_saves_and_stops() {
    use crate::run::command;
    use std::process::Stdio;

    let desk = Desk::new();
    let text: String = sentences()
        .iter()
        .map(|(text, _)| format!("{text}.\n"))
        .collect();
    let data = desk.write("text.txt", text);
    let output = desk.path("run");
    let line = format!(
        "pretrain --model {} --data {data} --output {output} --steps 1000000 --logging-steps 1 --save-steps 0 -q",
        model()
    );
    let words: Vec<&str> = line.split(' ').collect();
    let mut command = command(&words);
    let mut child = command
        .stderr(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // It listens before its first update.
    let metrics = Path::new(&output).join("metrics.jsonl");
    let begun = || std::fs::read(&metrics).is_ok_and(|lines| !lines.is_empty());
    while !begun() && child.try_wait().unwrap().is_none() {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let kill = std::process::Command::new("kill")
        .arg(child.id().to_string())
        .status();
    assert!(kill.unwrap().success());
    let ended = child.wait_with_output().unwrap();
    let error = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(1), "{error}");
    assert!(error.contains("--resume goes on"), "{error}");
    let checkpoints = std::fs::read_dir(Path::new(&output).join("checkpoints")).unwrap();
    assert_eq!(checkpoints.count(), 1);
}

/// Killed without warning again and again, and resumed, a run ends in the weights of one that was left alone, for any
/// number of threads.
#[cfg(unix)]
#[test]
fn a_killed_run_that_is_resumed_ends_in_the_same_weights() {
    use crate::run::command;
    use std::process::Stdio;
    use std::time::Duration;

    let desk = Desk::new();
    let text: String = (sentences().iter())
        .map(|(text, _)| format!("{text}.\n"))
        .collect();
    let data = desk.write("text.txt", text.repeat(3));
    let words = |output: &str, threads: &str| -> Vec<String> {
        let line = format!(
            "pretrain --model {} --data {data} --output {output} --batch-tokens 128 --max-length 32 \
             --steps 60 --save-steps 2 --logging-steps 1 -q --threads {threads}",
            model()
        );
        line.split(' ').map(str::to_owned).collect()
    };
    let weights =
        |output: &str| std::fs::read(Path::new(output).join("model.safetensors")).unwrap();
    let alone = desk.path("alone");
    one(bertha(&words(&alone, "1")));
    for (threads, stops) in [("1", [3, 17, 31]), ("2", [5, 12, 44])] {
        let output = desk.path(&format!("killed-{threads}"));
        let mut killed = 0;
        for (i, stop) in stops.into_iter().enumerate() {
            let mut words = words(&output, threads);
            if i > 0 {
                words.push("--resume".to_owned());
            }
            let mut child = command(&words)
                .stderr(Stdio::null())
                .stdout(Stdio::null())
                .spawn()
                .unwrap();
            let reached = || {
                let entries = std::fs::read_dir(Path::new(&output).join("checkpoints"));
                entries.into_iter().flatten().flatten().any(|entry| {
                    let name = entry.file_name();
                    let step = name.to_str().and_then(|name| name.strip_prefix("step-"));
                    step.and_then(|step| step.parse().ok())
                        .is_some_and(|step: u32| step >= stop)
                })
            };
            while !reached() && child.try_wait().unwrap().is_none() {
                std::thread::sleep(Duration::from_micros(300));
            }
            // SIGKILL, which nothing can answer to: wherever it is, perhaps amid a file.
            child.kill().unwrap();
            killed += usize::from(!child.wait().unwrap().success());
        }
        assert!(killed > 0, "the run ended before it could be killed");
        let mut words = words(&output, threads);
        words.push("--resume".to_owned());
        let summary = one(bertha(&words));
        assert_eq!(summary["step"], 60);
        assert!(weights(&output) == weights(&alone), "{threads} threads");
    }
}

#[test]
fn what_cannot_be_trained_on_is_named() {
    let desk = Desk::new();
    let try_file = |task: &str, file: &str, more: &[&str]| {
        let output = desk.path("out");
        let line = format!(
            "finetune --task {task} --model {} --train {file} --output {output}",
            model()
        );
        quiet(&line, more)
    };
    let file = desk.write("a.tsv", "words\tclass\nthe\tx\n");
    try_file("classify", &file, &[]).refused(2, &["a.tsv", "--text-column", "words, class"]);
    let columns = ["--text-column", "words"];
    try_file("classify", &file, &columns).refused(2, &["--label-column", "words, class"]);
    let wrong = ["--text-column", "word", "--label-column", "class"];
    try_file("classify", &file, &wrong).refused(1, &["a.tsv", "no column `word`"]);
    let label = ["--text-column", "words", "--label-column", "class"];
    try_file("regress", &file, &label).refused(1, &["a.tsv:2", "`x`", "finite number"]);
    let ragged = desk.write("b.tsv", "text\tlabel\nthe\n");
    try_file("classify", &ragged, &[]).refused(1, &["b.tsv:2", "1 cells"]);
    let unnamed = desk.write("data", "text\tlabel\nthe\tx\n");
    try_file("classify", &unnamed, &[]).refused(2, &["--format"]);
    try_file("classify", &desk.path("no.tsv"), &[]).refused(1, &["no.tsv"]);
    let empty = desk.write("empty.tsv", "text\tlabel\n");
    try_file("classify", &empty, &[]).refused(1, &["empty.tsv", "no example"]);
    try_file("tag", &empty, &["--max-length", "500"]).refused(2, &["500", "48 positions"]);
    try_file("answer", &file, &[]).refused(1, &["a.tsv"]);
    let good = desk.write("good.tsv", "text\tlabel\nthe\tx\na\ty\n");
    try_file("classify", &good, &["--learning-rate=-1"]).refused(1, &["learning rate", "-1"]);
    try_file("classify", &good, &["--epochs", "0"]).refused(1, &["epochs"]);
    try_file(
        "classify",
        &good,
        &["--metric", "bleu", "--dev", &good, "--steps", "1"],
    )
    .refused(1, &["`bleu`", "accuracy"]);
    try_file("classify", &good, &["--epochs", "1", "--steps", "1"])
        .refused(2, &["--epochs", "--steps"]);
    let line = format!(
        "pretrain --config bert-huge --tokenizer {} --data {good} --output x",
        model()
    );
    quiet(&line, &[]).refused(2, &["bert-huge", "bert-mini"]);
    let line = format!("evaluate --task tag --model {} --data {good}", model());
    quiet(&line, &[]).refused(1, &["classifier"]);
}
