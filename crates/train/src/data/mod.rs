//! From files to tokenized examples.
//!
//! Readers give records: lines and documents ([`read_lines`], [`read_documents`]), tables ([`Table`]),
//! tagged sentences ([`read_conll`]), questions ([`read_squad`]). Tokenizing makes [`Examples`] of them,
//! packed end to end, or a [`Corpus`] for pre-training; both can be kept in a [`Cache`].

mod cache;
mod conll;
mod corpus;
mod examples;
mod labels;
mod lines;
mod questions;
mod squad;
mod table;
mod tags;
mod texts;

pub use cache::{Cache, CacheKey, Cacheable, Origin};
pub use conll::{ConllColumns, TaggedSentence, read_conll};
pub use corpus::Corpus;
pub(crate) use examples::ExamplesBuilder;
pub use examples::{Examples, IGNORED, Labels, mark};
pub use labels::LabelMap;
pub use lines::{read_documents, read_lines};
pub use questions::{QuestionExamples, QuestionOptions, question_examples};
pub use squad::{GoldAnswer, Question, read_squad};
pub use table::{Cell, Format, Row, Table};
pub use tags::{Alignment, TagExamples, TagOptions, tag_examples, tag_map};
pub use texts::{TextColumns, class_labels, multi_labels, scores, text_examples};

/// A tokenizer of a few words: `[PAD] [UNK] [CLS] [SEP] [MASK]`, then words from id 5.
#[cfg(test)]
pub(crate) fn test_tokenizer() -> bertha_tokenizer::Tokenizer {
    let words = [
        "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "dog", "##s", "sat", "on",
        "mat", "who", "where", "?", ".", "'", "o", "ne", "##il", "a", "b", "c", "d", "e", "f", "g",
        "h",
    ];
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), words.join("\n")).expect("a written file");
    bertha_tokenizer::Tokenizer::from_vocab_file(file.path(), Default::default())
        .expect("the vocabulary has what BERT needs")
}
