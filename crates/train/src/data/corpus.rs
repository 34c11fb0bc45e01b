//! Tokenized documents for pre-training: tokens without special ones, where sentences and documents end.

use std::ops::Range;

use bertha_tensor::Tensor;
use bertha_tokenizer::{EncodeOptions, Tokenizer};

use super::cache::Cacheable;
use super::examples::{mark, vector};
use super::texts::tokenize;
use crate::TrainError;

/// Documents of sentences of tokens, end to end. No sentence and no document is empty.
#[derive(Clone, Debug)]
pub struct Corpus {
    /// i32 `[T]`.
    ids: Tensor,
    /// u8 `[T]`: [`mark::CONTINUES`] or nothing.
    marks: Tensor,
    /// i64 `[sentences+1]`, in tokens.
    sentences: Tensor,
    /// i64 `[documents+1]`, in sentences.
    documents: Tensor,
}

impl Corpus {
    /// Tokenizes documents, given as lists of sentences (see [`read_documents`](super::read_documents)).
    /// Sentences of which the tokenizer leaves nothing are left out.
    ///
    /// # Errors
    /// [`TrainError::Tokenize`] naming the first document that cannot be tokenized.
    pub fn from_documents(
        tokenizer: &Tokenizer,
        documents: &[Vec<String>],
    ) -> Result<Self, TrainError> {
        let options = EncodeOptions::default().special_tokens(false);
        let (mut ids, mut marks) = (Vec::new(), Vec::new());
        let (mut sentences, mut ends) = (vec![0i64], vec![0i64]);
        tokenize(
            documents,
            |_, document| {
                let sentences = document.iter();
                sentences
                    .map(|text| tokenizer.encode(text, &options))
                    .collect::<Result<Vec<_>, _>>()
            },
            |_, _, encodings| {
                for encoding in &encodings {
                    let mut before = None;
                    for (&id, &word) in encoding.ids().iter().zip(encoding.word_ids()) {
                        ids.push(id as i32);
                        let continues = word.is_some() && word == before;
                        marks.push(if continues { mark::CONTINUES } else { 0 });
                        before = word;
                    }
                    if !encoding.is_empty() {
                        sentences.push(ids.len() as i64);
                    }
                }
                let end = sentences.len() as i64 - 1;
                if ends.last() != Some(&end) {
                    ends.push(end);
                }
                Ok(())
            },
        )?;
        let corpus = Self {
            ids: vector(ids)?,
            marks: vector(marks)?,
            sentences: vector(sentences)?,
            documents: vector(ends)?,
        };
        corpus.check()?;
        Ok(corpus)
    }

    /// Number of documents.
    pub fn documents(&self) -> usize {
        self.documents.numel() - 1
    }

    /// Number of sentences.
    pub fn sentences(&self) -> usize {
        self.sentences.numel() - 1
    }

    /// Number of tokens.
    pub fn tokens(&self) -> usize {
        self.ids.numel()
    }

    /// The sentences of a document, as a range of all.
    ///
    /// # Panics
    /// When there is no such document.
    pub fn document(&self, document: usize) -> Range<usize> {
        let ends = slice::<i64>(&self.documents);
        ends[document] as usize..ends[document + 1] as usize
    }

    /// The tokens of a sentence, as a range of all.
    ///
    /// # Panics
    /// When there is no such sentence.
    pub fn sentence(&self, sentence: usize) -> Range<usize> {
        let ends = slice::<i64>(&self.sentences);
        ends[sentence] as usize..ends[sentence + 1] as usize
    }

    /// The ids of all tokens.
    pub fn ids(&self) -> &[i32] {
        slice(&self.ids)
    }

    /// The marks of all tokens.
    pub fn marks(&self) -> &[u8] {
        slice(&self.marks)
    }

    fn check(&self) -> Result<(), TrainError> {
        let tokens = self.ids.as_slice::<i32>()?.len();
        let marks = self.marks.as_slice::<u8>()?.len();
        let rises = |ends: &[i64], to: usize| {
            ends.first() == Some(&0)
                && ends.last() == Some(&(to as i64))
                && ends.windows(2).all(|pair| pair[0] < pair[1])
        };
        let sentences = self.sentences.as_slice::<i64>()?;
        let documents = self.documents.as_slice::<i64>()?;
        if marks != tokens
            || !rises(sentences, tokens)
            || !rises(documents, sentences.len().saturating_sub(1))
        {
            return Err(TrainError::Labels(
                "the ends of sentences or documents do not rise".into(),
            ));
        }
        Ok(())
    }
}

fn slice<T: bertha_tensor::Element>(tensor: &Tensor) -> &[T] {
    tensor
        .as_slice()
        .expect("type and layout were checked when the corpus was made")
}

impl Cacheable for Corpus {
    const KIND: &'static str = "corpus";

    fn tensors(&self) -> Vec<(&'static str, Tensor)> {
        vec![
            ("ids", self.ids.clone()),
            ("marks", self.marks.clone()),
            ("sentences", self.sentences.clone()),
            ("documents", self.documents.clone()),
        ]
    }

    fn from_tensors(get: &dyn Fn(&str) -> Option<Tensor>) -> Result<Self, TrainError> {
        let need = |name: &'static str| {
            get(name).ok_or_else(|| TrainError::Labels(format!("there is no tensor `{name}`")))
        };
        let corpus = Self {
            ids: need("ids")?,
            marks: need("marks")?,
            sentences: need("sentences")?,
            documents: need("documents")?,
        };
        corpus.check()?;
        Ok(corpus)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Cache, CacheKey, Origin, test_tokenizer};

    fn documents() -> Vec<Vec<String>> {
        let own = |lines: &[&str]| lines.iter().map(|&line| line.to_owned()).collect();
        vec![
            own(&["the cat sat", "\u{200e}"]),
            own(&["\u{200e}"]),
            own(&["dogs", "on"]),
        ]
    }

    #[test]
    fn sentences_and_documents_have_tokens() {
        let corpus = Corpus::from_documents(&test_tokenizer(), &documents()).unwrap();
        assert_eq!(
            (corpus.documents(), corpus.sentences(), corpus.tokens()),
            (2, 3, 6)
        );
        assert_eq!(corpus.document(1), 1..3);
        assert_eq!(corpus.sentence(1), 3..5);
        assert_eq!(corpus.marks()[3..5], [0, mark::CONTINUES]);
    }

    #[test]
    fn a_corpus_is_the_same_from_its_cache() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::new(dir.path());
        let key = CacheKey::new();
        let make = || Corpus::from_documents(&test_tokenizer(), &documents());
        let (made, _) = cache.get_or_make(&key, make).unwrap();
        let (cached, origin) = cache
            .get_or_make::<Corpus>(&key, || panic!("cached"))
            .unwrap();
        assert_eq!(origin, Origin::Cached);
        assert_eq!(made.ids(), cached.ids());
        assert_eq!(made.document(1), cached.document(1));
    }

    #[test]
    fn nothing_is_a_corpus_too() {
        let corpus = Corpus::from_documents(&test_tokenizer(), &[]).unwrap();
        assert_eq!((corpus.documents(), corpus.tokens()), (0, 0));
    }
}
