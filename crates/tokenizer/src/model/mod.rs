//! What turns a word into tokens. Each model is a file; [`Model`] is the one that a tokenizer holds.

pub(crate) mod vocab;
pub(crate) mod wordpiece;

use vocab::Vocab;
use wordpiece::WordPiece;

/// The models that are known.
#[derive(Debug)]
pub(crate) enum Model {
    /// Greedy longest match, as BERT's.
    WordPiece(WordPiece),
}

/// The names of the models that tokenizer.json may ask for.
pub(crate) const KNOWN: &str = "WordPiece";

/// A token of a word: its id and the byte at which it ends (it begins where the one before ends).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) id: u32,
    pub(crate) end: usize,
}

impl Model {
    /// Tokens and ids, without added tokens.
    pub(crate) fn vocab(&self) -> &Vocab {
        match self {
            Self::WordPiece(model) => model.vocab(),
        }
    }

    /// The id of the token that a whole word is, if it is one.
    #[inline]
    pub(crate) fn whole(&self, word: &str) -> Option<u32> {
        match self {
            Self::WordPiece(model) => model.whole(word),
        }
    }

    /// Replaces `pieces` by the tokens of a word that is neither empty nor a token as a whole.
    #[inline]
    pub(crate) fn tokenize(&self, word: &str, pieces: &mut Vec<Piece>) {
        match self {
            Self::WordPiece(model) => model.tokenize(word, pieces),
        }
    }
}
