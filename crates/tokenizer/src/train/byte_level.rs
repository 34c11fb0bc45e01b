//! GPT-2's way of cutting text, and its alphabet of 256 characters for 256 bytes.
//!
//! Radford et al., "Language Models are Unsupervised Multitask Learners" (2019), and `encoder.py` of
//! <https://github.com/openai/gpt-2>. A word is a run of letters, of numbers or of other characters, each with one
//! space before it if there is one; the contractions `'s 't 're 've 'm 'll 'd`; or white space that no word takes.

use super::letters::NO_LETTERS;
use crate::unicode::{self, SPACE};

/// What the cutting asks about a character.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Letter,
    Number,
    Space,
    Other,
}

/// Calls `emit` with every word of a text, end to end.
pub(super) fn split<'t>(text: &'t str, mut emit: impl FnMut(&'t str)) {
    let mut at = 0;
    while at < text.len() {
        let end = at + first_word(&text[at..]);
        emit(&text[at..end]);
        at = end;
    }
}

/// The length in bytes of the word that a text, which is not empty, begins with.
fn first_word(text: &str) -> usize {
    for contraction in ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d"] {
        if text.starts_with(contraction) {
            return contraction.len();
        }
    }
    let body = text.strip_prefix(' ').unwrap_or(text);
    let before = text.len() - body.len();
    if let Some(kind) = body.chars().next().map(kind)
        && kind != Kind::Space
    {
        return before + run(body, kind);
    }
    let spaces = run(text, Kind::Space);
    if spaces == text.len() {
        return spaces;
    }
    // The last white space before a word is left to it, unless it is alone.
    match text[..spaces].char_indices().next_back() {
        Some((last, _)) if last > 0 => last,
        _ => spaces,
    }
}

/// The length in bytes of the run of one kind that a text begins with.
fn run(text: &str, of: Kind) -> usize {
    text.char_indices()
        .find(|&(_, c)| kind(c) != of)
        .map_or(text.len(), |(at, _)| at)
}

fn kind(c: char) -> Kind {
    match c {
        'a'..='z' | 'A'..='Z' => Kind::Letter,
        '0'..='9' => Kind::Number,
        _ if unicode::is(c, SPACE) => Kind::Space,
        _ if c.is_ascii() => Kind::Other,
        _ if c.is_numeric() => Kind::Number,
        _ if is_letter(c) => Kind::Letter,
        _ => Kind::Other,
    }
}

/// Whether a character is of category L: alphabetic, but no number, no mark, no symbol.
fn is_letter(c: char) -> bool {
    if !c.is_alphabetic() {
        return false;
    }
    let point = u32::from(c);
    let after = NO_LETTERS.partition_point(|&(first, _)| first <= point);
    after
        .checked_sub(1)
        .is_none_or(|at| point > NO_LETTERS[at].1)
}

/// The character that stands for a byte: the byte's own in Latin-1 if that can be seen, else one from U+0100 on.
pub(super) fn char_of_byte(byte: u8) -> char {
    ALPHABET[byte as usize]
}

/// The 256 characters, by byte.
static ALPHABET: [char; 256] = alphabet();

const fn alphabet() -> [char; 256] {
    let mut chars = ['\0'; 256];
    let mut unseen = 0x100u32;
    let mut byte = 0u32;
    while byte < 256 {
        let seen = matches!(byte, 0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF);
        let point = if seen { byte } else { unseen };
        unseen += !seen as u32;
        chars[byte as usize] = match char::from_u32(point) {
            Some(c) => c,
            None => '\0',
        };
        byte += 1;
    }
    chars
}

/// All characters of the alphabet.
pub(super) fn all_chars() -> impl Iterator<Item = char> {
    ALPHABET.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<&str> {
        let mut found = Vec::new();
        split(text, |word| found.push(word));
        found
    }

    #[test]
    fn words_as_gpt2_cuts_them() {
        assert_eq!(
            words("It's 12 o'clock,  isn't\tit?!  "),
            [
                "It", "'s", " 12", " o", "'", "clock", ",", " ", " isn", "'t", "\t", "it", "?!",
                "  "
            ]
        );
        assert_eq!(words("a\n\nb"), ["a", "\n", "\n", "b"]);
        assert_eq!(words("x²½Ⅷ 東京٣"), ["x", "²½Ⅷ", " 東京", "٣"]);
        assert!(words("").is_empty());
    }

    #[test]
    fn words_are_those_of_the_expression() {
        let expression =
            regex::Regex::new(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+")
                .unwrap();
        // The look-ahead that `regex` lacks: white space leaves its last character to a word.
        let expected = |text: &'static str| {
            let (mut found, mut at) = (Vec::new(), 0);
            while let Some(hit) = expression.find_at(text, at) {
                let mut end = hit.end();
                let blank = hit.as_str().chars().all(char::is_whitespace);
                if blank && end < text.len() && hit.as_str().chars().count() > 1 {
                    end -= hit.as_str().chars().next_back().unwrap().len_utf8();
                }
                found.push(&text[at..end]);
                at = end;
            }
            found
        };
        for text in [
            include_str!("../../tests/data/english.txt"),
            include_str!("../../tests/data/spanish.txt"),
            include_str!("../../tests/data/umlaut.txt"),
            include_str!("../../tests/data/turkish.txt"),
            include_str!("../../tests/data/languages.txt"),
        ] {
            assert_eq!(words(text), expected(text));
        }
    }

    #[test]
    fn letters_are_category_l_and_numbers_are_category_n() {
        let [letter, number, alphabetic] =
            [r"^\p{L}$", r"^\p{N}$", r"^\p{Alphabetic}$"].map(|e| regex::Regex::new(e).unwrap());
        let mut ranges: Vec<(u32, u32)> = Vec::new();
        for c in (0..=0x10_FFFF).filter_map(char::from_u32) {
            let text = c.to_string();
            let (is_l, is_n) = (letter.is_match(&text), number.is_match(&text));
            let point = u32::from(c);
            if alphabetic.is_match(&text) != c.is_alphabetic() || is_n != c.is_numeric() {
                // One of the two knows a newer Unicode.
                continue;
            }
            if c.is_alphabetic() && !is_l && !is_n {
                match ranges.last_mut() {
                    Some(last) if last.1 + 1 == point => last.1 = point,
                    _ => ranges.push((point, point)),
                }
            }
            assert_eq!(kind(c) == Kind::Number, is_n, "{c:?}");
        }
        let table: String = ranges
            .iter()
            .map(|(a, b)| format!("({a:#X}, {b:#X}), "))
            .collect();
        assert_eq!(ranges, NO_LETTERS, "the table should be {table}");
    }

    #[test]
    fn the_alphabet_has_a_character_for_every_byte() {
        let all: std::collections::BTreeSet<char> = all_chars().collect();
        assert_eq!(all.len(), 256);
        let known = [
            (b' ', 'Ġ'),
            (b'\n', 'Ċ'),
            (b'a', 'a'),
            (0xC3, 'Ã'),
            (0xAD, 'Ń'),
        ];
        for (byte, c) in known {
            assert_eq!(char_of_byte(byte), c);
        }
        assert!(
            all.iter()
                .all(|c| !c.is_whitespace() && !c.is_control() && u32::from(*c) < 0x144)
        );
    }
}
