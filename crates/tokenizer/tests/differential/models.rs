//! Tokenizers of the kinds that encoder models other than BERT have.

use std::sync::LazyLock;

use bertha_tokenizer::EncodeOptions;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::charsmap;
use crate::harness::Both;
use crate::random::config;
use crate::real_text::TEXTS;
use crate::recipes::added;
use crate::texts::{plain_options, text, truncating_options};
use crate::vocabularies::{BYTE_LEVEL, MARKED, SPECIAL, UNIGRAM, id, with_bytes};

/// A tokenizer.json of parts. The special tokens are added tokens.
pub fn assembled(model: &Value, parts: Value) -> Value {
    let tokens: Vec<Value> = SPECIAL
        .iter()
        .map(|token| {
            let lstrip: &[&str] = if *token == "<mask>" {
                &["special", "lstrip"]
            } else {
                &["special"]
            };
            let mut added = added(token, lstrip);
            added["id"] = id(model, token);
            added
        })
        .collect();
    let mut json = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": tokens, "normalizer": null,
        "pre_tokenizer": null, "post_processor": null, "decoder": null, "model": model,
    });
    for (part, value) in parts.as_object().expect("parts are an object") {
        json[part] = value.clone();
    }
    json
}

/// RoBERTa's post-processor.
pub fn roberta(model: &Value, trim: bool, prefix: bool) -> Value {
    json!({"type": "RobertaProcessing", "sep": ["</s>", id(model, "</s>")], "cls": ["<s>", id(model, "<s>")],
        "trim_offsets": trim, "add_prefix_space": prefix})
}

/// XLM-R's template.
pub fn template(model: &Value) -> Value {
    let special = |token: &str| json!({"id": token, "ids": [id(model, token)], "tokens": [token]});
    let piece = |token: &str| json!({"SpecialToken": {"id": token, "type_id": 0}});
    let text = |name: &str| json!({"Sequence": {"id": name, "type_id": 0}});
    json!({"type": "TemplateProcessing", "single": [piece("<s>"), text("A"), piece("</s>")],
        "pair": [piece("<s>"), text("A"), piece("</s>"), piece("</s>"), text("B"), piece("</s>")],
        "special_tokens": {"<s>": special("<s>"), "</s>": special("</s>")}})
}

pub fn byte_level(prefix: bool, trim: bool, regex: bool) -> Value {
    json!({"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": trim, "use_regex": regex})
}

pub fn metaspace(scheme: &str, split: bool) -> Value {
    json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": split})
}

pub static CL100K: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// A tokenizer of each kind.
pub static ALL: LazyLock<Vec<Both>> = LazyLock::new(|| {
    let sequence = |key: &str, all: &[Value]| json!({"type": "Sequence", key: all});
    let replace = |regex: &str, by: &str| json!({"type": "Replace", "pattern": {"Regex": regex}, "content": by});
    let map = json!({"type": "Precompiled", "precompiled_charsmap": charsmap::compiled(&charsmap::ENTRIES)});
    let strip = json!({"type": "Strip", "strip_left": false, "strip_right": true});
    let mut all = Vec::new();
    let mut add = |name: &str, model: &Value, parts: Value| {
        all.push(Both::new(name, &assembled(model, parts)).ignore_later_types());
    };
    let bytes = &*BYTE_LEVEL;
    for prefix in [false, true] {
        add(
            &format!("RoBERTa, prefix {prefix}"),
            bytes,
            json!({
            "pre_tokenizer": byte_level(prefix, true, true), "post_processor": roberta(bytes, true, prefix),
            "decoder": byte_level(true, true, true)}),
        );
    }
    add(
        "GPT-2",
        bytes,
        json!({"pre_tokenizer": byte_level(false, true, true), "post_processor": byte_level(true, false, true),
        "decoder": byte_level(true, true, true)}),
    );
    add(
        "ModernBERT",
        bytes,
        json!({"normalizer": {"type": "NFC"}, "pre_tokenizer": byte_level(false, true, true),
        "post_processor": template(bytes), "decoder": byte_level(true, true, true)}),
    );
    let mut ignoring = bytes.clone();
    ignoring["ignore_merges"] = json!(true);
    let split = json!({"type": "Split", "pattern": {"Regex": CL100K}, "behavior": "Isolated", "invert": false});
    add(
        "Llama 3",
        &ignoring,
        json!({
        "pre_tokenizer": sequence("pretokenizers", &[split, byte_level(false, true, false)]),
        "post_processor": sequence("processors", &[byte_level(true, true, true), template(bytes)]),
        "decoder": byte_level(true, true, true)}),
    );
    // A vocabulary without some bytes cannot take words as they are.
    let mut lacking = bytes.clone();
    lacking["vocab"]
        .as_object_mut()
        .expect("a vocabulary")
        .remove("Ã");
    lacking["merges"]
        .as_array_mut()
        .expect("merges")
        .retain(|pair| !pair.to_string().contains('Ã'));
    add(
        "byte-level without every byte",
        &lacking,
        json!({"pre_tokenizer": byte_level(true, true, true),
        "post_processor": roberta(bytes, true, true), "decoder": byte_level(true, true, true)}),
    );

    let unigram = &*UNIGRAM;
    let decoder = metaspace("always", true);
    add(
        "XLM-R",
        unigram,
        json!({"normalizer": sequence("normalizers", &[map.clone(), strip.clone(), replace(" {2,}", "▁")]),
        "pre_tokenizer": metaspace("always", true), "post_processor": template(unigram), "decoder": decoder}),
    );
    add(
        "XLM-R, by words",
        unigram,
        json!({"normalizer": sequence("normalizers", &[map.clone(), replace(" {2,}", " ")]),
        "pre_tokenizer": sequence("pretokenizers", &[json!({"type": "WhitespaceSplit"}), metaspace("always", true)]),
        "post_processor": template(unigram), "decoder": decoder}),
    );
    let quotes =
        |from: &str| json!({"type": "Replace", "pattern": {"String": from}, "content": "\""});
    add(
        "ALBERT",
        unigram,
        json!({"normalizer": sequence("normalizers", &[quotes("``"), quotes("''"),
        json!({"type": "NFKD"}), json!({"type": "StripAccents"}), json!({"type": "Lowercase"}), map.clone(), replace(" {2,}", " ")]),
        "pre_tokenizer": metaspace("always", false), "post_processor": template(unigram), "decoder": decoder}),
    );
    add(
        "Unigram with bytes",
        &with_bytes(unigram.clone()),
        json!({"normalizer": map,
        "pre_tokenizer": metaspace("first", false), "post_processor": template(unigram),
        "decoder": sequence("decoders", &[json!({"type": "ByteFallback"}), decoder.clone()])}),
    );

    let marked = &*MARKED;
    let mut fused = with_bytes(marked.clone());
    fused["fuse_unk"] = json!(true);
    let llama = sequence(
        "decoders",
        &[
            json!({"type": "Replace", "pattern": {"String": "▁"}, "content": " "}),
            json!({"type": "ByteFallback"}),
            json!({"type": "Fuse"}),
            json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}),
        ],
    );
    add(
        "Llama 2",
        &fused,
        json!({"normalizer": sequence("normalizers", &[json!({"type": "Prepend", "prepend": "▁"}),
        json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"})]),
        "post_processor": template(marked), "decoder": llama}),
    );
    add(
        "BPE with marks",
        marked,
        json!({"pre_tokenizer": metaspace("never", true), "post_processor": template(marked),
        "decoder": decoder}),
    );
    let mut fused = marked.clone();
    fused["fuse_unk"] = json!(true);
    add(
        "BPE with marks, unknown fused",
        &fused,
        json!({"pre_tokenizer": metaspace("first", true), "decoder": decoder}),
    );
    all
});

#[test]
fn vocabularies() {
    for both in ALL.iter() {
        both.check_vocabulary();
    }
}

#[test]
fn real_text() {
    for both in ALL.iter() {
        for (_, text) in TEXTS {
            let cut = (0..=text.len().min(20_000)).rfind(|&at| text.is_char_boundary(at));
            let text = &text[..cut.unwrap_or(0)];
            both.check(text, &EncodeOptions::default());
            for line in text.lines().take(120) {
                both.check(line, &EncodeOptions::default());
            }
        }
    }
}

/// Texts with what matters to these tokenizers: spaces, marks, special tokens, contractions, what is mapped.
pub fn marked_text(atoms: usize) -> impl Strategy<Value = String> {
    let special = prop::sample::select(
        "  ▁ ▁▁ <mask>  <mask>  <s> </s> <unk> Ġ Ċ 's 'LL don't \n \r\n \t \u{3000} e\u{301} ﬁ ﷺ ab … ｶ\u{ff9e} \u{200b} '' `` ß <0xC3> <0x41>"
            .split_inclusive(' ')
            .collect::<Vec<_>>(),
    );
    let piece = prop_oneof![2 => special.prop_map(str::to_owned), 3 => text(3)];
    proptest::collection::vec(piece, 0..atoms).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(config(1500))]

    #[test]
    fn random_text(which in 0..ALL.len(), first in marked_text(8), second in marked_text(5), options in plain_options()) {
        ALL[which].check(&first, &options);
        ALL[which].check((&first, &second), &options);
        let encoding = ALL[which].ours.encode(&first, &options).expect("any text encodes");
        ALL[which].check_decode(encoding.ids());
    }

    #[test]
    fn truncated_text(which in 0..ALL.len(), first in marked_text(8), second in marked_text(5), options in truncating_options()) {
        ALL[which].check(&first, &options);
        ALL[which].check((&first, &second), &options);
    }

    #[test]
    fn random_ids(which in 0..ALL.len(), ids in proptest::collection::vec(0_u32..400, 0..20)) {
        // One of the vocabularies has a gap.
        let known = ids.into_iter().filter(|&id| ALL[which].ours.id_to_token(id).is_some());
        ALL[which].check_decode(&known.collect::<Vec<_>>());
    }
}
