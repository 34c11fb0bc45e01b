//! The tokens with a role of their own.

/// What a special token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SpecialToken {
    /// Begins the input; classifiers read its vector (`[CLS]`).
    Cls,
    /// Ends a text (`[SEP]`).
    Sep,
    /// Fills up batches (`[PAD]`).
    Pad,
    /// Stands for words that the vocabulary cannot spell (`[UNK]`).
    Unk,
    /// Stands for a word to be guessed (`[MASK]`).
    Mask,
}

impl SpecialToken {
    /// Every role.
    pub(crate) const ALL: [Self; 5] = [Self::Cls, Self::Sep, Self::Pad, Self::Unk, Self::Mask];

    /// The token of this role in BERT's vocabularies, for files that do not name one.
    pub(crate) fn conventional(self) -> &'static str {
        self.conventions()[0]
    }

    /// The tokens of this role in BERT's, RoBERTa's and fairseq's vocabularies.
    pub(crate) fn conventions(self) -> [&'static str; 2] {
        match self {
            Self::Cls => ["[CLS]", "<s>"],
            Self::Sep => ["[SEP]", "</s>"],
            Self::Pad => ["[PAD]", "<pad>"],
            Self::Unk => ["[UNK]", "<unk>"],
            Self::Mask => ["[MASK]", "<mask>"],
        }
    }
}

/// The texts of the special tokens, as far as they are known.
#[derive(Debug, Clone, Default)]
pub(crate) struct SpecialNames([Option<String>; 5]);

impl SpecialNames {
    pub(crate) fn get(&self, role: SpecialToken) -> Option<&str> {
        self.0[role as usize].as_deref()
    }

    /// Sets a name unless one is known already.
    pub(crate) fn suggest(&mut self, role: SpecialToken, name: impl Into<String>) {
        self.0[role as usize].get_or_insert_with(|| name.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_suggestion_stays() {
        let mut names = SpecialNames::default();
        for role in SpecialToken::ALL {
            assert_eq!(names.get(role), None);
            names.suggest(role, role.conventional());
            names.suggest(role, "later");
            assert_eq!(names.get(role), Some(role.conventional()));
        }
    }
}
