//! Thousands of damaged files: whatever a file holds, loading returns.

use bertha_tokenizer::{BertOptions, EncodeOptions, Tokenizer};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{Config, FileFailurePersistence};
use serde_json::{Value, json};

use crate::valid::{TEXTS, other_models, sentencepiece_model, tokenizer_json, vocab_txt};

/// One change to a file's bytes.
#[derive(Debug, Clone)]
enum Damage {
    Overwrite(Index, u8),
    Insert(Index, u8),
    Remove(Index, usize),
    Repeat(Index, usize),
    End(Index),
}

fn damage() -> impl Strategy<Value = Damage> {
    let byte = prop_oneof![
        any::<u8>(),
        select(b"\"{}[],:0123456789-.eE\\#\n\xFF\xC3".to_vec())
    ];
    prop_oneof![
        4 => (any::<Index>(), byte.clone()).prop_map(|(at, byte)| Damage::Overwrite(at, byte)),
        2 => (any::<Index>(), byte).prop_map(|(at, byte)| Damage::Insert(at, byte)),
        2 => (any::<Index>(), 1..40_usize).prop_map(|(at, count)| Damage::Remove(at, count)),
        1 => (any::<Index>(), 1..400_usize).prop_map(|(at, count)| Damage::Repeat(at, count)),
        1 => any::<Index>().prop_map(Damage::End),
    ]
}

fn apply(bytes: &mut Vec<u8>, damage: &Damage) {
    if bytes.is_empty() {
        return;
    }
    let length = bytes.len();
    match *damage {
        Damage::Overwrite(at, byte) => bytes[at.index(length)] = byte,
        Damage::Insert(at, byte) => bytes.insert(at.index(length), byte),
        Damage::Remove(at, count) => {
            let start = at.index(length);
            bytes.drain(start..length.min(start + count));
        }
        Damage::Repeat(at, count) => {
            let start = at.index(length);
            let piece = bytes[start..length.min(start + count)].to_vec();
            bytes.splice(start..start, piece);
        }
        Damage::End(at) => bytes.truncate(at.index(length)),
    }
}

/// Every place in `json`, as a JSON pointer.
fn places(json: &Value, here: &str, found: &mut Vec<String>) {
    found.push(here.to_owned());
    let escaped = |key: &str| key.replace('~', "~0").replace('/', "~1");
    match json {
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                places(item, &format!("{here}/{index}"), found);
            }
        }
        Value::Object(fields) => {
            for (key, field) in fields {
                places(field, &format!("{here}/{}", escaped(key)), found);
            }
        }
        _ => {}
    }
}

fn value() -> impl Strategy<Value = Value> {
    select(vec![
        json!(null),
        json!(true),
        json!(0),
        json!(1),
        json!(5),
        json!(-1),
        json!(0.5),
        json!(1e300),
        json!(u64::MAX),
        json!(u32::MAX),
        json!(i64::MIN),
        json!(4_000_000_000_u64),
        json!(""),
        json!("[UNK]"),
        json!("[CLS]"),
        json!("##"),
        json!("\u{0}"),
        json!("e\u{301}"),
        json!("the"),
        json!("WordPiece"),
        json!("BertNormalizer"),
        json!("A"),
        json!([]),
        json!({}),
        json!([0]),
        json!([[]]),
        json!({"type": "Sequence"}),
        json!({"type": "BertPreTokenizer"}),
        json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true}),
        json!({"type": "Metaspace", "replacement": "▁"}),
        json!("BPE"),
        json!("Unigram"),
        json!([["r", "e"], ["e", "r"], ["re", "r"]]),
        json!({"Fixed": -3}),
    ])
}

/// Loads what may be broken. What loads must then also work.
fn load_and_use(result: Result<Tokenizer, bertha_tokenizer::TokenizerError>) {
    let tokenizer = match result {
        Ok(tokenizer) => tokenizer,
        Err(error) => {
            let message = error.to_string();
            assert!(
                message.len() > 10 && !message.contains('\n'),
                "{message:?} is not a message"
            );
            return;
        }
    };
    for text in TEXTS {
        for options in [EncodeOptions::default(), EncodeOptions::truncated(4)] {
            for pair in [false, true] {
                let encoding = match pair {
                    false => tokenizer.encode(text, &options),
                    true => tokenizer.encode((text, text), &options),
                };
                if let Ok(encoding) = encoding {
                    assert_eq!(tokenizer.tokens(&encoding).count(), encoding.len());
                    // A template may name ids that no token has.
                    let _ = tokenizer.decode(encoding.ids(), true);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(Config {
        cases: 3000, failure_persistence: Some(Box::new(FileFailurePersistence::Off)), ..Config::default()
    })]

    #[test]
    fn bytes_of_tokenizer_json(changes in vec(damage(), 1..5)) {
        let mut bytes = tokenizer_json().to_string().into_bytes();
        changes.iter().for_each(|change| apply(&mut bytes, change));
        load_and_use(Tokenizer::from_json(&bytes));
    }

    #[test]
    fn bytes_of_other_models(which in any::<Index>(), changes in vec(damage(), 1..5)) {
        let models = other_models();
        let mut bytes = which.get(&models).to_string().into_bytes();
        changes.iter().for_each(|change| apply(&mut bytes, change));
        load_and_use(Tokenizer::from_json(&bytes));
    }

    #[test]
    fn bytes_of_sentencepiece_models(
        file in select(vec!["sentencepiece.bpe.model", "spiece.model", "spm.model", "tokenizer.model"]),
        bpe in any::<bool>(), changes in vec(damage(), 0..5),
    ) {
        let mut bytes = sentencepiece_model(bpe);
        changes.iter().for_each(|change| apply(&mut bytes, change));
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(file), &bytes).unwrap();
        load_and_use(Tokenizer::from_dir(folder.path()));
    }

    #[test]
    fn values_of_tokenizer_json(
        which in any::<Index>(), changes in vec((any::<Index>(), value(), any::<bool>()), 1..4),
    ) {
        let mut models = other_models();
        models.push(tokenizer_json());
        let mut json = which.get(&models).clone();
        for (place, value, remove) in changes {
            let mut all = Vec::new();
            places(&json, "", &mut all);
            let place = &all[place.index(all.len())];
            let (parent, key) = place.rsplit_once('/').unwrap_or(("", ""));
            match json.pointer_mut(parent) {
                Some(Value::Object(fields)) if remove => drop(fields.remove(key)),
                _ => *json.pointer_mut(place).unwrap() = value,
            }
        }
        load_and_use(Tokenizer::from_json(json.to_string().as_bytes()));
    }
}

proptest! {
    #![proptest_config(Config {
        cases: 300, failure_persistence: Some(Box::new(FileFailurePersistence::Off)), ..Config::default()
    })]

    #[test]
    fn bytes_of_vocab_txt(changes in vec(damage(), 1..5)) {
        let mut bytes = vocab_txt().into_bytes();
        changes.iter().for_each(|change| apply(&mut bytes, change));
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("vocab.txt"), &bytes).unwrap();
        load_and_use(Tokenizer::from_dir(folder.path()));
        load_and_use(Tokenizer::from_vocab_file(folder.path().join("vocab.txt"), BertOptions::default()));
    }

    #[test]
    fn bytes_of_tokenizer_config_json(changes in vec(damage(), 0..4)) {
        let config = json!({
            "do_lower_case": true, "strip_accents": null, "tokenize_chinese_chars": true, "cls_token": "[CLS]",
            "sep_token": {"content": "[SEP]", "lstrip": false}, "unk_token": "[UNK]", "never_split": ["river"],
            "added_tokens_decoder": {"0": {"content": "[PAD]", "special": true}},
        });
        let mut bytes = config.to_string().into_bytes();
        changes.iter().for_each(|change| apply(&mut bytes, change));
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("vocab.txt"), vocab_txt()).unwrap();
        std::fs::write(folder.path().join("tokenizer_config.json"), &bytes).unwrap();
        load_and_use(Tokenizer::from_dir(folder.path()));
    }
}
