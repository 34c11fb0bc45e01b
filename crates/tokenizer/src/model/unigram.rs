//! Unigram: of all ways to cut a word into tokens the most probable.
//!
//! Kudo, "Subword Regularization", <https://arxiv.org/abs/1804.10959>. The search is Viterbi's: for every place in the word the
//! best way that leads there. Scores are logarithms of probabilities in f64, and are added from left to right, so that
//! what is equal in other implementations is equal here; of equal ways the one found first holds.

use super::trie::Trie;
use super::vocab::Vocab;
use super::{NoUnknown, Piece};

/// A Unigram model. See the [module](self).
#[derive(Debug)]
pub(crate) struct Unigram {
    vocab: Vocab,
    trie: Trie,
    /// By id.
    scores: Vec<f64>,
    unk: Option<u32>,
    /// The score of a character that no token is.
    unk_score: f64,
    /// The tokens `<0x00>` to `<0xFF>`, where they stand for the bytes of unknown text.
    fallback: Option<Box<[u32; 256]>>,
}

/// The best way to a place in a word: its score, where its last token begins, and that token.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Best {
    score: f64,
    start: u32,
    id: u32,
}

const UNREACHED: u32 = u32::MAX;
/// How much worse than the worst token a character is that is none.
const UNKNOWN_PENALTY: f64 = 10.0;

impl Unigram {
    /// A model of tokens with scores; a token's place is its id. `unk` must be one of them.
    pub(crate) fn new<S: AsRef<str>>(
        tokens: &[(S, f64)],
        unk: Option<u32>,
        byte_fallback: bool,
    ) -> Self {
        let ids: Vec<(&str, u32)> = tokens
            .iter()
            .map(|(text, _)| text.as_ref())
            .zip(0..)
            .collect();
        let vocab = Vocab::new(&ids);
        let strings = vocab
            .entries()
            .map(|(entry, text)| (text.as_bytes(), vocab.entry_id(entry)))
            .filter(|(text, _)| !text.is_empty())
            .collect();
        let scores: Vec<f64> = tokens.iter().map(|(_, score)| *score).collect();
        let lowest = scores.iter().copied().fold(f64::INFINITY, f64::min);
        let fallback = byte_fallback.then(|| {
            let mut bytes = Box::new([0; 256]);
            for byte in 0..=u8::MAX {
                bytes[byte as usize] = vocab.id(&format!("<0x{byte:02X}>")).unwrap_or(UNREACHED);
            }
            bytes
        });
        Self {
            trie: Trie::new(strings),
            vocab,
            scores,
            unk,
            unk_score: lowest - UNKNOWN_PENALTY,
            fallback,
        }
    }

    pub(crate) fn vocab(&self) -> &Vocab {
        &self.vocab
    }

    pub(crate) fn unk(&self) -> Option<u32> {
        self.unk
    }

    /// See [`super::Model::tokenize`].
    pub(crate) fn tokenize(
        &self,
        word: &str,
        best: &mut Vec<Best>,
        pieces: &mut Vec<Piece>,
    ) -> Result<(), NoUnknown> {
        self.search(word, best)?;
        // From the end to the beginning. Unknown characters side by side are one token.
        let mut end = word.len();
        while end > 0 {
            let Best { start, id, .. } = best[end];
            let piece = Piece {
                id,
                start,
                end: end as u32,
            };
            match pieces.last_mut() {
                Some(last) if Some(id) == self.unk && last.id == id => last.start = start,
                _ => pieces.push(piece),
            }
            end = start as usize;
        }
        pieces.reverse();
        if let Some(unk) = self.unk
            && pieces.iter().any(|piece| piece.id == unk)
        {
            self.name_unknown(unk, word, pieces);
        }
        Ok(())
    }

    /// Finds the best way to every place.
    #[inline]
    fn search(&self, word: &str, best: &mut Vec<Best>) -> Result<(), NoUnknown> {
        let bytes = word.as_bytes();
        best.clear();
        let unreached = Best {
            score: 0.0,
            start: UNREACHED,
            id: 0,
        };
        best.resize(bytes.len() + 1, unreached);
        let mut start = 0;
        while start < bytes.len() {
            let so_far = best[start].score;
            let len = char_len(bytes[start]);
            let mut single = false;
            let ends = &mut best[start..];
            self.trie.prefixes(&bytes[start..], |end, id| {
                let score = self.scores[id as usize] + so_far;
                improve(&mut ends[end], score, start, id);
                single |= end == len;
            });
            if !single {
                let unk = self.unk.ok_or(NoUnknown)?;
                improve(&mut ends[len], self.unk_score + so_far, start, unk);
            }
            start += len;
        }
        Ok(())
    }

    /// Gives unknown text the tokens of its bytes, if it may have those; several unknown characters may also be a
    /// token together.
    fn name_unknown(&self, unk: u32, word: &str, pieces: &mut Vec<Piece>) {
        let found = std::mem::take(pieces);
        for piece in found {
            let text = &word.as_bytes()[piece.start as usize..piece.end as usize];
            let known = (piece.id == unk).then(|| self.vocab.id_of(text)).flatten();
            let bytes = match &self.fallback {
                Some(bytes) if piece.id == unk && known.is_none() => bytes,
                _ => {
                    pieces.push(Piece {
                        id: known.unwrap_or(piece.id),
                        ..piece
                    });
                    continue;
                }
            };
            let tokens = text.iter().map(|&byte| bytes[byte as usize]);
            if tokens.clone().any(|id| id == UNREACHED) {
                pieces.push(piece);
            } else {
                pieces.extend(tokens.map(|id| Piece { id, ..piece }));
            }
        }
    }
}

#[inline]
fn improve(best: &mut Best, score: f64, start: usize, id: u32) {
    if best.start == UNREACHED || score > best.score {
        *best = Best {
            score,
            start: start as u32,
            id,
        };
    }
}

/// The length of the character that a byte begins.
#[inline]
fn char_len(first: u8) -> usize {
    match first {
        0..=0x7F => 1,
        0x80..=0xDF => 2,
        0xE0..=0xEF => 3,
        0xF0.. => 4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(model: &Unigram, word: &str) -> Vec<(u32, u32, u32)> {
        let mut pieces = Vec::new();
        model.tokenize(word, &mut Vec::new(), &mut pieces).unwrap();
        pieces
            .iter()
            .map(|piece| (piece.id, piece.start, piece.end))
            .collect()
    }

    #[test]
    fn the_most_probable_cut() {
        let tokens = [
            ("<unk>", 0.0),
            ("a", 0.0),
            ("b", 0.0),
            ("c", 0.0),
            ("d", 0.0),
            ("cd", 1.0),
            ("ab", 2.0),
            ("abc", 5.0),
            ("abcd", 10.0),
        ];
        let model = Unigram::new(&tokens, Some(0), false);
        assert_eq!(
            cut(&model, "abcdacdéx"),
            [(8, 0, 4), (1, 4, 5), (5, 5, 7), (0, 7, 10)]
        );
        let none = Unigram::new(&tokens, None, false);
        assert_eq!(
            none.tokenize("x", &mut Vec::new(), &mut Vec::new()),
            Err(NoUnknown)
        );
    }

    #[test]
    fn unknown_text_falls_back_to_bytes() {
        let tokens = [("<unk>", 0.0), ("a", 0.0), ("<0xC3>", 0.0), ("<0xA9>", 0.0)];
        let model = Unigram::new(&tokens, Some(0), true);
        assert_eq!(cut(&model, "aé"), [(1, 0, 1), (2, 1, 3), (3, 1, 3)]);
        // Where a byte has no token, the text is unknown.
        assert_eq!(cut(&model, "aéx"), [(1, 0, 1), (0, 1, 4)]);
    }
}
