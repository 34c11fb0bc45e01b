use serde_json::{Value, json};

use crate::run::{Desk, bertha, bertha_reads, golden};

fn model() -> String {
    golden("sentence/mean").to_str().unwrap().to_owned()
}

fn tokenize(texts: &[&str]) -> (String, Vec<Value>) {
    let model = model();
    let ran = bertha(&[&["tokenize", "-m", &model][..], texts].concat());
    let out = String::from_utf8(ran.out.clone()).unwrap();
    (out, ran.lines())
}

#[test]
fn what_tokenize_prints_comes_back_as_text() {
    let (printed, _) = tokenize(&["The old man, the river.", "", "He works in the city!"]);
    let back = bertha_reads(&["decode", "-m", &model()], printed.as_bytes()).lines();
    let texts = ["the old man, the river.", "", "he works in the city!"];
    assert_eq!(back, texts.map(|text| json!({"text": text})));
    let words = ["decode", "-m", &model(), "--keep-special-tokens"];
    let back = bertha_reads(&words, printed.as_bytes()).lines();
    assert_eq!(back[1], json!({"text": "[CLS] [SEP]"}));
}

#[test]
fn every_form_of_ids_is_the_same() {
    let (_, lines) = tokenize(&["the old man"]);
    let ids: Vec<String> = lines[0]["ids"]
        .as_array()
        .unwrap()
        .iter()
        .map(Value::to_string)
        .collect();
    let expected = [json!({"text": "the old man"})];
    let model = model();
    let start = ["decode", "-m", &model];
    let plain: Vec<&str> = ids.iter().map(String::as_str).collect();
    assert_eq!(bertha(&[&start[..], &plain].concat()).lines(), expected);
    let json = format!("[{}]", ids.join(","));
    let desk = Desk::new();
    for sequence in [ids.join(" "), ids.join(","), ids.join(", "), json] {
        assert_eq!(
            bertha(&[&start[..], &[&sequence]].concat()).lines(),
            expected
        );
        // By its name one might take the file for JSON lines of texts.
        let file = desk.write("ids.jsonl", format!("{sequence}\n"));
        assert_eq!(
            bertha(&[&start[..], &["-i", &file]].concat()).lines(),
            expected
        );
        let two = bertha(&[&start[..], &["[]", &sequence]].concat()).lines();
        assert_eq!(two, [json!({"text": ""}), expected[0].clone()]);
    }
}

#[test]
fn what_is_no_id_is_named() {
    let model = model();
    let start = ["decode", "-m", &model];
    let reads = |input: &str| bertha_reads(&[&start[..], &["-i", "-"]].concat(), input.as_bytes());
    let later = reads("1 2\n3 x\n");
    assert_eq!(later.code, Some(1));
    assert!(
        later
            .err
            .contains("standard input, line 2: found x, expected token ids"),
        "{}",
        later.err
    );
    reads("x\n").refused(1, &["standard input, line 1", "found x"]);
    reads("[1, 2\n").refused(1, &["line 1", "not JSON"]);
    reads("{\"tokens\": [\"a\"]}\n").refused(1, &["line 1", "no `ids`"]);
    reads("1 999999\n").refused(1, &["line 1", "999999", "not in the vocabulary"]);
    reads("").refused(1, &["standard input is empty"]);
    bertha(&[&start[..], &["1", "999999"]].concat()).refused(1, &["the sequence: token id 999999"]);
    bertha(&[&start[..], &["[1.5]", "[1]"]].concat())
        .refused(1, &["sequence 1 of the command line: found 1.5"]);
    bertha(&["decode", "-m", "no/such/folder", "1"]).refused(1, &["no/such/folder"]);
    bertha(&[&start[..], &["1", "-i", "file"]].concat()).refused(2, &[]);
}
