//! How texts are read, seen through the tokens that they make.

use serde_json::{Value, json};

use crate::run::{Desk, bertha, bertha_reads, golden};

/// The tokens of each text, joined.
fn tokens(lines: Vec<Value>) -> Vec<String> {
    let join = |line: &Value| {
        let tokens = line["tokens"].as_array().unwrap().iter();
        tokens
            .map(|token| token.as_str().unwrap())
            .collect::<Vec<_>>()
            .join(" ")
    };
    lines.iter().map(join).collect()
}

fn tokenized(stdin: &[u8], more: &[&str]) -> Vec<String> {
    let model = golden("sentence/mean");
    let model = model.to_str().unwrap();
    let words = [&["tokenize", "-m", model, "--no-special-tokens"], more].concat();
    tokens(bertha_reads(&words, stdin).lines())
}

#[test]
fn a_text_a_line_whatever_ends_it() {
    assert_eq!(
        tokenized(b"the man\r\n\nriver", &[]),
        ["the man", "", "river"]
    );
    assert_eq!(tokenized(b"\xef\xbb\xbfthe man\n", &[]), ["the man"]);
    assert_eq!(tokenized(b"\n", &[]), [""]);
}

#[test]
fn json_lines_are_known_by_the_first_and_may_be_forced() {
    let lines = b"{\"text\": \"the man\", \"id\": 1}\n\n{\"id\": 2, \"text\": \"river\"}\n";
    assert_eq!(tokenized(lines, &[]), ["the man", "river"]);
    let as_text = tokenized(lines, &["--input-format", "text"]);
    assert_eq!(as_text.len(), 3);
    assert!(as_text[0].contains("\" : \" the man"), "{as_text:?}");
    // An object without a text, or no JSON at all, is a text.
    assert_eq!(tokenized(b"{\"title\": \"the man\"}\n", &[]).len(), 1);
    assert_eq!(
        tokenized(b"{the man}\n{\"text\": \"river\"}\n", &[]).len(),
        2
    );
}

#[test]
fn pairs_come_from_a_field_or_an_option() {
    let model = golden("sentence/mean");
    let model = model.to_str().unwrap();
    let pair = bertha(&["tokenize", "-m", model, "--text-pair", "river", "man"]).lines();
    assert_eq!(
        pair[0]["tokens"],
        json!(["[CLS]", "man", "[SEP]", "river", "[SEP]"])
    );
    assert_eq!(pair[0]["type_ids"], json!([0, 0, 0, 1, 1]));
    let line = b"{\"text\": \"man\", \"text_pair\": \"river\"}\n{\"text\": \"man\"}\n";
    let by_field = bertha_reads(&["tokenize", "-m", model], line).lines();
    assert_eq!(by_field[0], pair[0]);
    assert_eq!(by_field[1]["tokens"], json!(["[CLS]", "man", "[SEP]"]));
}

#[test]
fn results_go_to_a_file_when_asked() {
    let desk = Desk::new();
    let model = golden("sentence/mean");
    let model = model.to_str().unwrap();
    let out = desk.path("tokens.jsonl");
    let ran = bertha(&["tokenize", "-m", model, "-o", &out, "man", "river"]);
    assert_eq!((ran.code, ran.out.len()), (Some(0), 0));
    let direct = bertha(&["tokenize", "-m", model, "man", "river"]);
    assert_eq!(std::fs::read(&out).unwrap(), direct.out);
    assert_eq!(desk.files(), ["tokens.jsonl"]);
}

#[cfg(unix)]
#[test]
fn from_a_pipe_each_text_is_answered_as_it_comes() {
    use std::io::{BufRead, BufReader, Write};
    use std::process::Stdio;

    let model = golden("sentence/mean");
    let mut child = crate::run::command(&["tokenize", "-m", model.to_str().unwrap()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut to = child.stdin.take().unwrap();
    let mut from = BufReader::new(child.stdout.take().unwrap());
    for text in ["man", "river"] {
        writeln!(to, "{text}").unwrap();
        to.flush().unwrap();
        let mut line = String::new();
        from.read_line(&mut line).unwrap();
        assert!(line.contains(text), "{line}");
    }
    drop(to);
    assert!(child.wait().unwrap().success());
}
