//! Files that somebody broke. Each gives one error that names the file, what was found and what was expected.

use std::path::Path;

use bertha_tokenizer::{BertOptions, EncodeOptions, Tokenizer, TokenizerError};
use serde_json::{Value, json};

use crate::valid::{TEXTS, VOCABULARY, tokenizer_json, vocab_txt};

#[track_caller]
fn refused(result: Result<Tokenizer, TokenizerError>, words: &[&str]) -> TokenizerError {
    let error = match result {
        Ok(tokenizer) => panic!("{words:?}: loaded {tokenizer:?}"),
        Err(error) => error,
    };
    let message = error.to_string();
    for word in words {
        assert!(message.contains(word), "{message:?} does not say {word:?}");
    }
    assert!(!message.contains('\n'), "{message:?} is more than one line");
    error
}

#[track_caller]
fn refused_json(json: &Value, words: &[&str]) -> TokenizerError {
    refused(Tokenizer::from_json(json.to_string().as_bytes()), words)
}

/// The valid file with the value at `pointer` replaced.
fn with(pointer: &str, value: Value) -> Value {
    let mut json = tokenizer_json();
    *json
        .pointer_mut(pointer)
        .unwrap_or_else(|| panic!("no {pointer}")) = value;
    json
}

/// The valid file without a key.
fn without(parent: &str, key: &str) -> Value {
    let mut json = tokenizer_json();
    let fields = json
        .pointer_mut(parent)
        .and_then(Value::as_object_mut)
        .unwrap();
    fields
        .remove(key)
        .unwrap_or_else(|| panic!("no {key} in {parent}"));
    json
}

#[test]
fn the_unbroken_file_loads() {
    let tokenizer = Tokenizer::from_json(tokenizer_json().to_string().as_bytes()).unwrap();
    for text in TEXTS {
        tokenizer.encode(text, &EncodeOptions::default()).unwrap();
    }
}

#[test]
fn truncated_json() {
    let whole = tokenizer_json().to_string();
    for length in (0..whole.len())
        .step_by(7)
        .filter(|&length| whole.is_char_boundary(length))
    {
        let error = refused(
            Tokenizer::from_json(&whole.as_bytes()[..length]),
            &["tokenizer.json", "line 1 column"],
        );
        assert!(matches!(error, TokenizerError::Json { .. }), "{error:?}");
    }
}

#[test]
fn not_the_json_it_should_be() {
    for text in [
        "",
        "null",
        "[]",
        "7",
        "\"tokenizer\"",
        "{}",
        "<html>404</html>",
        "PK\u{3}\u{4}",
    ] {
        refused(Tokenizer::from_json(text.as_bytes()), &["tokenizer.json"]);
    }
    // Deep nesting must not use up the stack.
    for (open, close) in [("[", "]"), ("{\"normalizer\":", "}")] {
        let deep = format!("{}1{}", open.repeat(200_000), close.repeat(200_000));
        refused(Tokenizer::from_json(deep.as_bytes()), &["tokenizer.json"]);
    }
    let mut nested = json!({"type": "Lowercase"});
    for _ in 0..60 {
        nested = json!({"type": "Sequence", "normalizers": [nested]});
    }
    // Within serde_json's own limit; it may load, it may be refused, it must not fall over.
    let _ = Tokenizer::from_json(with("/normalizer", nested).to_string().as_bytes());
    let mut bytes = tokenizer_json().to_string().into_bytes();
    bytes[10] = 0xFF;
    refused(Tokenizer::from_json(&bytes), &["tokenizer.json"]);
}

#[test]
fn wrong_types() {
    for (pointer, value) in [
        ("/added_tokens", json!("none")),
        ("/added_tokens/0", json!("[PAD]")),
        ("/added_tokens/0/id", json!("0")),
        ("/added_tokens/0/content", json!(0)),
        ("/added_tokens/0/special", json!("yes")),
        ("/normalizer", json!("BertNormalizer")),
        ("/normalizer/lowercase", json!("true")),
        ("/normalizer/strip_accents", json!(1)),
        ("/pre_tokenizer", json!([])),
        ("/post_processor/single", json!("[CLS] $A [SEP]")),
        ("/post_processor/special_tokens", json!([])),
        ("/post_processor/pair/0/SpecialToken/type_id", json!(-1)),
        ("/decoder/cleanup", json!(0.5)),
        ("/model", json!([])),
        ("/model/vocab", json!(["the", "river"])),
        ("/model/vocab/the", json!("5")),
        ("/model/vocab/the", json!(-5)),
        ("/model/vocab/the", json!(5.5)),
        ("/model/vocab/the", json!(null)),
        ("/model/unk_token", json!(1)),
        ("/model/max_input_chars_per_word", json!("hundred")),
        ("/model/max_input_chars_per_word", json!(-1)),
        ("/model/continuing_subword_prefix", json!({})),
        ("/truncation", json!(128)),
        ("/truncation/max_length", json!(-1)),
        ("/truncation/strategy", json!("Shortest")),
        ("/padding/strategy", json!({"Fixed": "long"})),
        ("/padding/pad_id", json!(-1)),
    ] {
        refused_json(&with(pointer, value), &["tokenizer.json"]);
    }
}

#[test]
fn unknown_components() {
    for (part, kind) in [
        ("/normalizer", "normalizer"),
        ("/pre_tokenizer", "pre_tokenizer"),
        ("/post_processor", "post_processor"),
        ("/decoder", "decoder"),
        ("/model", "model"),
    ] {
        let error = refused_json(
            &with(&format!("{part}/type"), json!("Frobnicate")),
            &["tokenizer.json", kind, "Frobnicate", "known are"],
        );
        assert!(
            matches!(error, TokenizerError::UnknownComponent { .. }),
            "{error:?}"
        );
    }
    let nested = json!({"type": "Sequence", "normalizers": [{"type": "Frobnicate"}]});
    refused_json(&with("/normalizer", nested), &["normalizer", "Frobnicate"]);
}

#[test]
fn no_file_writes_lines_into_a_log() {
    let evil = "x\nERROR all is lost\u{1b}[31m";
    for json in [
        with("/truncation/strategy", json!(evil)),
        with("/normalizer/type", json!(evil)),
        with("/model/unk_token", json!(evil)),
        with(
            "/post_processor/single/0",
            json!({"SpecialToken": {"id": evil, "type_id": 0}}),
        ),
        with(
            "/post_processor/special_tokens/[CLS]",
            json!({"id": evil, "ids": [2, 2], "tokens": []}),
        ),
    ] {
        let message = refused_json(&json, &["tokenizer.json"]).to_string();
        assert!(!message.contains(char::is_control), "{message:?}");
    }
}

#[test]
fn missing_parts() {
    refused_json(&without("", "model"), &["tokenizer.json", "model"]);
    refused_json(&without("/model", "vocab"), &["tokenizer.json", "vocab"]);
    refused_json(
        &without("/added_tokens/0", "content"),
        &["tokenizer.json", "content"],
    );
    refused_json(
        &without("/post_processor", "single"),
        &["tokenizer.json", "single"],
    );
    refused_json(
        &without("/normalizer", "type"),
        &["tokenizer.json", "normalizer"],
    );
}

#[test]
fn the_unknown_token_must_be_in_the_vocabulary() {
    refused_json(
        &without("/model/vocab", "[UNK]"),
        &["tokenizer.json", "unk_token", "[UNK]"],
    );
    refused_json(
        &with("/model/unk_token", json!("<unk>")),
        &["tokenizer.json", "unk_token", "<unk>"],
    );
}

#[test]
fn templates_name_tokens_that_exist() {
    let piece = json!({"SpecialToken": {"id": "[START]", "type_id": 0}});
    refused_json(
        &with("/post_processor/single/0", piece),
        &["tokenizer.json", "post_processor", "[START]"],
    );
    let other = json!({"id": "[CLS]", "ids": [99], "tokens": ["[CLS]"]});
    refused_json(
        &with("/post_processor/special_tokens/[CLS]", other),
        &["post_processor", "[CLS]", "99"],
    );
    let lengths = json!({"id": "[CLS]", "ids": [2, 2], "tokens": ["[CLS]"]});
    refused_json(
        &with("/post_processor/special_tokens/[CLS]", lengths),
        &["post_processor", "[CLS]"],
    );
    let sequence = json!({"Sequence": {"id": "C", "type_id": 0}});
    refused_json(
        &with("/post_processor/pair/3", sequence),
        &["tokenizer.json"],
    );
}

#[test]
fn a_vocabulary_has_tokens() {
    let mut json = with("/model/vocab", json!({}));
    refused_json(&json, &["tokenizer.json", "vocab"]);
    json["added_tokens"] = json!([]);
    refused_json(&json, &["tokenizer.json", "vocab"]);
}

#[test]
fn ids_have_limits() {
    for id in [
        json!(u32::MAX),
        json!(4_000_000_000_u32),
        json!(1_u64 << 32),
        json!(u64::MAX),
        json!(1e12),
    ] {
        refused_json(&with("/model/vocab/the", id.clone()), &["tokenizer.json"]);
        let mut json = tokenizer_json();
        json["added_tokens"][5]["id"] = id;
        refused_json(&json, &["tokenizer.json"]);
    }
    // Two tokens of one id: decoding could not tell them apart.
    refused_json(
        &with("/model/vocab/the", json!(6)),
        &["tokenizer.json", "\"river\"", "\"the\"", "6"],
    );
}

#[test]
fn added_tokens_have_content() {
    refused_json(
        &with("/added_tokens/5/content", json!("")),
        &["tokenizer.json", "added_tokens", "content"],
    );
}

fn from_vocab(bytes: &[u8], config: Option<&[u8]>) -> Result<Tokenizer, TokenizerError> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("vocab.txt"), bytes).unwrap();
    if let Some(config) = config {
        std::fs::write(folder.path().join("tokenizer_config.json"), config).unwrap();
    }
    Tokenizer::from_dir(folder.path())
}

#[test]
fn vocab_txt_must_be_utf8() {
    let mut bytes = vocab_txt().into_bytes();
    let start = vocab_txt().find("sea").unwrap();
    bytes[start + 1] = 0xE9;
    let error = refused(from_vocab(&bytes, None), &["vocab.txt", "line 8", "UTF-8"]);
    match error {
        TokenizerError::NotUtf8 { line, byte, .. } => assert_eq!((line, byte), (8, start + 1)),
        other => panic!("{other:?}"),
    }
    let utf16: Vec<u8> = std::iter::once(0xFEFF)
        .chain(vocab_txt().encode_utf16())
        .flat_map(u16::to_le_bytes)
        .collect();
    refused(from_vocab(&utf16, None), &["vocab.txt", "line 1", "UTF-8"]);
}

#[test]
fn vocab_txt_must_have_its_tokens() {
    refused(from_vocab(b"", None), &["vocab.txt"]);
    refused(from_vocab(b"\n\n", None), &["vocab.txt"]);
    for missing in ["[UNK]", "[CLS]", "[SEP]"] {
        let text = vocab_txt().replace(missing, "nothing");
        refused(from_vocab(text.as_bytes(), None), &["vocab.txt", missing]);
    }
    let config = json!({"unk_token": "<unk>"}).to_string();
    refused(
        from_vocab(vocab_txt().as_bytes(), Some(config.as_bytes())),
        &["<unk>"],
    );
}

#[test]
fn tokenizer_config_json_must_make_sense() {
    let vocab = vocab_txt();
    for (config, words) in [
        (&b"{"[..], &["tokenizer_config.json", "line 1"][..]),
        (b"[]", &["tokenizer_config.json"]),
        (b"{\"do_lower_case\": \"yes\"}", &["tokenizer_config.json"]),
        (b"{\"cls_token\": 7}", &["tokenizer_config.json"]),
        (b"{\"do_lower_case\": tru\xFF}", &["tokenizer_config.json"]),
    ] {
        refused(from_vocab(vocab.as_bytes(), Some(config)), words);
    }
}

#[test]
fn files_that_are_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let error = refused(
        Tokenizer::from_dir(here),
        &["tokenizer.json", "vocab.txt", &here.display().to_string()],
    );
    assert!(
        matches!(error, TokenizerError::NoTokenizer { .. }),
        "{error:?}"
    );
    refused(Tokenizer::from_dir(here.join("nowhere")), &["nowhere"]);
    let missing = here.join("missing.json");
    let error = refused(
        Tokenizer::from_file(&missing),
        &["cannot read", "missing.json"],
    );
    assert!(matches!(error, TokenizerError::Read { .. }), "{error:?}");
    refused(
        Tokenizer::from_vocab_file(here.join("gone.txt"), BertOptions::default()),
        &["cannot read", "gone.txt"],
    );
    std::fs::create_dir(here.join("tokenizer.json")).unwrap();
    refused(Tokenizer::from_dir(here), &["tokenizer.json"]);
    refused(Tokenizer::from_dir(Path::new("")), &["tokenizer"]);
}

#[test]
fn the_file_is_named_by_its_path() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    std::fs::write(&path, "{").unwrap();
    let path = path.display().to_string();
    refused(Tokenizer::from_file(&path), &[&path]);
    refused(Tokenizer::from_dir(folder.path()), &[&path]);
}

#[test]
fn ids_that_no_token_has_cannot_be_decoded() {
    let tokenizer = Tokenizer::from_json(tokenizer_json().to_string().as_bytes()).unwrap();
    let size = VOCABULARY.len() + 1;
    assert_eq!(tokenizer.decode(&[5, 24], false).unwrap(), "the <lake>");
    for id in [25, u32::MAX] {
        let error = tokenizer.decode(&[5, id], false).expect_err("no such id");
        assert!(
            matches!(error, TokenizerError::UnknownId { largest: 24, .. }),
            "{error:?}"
        );
        let message = error.to_string();
        assert!(
            message.contains(&id.to_string()) && message.contains(&size.to_string()),
            "{message}"
        );
    }
}

/// The valid file with another model.
fn with_model(model: Value) -> Value {
    let mut json = with("/model", model);
    json["pre_tokenizer"] = Value::Null;
    json
}

#[test]
fn models_that_make_no_sense() {
    let vocab = || tokenizer_json()["model"]["vocab"].clone();
    for (model, words) in [
        (
            json!({"type": "BPE", "vocab": {}, "merges": [["a", "b"]]}),
            &["merges[0]", "\"a\""][..],
        ),
        (json!({"type": "BPE", "vocab": vocab()}), &["merges"]),
        (
            json!({"type": "BPE", "vocab": vocab(), "merges": ["r"]}),
            &["\"r\"", "space"],
        ),
        (
            json!({"type": "BPE", "vocab": vocab(), "merges": ["r e t"]}),
            &["space"],
        ),
        (
            json!({"type": "BPE", "vocab": vocab(), "merges": [["r"]]}),
            &["two tokens"],
        ),
        (
            json!({"type": "BPE", "vocab": vocab(), "merges": [["r", 1]]}),
            &["token"],
        ),
        // What the two make is no token.
        (
            json!({"type": "BPE", "vocab": vocab(), "merges": [["r", "e"]]}),
            &["merges[0]", "\"re\""],
        ),
        (
            json!({"type": "BPE", "vocab": vocab(), "merges": [["r", "e"]], "continuing_subword_prefix": "##"}),
            &["shorter"],
        ),
        (
            json!({"type": "BPE", "vocab": vocab(), "merges": [], "unk_token": "<none>"}),
            &["unk_token", "<none>"],
        ),
        (
            json!({"type": "BPE", "vocab": [], "merges": []}),
            &["vocab"],
        ),
        (
            json!({"type": "Unigram", "vocab": []}),
            &["vocab", "no token"],
        ),
        (json!({"type": "Unigram", "vocab": {}}), &["vocab", "list"]),
        (
            json!({"type": "Unigram", "vocab": [["a", 0.0]], "unk_id": 1}),
            &["unk_id"],
        ),
        (
            json!({"type": "Unigram", "vocab": [["a", 0.0]], "unk_id": -1}),
            &["unk_id"],
        ),
        (json!({"type": "Unigram", "vocab": [["a"]]}), &["score"]),
        (
            json!({"type": "Unigram", "vocab": [["a", "b"]]}),
            &["tokenizer.json"],
        ),
        (
            json!({"type": "WordLevel", "vocab": vocab()}),
            &["unk_token"],
        ),
        (
            json!({"type": "WordLevel", "vocab": vocab(), "unk_token": "<none>"}),
            &["<none>"],
        ),
    ] {
        let mut words = words.to_vec();
        words.push("tokenizer.json");
        refused_json(&with_model(model), &words);
    }
}

#[test]
fn components_that_make_no_sense() {
    for (part, value, words) in [
        (
            "/normalizer",
            json!({"type": "Precompiled", "precompiled_charsmap": "@"}),
            &["precompiled_charsmap", "base64"][..],
        ),
        (
            "/normalizer",
            json!({"type": "Precompiled", "precompiled_charsmap": "AAAA"}),
            &["precompiled_charsmap"],
        ),
        (
            "/normalizer",
            json!({"type": "Replace", "pattern": {"Regex": "("}, "content": ""}),
            &["normalizer.pattern"],
        ),
        (
            "/normalizer",
            json!({"type": "Replace", "pattern": "a", "content": ""}),
            &["normalizer"],
        ),
        (
            "/pre_tokenizer",
            json!({"type": "Split", "pattern": {"Regex": "[z-a]"}, "behavior": "Isolated", "invert": false}),
            &["pre_tokenizer.pattern"],
        ),
        (
            "/pre_tokenizer",
            json!({"type": "FixedLength", "length": 0}),
            &["length", "0"],
        ),
        (
            "/pre_tokenizer",
            json!({"type": "CharDelimiterSplit", "delimiter": "ab"}),
            &["pre_tokenizer"],
        ),
        (
            "/pre_tokenizer",
            json!({"type": "Metaspace", "replacement": "", "prepend_scheme": "always"}),
            &["pre_tokenizer"],
        ),
        (
            "/pre_tokenizer",
            json!({"type": "Metaspace", "replacement": "_", "prepend_scheme": "first", "add_prefix_space": false}),
            &["add_prefix_space"],
        ),
        (
            "/pre_tokenizer",
            json!({"type": "ByteLevel"}),
            &["pre_tokenizer"],
        ),
        (
            "/decoder",
            json!({"type": "Strip", "content": "a", "start": -1, "stop": 0}),
            &["decoder"],
        ),
        (
            "/decoder",
            json!({"type": "Sequence", "decoders": [{"type": "Frobnicate"}]}),
            &["decoder", "Frobnicate", "CTC"],
        ),
        (
            "/post_processor",
            json!({"type": "RobertaProcessing", "sep": ["[SEP]", 99], "cls": ["[CLS]", 2],
            "trim_offsets": true, "add_prefix_space": true}),
            &["post_processor.sep", "99"],
        ),
        (
            "/post_processor",
            json!({"type": "Sequence", "processors": [
            {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]},
            {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]}]}),
            &["post_processor", "second"],
        ),
    ] {
        let mut words = words.to_vec();
        words.push("tokenizer.json");
        refused_json(&with(part, value), &words);
    }
}
