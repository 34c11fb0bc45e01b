use serde_json::json;

use crate::run::{bertha, golden};

#[test]
fn a_sentence_encoder_becomes_a_longformer_that_takes_long_texts() {
    let dir = tempfile::tempdir().unwrap();
    let (model, out) = (golden("sentence/mean"), dir.path().join("long"));
    let out = out.to_str().unwrap();
    let args = [
        "convert",
        "--model",
        model.to_str().unwrap(),
        "--to",
        "longformer",
        "--max-length",
        "200",
        "--attention-window",
        "64",
        "--output",
        out,
    ];
    let line = bertha(&args).lines().remove(0);
    assert_eq!(line["model_type"], "longformer");
    assert_eq!(line["dropped"], json!([]));
    let embed = |folder: &str, text: &str| {
        let line = bertha(&["embed", "--model", folder, text])
            .lines()
            .remove(0);
        let values = line["embedding"].as_array().unwrap().clone();
        values
            .into_iter()
            .map(|value| value.as_f64().unwrap())
            .collect::<Vec<_>>()
    };
    let text = "the river is old and long";
    let (before, after) = (embed(model.to_str().unwrap(), text), embed(out, text));
    for (a, b) in before.iter().zip(&after) {
        assert!((a - b).abs() < 1e-5, "{a} for {b}");
    }
    // The old model would see the first 32 tokens alone.
    let long = "paris london berlin ".repeat(20);
    let end = format!("{long} john");
    assert_ne!(embed(out, &long), embed(out, &end));

    let first = bertha(&["embed", "--model", out, "--global-tokens", "first", &long]);
    assert_eq!(first.lines().len(), 1);
    let model = model.to_str().unwrap();
    bertha(&["embed", "--model", model, "--global-tokens", "first", text])
        .refused(1, &["bert models have no global tokens"]);
    bertha(&args).refused(1, &["--overwrite"]);
}
