//! The tokenizers under test: tokenizer.json files put together from the committed vocabularies.

use std::sync::LazyLock;

use serde_json::{Map, Value, json};

use crate::harness::Both;

/// Tokens of the uncased vocabulary.
pub static UNCASED: LazyLock<Vec<&str>> =
    LazyLock::new(|| include_str!("../data/uncased.vocab.txt").lines().collect());

/// Tokens of the cased vocabulary.
pub static CASED: LazyLock<Vec<&str>> =
    LazyLock::new(|| include_str!("../data/cased.vocab.txt").lines().collect());

/// The special tokens of BERT, as every file in use lists them.
pub const SPECIAL: [&str; 5] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];

/// A `BertNormalizer`.
pub fn normalizer(clean: bool, chinese: bool, strip: Option<bool>, lowercase: bool) -> Value {
    json!({
        "type": "BertNormalizer", "clean_text": clean, "handle_chinese_chars": chinese,
        "strip_accents": strip, "lowercase": lowercase,
    })
}

/// One entry of `added_tokens`; its id is set by [`with_added`].
pub fn added(content: &str, flags: &[&str]) -> Value {
    let flag = |name: &str| flags.contains(&name);
    json!({
        "id": 0, "content": content, "single_word": flag("single_word"), "lstrip": flag("lstrip"),
        "rstrip": flag("rstrip"), "normalized": flag("normalized"), "special": flag("special"),
    })
}

/// A whole tokenizer.json for `vocabulary`, in the shape of BERT's.
pub fn tokenizer_json<S: AsRef<str>>(vocabulary: &[S], normalizer: Value) -> Value {
    let vocab: Map<String, Value> = vocabulary
        .iter()
        .enumerate()
        .map(|(id, token)| (token.as_ref().to_owned(), json!(id)))
        .collect();
    let special = |token: &str| json!({"id": token, "ids": [vocab[token]], "tokens": [token]});
    let piece = |token: &str, kind: u32| json!({"SpecialToken": {"id": token, "type_id": kind}});
    let text = |name: &str, kind: u32| json!({"Sequence": {"id": name, "type_id": kind}});
    let (cls, sep) = ("[CLS]", "[SEP]");
    let mut json = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
        "normalizer": normalizer,
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [piece(cls, 0), text("A", 0), piece(sep, 0)],
            "pair": [piece(cls, 0), text("A", 0), piece(sep, 0), text("B", 1), piece(sep, 1)],
            "special_tokens": {cls: special(cls), sep: special(sep)},
        },
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {
            "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": vocab,
        },
    });
    with_added(
        &mut json,
        SPECIAL
            .iter()
            .map(|token| added(token, &["special"]))
            .collect(),
    );
    json
}

/// Replaces the added tokens of `json`. Each gets the id that it has in the vocabulary, or the next free one.
pub fn with_added(json: &mut Value, mut tokens: Vec<Value>) {
    let vocab = json["model"]["vocab"]
        .as_object()
        .expect("the model has a vocabulary");
    let mut next = vocab.len();
    for token in &mut tokens {
        let content = token["content"]
            .as_str()
            .expect("an added token has content");
        token["id"] = vocab.get(content).cloned().unwrap_or_else(|| {
            next += 1;
            json!(next - 1)
        });
    }
    json["added_tokens"] = Value::Array(tokens);
}

/// `[CLS]` and `[SEP]` as the older `BertProcessing` adds them.
pub fn bert_processing(json: &Value) -> Value {
    let id = |token: &str| json["model"]["vocab"][token].clone();
    json!({"type": "BertProcessing", "sep": ["[SEP]", id("[SEP]")], "cls": ["[CLS]", id("[CLS]")]})
}

/// Added tokens with every flag, among them some that the vocabulary has, that contain one another, and that
/// normalisation changes.
pub fn flagged() -> Vec<Value> {
    let mut tokens: Vec<Value> = SPECIAL[..4]
        .iter()
        .map(|t| added(t, &["special"]))
        .collect();
    tokens.extend([
        added("[MASK]", &["special", "lstrip"]),
        added("<ent>", &["special"]),
        added("<ENT>", &["special", "normalized", "rstrip"]),
        added("<e", &["lstrip", "rstrip"]),
        added("river", &["single_word"]),
        added("Größe", &["normalized"]),
        added("New York", &["normalized", "single_word"]),
        added("York", &["normalized", "lstrip", "rstrip"]),
        added("ing", &["rstrip"]),
        added("東京", &["single_word", "normalized"]),
        added("👍🏽", &["special", "single_word"]),
    ]);
    tokens
}

/// A tokenizer of each kind that people have.
pub static ALL: LazyLock<Vec<Both>> = LazyLock::new(|| {
    let uncased = tokenizer_json(&UNCASED, normalizer(true, true, None, true));
    let cased = tokenizer_json(&CASED, normalizer(true, true, None, false));
    let mut all = vec![Both::new("uncased", &uncased), Both::new("cased", &cased)];

    for (name, vocabulary, settings) in [
        (
            "uncased, accents kept",
            &UNCASED,
            normalizer(true, true, Some(false), true),
        ),
        (
            "cased, accents stripped",
            &CASED,
            normalizer(true, true, Some(true), false),
        ),
        (
            "uncased, Chinese as words",
            &UNCASED,
            normalizer(true, false, Some(true), true),
        ),
        (
            "cased, Chinese as words",
            &CASED,
            normalizer(true, false, Some(false), false),
        ),
        (
            "uncased, not cleaned",
            &UNCASED,
            normalizer(false, true, None, true),
        ),
        (
            "cased, nothing normalised",
            &CASED,
            normalizer(false, false, None, false),
        ),
        ("no normalizer", &CASED, Value::Null),
    ] {
        all.push(Both::new(name, &tokenizer_json(vocabulary, settings)));
    }

    for (name, base) in [("uncased", &uncased), ("cased", &cased)] {
        let mut json = base.clone();
        with_added(&mut json, flagged());
        all.push(Both::new(format!("{name}, flagged added tokens"), &json));
    }

    let mut json = uncased.clone();
    json["post_processor"] = bert_processing(&json);
    json["decoder"]["cleanup"] = json!(false);
    json["model"]["max_input_chars_per_word"] = json!(7);
    all.push(Both::new(
        "uncased, BertProcessing, words of at most 7 characters",
        &json,
    ));

    let mut json = uncased;
    json["post_processor"] = Value::Null;
    json["decoder"] = Value::Null;
    json["added_tokens"] = json!([]);
    all.push(Both::new("uncased, bare", &json));
    all
});

/// Looks up one of [`ALL`].
pub fn named(name: &str) -> &'static Both {
    ALL.iter()
        .find(|both| both.name == name)
        .unwrap_or_else(|| panic!("no tokenizer {name:?}"))
}
