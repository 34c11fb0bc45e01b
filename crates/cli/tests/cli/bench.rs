//! `bertha bench`, and `--precision` of other commands.

use crate::run::{Desk, bertha, golden};

#[test]
fn a_line_for_each_precision_batch_and_number_of_threads() {
    let model = golden("sentence/mean");
    let model = model.to_str().unwrap();
    let shapes = ["--shapes", "2x9,1x3", "--threads", "1,2", "--seconds", "0"];
    let words = [&["bench", "--model", model][..], &shapes].concat();
    let report = bertha(&[&words[..], &["--format", "json"]].concat())
        .lines()
        .remove(0);
    let lines = report["lines"].as_array().unwrap();
    let of = |line: &serde_json::Value| {
        let text = |key: &str| line[key].as_str().unwrap().to_owned();
        (
            line["threads"].as_u64().unwrap(),
            text("shape"),
            text("precision"),
        )
    };
    let mut expected = Vec::new();
    for threads in [1, 2] {
        for shape in ["2x9", "1x3"] {
            for precision in ["f32", "bf16", "int8"] {
                expected.push((threads, shape.to_owned(), precision.to_owned()));
            }
        }
    }
    assert_eq!(lines.iter().map(of).collect::<Vec<_>>(), expected);
    for line in lines {
        let number = |key: &str| line[key].as_f64().unwrap();
        let tokens = number("tokens");
        assert_eq!(tokens, if line["shape"] == "2x9" { 18.0 } else { 3.0 });
        let seconds = number("milliseconds") / 1e3;
        assert!(
            seconds > 0.0 && (number("tokens_per_second") * seconds / tokens - 1.0).abs() < 1e-9
        );
        // One layer, 12 wide, 19 within: 4·12·12 + 2·12·19 multiply-adds a token; the pooler: 12·12 a text.
        let texts = if line["shape"] == "2x9" { 2.0 } else { 1.0 };
        let expected = 2.0 * (1032.0 * tokens + 144.0 * texts);
        let operations = number("operations_per_second") * seconds;
        assert!((operations / expected - 1.0).abs() < 1e-9, "{operations}");
    }
    for precision in ["f32", "bf16", "int8"] {
        let ran = report["kernels"][precision].as_array().unwrap();
        let isa = report["instruction_set"].as_str().unwrap();
        let linear = ran.iter().find(|kernel| kernel["operation"] == "linear");
        let linear = linear.unwrap();
        assert_eq!(linear["calls"], 5);
        assert!(linear["kernel"].as_str().unwrap().starts_with(isa));
    }

    let table = bertha(&words);
    assert_eq!((table.code, table.err.as_str()), (Some(0), ""));
    let table = String::from_utf8(table.out).unwrap();
    assert!(
        table.contains("tokens/s") && table.lines().count() > 12,
        "{table}"
    );
}

#[test]
fn batches_that_cannot_be_are_refused() {
    let model = golden("sentence/mean");
    let bench =
        |words: &[&str]| bertha(&[&["bench", "--model", model.to_str().unwrap()], words].concat());
    bench(&["--shapes", "1x49"]).refused(2, &["1x49", "48"]);
    bench(&["--shapes", "8y9"]).refused(2, &["8y9", "8x128"]);
    bench(&["--threads", "0"]).refused(2, &["--threads"]);
    bench(&["--precision", "f16"]).refused(2, &["f16"]);
}

#[test]
fn precisions_are_near_each_other_and_not_the_same() {
    let model = golden("sentence/mean");
    let embed = |precision: &str| -> Vec<f64> {
        let words = [
            "embed",
            "-m",
            model.to_str().unwrap(),
            "--precision",
            precision,
        ];
        let line = bertha(&[&words[..], &["A cat sits."]].concat())
            .lines()
            .remove(0);
        let values = line["embedding"].as_array().unwrap().iter();
        values.map(|value| value.as_f64().unwrap()).collect()
    };
    let exact = embed("f32");
    for precision in ["bf16", "int8"] {
        let found = embed(precision);
        let apart = exact.iter().zip(&found).map(|(a, b)| (a - b).abs());
        let most = apart.fold(0.0, f64::max);
        assert!(most > 0.0 && most < 0.05, "{precision}: {most}");
    }

    let bytes = |precision: &str| {
        let words = [
            "info",
            "-m",
            model.to_str().unwrap(),
            "--precision",
            precision,
        ];
        let found = bertha(&words).lines().remove(0);
        found["memory"]["weight_bytes"].as_u64().unwrap()
    };
    assert!(bytes("bf16") < bytes("f32") && bytes("int8") < bytes("f32"));
}

#[test]
fn int8_has_no_gradients() {
    let model = golden("pipelines/fill_mask");
    let model = model.to_str().unwrap();
    let desk = Desk::new();
    let (input, output) = (desk.path("in.safetensors"), desk.path("out.safetensors"));
    let files = ["--input", &input, "--output", &output];
    let words = ["forward", "-m", model, "--grad", "--precision", "int8"];
    bertha(&[&words[..], &files].concat()).refused(2, &["--grad", "int8"]);
    let words = ["info", "-m", model, "--train", "--precision", "int8"];
    bertha(&words).refused(2, &["--train", "int8"]);
}
