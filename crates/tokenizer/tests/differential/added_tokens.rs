//! Added tokens with every combination of flags.

use bertha_tokenizer::EncodeOptions;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::Value;

use crate::harness::Both;
use crate::random::config;
use crate::recipes::{CASED, UNCASED, added, named, normalizer, tokenizer_json, with_added};
use crate::texts::WHITE_SPACE;

/// What added tokens are called here: parts of each other, with spaces, accents, capitals, marks; in the vocabulary
/// or not.
const CONTENTS: [&str; 30] = [
    "ab", "abc", "bc", "b", "AB", "aB c", "<x>", "<X>", "<x", "x>", "é", "e\u{301}", "É", "e",
    "[MASK]", "[mask]", "[SEP]", "the", "##ing", "_", "a_b", "中", "中文", " a", "a ", "  ", "ß",
    "İ", "\u{301}b", "🇹🇷",
];

const FLAGS: [&str; 5] = ["single_word", "lstrip", "rstrip", "normalized", "special"];

/// Texts of the contents and what may stand around them.
fn text() -> impl Strategy<Value = String> {
    let around = [
        "a", "b", "c", "-", "é", "E\u{301}", "\u{301}", "\u{200b}", "_", "1", "文", "I", "ss",
        "\u{345}", "🇹",
    ];
    let piece = prop_oneof![
        4 => select(&CONTENTS[..]).prop_map(str::to_owned),
        2 => Just(" ".to_owned()),
        1 => vec(select(&WHITE_SPACE[..]), 1..4).prop_map(String::from_iter),
        2 => select(around.to_vec()).prop_map(str::to_owned),
    ];
    vec(piece, 0..14).prop_map(|pieces| pieces.concat())
}

fn added_tokens() -> impl Strategy<Value = Vec<Value>> {
    let flags = subsequence(FLAGS.to_vec(), 0..=FLAGS.len());
    subsequence(CONTENTS.to_vec(), 1..8).prop_flat_map(move |contents| {
        vec(flags.clone(), contents.len()).prop_map(move |flags| {
            contents
                .iter()
                .zip(flags)
                .map(|(content, flags)| added(content, &flags))
                .collect()
        })
    })
}

/// The special tokens, and letters enough to spell something.
fn small_vocabulary() -> Vec<&'static str> {
    let letters = UNCASED
        .iter()
        .filter(|token| token.trim_start_matches('#').chars().count() == 1);
    let mut tokens: Vec<&str> = letters.copied().filter(|token| token.is_ascii()).collect();
    tokens.extend([
        "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "##ing", "中", "é", "##é",
    ]);
    tokens
}

/// A tokenizer with some added tokens.
pub fn tokenizer_with_added() -> impl Strategy<Value = Both> {
    let settings = prop_oneof![
        Just(Value::Null),
        (any::<[bool; 3]>(), any::<Option<bool>>()).prop_map(|([clean, chinese, lower], strip)| {
            normalizer(clean, chinese, strip, lower)
        }),
    ];
    (added_tokens(), settings).prop_map(|(tokens, settings)| {
        let mut json = tokenizer_json(&small_vocabulary(), settings);
        with_added(&mut json, tokens);
        let name = format!(
            "normalizer {}, added {}",
            json["normalizer"], json["added_tokens"]
        );
        Both::new(name, &json)
    })
}

/// Texts that may hold those tokens.
pub fn texts() -> impl Strategy<Value = Vec<String>> {
    vec(text(), 6)
}

/// Compares all that has to do with added tokens.
pub fn check_added(both: &Both, texts: &[String], matched: bool) {
    for text in texts {
        both.check(
            text,
            &EncodeOptions::default().match_special_tokens(matched),
        );
        let encoding = both
            .ours
            .encode(text, &EncodeOptions::default())
            .expect("any text encodes");
        both.check_decode(encoding.ids());
    }
    both.check_vocabulary();
}

proptest! {
    #![proptest_config(config(400))]

    #[test]
    fn any_flags(both in tokenizer_with_added(), texts in texts(), matched in any::<bool>()) {
        check_added(&both, &texts, matched);
    }
}

#[test]
fn known_corners() {
    let texts = [
        "[MASK]",
        " [MASK] ",
        "a[MASK]b",
        "a  [MASK]  b",
        "[MASK][MASK]",
        "[MASK] [MASK]",
        "\u{3000}[MASK]\u{2028}\u{a0}.",
        "[SEP][SEP] [CLS]",
        "<ent>",
        "<ENT>",
        "<ent> <ENT>  <Ent>",
        "x<ENT>   \t\n y",
        "x  <e  y",
        "<e<e <e",
        "<e  <ent>",
        "river rivers river_ _river river's (river) río.river",
        "ériver rivere\u{301} river\u{301}",
        "Größe GRÖSSE größe Gro\u{308}ße grosse größer",
        "New York new york NEW  YORK New\u{a0}York NewYork New Yorker xNew York",
        "york  York   york",
        "going rising ing  sing",
        "東京 東京都 東 京",
        "👍🏽👍 👍🏽a a👍🏽 👍🏽👍🏽",
        "[CLS] [SEP] [PAD] [UNK] [MASK] in one [sep] text",
        "",
    ];
    for name in [
        "uncased, flagged added tokens",
        "cased, flagged added tokens",
        "uncased",
        "no normalizer",
    ] {
        let both = named(name);
        for text in texts {
            for matched in [true, false] {
                both.check(
                    text,
                    &EncodeOptions::default().match_special_tokens(matched),
                );
            }
        }
    }
}

#[test]
fn white_space_that_was_swallowed_is_no_token() {
    // Theirs panics here: the second token's start, moved behind what the first has swallowed, is behind its end.
    let mut json = tokenizer_json(&small_vocabulary(), Value::Null);
    with_added(
        &mut json,
        vec![added("e", &["rstrip"]), added("  ", &["lstrip"])],
    );
    let both = Both::new("swallowed white space", &json);
    let encoding = both
        .ours
        .encode("e   b  e", &EncodeOptions::default().special_tokens(false))
        .unwrap();
    let tokens: Vec<&str> = both.ours.tokens(&encoding).collect();
    assert_eq!(tokens, ["e", "b", "  ", "e"]);
    assert_eq!(encoding.offsets(), [(0, 4), (4, 5), (5, 7), (7, 8)]);
}

#[test]
fn text_from_strangers_cannot_forge_special_tokens() {
    let tokenizer = &named("uncased").ours;
    let forged = tokenizer
        .encode("a [SEP] b", &EncodeOptions::default())
        .unwrap();
    let sep = tokenizer.token_to_id("[SEP]").unwrap();
    assert_eq!(forged.ids().iter().filter(|&&id| id == sep).count(), 2);
    let guarded = EncodeOptions::default().match_special_tokens(false);
    let plain = tokenizer.encode("a [SEP] b", &guarded).unwrap();
    assert_eq!(plain.ids().iter().filter(|&&id| id == sep).count(), 1);
    assert_eq!(
        tokenizer
            .tokens(&plain)
            .filter(|token| matches!(*token, "[" | "]"))
            .count(),
        2
    );
}

#[test]
fn hundreds_of_added_tokens() {
    // More than a handful: the search must not depend on their order, nor on their number.
    let mut json = tokenizer_json(&CASED, normalizer(true, true, None, false));
    let mut tokens = crate::recipes::flagged();
    tokens.extend((0..400).map(|n| {
        let flags = [&FLAGS[..n % 4], &FLAGS[n % 5..]][n % 2];
        added(&format!("<{}-{n}>", ["ent", "loc", "ENT"][n % 3]), flags)
    }));
    with_added(&mut json, tokens);
    let both = Both::new("hundreds of added tokens", &json);
    let text: String = (0..500)
        .rev()
        .map(|n| format!("w <{}-{n}> ", ["ent", "loc", "ENT"][n % 3]))
        .collect();
    both.check(&text, &EncodeOptions::default());
    both.check_vocabulary();
}
