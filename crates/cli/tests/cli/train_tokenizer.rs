use serde_json::{Value, json};

use crate::run::{Desk, bertha, bertha_reads};

const CORPUS: &str = include_str!("../../../tokenizer/tests/data/english.txt");

/// Trains on the corpus, with further words.
fn train(desk: &Desk, kind: &str, words: &[&str]) -> Value {
    let corpus = desk.write("corpus.txt", CORPUS);
    let output = desk.path(kind);
    let start = [
        "train-tokenizer",
        "--type",
        kind,
        "--data",
        &corpus,
        "-o",
        &output,
    ];
    let lines = bertha(&[&start[..], words].concat()).lines();
    assert_eq!(lines.len(), 1);
    lines[0].clone()
}

fn read(desk: &Desk, file: &str) -> Vec<u8> {
    std::fs::read(desk.path(file)).unwrap()
}

#[test]
fn word_piece_from_corpus_to_ids_and_back() {
    let desk = Desk::new();
    let said = train(&desk, "wordpiece", &["--vocab-size", "2000"]);
    assert_eq!(said["type"], "wordpiece");
    assert_eq!(said["vocab_size"], 2000);
    assert_eq!(said["lowercase"], true);
    assert_eq!(said["texts"], CORPUS.lines().count());
    assert_eq!(said["characters"]["coverage"], 1.0);
    assert_eq!(
        said["special_tokens"],
        json!(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    );
    let model = desk.path("wordpiece");
    let vocab = String::from_utf8(read(&desk, "wordpiece/vocab.txt")).unwrap();
    assert_eq!(vocab.lines().count(), 2000);
    let text = "Mr. Sherlock Holmes, the detective";
    let tokens = bertha(&["tokenize", "-m", &model, text]).lines();
    let list = tokens[0]["tokens"].as_array().unwrap();
    assert!(
        list.contains(&json!("holmes")) && list.contains(&json!("the")),
        "{list:?}"
    );
    let ids = tokens[0]["ids"].to_string();
    let back = bertha(&["decode", "-m", &model, &ids]).lines();
    assert_eq!(
        back,
        [json!({"text": "mr. sherlock holmes, the detective"})]
    );
}

#[test]
fn every_type_trains_the_same_on_any_number_of_threads() {
    let desk = Desk::new();
    for kind in ["wordpiece", "bpe", "byte-level-bpe", "unigram"] {
        let size = ["--vocab-size", "1000"];
        let one = train(&desk, kind, &[&size[..], &["--threads", "1"]].concat());
        assert_eq!(one["vocab_size"], 1000, "{kind}");
        assert_eq!(one["lowercase"], kind == "wordpiece");
        let file = format!("{kind}/tokenizer.json");
        let first = read(&desk, &file);
        let two = ["--threads", "2", "--overwrite"];
        assert_eq!(train(&desk, kind, &[&size[..], &two].concat()), one);
        assert!(first == read(&desk, &file), "{kind}");
        let json: Value = serde_json::from_slice(&first).unwrap();
        assert_eq!(json["added_tokens"].as_array().unwrap().len(), 5);
    }
}

#[test]
fn files_of_both_forms_and_standard_input_are_one_corpus() {
    let desk = Desk::new();
    let (first, second) = CORPUS.split_at(CORPUS.len() / 2);
    let cut = first.rfind('\n').unwrap() + 1;
    let (first, second) = (&CORPUS[..cut], [&first[cut..], second].concat());
    let a = desk.write("a.txt", first);
    let lines = second
        .lines()
        .map(|text| json!({"text": text, "id": 1}).to_string() + "\n");
    let b = desk.write("b.jsonl", lines.collect::<String>());
    let [one, two, three] = ["one", "two", "three"].map(|name| desk.path(name));
    let size = ["train-tokenizer", "--type", "bpe", "--vocab-size", "700"];
    let with = |words: &[&str], input: &str| {
        bertha_reads(&[&size[..], words].concat(), input.as_bytes()).lines();
    };
    with(&["--data", &a, &b, "-o", &one], "");
    with(&["--data", &b, "-", "--output", &two], first);
    with(&["-o", &three, "--data", "-"], CORPUS);
    for file in [
        "tokenizer.json",
        "merges.txt",
        "vocab.json",
        "tokenizer_config.json",
    ] {
        let of = |name: &str| read(&desk, &format!("{name}/{file}"));
        assert!(of("one") == of("two") && of("one") == of("three"), "{file}");
    }
}

#[test]
fn options_do_what_they_say() {
    let desk = Desk::new();
    let tokens = |kind: &str, words: &[&str]| {
        let more = [&["--overwrite", "--vocab-size", "600"][..], words].concat();
        train(&desk, kind, &more);
        let json: Value =
            serde_json::from_slice(&read(&desk, &format!("{kind}/tokenizer.json"))).unwrap();
        json["model"]["vocab"].clone()
    };
    let upper = |vocab: &Value| {
        let tokens = vocab.as_object().unwrap().keys();
        let text = |token: &&String| !token.starts_with('[') && !token.starts_with('<');
        tokens
            .filter(text)
            .any(|token| token.contains(char::is_uppercase))
    };
    assert!(!upper(&tokens("wordpiece", &[])));
    assert!(upper(&tokens("wordpiece", &["--cased"])));
    assert!(upper(&tokens("bpe", &[])));
    assert!(!upper(&tokens("bpe", &["--lowercase"])));
    let special = ["--special-tokens", "<unk>", "[NEW]", "--cased"];
    let vocab = tokens("wordpiece", &special);
    assert_eq!((&vocab["<unk>"], &vocab["[NEW]"]), (&json!(0), &json!(1)));
}

#[test]
fn a_small_corpus_and_a_small_alphabet_are_told_of() {
    let desk = Desk::new();
    let corpus = desk.write("corpus.txt", "abc abd xyz\n".repeat(5));
    let output = desk.path("out");
    let words = [
        "train-tokenizer",
        "--type",
        "wordpiece",
        "--data",
        &corpus,
        "-o",
        &output,
        "--limit-alphabet",
        "3",
    ];
    let ran = bertha(&words);
    for part in [
        "warning: the vocabulary has",
        "--vocab-size 30000",
        "warning: 44.44 % of the corpus' characters",
        "the 3 that --limit-alphabet keeps of 7",
    ] {
        assert!(ran.err.contains(part), "\"{part}\" is not in: {}", ran.err);
    }
    let said = ran.lines_beside_warnings();
    assert_eq!(said[0]["characters"]["seen"], 7);
}

#[test]
fn what_cannot_be_is_refused_before_the_work() {
    let desk = Desk::new();
    let corpus = desk.write("corpus.txt", "the old river\n".repeat(3));
    let output = desk.path("out");
    let start = ["train-tokenizer", "--type", "wordpiece", "-o", &output];
    let with = |words: &[&str]| bertha(&[&start[..], words].concat());
    let missing = desk.path("missing.txt");
    with(&["--data", &corpus, &missing]).refused(1, &["missing.txt", "cannot read"]);
    with(&["--data", &desk.path("")]).refused(1, &["cannot read"]);
    let empty = desk.write("empty.txt", "\n  \n");
    with(&["--data", &empty]).refused(1, &["empty.txt", "the corpus has no words"]);
    let bytes = desk.write("latin1.txt", b"fine\ncaf\xe9\n");
    with(&["--data", &corpus, &bytes]).refused(1, &["latin1.txt, line 2", "UTF-8", "0xe9"]);
    with(&["--data", &corpus, "--vocab-size", "10"]).refused(
        2,
        &["--vocab-size is 10", "5 special tokens", "--limit-alphabet"],
    );
    with(&["--data", &corpus, "--special-tokens", "[PAD]"])
        .refused(2, &["--special-tokens is [\"[PAD]\"]", "[UNK]"]);
    with(&["--data", &corpus, "--vocab-size", "0"]).refused(2, &[]);
    with(&[]).refused(2, &[]);
    bertha(&[
        "train-tokenizer",
        "--type",
        "sentences",
        "--data",
        &corpus,
        "-o",
        &output,
    ])
    .refused(2, &[]);
    assert!(!desk.files().contains(&"out".to_owned()));

    with(&["--data", &corpus, "--vocab-size", "25"]).lines();
    let before = read(&desk, "out/tokenizer.json");
    with(&["--data", &corpus, "--vocab-size", "22"]).refused(
        1,
        &[
            &output,
            "has a tokenizer already",
            "tokenizer.json",
            "--overwrite",
        ],
    );
    assert!(before == read(&desk, "out/tokenizer.json"));
    with(&["--data", &corpus, "--vocab-size", "22", "--overwrite"]).lines();
    assert!(before != read(&desk, "out/tokenizer.json"));
    let words = [
        "train-tokenizer",
        "--type",
        "bpe",
        "--data",
        &corpus,
        "-o",
        &corpus,
    ];
    bertha(&words).refused(1, &["corpus.txt", "this is a file"]);
}
