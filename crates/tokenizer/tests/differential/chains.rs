//! Components of all kinds in random combinations.

use bertha_tokenizer::{EncodeOptions, TokenizerError};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::{Value, json};

use crate::charsmap;
use crate::harness::Both;
use crate::models::{CL100K, assembled, byte_level, marked_text, metaspace, roberta, template};
use crate::random::config;
use crate::recipes::normalizer;
use crate::vocabularies::{BYTE_LEVEL, MARKED, UNIGRAM, WORD_LEVEL, with_bytes};

fn one(kind: &str) -> Value {
    json!({"type": kind})
}

fn normalizers() -> Vec<Value> {
    let replace = |pattern: Value, content: &str| json!({"type": "Replace", "pattern": pattern, "content": content});
    let mut all: Vec<Value> = [
        "NFC",
        "NFD",
        "NFKC",
        "NFKD",
        "Lowercase",
        "StripAccents",
        "Nmt",
        "ByteLevel",
    ]
    .map(one)
    .into();
    all.extend([
        normalizer(true, true, None, true),
        json!({"type": "Strip", "strip_left": true, "strip_right": false}),
        json!({"type": "Strip", "strip_left": true, "strip_right": true}),
        json!({"type": "Prepend", "prepend": "▁"}),
        json!({"type": "Prepend", "prepend": "ab"}),
        json!({"type": "Precompiled", "precompiled_charsmap": charsmap::compiled(&charsmap::ENTRIES)}),
        replace(json!({"String": " "}), "▁"),
        replace(json!({"String": "e"}), ""),
        replace(json!({"String": "a"}), "é漢"),
        replace(json!({"Regex": " {2,}"}), " "),
        replace(json!({"Regex": r"\p{M}+|\d{2}"}), "#"),
        replace(json!({"Regex": r"(?<=\w)\s(?=\w)"}), "_"),
    ]);
    all
}

fn pre_tokenizers() -> Vec<Value> {
    let split = |pattern: Value, behavior: &str, invert: bool| json!({"type": "Split", "pattern": pattern, "behavior": behavior, "invert": invert});
    let mut all: Vec<Value> = ["BertPreTokenizer", "Whitespace", "WhitespaceSplit"]
        .map(one)
        .into();
    for prefix in [false, true] {
        all.extend([
            byte_level(prefix, true, true),
            byte_level(prefix, true, false),
        ]);
        all.push(json!({"type": "Digits", "individual_digits": prefix}));
    }
    for scheme in ["always", "first", "never"] {
        all.extend([metaspace(scheme, true), metaspace(scheme, false)]);
    }
    for behavior in [
        "Removed",
        "Isolated",
        "MergedWithPrevious",
        "MergedWithNext",
        "Contiguous",
    ] {
        all.push(json!({"type": "Punctuation", "behavior": behavior}));
        all.push(split(json!({"String": "e"}), behavior, false));
        all.push(split(
            json!({"Regex": r"\s+|\p{Lu}"}),
            behavior,
            behavior.len() % 2 == 0,
        ));
        all.push(split(
            json!({"Regex": CL100K}),
            behavior,
            behavior.len() % 2 == 1,
        ));
    }
    all.extend([
        json!({"type": "Metaspace", "replacement": "_", "str_rep": "_", "add_prefix_space": true}),
        json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "never", "add_prefix_space": false}),
        json!({"type": "CharDelimiterSplit", "delimiter": "a"}),
        json!({"type": "CharDelimiterSplit", "delimiter": " "}),
        json!({"type": "FixedLength", "length": 3}),
        split(json!({"Regex": r"(?=[A-Z])"}), "Isolated", false),
    ]);
    all
}

fn models() -> Vec<Value> {
    let mut suffixed = MARKED.clone();
    suffixed["end_of_word_suffix"] = json!("e");
    let mut prefixed = MARKED.clone();
    prefixed["continuing_subword_prefix"] = json!("");
    prefixed["unk_token"] = Value::Null;
    let mut fused = with_bytes(MARKED.clone());
    fused["fuse_unk"] = json!(true);
    vec![
        BYTE_LEVEL.clone(),
        MARKED.clone(),
        suffixed,
        prefixed,
        fused,
        UNIGRAM.clone(),
        with_bytes(UNIGRAM.clone()),
        WORD_LEVEL.clone(),
    ]
}

fn decoders() -> Vec<Value> {
    let wordpiece = |cleanup: bool| json!({"type": "WordPiece", "prefix": "▁", "cleanup": cleanup});
    vec![
        byte_level(true, true, true),
        metaspace("always", true),
        metaspace("never", true),
        one("ByteFallback"),
        one("Fuse"),
        json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}),
        json!({"type": "Strip", "content": "e", "start": 1, "stop": 2}),
        json!({"type": "Replace", "pattern": {"String": "▁"}, "content": " "}),
        json!({"type": "Replace", "pattern": {"Regex": "[aeiou]+"}, "content": "."}),
        json!({"type": "BPEDecoder", "suffix": "e"}),
        json!({"type": "CTC", "pad_token": "<pad>", "word_delimiter_token": "e", "cleanup": true}),
        wordpiece(true),
        wordpiece(false),
    ]
}

/// None, one, or several of them in a sequence.
fn chain(all: Vec<Value>, key: &'static str) -> impl Strategy<Value = Value> {
    prop_oneof![
        1 => Just(Value::Null),
        2 => select(all.clone()),
        3 => vec(select(all), 0..4).prop_map(move |chain| json!({"type": "Sequence", key: chain})),
    ]
}

pub fn any_tokenizer() -> impl Strategy<Value = Both> {
    (
        chain(normalizers(), "normalizers"),
        chain(pre_tokenizers(), "pretokenizers"),
        chain(decoders(), "decoders"),
        select(models()),
        any::<Index>(),
        any::<[bool; 2]>(),
    )
        .prop_map(|(normalizer, pre_tokenizer, decoder, model, post, [trim, prefix])| {
            let sequence = |all: &[Value]| json!({"type": "Sequence", "processors": all});
            let posts = [
                Value::Null,
                roberta(&model, trim, prefix),
                template(&model),
                byte_level(prefix, trim, true),
                sequence(&[byte_level(prefix, trim, true), template(&model)]),
                sequence(&[byte_level(prefix, trim, true), roberta(&model, true, prefix)]),
            ];
            let post = post.get(&posts);
            let json = assembled(
                &model,
                json!({"normalizer": normalizer, "pre_tokenizer": pre_tokenizer, "decoder": decoder, "post_processor": post}),
            );
            let name = format!(
                "normalizer {normalizer}\npre-tokenizer {pre_tokenizer}\ndecoder {decoder}\npost-processor {post}\nmodel {}",
                json!({"type": model["type"], "fuse": model["fuse_unk"], "bytes": model["byte_fallback"],
                    "suffix": model["end_of_word_suffix"], "unk": model["unk_token"]})
            );
            Both::new(name, &json).allow_panics().ignore_later_types()
        })
}

proptest! {
    #![proptest_config(config(400))]

    #[test]
    fn any_combination(both in any_tokenizer(), texts in vec(marked_text(6), 3), pair in marked_text(4)) {
        for text in &texts {
            both.check(text, &EncodeOptions::default());
            both.check((text, &pair), &EncodeOptions::truncated(9));
            match both.ours.encode(text, &EncodeOptions::default()) {
                Ok(encoding) => both.check_decode(encoding.ids()),
                Err(TokenizerError::Unspellable { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
}
