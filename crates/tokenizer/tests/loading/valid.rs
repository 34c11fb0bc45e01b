//! A small tokenizer that loads, in both of its forms.

use serde_json::{Value, json};

/// Its tokens; a token's place is its id.
pub const VOCABULARY: [&str; 24] = [
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "river", "sea", "##s", "##ing", "r",
    "##i", "##v", "e", "##e", "Sea", "É", "é", "##é", "中", "国", "##国", ".", "'",
];

/// Its vocab.txt.
pub fn vocab_txt() -> String {
    VOCABULARY
        .iter()
        .map(|token| format!("{token}\n"))
        .collect()
}

/// Its tokenizer.json, with a truncation, a padding and an added token beyond the vocabulary.
pub fn tokenizer_json() -> Value {
    let vocab: serde_json::Map<String, Value> = VOCABULARY
        .iter()
        .enumerate()
        .map(|(id, token)| ((*token).to_owned(), json!(id)))
        .collect();
    let added = |id: usize, content: &str, special: bool| {
        json!({
            "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": !special, "special": special,
        })
    };
    json!({
        "version": "1.0",
        "truncation": {"direction": "Right", "max_length": 16, "strategy": "LongestFirst", "stride": 2},
        "padding": {
            "strategy": "BatchLongest", "direction": "Right", "pad_to_multiple_of": 8, "pad_id": 0,
            "pad_type_id": 0, "pad_token": "[PAD]",
        },
        "added_tokens": [
            added(0, "[PAD]", true), added(1, "[UNK]", true), added(2, "[CLS]", true), added(3, "[SEP]", true),
            added(4, "[MASK]", true), added(24, "<lake>", false),
        ],
        "normalizer": {
            "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null,
            "lowercase": true,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [
                {"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                {"SpecialToken": {"id": "[SEP]", "type_id": 0}},
            ],
            "pair": [
                {"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                {"SpecialToken": {"id": "[SEP]", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}},
                {"SpecialToken": {"id": "[SEP]", "type_id": 1}},
            ],
            "special_tokens": {
                "[CLS]": {"id": "[CLS]", "ids": [2], "tokens": ["[CLS]"]},
                "[SEP]": {"id": "[SEP]", "ids": [3], "tokens": ["[SEP]"]},
            },
        },
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {
            "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": vocab,
        },
    })
}

/// Small tokenizers with the other models and their components.
pub fn other_models() -> Vec<Value> {
    let with = |model: Value, parts: Value| {
        let mut json = tokenizer_json();
        json["model"] = model;
        for (part, value) in parts.as_object().expect("an object") {
            json[part] = value.clone();
        }
        json
    };
    let vocab = || tokenizer_json()["model"]["vocab"].clone();
    let mut letters = vocab();
    for token in ["re", "h", "t", "he", "rer"] {
        let id = letters.as_object().map_or(0, |vocab| vocab.len());
        letters[token] = json!(id);
    }
    let bytes = json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true});
    let marks =
        json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": true});
    let scored: Vec<Value> = VOCABULARY
        .iter()
        .map(|token| json!([token, -1.5]))
        .collect();
    vec![
        with(
            json!({"type": "BPE", "vocab": letters, "merges": [["r", "e"], ["h", "e"], ["re", "r"]], "unk_token": "[UNK]",
                "fuse_unk": true, "byte_fallback": true, "ignore_merges": false, "dropout": null,
                "continuing_subword_prefix": "", "end_of_word_suffix": ""}),
            json!({"pre_tokenizer": bytes, "decoder": bytes, "normalizer": {"type": "NFC"},
                "post_processor": {"type": "RobertaProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2],
                    "trim_offsets": true, "add_prefix_space": true}}),
        ),
        with(
            json!({"type": "Unigram", "vocab": scored, "unk_id": 1, "byte_fallback": true}),
            json!({"pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, marks,
                    {"type": "Split", "pattern": {"Regex": "e+|(?=s)"}, "behavior": "MergedWithNext", "invert": false}]},
                "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"},
                    {"type": "Strip", "content": "a", "start": 1, "stop": 2}, marks]},
                "normalizer": {"type": "Sequence", "normalizers": [{"type": "Nmt"}, {"type": "Prepend", "prepend": "e"},
                    {"type": "Replace", "pattern": {"String": "ea"}, "content": "é"}, {"type": "NFKC"}]}}),
        ),
        with(
            json!({"type": "WordLevel", "vocab": vocab(), "unk_token": "[UNK]"}),
            json!({"decoder": null}),
        ),
    ]
}

/// A sentencepiece model of those tokens.
pub fn sentencepiece_model(bpe: bool) -> Vec<u8> {
    fn field(number: u8, content: &[u8]) -> Vec<u8> {
        let length = u8::try_from(content.len()).expect("a short field");
        assert!(length < 128, "one byte says the length");
        [&[number << 3 | 2, length], content].concat()
    }
    let special = ["<unk>", "<s>", "</s>", "[CLS]", "[SEP]", "[MASK]"];
    let tokens = special.iter().chain(&VOCABULARY[5..]).copied();
    let marked = ["▁", "▁r", "re", "▁re", "t", "h", "he"];
    let mut bytes = Vec::new();
    for (at, token) in tokens.chain(marked).enumerate() {
        let score = -(at as f32) / 4.0;
        let kind: u8 = match at {
            0 => 2,
            1..=5 => 3,
            _ => 1,
        };
        let mut piece = field(1, token.as_bytes());
        piece.push(2 << 3 | 5);
        piece.extend(score.to_le_bytes());
        piece.extend([3 << 3, kind]);
        bytes.extend(field(1, &piece));
    }
    // The type of the model; the id of the unknown token.
    bytes.extend(field(2, &[3 << 3, if bpe { 2 } else { 1 }, 0xC0, 2, 0]));
    bytes
}

/// Texts on which every setting of the tokenizer shows.
pub const TEXTS: [&str; 8] = [
    "The rivers and the SEA.",
    "Sea É é e\u{301} E\u{301} Été",
    "中国中 the中国s",
    "[CLS] the [MASK] [sep] [SEP][PAD]",
    "the\u{0}river\u{200b}s\tthe\u{a0}sea",
    "<lake>s <LAKE> rivering",
    "",
    "   ",
];
