//! Every Unicode character, one by one.
//!
//! An ordinary vocabulary hides what became of a rare character behind `[UNK]`. Here every character is a token, at
//! the start of a word and inside one, so that the ids spell out the normalised text.

use std::fmt::Write as _;
use std::sync::LazyLock;

use bertha_tokenizer::EncodeOptions;

use crate::harness::Both;
use crate::recipes::{SPECIAL, normalizer, tokenizer_json};

/// How many tokenizers [`spelled_out`] has.
pub const KINDS: usize = 2;

/// A tokenizer that spells out its normalised text: 0 lowercases and strips accents, 1 only cleans.
pub fn spelled_out(which: usize) -> &'static Both {
    static BOTH: LazyLock<[Both; KINDS]> = LazyLock::new(|| {
        let mut vocabulary: Vec<String> = SPECIAL.iter().map(|&token| token.to_owned()).collect();
        for c in inhabited_planes() {
            vocabulary.push(c.to_string());
            vocabulary.push(format!("##{c}"));
        }
        let make =
            |name: &str, normalizer| Both::new(name, &tokenizer_json(&vocabulary, normalizer));
        [
            make(
                "every character, uncased",
                normalizer(true, true, None, true),
            ),
            make(
                "every character, cased",
                normalizer(true, true, None, false),
            ),
        ]
    });
    &BOTH[which]
}

/// The planes that have assigned characters, without the ideographs beyond the last limit that matters.
fn inhabited_planes() -> impl Iterator<Item = char> {
    ('\0'..='\u{2FFFF}').chain('\u{E0000}'..='\u{E0FFF}')
}

/// Puts every character at the start of a word, inside one, doubled, and before a combining mark.
fn check_all(both: &Both, characters: impl Iterator<Item = char>) {
    let characters: Vec<char> = characters.collect();
    let mut text = String::new();
    for chunk in characters.chunks(512) {
        text.clear();
        for c in chunk {
            write!(text, "{c}{c} a{c}b {c}\u{301} ").expect("a String takes all");
        }
        both.check(&text, &EncodeOptions::default());
    }
}

#[test]
fn every_character_uncased() {
    check_all(spelled_out(0), inhabited_planes());
}

#[test]
fn every_character_cased() {
    check_all(spelled_out(1), inhabited_planes());
}

#[test]
fn characters_of_empty_and_private_planes() {
    for which in 0..KINDS {
        check_all(spelled_out(which), ('\u{30000}'..=char::MAX).step_by(251));
    }
}
