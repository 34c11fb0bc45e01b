use std::path::Path;

use crate::run::{Desk, bertha};

#[test]
fn a_book_becomes_a_model_by_commands_that_are_shown() {
    let desk = Desk::new();
    let output = desk.path("a start");
    let words = [
        "quickstart",
        "--output",
        &output,
        "--steps",
        "2",
        "--threads",
        "2",
    ];
    let ran = bertha(&words);
    for shown in [
        "$ bertha train-tokenizer",
        "$ bertha pretrain",
        "$ bertha fill-mask",
        "curve.svg",
    ] {
        assert!(ran.err.contains(shown), "{shown}: {}", ran.err);
    }
    let lines = ran.lines_beside_warnings();
    assert_eq!(lines.len(), 6, "{lines:?}");
    assert_eq!(lines[0]["vocab_size"], 1500);
    assert_eq!(lines[1]["step"], 2);
    for line in &lines[2..5] {
        assert_eq!(line["masks"][0].as_array().unwrap().len(), 3);
    }
    let cosine = lines[5]["cosine"].as_f64().unwrap();
    assert!((-1.0..=1.0).contains(&cosine), "{cosine}");
    for file in [
        "book.txt",
        "held-out.txt",
        "config.json",
        "model/model.safetensors",
        "model/curve.svg",
    ] {
        assert!(Path::new(&output).join(file).exists(), "{file}");
    }
    bertha(&words).refused(1, &["has a model already", "--output"]);
    let short = desk.write("short.txt", "one line\n");
    let other = desk.path("other");
    bertha(&["quickstart", "--output", &other, "--data", &short])
        .refused(1, &["fewer than two lines"]);
}
