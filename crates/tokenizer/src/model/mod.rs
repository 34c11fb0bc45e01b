//! What turns a word into tokens. Each model is a file; [`Model`] is the one that a tokenizer holds.

pub(crate) mod bpe;
pub(crate) mod cache;
mod merging;
mod trie;
pub(crate) mod unigram;
pub(crate) mod vocab;
pub(crate) mod wordlevel;
pub(crate) mod wordpiece;

use bpe::Bpe;
use unigram::Unigram;
use vocab::Vocab;
use wordlevel::WordLevel;
use wordpiece::WordPiece;

/// The models that are known.
#[derive(Debug)]
pub(crate) enum Model {
    /// Greedy longest match, as BERT's.
    WordPiece(WordPiece),
    /// Byte pair encoding, as RoBERTa's.
    Bpe(Bpe),
    /// The most probable cut, as XLM-R's.
    Unigram(Unigram),
    /// Whole words.
    WordLevel(WordLevel),
}

/// The names of the models that tokenizer.json may ask for.
pub(crate) const KNOWN: &str = "BPE, Unigram, WordLevel, WordPiece";

/// A token of a word: its id and the bytes that it stands for. Several may stand for the same bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) id: u32,
    pub(crate) start: u32,
    pub(crate) end: u32,
}

/// A word has a character that the vocabulary lacks, and there is no token for the unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NoUnknown;

/// What models need while they work, kept from word to word.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    pub(crate) cache: cache::Cache,
    merging: merging::Scratch,
    best: Vec<unigram::Best>,
}

impl Scratch {
    /// Gives back the memory that long words took.
    pub(crate) fn forget_long_words(&mut self) {
        self.merging = merging::Scratch::default();
        self.best = Vec::new();
    }
}

impl Model {
    /// Tokens and ids, without added tokens.
    pub(crate) fn vocab(&self) -> &Vocab {
        match self {
            Self::WordPiece(model) => model.vocab(),
            Self::Bpe(model) => model.vocab(),
            Self::Unigram(model) => model.vocab(),
            Self::WordLevel(model) => model.vocab(),
        }
    }

    /// The id of the token that a whole word becomes, if it is quickly seen to become one.
    #[inline]
    pub(crate) fn whole(&self, word: &str) -> Option<u32> {
        match self {
            Self::WordPiece(model) => model.whole(word),
            Self::Bpe(model) => model.whole(word),
            Self::Unigram(_) => None,
            Self::WordLevel(model) => Some(model.id(word)),
        }
    }

    /// Replaces `pieces` by the tokens of a word that is not empty, and for which [`Model::whole`] knew no answer.
    #[inline]
    pub(crate) fn tokenize(
        &self,
        word: &str,
        scratch: &mut Scratch,
        pieces: &mut Vec<Piece>,
    ) -> Result<(), NoUnknown> {
        pieces.clear();
        match self {
            Self::WordPiece(model) => model.tokenize(word, pieces),
            Self::Bpe(model) => model.tokenize(word, &mut scratch.merging, pieces),
            Self::Unigram(model) => return model.tokenize(word, &mut scratch.best, pieces),
            Self::WordLevel(model) => pieces.push(Piece {
                id: model.id(word),
                start: 0,
                end: word.len() as u32,
            }),
        }
        Ok(())
    }

    /// Whether the text of a token with this id may be another than the vocabulary's.
    pub(crate) fn stands_for_any_text(&self, id: u32) -> bool {
        match self {
            Self::Unigram(model) => model.unk() == Some(id),
            _ => false,
        }
    }
}
