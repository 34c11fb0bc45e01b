//! Scanning text by the byte, where most text allows it.

/// The length of the run of printable ASCII (space to tilde) that `bytes` begin with.
#[inline]
pub(crate) fn printable_ascii(bytes: &[u8]) -> usize {
    const STEP: usize = 32;
    let printable = |byte: u8| byte.wrapping_sub(b' ') < 0x7F - b' ';
    let (chunks, _) = bytes.as_chunks::<STEP>();
    // A whole chunk at a time, without a branch per byte, so that it vectorizes.
    let whole = chunks
        .iter()
        .take_while(|chunk| chunk.iter().fold(true, |all, &byte| all & printable(byte)))
        .count();
    let start = whole * STEP;
    let rest = &bytes[start..];
    start
        + rest
            .iter()
            .position(|&byte| !printable(byte))
            .unwrap_or(rest.len())
}

/// What a pre-tokenizer of BERT does with a byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// Part of a word.
    Word,
    /// Between words.
    Space,
    /// A word of its own.
    Punctuation,
    /// Part of a character outside ASCII.
    Multibyte,
}

/// The class of every byte.
pub(crate) static CLASSES: [Class; 256] = classes();

const fn classes() -> [Class; 256] {
    let mut classes = [Class::Word; 256];
    let mut byte = 0u8;
    loop {
        classes[byte as usize] = match byte {
            // White_Space, as far as it is ASCII.
            b'\t'..=b'\r' | b' ' => Class::Space,
            128.. => Class::Multibyte,
            _ if byte.is_ascii_punctuation() => Class::Punctuation,
            _ => Class::Word,
        };
        if byte == u8::MAX {
            return classes;
        }
        byte += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unicode;

    #[test]
    fn runs_end_at_the_first_other_byte() {
        for len in [0, 1, 31, 32, 33, 64, 100] {
            let text = vec![b'~'; len];
            assert_eq!(printable_ascii(&text), len);
            for at in 0..len {
                for other in [0x1F, 0x7F, 0x80, 0xC3, b'\n'] {
                    let mut text = text.clone();
                    text[at] = other;
                    assert_eq!(printable_ascii(&text), at, "{other} at {at} of {len}");
                }
            }
        }
    }

    #[test]
    fn classes_agree_with_the_tables() {
        for byte in 0..128u8 {
            let c = char::from(byte);
            let expected = if unicode::is(c, unicode::SPACE) {
                Class::Space
            } else if unicode::is(c, unicode::PUNCTUATION) {
                Class::Punctuation
            } else {
                Class::Word
            };
            assert_eq!(CLASSES[byte as usize], expected, "{byte}");
        }
    }
}
