//! Offsets in characters, as Python counts, onto Rust's text.

use std::ops::Range;

/// A text whose characters can be found by number.
pub(crate) struct Chars<'a> {
    text: &'a str,
    /// The byte at which each character starts, and the end; empty when all are of one byte.
    starts: Vec<usize>,
}

impl<'a> Chars<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        let starts = if text.is_ascii() {
            Vec::new()
        } else {
            let starts = text.char_indices().map(|(byte, _)| byte);
            starts.chain([text.len()]).collect()
        };
        Self { text, starts }
    }

    /// The text between two characters; nothing beyond its end.
    pub(crate) fn slice(&self, chars: Range<usize>) -> &'a str {
        let byte = |char: usize| match self.starts.is_empty() {
            true => char.min(self.text.len()),
            false => self.starts.get(char).copied().unwrap_or(self.text.len()),
        };
        self.text
            .get(byte(chars.start)..byte(chars.end))
            .unwrap_or("")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_not_bytes() {
        let chars = Chars::new("naïve 世界!");
        assert_eq!(chars.slice(2..5), "ïve");
        assert_eq!(chars.slice(6..8), "世界");
        assert_eq!(chars.slice(6..99), "世界!");
        let backwards = Range { start: 8, end: 7 };
        assert_eq!(chars.slice(backwards), "");
        assert_eq!(Chars::new("plain").slice(1..3), "la");
        assert_eq!(Chars::new("plain").slice(4..9), "n");
        assert_eq!(Chars::new("").slice(0..1), "");
    }
}
