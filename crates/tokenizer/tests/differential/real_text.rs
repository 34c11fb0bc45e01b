//! Real text in many languages through every tokenizer.

use bertha_tokenizer::{Direction, EncodeOptions, Truncation, TruncationStrategy};

use crate::harness::Both;
use crate::recipes::ALL;

/// The committed texts; see `tests/data/README.md`.
pub const TEXTS: [(&str, &str); 5] = [
    ("english", include_str!("../data/english.txt")),
    ("spanish", include_str!("../data/spanish.txt")),
    ("turkish", include_str!("../data/turkish.txt")),
    ("umlaut", include_str!("../data/umlaut.txt")),
    ("languages", include_str!("../data/languages.txt")),
];

/// Encodes `text` whole, by lines, in windows and as pairs, and decodes it.
pub fn check_text(both: &Both, text: &str) {
    both.check(text, &EncodeOptions::default());
    let encoding = both
        .ours
        .encode(text, &EncodeOptions::default())
        .expect("any text encodes");
    both.check_decode(encoding.ids());

    for direction in [Direction::Left, Direction::Right] {
        let truncation = Truncation::new(128).stride(32).direction(direction);
        both.check(text, &EncodeOptions::default().truncation(Some(truncation)));
    }

    let lines: Vec<&str> = text.lines().collect();
    for line in &lines {
        both.check(*line, &EncodeOptions::truncated(40));
    }
    for pair in lines.chunks_exact(2) {
        let truncation = Truncation::new(24)
            .stride(5)
            .strategy(TruncationStrategy::LongestFirst);
        let options = EncodeOptions::default().truncation(Some(truncation));
        both.check((pair[0], pair[1]), &options);
    }
}

#[test]
fn every_language_in_every_tokenizer() {
    let (_, languages) = TEXTS[4];
    let (_, umlaut) = TEXTS[3];
    for both in ALL.iter() {
        check_text(both, languages);
        check_text(both, umlaut);
    }
}

#[test]
fn books_and_sentences() {
    // The two that people use most; the others differ in ways that the texts above show.
    for both in &ALL[..2] {
        for (_, text) in TEXTS {
            check_text(both, text);
        }
    }
}
