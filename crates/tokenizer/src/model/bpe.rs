//! Byte pair encoding: a word's characters, or bytes, are merged into ever longer tokens.

use super::Piece;
use super::merging::{Merges, Scratch, Symbol};
use super::vocab::{ShortTable, Table, Vocab, hash, pack, same};
use crate::pre_tokenizer::byte_level;

/// What a BPE model is made of besides its vocabulary.
#[derive(Debug, Clone, Default)]
pub(crate) struct Settings {
    /// Pairs in the order of their ranks.
    pub(crate) merges: Vec<(u32, u32, u32)>,
    /// What stands for characters that the vocabulary lacks; without it they are left out.
    pub(crate) unk: Option<u32>,
    /// Whether neighbouring unknown characters become one token.
    pub(crate) fuse_unk: bool,
    /// Whether unknown characters become the tokens `<0x00>` to `<0xFF>` of their bytes.
    pub(crate) byte_fallback: bool,
    /// Put before every character of a word but the first.
    pub(crate) prefix: String,
    /// Put behind the last character of a word.
    pub(crate) suffix: String,
    /// Whether a word that is a token becomes that token, whatever the merges say.
    pub(crate) ignore_merges: bool,
}

/// A BPE model. See the [module](self).
#[derive(Debug)]
pub(crate) struct Bpe {
    vocab: Vocab,
    settings: Settings,
    merges: Merges,
    fallback: Option<Box<[u32; 256]>>,
    /// Where words are bytes, the tokens of the single bytes.
    bytes: Option<Box<[u32; 256]>>,
    /// Tokens that a word becomes as a whole.
    words: Words,
}

impl Bpe {
    /// A model over a vocabulary. If `byte_level`, and if the vocabulary has the characters of all bytes, words come as
    /// they are, and tokens are texts whose characters stand for bytes.
    pub(crate) fn new(vocab: Vocab, settings: Settings, byte_level: bool) -> Self {
        let bytes = byte_level
            .then(|| {
                byte_tokens(|byte| {
                    vocab.id(byte_level::CHARS[byte as usize].encode_utf8(&mut [0; 4]))
                })
            })
            .flatten();
        let mut merges = Merges::with_room(settings.merges.len());
        for (&(left, right, id), rank) in settings.merges.iter().zip(0..) {
            merges.insert(left, right, rank, id);
        }
        let fallback = settings
            .byte_fallback
            .then(|| byte_tokens(|byte| vocab.id(&format!("<0x{byte:02X}>"))))
            .flatten();
        let mut model = Self {
            vocab,
            settings,
            merges,
            fallback,
            bytes,
            words: Words::default(),
        };
        model.settings.merges = Vec::new();
        model.words = model.whole_words();
        model
    }

    /// The tokens that come out as themselves.
    fn whole_words(&self) -> Words {
        let mut scratch = Scratch::default();
        let mut pieces = Vec::new();
        let mut words = Vec::with_capacity(self.vocab.len());
        let mut bytes = Vec::new();
        for (entry, text) in self.vocab.entries() {
            let id = self.vocab.entry_id(entry);
            bytes.clear();
            if self.bytes.is_some() {
                let Some(()) = text.chars().try_for_each(|c| {
                    bytes.push(byte_level::byte_of(c)?);
                    Some(())
                }) else {
                    continue;
                };
            } else {
                bytes.extend_from_slice(text.as_bytes());
            }
            // Long tokens are rare, and merging them all is not.
            if bytes.is_empty() || !self.settings.ignore_merges && bytes.len() > LONGEST_WHOLE {
                continue;
            }
            let whole = self.settings.ignore_merges || {
                pieces.clear();
                match self.bytes {
                    Some(_) => self.merge_bytes(&bytes, &mut scratch, &mut pieces),
                    None => self.merge_text(text, &mut scratch, &mut pieces),
                }
                matches!(pieces[..], [piece] if piece.id == id && piece.end as usize == bytes.len())
            };
            if whole {
                words.push((bytes.clone(), id));
            }
        }
        Words::new(&words)
    }

    pub(crate) fn vocab(&self) -> &Vocab {
        &self.vocab
    }

    /// Whether words come as they are, and not with their bytes written as characters.
    pub(crate) fn is_byte_level(&self) -> bool {
        self.bytes.is_some()
    }

    /// See [`super::Model::whole`].
    #[inline]
    pub(crate) fn whole(&self, word: &str) -> Option<u32> {
        self.words.find(word.as_bytes())
    }

    /// See [`super::Model::tokenize`].
    pub(crate) fn tokenize(&self, word: &str, scratch: &mut Scratch, pieces: &mut Vec<Piece>) {
        if self.bytes.is_some() {
            self.merge_bytes(word.as_bytes(), scratch, pieces);
        } else {
            self.merge_text(word, scratch, pieces);
        }
    }

    fn merge_bytes(&self, word: &[u8], scratch: &mut Scratch, pieces: &mut Vec<Piece>) {
        let Some(bytes) = &self.bytes else { return };
        scratch.symbols.clear();
        scratch.symbols.extend(
            word.iter()
                .map(|&byte| Symbol::new(bytes[byte as usize], 1)),
        );
        self.merge(scratch, pieces);
    }

    fn merge_text(&self, word: &str, scratch: &mut Scratch, pieces: &mut Vec<Piece>) {
        let Settings {
            unk,
            fuse_unk,
            prefix,
            suffix,
            ..
        } = &self.settings;
        scratch.symbols.clear();
        // Unknown characters that are not among the symbols yet: the bytes that they stand for.
        let mut unknown: Option<u32> = None;
        let mut buffer = String::new();
        for (at, c) in word.char_indices() {
            let end = at + c.len_utf8();
            let len = c.len_utf8() as u32;
            let mut text = &word[at..end];
            let (before, behind) = (
                at > 0 && !prefix.is_empty(),
                end == word.len() && !suffix.is_empty(),
            );
            if before || behind {
                buffer.clear();
                buffer.push_str(if before { prefix } else { "" });
                buffer.push(c);
                buffer.push_str(if behind { suffix } else { "" });
                text = &buffer;
            }
            if let Some(id) = self.vocab.id(text) {
                if let (Some(len), Some(unk)) = (unknown.take(), unk) {
                    scratch.symbols.push(Symbol::new(*unk, len));
                }
                scratch.symbols.push(Symbol::new(id, len));
            } else if let Some(bytes) = &self.fallback {
                // Unknown characters before them come later: so it is in `tokenizers`.
                let tokens = text
                    .bytes()
                    .map(|byte| Symbol::new(bytes[byte as usize], 1));
                scratch.symbols.extend(tokens);
            } else if let Some(unk) = unk {
                unknown = Some(match unknown {
                    Some(so_far) if *fuse_unk => so_far + len,
                    Some(so_far) => {
                        scratch.symbols.push(Symbol::new(*unk, so_far));
                        len
                    }
                    None => len,
                });
            }
        }
        if let (Some(len), Some(unk)) = (unknown, unk) {
            scratch.symbols.push(Symbol::new(*unk, len));
        }
        self.merge(scratch, pieces);
    }

    fn merge(&self, scratch: &mut Scratch, pieces: &mut Vec<Piece>) {
        scratch.merge(&self.merges);
        let mut start = 0;
        pieces.extend(scratch.symbols.iter().map(|symbol| {
            let end = start + symbol.len;
            let piece = Piece {
                id: symbol.id,
                start,
                end,
            };
            start = end;
            piece
        }));
    }
}

/// The longest token that is tried as a whole word.
const LONGEST_WHOLE: usize = 64;

/// The token of every byte; `None` if one has none.
fn byte_tokens(id: impl Fn(u8) -> Option<u32>) -> Option<Box<[u32; 256]>> {
    let mut tokens = Box::new([0; 256]);
    for byte in 0..=u8::MAX {
        tokens[byte as usize] = id(byte)?;
    }
    Some(tokens)
}

/// Words and the tokens that they become.
#[derive(Debug, Default)]
struct Words {
    short: ShortTable,
    long: Table,
    /// The longer words end to end, where each ends, and their ids.
    pool: Vec<u8>,
    ends: Vec<usize>,
    ids: Vec<u32>,
}

impl Words {
    fn new(words: &[(Vec<u8>, u32)]) -> Self {
        let short = words
            .iter()
            .filter(|(word, _)| pack(word).is_some())
            .count();
        let mut table = Self {
            short: ShortTable::with_room(short),
            long: Table::with_room(words.len() - short),
            ..Self::default()
        };
        for (word, id) in words {
            if !table.short.insert(word, *id) {
                table.long.insert(hash(word), table.ids.len() as u32);
                table.pool.extend_from_slice(word);
                table.ends.push(table.pool.len());
                table.ids.push(*id);
            }
        }
        table
    }

    #[inline]
    fn find(&self, word: &[u8]) -> Option<u32> {
        if let Some(packed) = pack(word) {
            return self.short.find(packed);
        }
        let entry = self.long.find(hash(word), |entry| {
            let entry = entry as usize;
            let start = entry.checked_sub(1).map_or(0, |before| self.ends[before]);
            same(&self.pool[start..self.ends[entry]], word)
        })?;
        Some(self.ids[entry as usize])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(tokens: &[&str], merges: &[(u32, u32, u32)], settings: Settings) -> Bpe {
        let tokens: Vec<(&str, u32)> = tokens.iter().copied().zip(0..).collect();
        let settings = Settings {
            merges: merges.to_vec(),
            ..settings
        };
        Bpe::new(Vocab::new(&tokens), settings, false)
    }

    fn cut(model: &Bpe, word: &str) -> Vec<(u32, u32, u32)> {
        let mut pieces = Vec::new();
        model.tokenize(word, &mut Scratch::default(), &mut pieces);
        pieces
            .iter()
            .map(|piece| (piece.id, piece.start, piece.end))
            .collect()
    }

    #[test]
    fn merges_and_unknown_characters() {
        let tokens = ["<unk>", "a", "b", "ab", "é"];
        let fused = Settings {
            unk: Some(0),
            fuse_unk: true,
            ..Settings::default()
        };
        let model_of = |settings| model(&tokens, &[(1, 2, 3)], settings);
        assert_eq!(
            cut(&model_of(fused.clone()), "abéxyb"),
            [(3, 0, 2), (4, 2, 4), (0, 4, 6), (2, 6, 7)]
        );
        let apart = Settings {
            fuse_unk: false,
            ..fused
        };
        assert_eq!(
            cut(&model_of(apart), "xya"),
            [(0, 0, 1), (0, 1, 2), (1, 2, 3)]
        );
        // Without a token for it, what is unknown leaves no trace.
        let silent = model_of(Settings::default());
        assert_eq!(cut(&silent, "xa"), [(1, 0, 1)]);
        assert_eq!((silent.whole("ab"), silent.whole("x")), (Some(3), None));
    }

    #[test]
    fn prefix_and_suffix() {
        let settings = Settings {
            unk: Some(0),
            prefix: "##".into(),
            suffix: "</w>".into(),
            ..Settings::default()
        };
        let tokens = ["<unk>", "a", "##b", "##b</w>", "a</w>", "ab</w>"];
        let model = model(&tokens, &[(1, 3, 5)], settings);
        assert_eq!(cut(&model, "ab"), [(5, 0, 2)]);
        assert_eq!(cut(&model, "a"), [(4, 0, 1)]);
        assert_eq!(cut(&model, "abb"), [(1, 0, 1), (2, 1, 2), (3, 2, 3)]);
    }

    #[test]
    fn byte_level_needs_every_byte() {
        let all: Vec<(String, u32)> = (0..256)
            .map(|n| (byte_level::CHARS[n as usize].to_string(), n))
            .collect();
        let model = Bpe::new(Vocab::new(&all), Settings::default(), true);
        assert_eq!(cut(&model, " é"), [(32, 0, 1), (0xC3, 1, 2), (0xA9, 2, 3)]);
        let lacking = Bpe::new(Vocab::new(&all[1..]), Settings::default(), true);
        assert!(model.is_byte_level() && !lacking.is_byte_level());
    }
}
