//! Normalizers and pre-tokenizers other than BERT's, alone and one after the other.

use std::sync::LazyLock;

use bertha_tokenizer::EncodeOptions;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::harness::Both;
use crate::random::config;
use crate::real_text::TEXTS;
use crate::recipes::{SPECIAL, flagged, normalizer, tokenizer_json, with_added};
use crate::texts::text;

/// The characters of most scripts, so that ids spell out most normalised text.
fn vocabulary() -> Vec<String> {
    let characters = ('\0'..='\u{3100}')
        .chain('\u{A000}'..='\u{AC20}')
        .chain('\u{D700}'..='\u{D7FF}')
        .chain('\u{F900}'..='\u{FFFF}')
        .chain('\u{1D100}'..='\u{1D7FF}');
    let spelled = characters.flat_map(|c| [c.to_string(), format!("##{c}")]);
    SPECIAL
        .iter()
        .map(|&token| token.to_owned())
        .chain(spelled)
        .collect()
}

/// A tokenizer for each.
pub static ALL: LazyLock<Vec<Both>> = LazyLock::new(|| {
    let one = |kind: &str| json!({"type": kind});
    let strip = |left: bool, right: bool| json!({"type": "Strip", "strip_left": left, "strip_right": right});
    let steps = |steps: &[Value]| json!({"type": "Sequence", "normalizers": steps});
    let bert = normalizer(true, true, None, true);
    let normalizers = vec![
        one("NFC"),
        one("NFD"),
        one("NFKC"),
        one("NFKD"),
        one("Lowercase"),
        one("StripAccents"),
        strip(true, true),
        strip(true, false),
        strip(false, true),
        steps(&[]),
        steps(&[one("NFD"), one("Lowercase"), one("StripAccents")]),
        steps(&[one("NFKD"), one("NFC"), strip(true, true)]),
        steps(&[one("NFC"), bert.clone()]),
        steps(&[bert.clone(), one("NFKC"), one("Lowercase")]),
        steps(&[
            one("StripAccents"),
            steps(&[one("NFKC"), normalizer(true, false, Some(false), false)]),
        ]),
    ];
    let punctuation = |behavior: &str| json!({"type": "Punctuation", "behavior": behavior});
    let cuts = |cuts: &[Value]| json!({"type": "Sequence", "pretokenizers": cuts});
    let pre_tokenizers = vec![
        Value::Null,
        one("Whitespace"),
        one("WhitespaceSplit"),
        one("Punctuation"),
        punctuation("Removed"),
        punctuation("MergedWithPrevious"),
        punctuation("MergedWithNext"),
        punctuation("Contiguous"),
        cuts(&[]),
        cuts(&[one("WhitespaceSplit"), punctuation("Isolated")]),
        cuts(&[
            punctuation("MergedWithNext"),
            one("Whitespace"),
            one("BertPreTokenizer"),
        ]),
    ];

    let vocabulary = vocabulary();
    let mut base = tokenizer_json(&vocabulary, Value::Null);
    let mut all = Vec::new();
    let mut add = |normalizer: &Value, pre_tokenizer: &Value, added: bool| {
        let mut json = base.clone();
        json["normalizer"] = normalizer.clone();
        json["pre_tokenizer"] = pre_tokenizer.clone();
        if added {
            with_added(&mut json, flagged());
        }
        all.push(Both::new(
            format!("{normalizer}, {pre_tokenizer}, added tokens {added}"),
            &json,
        ));
    };
    for (index, normalizer) in normalizers.iter().enumerate() {
        add(normalizer, &one("BertPreTokenizer"), index % 4 == 0);
    }
    for (index, pre_tokenizer) in pre_tokenizers.iter().enumerate() {
        let normalizer = if index % 3 == 0 {
            &normalizers[index]
        } else {
            &bert
        };
        add(normalizer, pre_tokenizer, index % 4 == 0);
    }
    // A decoder and a model with names of their own.
    base["model"]["continuing_subword_prefix"] = json!("");
    base["decoder"] = json!({"type": "WordPiece", "prefix": "a", "cleanup": false});
    base["normalizer"] = bert;
    all.push(Both::new("no continuation mark", &base));
    all
});

#[test]
fn real_text() {
    for both in ALL.iter() {
        for (_, text) in &TEXTS[3..] {
            both.check(*text, &EncodeOptions::default());
            for line in text.lines() {
                both.check(line, &EncodeOptions::default());
            }
        }
    }
}

proptest! {
    #![proptest_config(config(1500))]

    #[test]
    fn random_text(which in 0..ALL.len(), text in text(12)) {
        ALL[which].check(&text, &EncodeOptions::default());
        let encoding = ALL[which].ours.encode(&text, &EncodeOptions::default()).unwrap();
        ALL[which].check_decode(encoding.ids());
    }
}
