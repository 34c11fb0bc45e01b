//! WordPiece: a word is cut greedily into the longest tokens of the vocabulary, of which all but the first carry a
//! prefix (`##`). A word that cannot be cut so is one unknown token, and so is a word of too many characters.
//!
//! Devlin et al., "BERT", <https://arxiv.org/abs/1810.04805>; the algorithm is that of its `tokenization.py`.

use super::Piece;
use super::vocab::{ShortTable, Table, Vocab, hash, pack, same};

/// A WordPiece model. See the [module](self).
#[derive(Debug)]
pub(crate) struct WordPiece {
    vocab: Vocab,
    unk: u32,
    max_chars: usize,
    /// Tokens that carry the prefix, by their text without it: ids of the short ones, entries of the others.
    continuing_short: ShortTable,
    continuing_long: Table,
    prefix_len: usize,
    /// How long the tokens are that may begin a word, and those that may continue one. They bound the search.
    first_lengths: Lengths,
    continuing_lengths: Lengths,
}

/// The lengths in bytes of the tokens that begin with given bytes.
#[derive(Debug)]
struct Lengths {
    /// By a hash of the first three bytes: bit n stands for tokens of n + 3 bytes, the last bit for all longer ones.
    masks: Vec<u32>,
    longest: usize,
}

impl Lengths {
    const BITS: u32 = 14;
    const LAST: usize = 31;

    fn new() -> Self {
        Self {
            masks: vec![0; 1 << Self::BITS],
            longest: 0,
        }
    }

    fn add(&mut self, token: &[u8]) {
        self.longest = self.longest.max(token.len());
        if let Some(slot) = Self::slot(token) {
            self.masks[slot] |= 1 << (token.len() - 3).min(Self::LAST);
        }
    }

    #[inline]
    fn slot(text: &[u8]) -> Option<usize> {
        let &[a, b, c, ..] = text else { return None };
        let bytes = u32::from(a) | u32::from(b) << 8 | u32::from(c) << 16;
        Some((bytes.wrapping_mul(0x9E37_79B1) >> (u32::BITS - Self::BITS)) as usize)
    }

    /// Calls `find` with the lengths that a token at the beginning of `text` may have, longest first, until it finds.
    #[inline]
    fn try_each<T>(&self, text: &[u8], mut find: impl FnMut(usize) -> Option<T>) -> Option<T> {
        if let Some(slot) = Self::slot(text) {
            let mut mask = self.masks[slot];
            let at_most = text.len() - 3;
            if at_most < Self::LAST {
                mask &= (2 << at_most) - 1;
            } else if mask >> Self::LAST != 0 {
                let long = Self::LAST + 3..=self.longest.min(text.len());
                let found = long.rev().find_map(&mut find);
                if found.is_some() {
                    return found;
                }
                mask &= !(1 << Self::LAST);
            }
            while mask != 0 {
                let top = mask.ilog2();
                let found = find(top as usize + 3);
                if found.is_some() {
                    return found;
                }
                mask &= !(1 << top);
            }
        }
        (1..=text.len().min(2)).rev().find_map(find)
    }
}

impl WordPiece {
    /// A model over a vocabulary; `None` if the unknown token is not in it.
    pub(crate) fn new(
        vocab: Vocab,
        unk_token: &str,
        prefix: &str,
        max_chars: usize,
    ) -> Option<Self> {
        let unk = vocab.id(unk_token)?;
        // A token is no continuation if nothing is behind the prefix.
        fn tail<'a>(text: &'a str, prefix: &str) -> Option<&'a [u8]> {
            let tail = text.strip_prefix(prefix)?.as_bytes();
            (!tail.is_empty()).then_some(tail)
        }
        let (mut short, mut long) = (0, 0);
        for tail in vocab.entries().filter_map(|(_, text)| tail(text, prefix)) {
            match pack(tail) {
                Some(_) => short += 1,
                None => long += 1,
            }
        }
        let mut continuing_short = ShortTable::with_room(short);
        let mut continuing_long = Table::with_room(long);
        let (mut first_lengths, mut continuing_lengths) = (Lengths::new(), Lengths::new());
        for (entry, text) in vocab.entries() {
            first_lengths.add(text.as_bytes());
            if let Some(tail) = tail(text, prefix) {
                continuing_lengths.add(tail);
                if !continuing_short.insert(tail, vocab.entry_id(entry)) {
                    continuing_long.insert(hash(tail), entry);
                }
            }
        }
        let prefix_len = prefix.len();
        Some(Self {
            vocab,
            unk,
            max_chars,
            continuing_short,
            continuing_long,
            prefix_len,
            first_lengths,
            continuing_lengths,
        })
    }

    pub(crate) fn vocab(&self) -> &Vocab {
        &self.vocab
    }

    /// See [`super::Model::whole`].
    #[inline]
    pub(crate) fn whole(&self, word: &str) -> Option<u32> {
        if self.too_long(word) {
            None
        } else {
            self.vocab.id(word)
        }
    }

    #[inline]
    fn too_long(&self, word: &str) -> bool {
        word.len() > self.max_chars && word.chars().count() > self.max_chars
    }

    /// See [`super::Model::tokenize`].
    pub(crate) fn tokenize(&self, word: &str, pieces: &mut Vec<Piece>) {
        if self.too_long(word) {
            pieces.push(self.unknown(word));
        } else {
            self.cut(word, pieces);
        }
    }

    fn unknown(&self, word: &str) -> Piece {
        Piece {
            id: self.unk,
            start: 0,
            end: word.len() as u32,
        }
    }

    fn cut(&self, word: &str, pieces: &mut Vec<Piece>) {
        // Tokens are whole characters, so one that is found where a character begins ends where one ends.
        let bytes = word.as_bytes();
        let mut start = 0;
        while start < bytes.len() {
            let rest = &bytes[start..];
            let found = if start == 0 {
                self.first_lengths
                    .try_each(rest, |len| Some((self.vocab.id_of(&rest[..len])?, len)))
            } else {
                self.continuing_lengths
                    .try_each(rest, |len| Some((self.continuing_id(&rest[..len])?, len)))
            };
            let Some((id, len)) = found else {
                pieces.clear();
                pieces.push(self.unknown(word));
                return;
            };
            pieces.push(Piece {
                id,
                start: start as u32,
                end: (start + len) as u32,
            });
            start += len;
        }
    }

    #[inline]
    fn continuing_id(&self, tail: &[u8]) -> Option<u32> {
        if let Some(packed) = pack(tail) {
            return self.continuing_short.find(packed);
        }
        let entry = self.continuing_long.find(hash(tail), |entry| {
            same(&self.vocab.bytes(entry)[self.prefix_len..], tail)
        })?;
        Some(self.vocab.entry_id(entry))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(tokens: &[&str], prefix: &str, max_chars: usize) -> WordPiece {
        let tokens: Vec<(&str, u32)> = tokens.iter().copied().zip(0..).collect();
        WordPiece::new(Vocab::new(&tokens), "[UNK]", prefix, max_chars).unwrap()
    }

    fn cut(model: &WordPiece, word: &str) -> Vec<(u32, usize)> {
        let mut pieces = Vec::new();
        model.tokenize(word, &mut pieces);
        pieces
            .iter()
            .map(|piece| (piece.id, piece.end as usize))
            .collect()
    }

    #[test]
    fn takes_the_longest_token_each_time() {
        let model = model(
            &[
                "[UNK]",
                "un",
                "##aff",
                "##able",
                "##affable",
                "##a",
                "unaff",
                "##é",
            ],
            "##",
            100,
        );
        assert_eq!(cut(&model, "unaffable"), [(6, 5), (3, 9)]);
        assert_eq!(cut(&model, "unaffa"), [(6, 5), (5, 6)]);
        assert_eq!(cut(&model, "uné"), [(1, 2), (7, 4)]);
        assert_eq!(cut(&model, "unx"), [(0, 3)]);
        assert_eq!(cut(&model, "able"), [(0, 4)]);
    }

    #[test]
    fn long_words_are_unknown_by_characters_not_bytes() {
        let model = model(&["[UNK]", "é", "##é"], "##", 3);
        assert_eq!(cut(&model, "ééé"), [(1, 2), (2, 4), (2, 6)]);
        assert_eq!(cut(&model, "éééé"), [(0, 8)]);
    }

    #[test]
    fn tokens_of_every_length_are_found() {
        let lengths = [1, 2, 3, 4, 5, 31, 33, 34, 35, 36, 70];
        let mut tokens = vec!["[UNK]".to_owned()];
        tokens.extend(lengths.iter().flat_map(|&len| {
            let tail = "ab".repeat(len).split_off(len);
            ["ab".repeat(len)[..len].to_owned(), format!("##{tail}")]
        }));
        let tokens: Vec<&str> = tokens.iter().map(String::as_str).collect();
        let model = model(&tokens, "##", 1000);
        for len in 1..200 {
            let word = &"ab".repeat(len)[..len];
            // The naive search, over the same vocabulary.
            let mut expected = Vec::new();
            let mut start = 0;
            while start < len {
                let end = (start + 1..=len).rev().find(|&end| {
                    let prefix = if start == 0 { "" } else { "##" };
                    tokens.contains(&&*format!("{prefix}{}", &word[start..end]))
                });
                let Some(end) = end else { break };
                expected.push(end);
                start = end;
            }
            if start < len {
                expected = vec![len];
            }
            let found: Vec<usize> = cut(&model, word).iter().map(|piece| piece.1).collect();
            assert_eq!(found, expected, "{len}");
        }
    }

    #[test]
    fn an_empty_prefix_continues_with_any_token() {
        let model = model(&["[UNK]", "ab", "c"], "", 100);
        assert_eq!(cut(&model, "abcab"), [(1, 2), (2, 3), (1, 5)]);
    }

    #[test]
    fn needs_its_unknown_token() {
        assert!(WordPiece::new(Vocab::new(&[("a", 0)]), "[UNK]", "##", 100).is_none());
    }
}
