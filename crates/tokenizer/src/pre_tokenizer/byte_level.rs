//! Byte-level words: the bytes' characters, and the scanners that find the words.
//!
//! The alphabet and the words are those of GPT-2,
//! <https://github.com/openai/gpt-2/blob/master/src/encoder.py>: every byte has a printable character, so that any
//! text is spelled by 256 characters.

use crate::unicode::{self, LETTER, NUMBER, SPACE};

/// The character of every byte.
pub(crate) static CHARS: [char; 256] = chars();

const fn chars() -> [char; 256] {
    let mut chars = ['\0'; 256];
    // Bytes that are no printable character of Latin-1 take the characters from U+0100 on.
    let mut next = 0x100;
    let mut byte = 0;
    while byte < 256 {
        let printable = matches!(byte, 0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF);
        let point = if printable {
            byte as u32
        } else {
            next += 1;
            next - 1
        };
        chars[byte] = match char::from_u32(point) {
            Some(c) => c,
            None => '\0',
        };
        byte += 1;
    }
    chars
}

/// One more than the byte of each character below U+0144, or 0.
static BYTES: [u16; 0x144] = bytes();

const fn bytes() -> [u16; 0x144] {
    let mut bytes = [0; 0x144];
    let mut byte = 0;
    while byte < 256 {
        bytes[CHARS[byte] as usize] = byte as u16 + 1;
        byte += 1;
    }
    bytes
}

/// The byte of a character of the alphabet.
#[inline]
pub(crate) fn byte_of(c: char) -> Option<u8> {
    let after = *BYTES.get(c as usize)?;
    after.checked_sub(1).map(|byte| byte as u8)
}

/// What a scanner sees in a character.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Letter,
    Number,
    Space,
    Other,
}

/// The kind of every ASCII character.
static ASCII: [Kind; 128] = ascii();

const fn ascii() -> [Kind; 128] {
    let mut kinds = [Kind::Other; 128];
    let mut byte = 0u8;
    while byte < 128 {
        kinds[byte as usize] = match byte {
            b'a'..=b'z' | b'A'..=b'Z' => Kind::Letter,
            b'0'..=b'9' => Kind::Number,
            b'\t'..=b'\r' | b' ' => Kind::Space,
            _ => Kind::Other,
        };
        byte += 1;
    }
    kinds
}

/// The kind and the length of the character at a byte, which must begin one.
#[inline]
fn kind_at(text: &str, at: usize) -> Option<(Kind, usize)> {
    let byte = *text.as_bytes().get(at)?;
    if byte < 128 {
        return Some((ASCII[byte as usize], 1));
    }
    let c = text.get(at..)?.chars().next()?;
    let kinds = unicode::kinds(c);
    let kind = if kinds & LETTER != 0 {
        Kind::Letter
    } else if kinds & NUMBER != 0 {
        Kind::Number
    } else if unicode::is(c, SPACE) {
        Kind::Space
    } else {
        Kind::Other
    };
    Some((kind, c.len_utf8()))
}

/// The end of the run of one kind that begins at `at`.
#[inline]
fn run(text: &str, mut at: usize, kind: Kind) -> usize {
    let bytes = text.as_bytes();
    loop {
        while let Some(&byte) = bytes.get(at) {
            if byte >= 128 {
                break;
            }
            if ASCII[byte as usize] != kind {
                return at;
            }
            at += 1;
        }
        match kind_at(text, at) {
            Some((found, len)) if found == kind => at += len,
            _ => return at,
        }
    }
}

/// The end of a run of white space from `at` that leaves its last character to a word that follows, if it has several.
fn spaces(text: &str, at: usize) -> usize {
    let end = run(text, at, Kind::Space);
    if end == text.len() {
        return end;
    }
    let last = text[at..end].chars().next_back().map_or(0, char::len_utf8);
    if end - last > at { end - last } else { end }
}

/// The end of the word of GPT-2 that begins at byte `at`, which must begin a character.
#[inline]
pub(crate) fn gpt2_word(text: &str, at: usize) -> usize {
    let bytes = text.as_bytes();
    if bytes[at] == b'\'' {
        match bytes.get(at + 1..) {
            Some([b's' | b't' | b'm' | b'd', ..]) => return at + 2,
            Some([b'r' | b'v', b'e', ..] | [b'l', b'l', ..]) => return at + 3,
            _ => {}
        }
    }
    let from = at + usize::from(bytes[at] == b' ');
    match kind_at(text, from) {
        Some((Kind::Space, _)) | None => spaces(text, at),
        Some((kind, len)) => run(text, from + len, kind),
    }
}

/// The end of the word of cl100k that begins at byte `at`, which must begin a character.
pub(crate) fn cl100k_word(text: &str, at: usize) -> usize {
    let bytes = text.as_bytes();
    if bytes[at] == b'\'' {
        match bytes.get(at + 1..) {
            Some([b's' | b'S' | b't' | b'T' | b'm' | b'M' | b'd' | b'D', ..]) => return at + 2,
            // A long s is an s when case is ignored.
            Some([0xC5, 0xBF, ..]) => return at + 3,
            Some([b'r' | b'R' | b'v' | b'V', b'e' | b'E', ..] | [b'l' | b'L', b'l' | b'L', ..]) => {
                return at + 3;
            }
            _ => {}
        }
    }
    let Some((kind, len)) = kind_at(text, at) else {
        return text.len();
    };
    let line_end = |at: usize| matches!(bytes.get(at), Some(b'\r' | b'\n'));
    let letter = |at: usize| matches!(kind_at(text, at), Some((Kind::Letter, _)));
    match kind {
        Kind::Letter => return run(text, at, Kind::Letter),
        Kind::Number => {
            let mut end = at + len;
            for _ in 0..2 {
                match kind_at(text, end) {
                    Some((Kind::Number, len)) => end += len,
                    _ => break,
                }
            }
            return end;
        }
        Kind::Space | Kind::Other => {
            if !line_end(at) && letter(at + len) {
                return run(text, at + len, Kind::Letter);
            }
        }
    }
    let from = at + usize::from(bytes[at] == b' ');
    if matches!(kind_at(text, from), Some((Kind::Other, _))) {
        let mut end = run(text, from, Kind::Other);
        while line_end(end) {
            end += 1;
        }
        return end;
    }
    let end = run(text, at, Kind::Space);
    match bytes[at..end]
        .iter()
        .rposition(|&byte| matches!(byte, b'\r' | b'\n'))
    {
        Some(last) => at + last + 1,
        None => spaces(text, at),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_a_character_of_its_own() {
        for byte in 0..=u8::MAX {
            assert_eq!(byte_of(CHARS[byte as usize]), Some(byte));
        }
        assert_eq!((CHARS[b' ' as usize], CHARS[b'\n' as usize]), ('Ġ', 'Ċ'));
        assert_eq!(CHARS[0xAD], '\u{143}');
        for c in [' ', '\u{7f}', '\u{a0}', '\u{144}', '漢'] {
            assert_eq!(byte_of(c), None);
        }
    }

    fn words(text: &str, word: fn(&str, usize) -> usize) -> Vec<&str> {
        let mut at = 0;
        std::iter::from_fn(|| {
            let start = at;
            (at < text.len()).then(|| {
                at = word(text, at);
                &text[start..at]
            })
        })
        .collect()
    }

    #[test]
    fn words_are_found() {
        assert_eq!(
            words("It's 12 o'clock,  we'll  see…\n", gpt2_word),
            [
                "It", "'s", " 12", " o", "'", "clock", ",", " ", " we", "'ll", " ", " see", "…",
                "\n"
            ]
        );
        assert_eq!(
            words("It'S 12345 \n\n x\ty...\n\n z ", cl100k_word),
            [
                "It", "'S", " ", "123", "45", " \n\n", " x", "\ty", "...\n\n", " z", " "
            ]
        );
    }
}
