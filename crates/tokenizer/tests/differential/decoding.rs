//! Decoding tokens that clean-up and the continuation mark act on, in every order.

use serde_json::json;

use crate::harness::Both;
use crate::recipes::{SPECIAL, added, normalizer, tokenizer_json, with_added};

/// Tokens with what clean-up looks for, alone and with what surrounds it; some only an added token can be.
const TOKENS: [&str; 27] = [
    ".",
    "?",
    "!",
    ",",
    "'",
    "n't",
    "'m",
    "'s",
    "'ve",
    "'re",
    "do not",
    "do",
    "not",
    "a",
    "##b",
    "##.",
    "####",
    "##",
    "a .",
    "##a ?",
    "I 'm",
    "he 's not , do not",
    " ' ",
    " .",
    "a  ' b ' c",
    "we 've 're n't !",
    "",
];

#[test]
fn every_three_tokens() {
    // The empty token is for the vocabulary alone.
    let vocabulary: Vec<&str> = SPECIAL.iter().chain(&TOKENS).copied().collect();
    for (prefix, cleanup) in [("##", true), ("##", false), ("", true), ("a", true)] {
        let mut json = tokenizer_json(&vocabulary, normalizer(true, true, None, true));
        with_added(
            &mut json,
            vec![
                added("[SEP]", &["special"]),
                added("do not", &["special", "normalized"]),
            ],
        );
        json["decoder"] = json!({"type": "WordPiece", "prefix": prefix, "cleanup": cleanup});
        let both = Both::new(format!("decoder {}", json["decoder"]), &json);
        both.check_vocabulary();
        let ids: Vec<u32> = (0..vocabulary.len() as u32).collect();
        both.check_decode(&[]);
        for &first in &ids {
            both.check_decode(&[first]);
            for &second in &ids {
                both.check_decode(&[first, second]);
                for &third in &ids {
                    both.check_decode(&[first, second, third]);
                }
            }
        }
    }
}
