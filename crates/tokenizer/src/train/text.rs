//! How a text becomes the words that are counted: the normalizer and pre-tokenizer of the tokenizer to be, without
//! offsets.

use std::borrow::Cow;
use std::ops::ControlFlow;

use super::byte_level;
use crate::normalizer::{Bert, Normalizer, Step};
use crate::pre_tokenizer::{self, Splitter};

/// What stands for a space, and begins a word, in SentencePiece's way.
pub(super) const SPACE_MARK: char = '\u{2581}';

/// Longer texts are read in pieces, cut at spaces where there are any, so that what normalization needs is bounded.
const PIECE: usize = 1 << 24;

/// One way from text to words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Splitting {
    /// BERT's: clean, perhaps lowercase without accents, cut at white space and punctuation.
    Bert {
        /// Whether capitals become small and accents go.
        lowercase: bool,
    },
    /// GPT-2's words, their bytes written as characters.
    ByteLevel {
        /// Whether capitals become small.
        lowercase: bool,
    },
    /// SentencePiece's: NFKC and single spaces; a word begins with the mark that stands for a space.
    Metaspace {
        /// Whether capitals become small.
        lowercase: bool,
    },
}

impl Splitting {
    /// Calls `emit` with every word of a text.
    pub(super) fn words(self, text: &str, emit: &mut impl FnMut(&str)) {
        let mut rest = text;
        while rest.len() > PIECE {
            let ends = |at: &usize| rest.is_char_boundary(*at);
            let mut cut = (1..=PIECE).rev().find(ends).unwrap_or(rest.len());
            cut = rest[..cut].rfind(' ').filter(|&at| at > 0).unwrap_or(cut);
            self.words_of_piece(&rest[..cut], emit);
            rest = &rest[cut..];
        }
        self.words_of_piece(rest, emit);
    }

    fn words_of_piece(self, text: &str, emit: &mut impl FnMut(&str)) {
        match self {
            Self::Bert { lowercase } => {
                let normalizer = Normalizer::Bert(Bert {
                    clean_text: true,
                    handle_chinese_chars: true,
                    strip_accents: lowercase,
                    lowercase,
                });
                let text = normalizer.normalize(text).text;
                // It never breaks off.
                let _ = pre_tokenizer::words(&[Splitter::Bert], &text, |start, end| {
                    emit(&text[start..end]);
                    ControlFlow::Continue(())
                });
            }
            Self::ByteLevel { lowercase } => {
                let text = lower(Cow::Borrowed(text), lowercase);
                let mut word = String::new();
                byte_level::split(&text, |plain| {
                    word.clear();
                    word.extend(plain.bytes().map(byte_level::char_of_byte));
                    emit(&word);
                });
            }
            Self::Metaspace { lowercase } => {
                let text = single_spaces(&lower(nfkc(&without_controls(text)), lowercase));
                let mut start = 0;
                for (at, _) in text.match_indices(SPACE_MARK) {
                    if at > start {
                        emit(&text[start..at]);
                    }
                    start = at;
                }
                if start < text.len() {
                    emit(&text[start..]);
                }
            }
        }
    }
}

/// Each character's lowercase, whatever is around it.
fn lower(text: Cow<'_, str>, lowercase: bool) -> Cow<'_, str> {
    match (lowercase, text.is_ascii()) {
        (false, _) => text,
        (true, true) => Cow::Owned(text.to_ascii_lowercase()),
        (true, false) => Cow::Owned(text.chars().flat_map(char::to_lowercase).collect()),
    }
}

fn nfkc(text: &str) -> Cow<'_, str> {
    match text.is_ascii() {
        true => Cow::Borrowed(text),
        false => Normalizer::Steps(vec![Step::Nfkc]).normalize(text).text,
    }
}

/// What `Nmt` of `tokenizers`, after SentencePiece's `nmt_nfkc`, does: control characters go, and other characters that
/// stand for space (the mark among them) become one.
fn without_controls(text: &str) -> Cow<'_, str> {
    let plain = |byte: &u8| matches!(byte, b' '..=b'~');
    if text.as_bytes().iter().all(plain) {
        return Cow::Borrowed(text);
    }
    let kept = text.chars().filter_map(|c| match c {
        '\u{1}'..='\u{8}' | '\u{B}' | '\u{E}'..='\u{1F}' | '\u{7F}' | '\u{8F}' | '\u{9F}' => None,
        '\t' | '\n' | '\u{C}' | '\r' => Some(' '),
        '\u{1680}' | '\u{200B}'..='\u{200F}' | '\u{2028}' | '\u{2029}' => Some(' '),
        SPACE_MARK | '\u{FEFF}' | '\u{FFFD}' => Some(' '),
        _ => Some(c),
    });
    Cow::Owned(kept.collect())
}

/// Runs of spaces become one mark, and one stands before the text.
fn single_spaces(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + text.len() / 4 + 4);
    let mut after_space = false;
    for c in text.chars() {
        let space = c == ' ';
        if out.is_empty() && !space && c != SPACE_MARK {
            out.push(SPACE_MARK);
        }
        if !space {
            out.push(c);
        } else if !after_space {
            out.push(SPACE_MARK);
        }
        after_space = space;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(splitting: Splitting, text: &str) -> Vec<String> {
        let mut found = Vec::new();
        splitting.words(text, &mut |word| found.push(word.to_owned()));
        found
    }

    #[test]
    fn each_way_cuts_as_it_should() {
        let text = "Élan  vital,\tok";
        let of = |splitting| words(splitting, text);
        assert_eq!(
            of(Splitting::Bert { lowercase: true }),
            ["elan", "vital", ",", "ok"]
        );
        assert_eq!(
            of(Splitting::Bert { lowercase: false }),
            ["Élan", "vital", ",", "ok"]
        );
        assert_eq!(
            of(Splitting::ByteLevel { lowercase: false }),
            ["Ãīlan", "Ġ", "Ġvital", ",", "ĉ", "ok"]
        );
        assert_eq!(
            of(Splitting::Metaspace { lowercase: true }),
            ["▁élan", "▁vital,", "▁ok"]
        );
        for splitting in [
            Splitting::Bert { lowercase: true },
            Splitting::ByteLevel { lowercase: true },
            Splitting::Metaspace { lowercase: true },
        ] {
            assert!(words(splitting, "").is_empty());
        }
        assert_eq!(
            words(Splitting::Metaspace { lowercase: false }, " a \u{2581}ﬁ "),
            ["▁a", "▁fi", "▁"]
        );
    }

    #[test]
    fn a_text_beyond_a_piece_is_cut_at_a_space() {
        let text = "word ".repeat(PIECE / 5 + 10);
        for (splitting, word) in [
            (Splitting::Bert { lowercase: true }, "word"),
            (Splitting::Metaspace { lowercase: false }, "▁word"),
        ] {
            let (mut count, mut other) = (0, 0);
            splitting.words(&text, &mut |found| match found == word {
                true => count += 1,
                false => other += 1,
            });
            assert_eq!(count, PIECE / 5 + 10);
            assert!(other <= 1);
        }
        let letters = "é".repeat(PIECE);
        let mut bytes = 0;
        Splitting::Bert { lowercase: false }.words(&letters, &mut |word| bytes += word.len());
        assert_eq!(bytes, letters.len());
    }
}
