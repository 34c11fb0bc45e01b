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
