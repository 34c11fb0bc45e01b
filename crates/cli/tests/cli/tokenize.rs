use serde_json::{Value, json};

use crate::run::{bertha_reads, golden};

#[test]
fn ids_are_those_of_transformers() {
    let model = golden("sentence/mean");
    let json = std::fs::read(golden("sentence/texts.json")).unwrap();
    let items: Vec<Value> = serde_json::from_slice(&json).unwrap();
    let lines: String = items.iter().map(|item| format!("{item}\n")).collect();
    let words = [
        "tokenize",
        "-m",
        model.to_str().unwrap(),
        "--max-length",
        "32",
    ];
    let found = bertha_reads(&words, lines.as_bytes()).lines();
    assert_eq!(found.len(), items.len());
    for (found, item) in found.iter().zip(&items) {
        assert_eq!(found["ids"], item["ids"], "{item}");
        let count = |name: &str| found[name].as_array().unwrap().len();
        for name in ["tokens", "offsets", "type_ids"] {
            assert_eq!(count(name), count("ids"), "{name} of {item}");
        }
    }
}

#[test]
fn offsets_count_characters() {
    let model = golden("sentence/mean");
    let words = ["tokenize", "-m", model.to_str().unwrap(), "ÀÉ the river"];
    let found = bertha_reads(&words, b"").lines();
    let tokens: Vec<&str> = found[0]["tokens"]
        .as_array()
        .unwrap()
        .iter()
        .map(|token| token.as_str().unwrap())
        .collect();
    let place = |token: &str| tokens.iter().position(|found| *found == token).unwrap();
    assert_eq!(found[0]["offsets"][place("the")], json!([3, 6]));
    assert_eq!(found[0]["offsets"][place("river")], json!([7, 12]));
    assert_eq!(found[0]["offsets"][0], json!([0, 0]));
}
