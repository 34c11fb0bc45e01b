//! The ways a tokenizer lies in a folder, which must all give the same one.

use std::path::Path;

use bertha_tokenizer::{BertOptions, EncodeOptions, SpecialToken, Tokenizer};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::valid::{TEXTS, VOCABULARY, sentencepiece_model, tokenizer_json, vocab_txt};

/// A folder with these files.
fn folder(files: &[(&str, String)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in files {
        std::fs::write(folder.path().join(name), content).unwrap();
    }
    folder
}

fn load(files: &[(&str, String)]) -> Tokenizer {
    Tokenizer::from_dir(folder(files).path()).unwrap()
}

#[track_caller]
fn assert_same(left: &Tokenizer, right: &Tokenizer, what: &str) {
    assert_eq!(left.vocab_size(), right.vocab_size(), "{what}");
    let options = EncodeOptions::default();
    for text in TEXTS {
        let (l, r) = (
            left.encode(text, &options).unwrap(),
            right.encode(text, &options).unwrap(),
        );
        assert_eq!(l, r, "{what}: {text:?}");
        let (l, r) = ((text, TEXTS[0]), (text, TEXTS[0]));
        assert_eq!(
            left.encode(l, &options).unwrap(),
            right.encode(r, &options).unwrap(),
            "{what}: {text:?}"
        );
        let ids = left.encode(text, &options).unwrap();
        for skip in [false, true] {
            assert_eq!(
                left.decode(ids.ids(), skip).unwrap(),
                right.decode(ids.ids(), skip).unwrap(),
                "{what}"
            );
        }
    }
    for role in [
        SpecialToken::Cls,
        SpecialToken::Sep,
        SpecialToken::Pad,
        SpecialToken::Unk,
        SpecialToken::Mask,
    ] {
        assert_eq!(
            left.special_token(role),
            right.special_token(role),
            "{what}"
        );
    }
}

/// A tokenizer.json as `transformers` writes it for a vocab.txt: without the added token, truncation and padding.
fn converted(normalizer: Value) -> Value {
    let mut json = tokenizer_json();
    json["added_tokens"].as_array_mut().unwrap().pop();
    json["normalizer"] = normalizer;
    json["truncation"] = Value::Null;
    json["padding"] = Value::Null;
    json
}

#[test]
fn tokenizer_json_and_vocab_txt_give_the_same() {
    for lower in [true, false] {
        for strip in [None, Some(true), Some(false)] {
            for chinese in [true, false] {
                let config = json!({
                    "do_lower_case": lower, "strip_accents": strip, "tokenize_chinese_chars": chinese,
                    "tokenizer_class": "BertTokenizer", "model_max_length": 512,
                });
                let from_json = converted(json!({
                    "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": chinese,
                    "strip_accents": strip, "lowercase": lower,
                }));
                let left = load(&[("tokenizer.json", from_json.to_string())]);
                let right = load(&[
                    ("vocab.txt", vocab_txt()),
                    ("tokenizer_config.json", config.to_string()),
                ]);
                assert_same(&left, &right, &config.to_string());
            }
        }
    }
}

#[test]
fn a_vocab_txt_alone_is_uncased() {
    let left = load(&[(
        "tokenizer.json",
        converted(tokenizer_json()["normalizer"].clone()).to_string(),
    )]);
    let right = load(&[("vocab.txt", vocab_txt())]);
    assert_same(&left, &right, "vocab.txt alone");
    let folder = folder(&[("words.txt", vocab_txt())]);
    let file = Tokenizer::from_vocab_file(folder.path().join("words.txt"), BertOptions::default())
        .unwrap();
    assert_same(&left, &file, "from_vocab_file");
}

#[test]
fn tokenizer_json_comes_first() {
    let config = json!({"do_lower_case": false}).to_string();
    let files = [
        ("tokenizer.json", tokenizer_json().to_string()),
        ("tokenizer_config.json", config),
        ("vocab.txt", "x\n".into()),
    ];
    let tokenizer = load(&files);
    assert_same(
        &tokenizer,
        &Tokenizer::from_json(tokenizer_json().to_string()).unwrap(),
        "beside vocab.txt",
    );
    assert_eq!(tokenizer.vocab_size(), VOCABULARY.len() + 1);
}

#[test]
fn from_file_and_from_json_give_the_same() {
    let folder = folder(&[("any name.json", tokenizer_json().to_string())]);
    let file = Tokenizer::from_file(folder.path().join("any name.json")).unwrap();
    let pretty = serde_json::to_vec_pretty(&tokenizer_json()).unwrap();
    assert_same(&file, &Tokenizer::from_json(&pretty).unwrap(), "from_json");
    assert_eq!(
        file.truncation().map(|t| (t.max_length, t.stride)),
        Some((16, 2))
    );
    assert_eq!(file.padding().and_then(|p| p.pad_to_multiple_of), Some(8));
}

#[test]
fn line_ends_and_a_missing_last_one_do_not_matter() {
    let expected = load(&[("vocab.txt", vocab_txt())]);
    for text in [
        vocab_txt().replace('\n', "\r\n"),
        vocab_txt().trim_end().to_owned(),
        vocab_txt().replace('\n', " \n"),
    ] {
        assert_same(&expected, &load(&[("vocab.txt", text)]), "line ends");
    }
}

#[test]
fn special_tokens_of_the_configuration_count() {
    let vocabulary = vocab_txt()
        .replace("[CLS]", "<s>")
        .replace("[SEP]", "</s>")
        .replace("[UNK]", "<unk>");
    let plain = json!({"cls_token": "<s>", "sep_token": "</s>", "unk_token": "<unk>"});
    let objects = json!({
        "cls_token": {"__type": "AddedToken", "content": "<s>", "lstrip": false, "normalized": false},
        "sep_token": {"content": "</s>"}, "unk_token": {"content": "<unk>", "rstrip": false},
    });
    for config in [plain, objects] {
        let tokenizer = load(&[
            ("vocab.txt", vocabulary.clone()),
            ("tokenizer_config.json", config.to_string()),
        ]);
        let encoding = tokenizer
            .encode("the xyz", &EncodeOptions::default())
            .unwrap();
        let tokens: Vec<&str> = tokenizer.tokens(&encoding).collect();
        assert_eq!(tokens, ["<s>", "the", "<unk>", "</s>"], "{config}");
        assert_eq!(tokenizer.special_token(SpecialToken::Cls), Some(("<s>", 2)));
        let encoding = tokenizer
            .encode("the </s>", &EncodeOptions::default())
            .unwrap();
        assert_eq!(
            encoding.ids(),
            [2, 5, 3, 3],
            "written special tokens are matched"
        );
    }
}

#[test]
fn flags_of_special_tokens_count() {
    let mask =
        json!({"__type": "AddedToken", "content": "[MASK]", "lstrip": true, "normalized": false});
    for file in ["tokenizer_config.json", "special_tokens_map.json"] {
        let config = json!({"mask_token": mask, "sep_token": "[SEP]"}).to_string();
        let tokenizer = load(&[("vocab.txt", vocab_txt()), (file, config)]);
        let encoding = tokenizer
            .encode("the  [MASK] sea", &EncodeOptions::default())
            .unwrap();
        assert_eq!(encoding.ids(), [2, 5, 4, 7, 3], "{file}");
        assert_eq!(
            encoding.offsets()[2],
            (3, 11),
            "{file}: the spaces before the mask are its own"
        );
        assert_eq!(tokenizer.vocab_size(), VOCABULARY.len());
    }
}

#[test]
fn the_same_folder_loads_through_any_kind_of_path() {
    let folder = folder(&[("tokenizer.json", tokenizer_json().to_string())]);
    let path: &Path = folder.path();
    let owned = path.to_path_buf();
    let first = Tokenizer::from_dir(path).unwrap();
    assert_same(
        &first,
        &Tokenizer::from_dir(path.to_str().unwrap()).unwrap(),
        "&str",
    );
    assert_same(&first, &Tokenizer::from_dir(owned).unwrap(), "PathBuf");
    assert_same(&first, &first.clone(), "clone");
}

fn from_model(file: &str, config: Value, bpe: bool) -> Tokenizer {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(file), sentencepiece_model(bpe)).unwrap();
    std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    Tokenizer::from_dir(folder.path()).unwrap()
}

fn tokens(tokenizer: &Tokenizer, text: &str) -> Vec<String> {
    let encoding = tokenizer.encode(text, &EncodeOptions::default()).unwrap();
    tokenizer.tokens(&encoding).map(str::to_owned).collect()
}

#[test]
fn sentencepiece_models_have_the_ids_of_their_family() {
    let xlm = from_model(
        "sentencepiece.bpe.model",
        json!({"model_type": "xlm-roberta"}),
        false,
    );
    // fairseq counts <s>, <pad>, </s>, <unk> before the pieces from the fourth on.
    assert_eq!(
        ["<s>", "<pad>", "</s>", "<unk>", "[CLS]", "[SEP]"].map(|token| xlm.token_to_id(token)),
        [Some(0), Some(1), Some(2), Some(3), Some(4), Some(5)]
    );
    let last = xlm.vocab_size() as u32 - 1;
    assert_eq!(
        xlm.special_token(SpecialToken::Mask),
        Some(("<mask>", last))
    );
    assert_eq!(
        tokens(&xlm, "re the x"),
        ["<s>", "▁re", "▁", "the", "▁", "<unk>", "</s>"]
    );
    let pair = xlm.encode(("re", "re"), &EncodeOptions::default()).unwrap();
    assert_eq!(
        xlm.tokens(&pair).collect::<Vec<_>>(),
        ["<s>", "▁re", "</s>", "</s>", "▁re", "</s>"]
    );
    assert_eq!(pair.type_ids(), [0; 6]);
    assert_eq!(xlm.decode(pair.ids(), true).unwrap(), "re re");

    let albert = from_model("spiece.model", json!({"model_type": "albert"}), false);
    assert_eq!(albert.special_token(SpecialToken::Unk), Some(("<unk>", 0)));
    assert_eq!(
        tokens(&albert, "RE  thé"),
        ["[CLS]", "▁re", "▁", "the", "[SEP]"]
    );
    let big_bird = from_model("spiece.model", json!({"model_type": "big_bird"}), false);
    assert_eq!(
        tokens(&big_bird, "re [MASK]"),
        ["[CLS]", "▁re", "[MASK]", "[SEP]"]
    );
    let plain = from_model("tokenizer.model", json!({"model_type": "other"}), true);
    assert_eq!(tokens(&plain, "re here"), ["▁re", "▁", "he", "re"]);
}

/// A vocabulary of all bytes, and its merges.
fn byte_files(special: &[&str]) -> Vec<(&'static str, String)> {
    let printable = |byte: &u32| matches!(byte, 0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF);
    let others = (0..256_u32).filter(|byte| !printable(byte)).count() as u32;
    let letters = (0..256).filter(printable).chain(256..256 + others);
    let letters = letters.map(|point| char::from_u32(point).unwrap().to_string());
    let tokens = special.iter().map(|token| (*token).to_owned());
    let tokens = tokens
        .chain(letters)
        .chain(["Ġt", "he", "Ġthe"].map(String::from));
    let vocab: serde_json::Map<String, Value> = tokens
        .zip(0..)
        .map(|(token, id)| (token, json!(id)))
        .collect();
    vec![
        ("vocab.json", Value::Object(vocab).to_string()),
        ("merges.txt", "#version: 0.2\nĠ t\nh e\nĠt he\n".to_owned()),
    ]
}

#[test]
fn vocab_json_and_merges_txt_are_robertas() {
    let special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"];
    let roberta = load(&byte_files(&special));
    let encoding = roberta
        .encode("he the <mask>\u{e9}", &EncodeOptions::default())
        .unwrap();
    let found: Vec<&str> = roberta.tokens(&encoding).collect();
    assert_eq!(found, ["<s>", "he", "Ġthe", "<mask>", "Ã", "©", "</s>"]);
    assert_eq!(
        encoding.offsets()[2..6],
        [(3, 6), (7, 13), (13, 14), (13, 14)]
    );
    assert_eq!(
        roberta.decode(encoding.ids(), true).unwrap(),
        "he the\u{e9}"
    );
    assert_eq!(roberta.num_special_tokens(true), 4);
    let mut prefixed = byte_files(&special);
    prefixed.push((
        "tokenizer_config.json",
        json!({"add_prefix_space": true}).to_string(),
    ));
    assert_eq!(tokens(&load(&prefixed), "the"), ["<s>", "Ġthe", "</s>"]);
    let mut gpt2 = byte_files(&["<|endoftext|>"]);
    gpt2.push((
        "tokenizer_config.json",
        json!({"tokenizer_class": "GPT2Tokenizer"}).to_string(),
    ));
    assert_eq!(tokens(&load(&gpt2), " the"), ["Ġthe"]);
    let mut broken = byte_files(&special);
    broken[1].1.push_str("a b c\n");
    let error = Tokenizer::from_dir(folder(&broken).path())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("merges.txt") && error.contains("line 5"),
        "{error}"
    );
}
