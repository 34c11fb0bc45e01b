//! The vocabularies of BERT, RoBERTa, GPT-2, XLM-R and ALBERT, where `BERTHA_VOCABULARIES` names a folder that has them:
//! `bert-base-uncased/vocab.txt`, `bert-base-cased/vocab.txt`, `roberta-base/vocab.json` and `merges.txt`, `gpt2/tokenizer.json`, `xlm-roberta-base/unigram.tsv` (id, piece, score),
//! `albert-base/spiece.model`.
//!
//! ```text
//! BERTHA_VOCABULARIES=… cargo test --release -p bertha-tokenizer --test differential -- --ignored real_vocabularies
//! ```

use std::path::PathBuf;

use bertha_tokenizer::{EncodeOptions, Tokenizer};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

use crate::charsmap;
use crate::harness::Both;
use crate::models::{assembled, byte_level, marked_text, metaspace, roberta, template};
use crate::random::config;
use crate::real_text::{TEXTS, check_text};
use crate::recipes::{normalizer, tokenizer_json};
use crate::texts::{plain_options, truncating_options};

fn file(name: &str) -> PathBuf {
    let folder = std::env::var_os("BERTHA_VOCABULARIES");
    PathBuf::from(folder.expect("BERTHA_VOCABULARIES names a folder: see the head of this file"))
        .join(name)
}

fn text(name: &str) -> String {
    let path = file(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Compares on real text, random text and pairs.
fn check(both: &Both) {
    both.check_vocabulary();
    for (_, text) in TEXTS {
        check_text(both, text);
    }
    let case = (
        marked_text(10),
        marked_text(6),
        prop_oneof![plain_options(), truncating_options()],
    );
    let result = TestRunner::new(config(3000)).run(&case, |(first, second, options)| {
        both.check(&first, &options);
        both.check((&first, &second), &options);
        if let Ok(encoding) = both.ours.encode(&first, &options) {
            both.check_decode(encoding.ids());
        }
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{}: {error}", both.name));
}

fn roberta_model() -> Value {
    let vocab: Value = serde_json::from_str(&text("roberta-base/vocab.json")).expect("JSON");
    let merges: Vec<String> = text("roberta-base/merges.txt")
        .lines()
        .filter(|line| !line.starts_with("#version") && !line.is_empty())
        .map(str::to_owned)
        .collect();
    json!({"type": "BPE", "vocab": vocab, "merges": merges})
}

/// BERT's tokenizer over `bert-base-uncased/vocab.txt` or `bert-base-cased/vocab.txt`.
pub fn bert(name: &str, lowercase: bool) -> Both {
    let vocabulary = text(&format!("{name}/vocab.txt"));
    let vocabulary: Vec<&str> = vocabulary.lines().collect();
    let normalizer = normalizer(true, true, None, lowercase);
    Both::new(name, &tokenizer_json(&vocabulary, normalizer))
}

pub fn roberta_base() -> Both {
    let model = roberta_model();
    let json = assembled(
        &model,
        json!({"pre_tokenizer": byte_level(false, true, true),
        "post_processor": roberta(&model, true, false), "decoder": byte_level(true, true, true)}),
    );
    Both::new("roberta-base", &json).ignore_later_types()
}

/// ModernBERT's normalizer, template and tokens of spaces; its own vocabulary is not among the files.
pub fn modern_bert() -> Both {
    let model = roberta_model();
    let mut json = assembled(
        &model,
        json!({"normalizer": {"type": "NFC"}, "pre_tokenizer": byte_level(false, true, true),
        "post_processor": template(&model), "decoder": byte_level(true, true, true)}),
    );
    let added = json["added_tokens"].as_array_mut().expect("a list");
    added.extend((2..25).map(|n| {
        json!({"id": 60_000 + n, "content": " ".repeat(n), "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": true, "special": false})
    }));
    Both::new("ModernBERT over GPT-2's vocabulary", &json).ignore_later_types()
}

pub fn xlm_roberta_base() -> Both {
    let mut vocab = vec![json!(["<s>", 0.0])];
    for line in text("xlm-roberta-base/unigram.tsv").lines() {
        let mut fields = line.split('\t');
        if let (Some(id), Some(piece), Some(score)) = (fields.next(), fields.next(), fields.next())
            && let (Ok(_), Ok(score)) = (id.parse::<u32>(), score.parse::<f64>())
        {
            vocab.push(json!([piece, score]));
        }
    }
    assert!(vocab.len() > 250_000, "{} pieces", vocab.len());
    let model = json!({"type": "Unigram", "unk_id": 3, "vocab": vocab});
    let map = json!({"type": "Precompiled", "precompiled_charsmap": charsmap::compiled(&charsmap::ENTRIES)});
    let spaces = json!({"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "▁"});
    let strip = json!({"type": "Strip", "strip_left": false, "strip_right": true});
    let json = assembled(
        &model,
        json!({"normalizer": {"type": "Sequence", "normalizers": [map, strip, spaces]},
        "pre_tokenizer": metaspace("always", true), "post_processor": template(&model), "decoder": metaspace("always", true)}),
    );
    Both::new("xlm-roberta-base", &json).ignore_later_types()
}

#[test]
#[ignore = "needs vocabularies: see the head of this file"]
fn bert_base() {
    check(&bert("bert-base-uncased", true));
    check(&bert("bert-base-cased", false));
}

#[test]
#[ignore = "needs vocabularies: see the head of this file"]
fn roberta_and_modern_bert() {
    let both = roberta_base();
    check(&both);
    // The folder is the same tokenizer.
    let folder = Tokenizer::from_dir(file("roberta-base")).expect("the folder loads");
    for (_, text) in TEXTS {
        let options = EncodeOptions::default();
        assert_eq!(
            folder.encode(text, &options).unwrap(),
            both.ours.encode(text, &options).unwrap()
        );
    }
    check(&modern_bert());
}

#[test]
#[ignore = "needs vocabularies: see the head of this file"]
fn gpt2() {
    check(&Both::from_json("gpt2", &text("gpt2/tokenizer.json")));
}

#[test]
#[ignore = "needs vocabularies: see the head of this file"]
fn xlm_roberta() {
    check(&xlm_roberta_base());
}

/// `albert-json/tokenizer.json` is what `transformers` 5.24 makes of `albert-base/spiece.model`:
/// `AlbertTokenizer.from_pretrained(…).backend_tokenizer.to_str()`.
#[test]
#[ignore = "needs vocabularies: see the head of this file"]
fn albert() {
    let both = Both::from_json("albert-base", &text("albert-json/tokenizer.json"));
    check(&both);
    let folder = Tokenizer::from_dir(file("albert-base")).expect("the folder loads");
    let options = EncodeOptions::default();
    for (_, text) in TEXTS {
        for line in text.lines() {
            let (from_folder, from_json) = (
                folder.encode(line, &options),
                both.ours.encode(line, &options),
            );
            assert_eq!(from_folder.unwrap(), from_json.unwrap(), "{line:?}");
        }
    }
}
