//! Blocks of text for pre-training: a corpus cut into sequences of full length, with nothing padded.

use bertha_tokenizer::{SpecialToken, Tokenizer};

use crate::TrainError;
use crate::data::{Corpus, Examples, ExamplesBuilder, Labels, mark};

/// How a corpus is cut into blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackOptions {
    /// The longest block, special tokens included.
    pub max_length: usize,
    /// Whether a block goes on into the next document, after a separator token (RoBERTa's
    /// "full sentences"); otherwise a document's last block is shorter.
    pub cross_documents: bool,
    /// Whether a block ends where a sentence does; a sentence that is longer than a block is cut all the
    /// same. Otherwise every block but the last is full.
    pub whole_sentences: bool,
    /// Blocks of fewer tokens of text are left out.
    pub min_tokens: usize,
}

impl PackOptions {
    /// Blocks of `max_length` within documents, of whole sentences.
    pub fn new(max_length: usize) -> Self {
        Self {
            max_length,
            cross_documents: false,
            whole_sentences: true,
            min_tokens: 1,
        }
    }
}

/// The special tokens that sequences are built with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    pub(super) cls: i32,
    pub(super) sep: i32,
}

impl Frame {
    pub(super) fn of(tokenizer: &Tokenizer) -> Result<Self, TrainError> {
        let id = |role, token| match tokenizer.special_token(role) {
            Some((_, id)) => Ok(id as i32),
            None => Err(TrainError::NoToken {
                token,
                task: "pre-training",
            }),
        };
        Ok(Self {
            cls: id(SpecialToken::Cls, "classifier")?,
            sep: id(SpecialToken::Sep, "separator")?,
        })
    }
}

/// A block that is being filled: tokens with their marks.
struct Block<'a> {
    frame: Frame,
    room: usize,
    options: &'a PackOptions,
    tokens: Vec<(i32, u8)>,
    /// How many of them are text.
    text: usize,
}

impl Block<'_> {
    fn left(&self) -> usize {
        self.room - self.tokens.len()
    }

    /// Writes the block, if there is enough of it.
    fn flush(&mut self, builder: &mut ExamplesBuilder, document: usize) {
        // A separator at the end of the text would stand before another.
        while self
            .tokens
            .last()
            .is_some_and(|(_, marks)| marks & mark::SPECIAL != 0)
        {
            self.tokens.pop();
        }
        if self.text >= self.options.min_tokens.max(1) {
            builder.token(self.frame.cls, 0, mark::SPECIAL);
            for (place, &(id, marks)) in self.tokens.iter().enumerate() {
                // The first token of a block goes on with nothing that the block has.
                let cut = if place == 0 { !mark::CONTINUES } else { !0 };
                builder.token(id, 0, marks & cut);
            }
            builder.token(self.frame.sep, 0, mark::SPECIAL);
            builder.end(document);
        }
        self.tokens.clear();
        self.text = 0;
    }
}

/// Cuts a corpus into blocks `[CLS] text [SEP]`, in its order. [`Examples::source`] is the number of the
/// document that a block ends in.
///
/// # Errors
/// [`TrainError::NoToken`] when the tokenizer lacks a special token, [`TrainError::Setting`] when a block
/// has no room.
pub fn pack_blocks(
    tokenizer: &Tokenizer,
    corpus: &Corpus,
    options: &PackOptions,
) -> Result<Examples, TrainError> {
    let frame = Frame::of(tokenizer)?;
    let Some(room) = options.max_length.checked_sub(2).filter(|&room| room > 0) else {
        return Err(TrainError::Setting {
            setting: "the length of blocks",
            found: options.max_length.to_string(),
            expected: "at least 3".into(),
        });
    };
    let mut builder = ExamplesBuilder::default();
    let mut block = Block {
        frame,
        room,
        options,
        tokens: Vec::with_capacity(room),
        text: 0,
    };
    for document in 0..corpus.documents() {
        if !block.tokens.is_empty() {
            if block.left() < 2 {
                block.flush(&mut builder, document);
            } else {
                block.tokens.push((frame.sep, mark::SPECIAL));
            }
        }
        for sentence in corpus.document(document) {
            let range = corpus.sentence(sentence);
            let ids = &corpus.ids()[range.clone()];
            let marks = &corpus.marks()[range];
            if options.whole_sentences && ids.len() > block.left() && block.text > 0 {
                block.flush(&mut builder, document);
            }
            for (&id, &marks) in ids.iter().zip(marks) {
                if block.left() == 0 {
                    block.flush(&mut builder, document);
                }
                block.tokens.push((id, marks));
                block.text += 1;
            }
        }
        if !options.cross_documents {
            block.flush(&mut builder, document);
        }
    }
    block.flush(&mut builder, corpus.documents().saturating_sub(1));
    builder.finish(Labels::None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::test_tokenizer;

    const CLS: i32 = 2;
    const SEP: i32 = 3;

    /// Two documents: `a b | c d e` and `f dog ##s`.
    fn blocks(max_length: usize, cross_documents: bool, whole_sentences: bool) -> Vec<Vec<i32>> {
        let own = |lines: &[&str]| lines.iter().map(|&line| line.to_owned()).collect();
        let documents: [Vec<String>; 2] = [own(&["a b", "c d e"]), own(&["f dogs"])];
        let tokenizer = test_tokenizer();
        let corpus = Corpus::from_documents(&tokenizer, &documents).unwrap();
        let options = PackOptions {
            max_length,
            cross_documents,
            whole_sentences,
            min_tokens: 1,
        };
        let examples = pack_blocks(&tokenizer, &corpus, &options).unwrap();
        for i in 0..examples.len() {
            assert!(examples.lengths()[i] as usize <= max_length);
            assert_eq!(examples.marks(i)[0], mark::SPECIAL);
            assert_eq!(examples.marks(i)[1] & mark::CONTINUES, 0);
        }
        (0..examples.len())
            .map(|i| examples.ids(i).to_vec())
            .collect()
    }

    #[test]
    fn blocks_keep_to_documents_and_sentences() {
        // a to f are ids 20 to 25, dog is 7, ##s 8.
        assert_eq!(
            blocks(6, false, true),
            [
                vec![CLS, 20, 21, SEP],
                vec![CLS, 22, 23, 24, SEP],
                vec![CLS, 25, 7, 8, SEP]
            ]
        );
        assert_eq!(
            blocks(6, false, false),
            [
                vec![CLS, 20, 21, 22, 23, SEP],
                vec![CLS, 24, SEP],
                vec![CLS, 25, 7, 8, SEP]
            ]
        );
    }

    #[test]
    fn blocks_cross_documents_after_a_separator() {
        assert_eq!(
            blocks(6, true, false),
            [
                vec![CLS, 20, 21, 22, 23, SEP],
                vec![CLS, 24, SEP, 25, 7, SEP],
                vec![CLS, 8, SEP]
            ]
        );
        assert_eq!(
            blocks(20, true, true),
            [vec![CLS, 20, 21, 22, 23, 24, SEP, 25, 7, 8, SEP]]
        );
    }

    #[test]
    fn long_sentences_are_cut_and_short_blocks_left_out() {
        assert_eq!(
            blocks(4, false, true),
            [
                vec![CLS, 20, 21, SEP],
                vec![CLS, 22, 23, SEP],
                vec![CLS, 24, SEP],
                vec![CLS, 25, 7, SEP],
                vec![CLS, 8, SEP]
            ]
        );
        let tokenizer = test_tokenizer();
        let corpus = Corpus::from_documents(&tokenizer, &[vec!["a b c".into()]]).unwrap();
        let options = PackOptions {
            min_tokens: 2,
            ..PackOptions::new(4)
        };
        assert_eq!(pack_blocks(&tokenizer, &corpus, &options).unwrap().len(), 1);
        assert!(pack_blocks(&tokenizer, &corpus, &PackOptions::new(2)).is_err());
    }
}
