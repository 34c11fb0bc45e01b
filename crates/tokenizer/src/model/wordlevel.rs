//! WordLevel: a word is one token, or unknown.

use super::vocab::Vocab;

/// A model of whole words.
#[derive(Debug)]
pub(crate) struct WordLevel {
    vocab: Vocab,
    unk: u32,
}

impl WordLevel {
    /// A model over a vocabulary; `None` if the unknown token is not in it.
    pub(crate) fn new(vocab: Vocab, unk_token: &str) -> Option<Self> {
        let unk = vocab.id(unk_token)?;
        Some(Self { vocab, unk })
    }

    pub(crate) fn vocab(&self) -> &Vocab {
        &self.vocab
    }

    /// The id of a word.
    pub(crate) fn id(&self, word: &str) -> u32 {
        self.vocab.id(word).unwrap_or(self.unk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_known_or_not() {
        let model = WordLevel::new(Vocab::new(&[("<unk>", 3), ("a", 7)]), "<unk>").unwrap();
        assert_eq!((model.id("a"), model.id("b")), (7, 3));
        assert!(WordLevel::new(Vocab::new(&[("a", 0)]), "<unk>").is_none());
    }
}
