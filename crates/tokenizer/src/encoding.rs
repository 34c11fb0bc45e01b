//! What encoding gives: ids, and for every token where it comes from.

/// The tokens of one input: a text, a pair, or one window of them.
///
/// All slices are as long as there are tokens.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Encoding {
    pub(crate) ids: Vec<u32>,
    pub(crate) type_ids: Vec<u32>,
    pub(crate) offsets: Vec<(u32, u32)>,
    pub(crate) special: Vec<bool>,
    pub(crate) words: Vec<Option<u32>>,
    pub(crate) sequences: Vec<Option<u8>>,
    pub(crate) overflowing: Vec<Encoding>,
}

impl Encoding {
    /// Number of tokens, special tokens included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there is no token, not even a special one.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// The tokens' ids.
    #[must_use]
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// The segment of each token (`token_type_ids`): in BERT's pairs 0 for the first text, 1 for the second.
    #[must_use]
    pub fn type_ids(&self) -> &[u32] {
        &self.type_ids
    }

    /// Start and end of each token in its own text, in the unit that was asked for
    /// ([`OffsetKind`](crate::OffsetKind)); (0, 0) for tokens that the template adds.
    #[must_use]
    pub fn offsets(&self) -> &[(u32, u32)] {
        &self.offsets
    }

    /// Whether the template added the token. A special token that the text itself spells out does not count.
    #[must_use]
    pub fn special_tokens_mask(&self) -> &[bool] {
        &self.special
    }

    /// The word that each token belongs to, counted in its own text. A punctuation character is a word of its own.
    /// `None` for tokens that the template adds.
    #[must_use]
    pub fn word_ids(&self) -> &[Option<u32>] {
        &self.words
    }

    /// The text that each token belongs to, 0 or 1; `None` for tokens that the template adds.
    #[must_use]
    pub fn sequence_ids(&self) -> &[Option<u8>] {
        &self.sequences
    }

    /// The windows beyond this first one, when truncation cut something off and overflow was asked for.
    #[must_use]
    pub fn overflowing(&self) -> &[Encoding] {
        &self.overflowing
    }

    /// Takes the further windows out, so that they can be kept without copying.
    pub fn take_overflowing(&mut self) -> Vec<Encoding> {
        std::mem::take(&mut self.overflowing)
    }

    pub(crate) fn with_capacity(tokens: usize) -> Self {
        Self {
            ids: Vec::with_capacity(tokens),
            type_ids: Vec::with_capacity(tokens),
            offsets: Vec::with_capacity(tokens),
            special: Vec::with_capacity(tokens),
            words: Vec::with_capacity(tokens),
            sequences: Vec::with_capacity(tokens),
            overflowing: Vec::new(),
        }
    }
}

/// A token of a text, before truncation and template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) id: u32,
    pub(crate) start: u32,
    pub(crate) end: u32,
    pub(crate) word: u32,
}

/// Turns the tokens' byte offsets into character offsets of the text that they point into.
pub(crate) fn count_chars(tokens: &mut [Token], text: &str) {
    if text.is_ascii() {
        return;
    }
    // Starts rise and ends rise, each on its own.
    let (mut starts, mut ends) = (CharCounter::default(), CharCounter::default());
    for token in tokens {
        token.start = starts.chars_before(text, token.start as usize);
        token.end = ends.chars_before(text, token.end as usize);
    }
}

/// Counts characters up to positions that mostly rise, from where it counted last.
#[derive(Default)]
struct CharCounter {
    byte: usize,
    chars: u32,
}

impl CharCounter {
    fn chars_before(&mut self, text: &str, byte: usize) -> u32 {
        let bytes = text.as_bytes();
        if byte >= self.byte {
            self.chars += starts(&bytes[self.byte..byte]);
        } else {
            self.chars -= starts(&bytes[byte..self.byte]);
        }
        self.byte = byte;
        self.chars
    }
}

/// Characters that start in a part of UTF-8 text.
fn starts(bytes: &[u8]) -> u32 {
    bytes
        .iter()
        .map(|&byte| u32::from(byte & 0xC0 != 0x80))
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_characters_forwards_and_backwards() {
        let text = "aé漢😀b";
        let mut counter = CharCounter::default();
        for (byte, expected) in [(0, 0), (1, 1), (10, 4), (3, 2), (6, 3), (11, 5), (0, 0)] {
            assert_eq!(counter.chars_before(text, byte), expected, "byte {byte}");
        }
    }

    #[test]
    fn offsets_become_characters() {
        let token = |start, end| Token {
            id: 1,
            start,
            end,
            word: 0,
        };
        let mut tokens = [token(0, 3), token(3, 6), token(3, 6), token(6, 11)];
        count_chars(&mut tokens, "aé漢😀b");
        assert_eq!(tokens, [token(0, 2), token(2, 3), token(2, 3), token(3, 5)]);
        let mut tokens = [token(0, 3)];
        count_chars(&mut tokens, "abc");
        assert_eq!(tokens, [token(0, 3)]);
    }
}
