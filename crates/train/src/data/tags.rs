//! Token classification: tagged words as tokens with labels.

use bertha_tokenizer::{EncodeOptions, OffsetKind, Tokenizer, Truncation};

use super::examples::{Examples, ExamplesBuilder, IGNORED, Labels, mark, vector};
use super::texts::tokenize;
use super::{LabelMap, TaggedSentence};
use crate::TrainError;

/// Which tokens of a tagged word get a label; the others get [`IGNORED`].
///
/// The data's words are not the tokenizer's: "O'Neil" is one word of CoNLL and three (`O`, `'`, `Neil`)
/// of BERT's tokenizer, each of which a tagger later labels for itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Alignment {
    /// The first token of each of the tokenizer's words: what a tagger reads. Within a word of the data,
    /// `B-X` goes on as `I-X`.
    #[default]
    TokenizerWords,
    /// The first token of each of the data's words only, as `transformers`' `run_ner` does.
    DataWords,
    /// Every token; within a word of the data, `B-X` goes on as `I-X`.
    AllTokens,
}

/// How tagged sentences become examples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TagOptions {
    /// The longest example, special tokens included; a longer sentence makes several, without overlap.
    pub max_length: usize,
    /// Which tokens are labelled.
    pub alignment: Alignment,
}

impl TagOptions {
    /// Examples of up to `max_length` tokens, aligned in the default way.
    pub fn new(max_length: usize) -> Self {
        Self {
            max_length,
            alignment: Alignment::default(),
        }
    }
}

/// What [`tag_examples`] gives.
#[derive(Clone, Debug)]
pub struct TagExamples {
    /// The examples; [`mark::WORD_START`] marks the tokens at which the data's words are to be judged.
    pub examples: Examples,
    /// Words of which the tokenizer left nothing (control characters), which no example has.
    pub lost_words: usize,
}

/// The tags that occur, with `I-X` for every `B-X`, sorted.
///
/// # Errors
/// [`TrainError::Labels`] when there is none.
pub fn tag_map(sentences: &[TaggedSentence]) -> Result<LabelMap, TrainError> {
    let mut tags = std::collections::BTreeSet::new();
    for tag in sentences.iter().flat_map(|sentence| &sentence.tags) {
        if !tags.contains(tag) {
            tags.extend([tag.clone(), inside(tag)]);
        }
    }
    LabelMap::discover(tags.iter().map(String::as_str))
}

/// The tag of what goes on with a word: `I-X` after `B-X`.
fn inside(tag: &str) -> String {
    match tag.strip_prefix("B-") {
        Some(kind) => format!("I-{kind}"),
        None => tag.to_owned(),
    }
}

/// Tokenizes sentences, their words with blanks between them.
///
/// # Errors
/// [`TrainError::Example`] when a sentence has not one tag a word, [`TrainError::UnknownLabel`] when the
/// map lacks a tag, [`TrainError::Tokenize`] when a sentence cannot be tokenized.
pub fn tag_examples(
    tokenizer: &Tokenizer,
    sentences: &[TaggedSentence],
    map: &LabelMap,
    options: TagOptions,
) -> Result<TagExamples, TrainError> {
    let encode_options = EncodeOptions::default()
        .offsets(OffsetKind::Bytes)
        .truncation(Some(Truncation::new(options.max_length)));
    let mut builder = ExamplesBuilder::default();
    let mut labels: Vec<i32> = Vec::new();
    let mut word_starts: Vec<usize> = Vec::new();
    let mut lost_words = 0;
    tokenize(
        sentences,
        |_, sentence| tokenizer.encode(&sentence.words.join(" "), &encode_options),
        |example, sentence, mut encoding| {
            let tags = numbers(example, sentence, map, options.alignment)?;
            let ends = word_ends(&sentence.words);
            let (mut seen, mut word_before) = (0, None);
            let mut given_before = None;
            let windows = encoding.take_overflowing();
            for window in std::iter::once(&encoding).chain(&windows) {
                let first_token = builder.tokens();
                word_before = builder.encoding(window, example, word_before);
                for i in 0..window.len() {
                    if window.special_tokens_mask()[i] {
                        labels.push(IGNORED);
                        continue;
                    }
                    // The first word that does not end before the token.
                    let start = window.offsets()[i].0 as usize;
                    let given = ends
                        .partition_point(|&end| end <= start)
                        .min(tags.len() - 1);
                    let starts = given_before != Some(given);
                    given_before = Some(given);
                    let (tag, goes_on) = tags[given];
                    if starts {
                        seen += 1;
                        word_starts.push(first_token + i);
                    }
                    let continues = builder.marks()[first_token + i] & mark::CONTINUES != 0;
                    labels.push(match options.alignment {
                        _ if starts => tag,
                        Alignment::DataWords => IGNORED,
                        Alignment::TokenizerWords if continues => IGNORED,
                        Alignment::TokenizerWords | Alignment::AllTokens => goes_on,
                    });
                }
            }
            lost_words += sentence.words.len() - seen;
            Ok(())
        },
    )?;
    for token in word_starts {
        builder.add_mark(token, mark::WORD_START);
    }
    if lost_words > 0 {
        tracing::warn!("the tokenizer left nothing of {lost_words} words: they are not trained");
    }
    Ok(TagExamples {
        examples: builder.finish(Labels::Tokens(vector(labels)?))?,
        lost_words,
    })
}

/// For each word the number of its tag, and of the tag of what goes on with it.
fn numbers(
    example: usize,
    sentence: &TaggedSentence,
    map: &LabelMap,
    alignment: Alignment,
) -> Result<Vec<(i32, i32)>, TrainError> {
    if sentence.words.len() != sentence.tags.len() || sentence.words.is_empty() {
        return Err(TrainError::Example {
            example,
            found: format!(
                "{} words, {} tags",
                sentence.words.len(),
                sentence.tags.len()
            ),
            expected: "a tag for every word, and at least one word".into(),
        });
    }
    let number = |tag: &String| {
        let number = map.number_of(example, tag)? as i32;
        let goes_on = match alignment {
            Alignment::DataWords => IGNORED,
            _ => map.number_of(example, &inside(tag))? as i32,
        };
        Ok((number, goes_on))
    };
    sentence.tags.iter().map(number).collect()
}

/// Where words end, in bytes, when blanks are put between them.
fn word_ends(words: &[String]) -> Vec<usize> {
    let mut end = 0;
    let mut ends = Vec::with_capacity(words.len());
    for word in words {
        end += word.len();
        ends.push(end);
        end += 1;
    }
    ends
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::test_tokenizer;

    fn sentence(words: &[&str], tags: &[&str]) -> TaggedSentence {
        TaggedSentence {
            words: words.iter().map(|&word| word.to_owned()).collect(),
            tags: tags.iter().map(|&tag| tag.to_owned()).collect(),
        }
    }

    fn labels(alignment: Alignment, max_length: usize) -> Vec<Vec<i32>> {
        // o ' ne ##il / sat / dog ##s
        let sentences = [sentence(
            &["O'Neil", "sat", "dogs"],
            &["B-PER", "O", "B-PER"],
        )];
        let map = tag_map(&sentences).unwrap();
        assert_eq!(map.labels(), ["B-PER", "I-PER", "O"]);
        let options = TagOptions {
            max_length,
            alignment,
        };
        let tagged = tag_examples(&test_tokenizer(), &sentences, &map, options).unwrap();
        assert_eq!(tagged.lost_words, 0);
        let examples = &tagged.examples;
        let starts = (0..examples.len()).flat_map(|i| examples.marks(i).to_vec());
        assert_eq!(
            starts.filter(|marks| marks & mark::WORD_START != 0).count(),
            3
        );
        let all = (0..examples.len()).map(|i| examples.token_labels(i).unwrap().to_vec());
        all.collect()
    }

    #[test]
    fn three_ways_to_label() {
        let n = IGNORED;
        assert_eq!(
            labels(Alignment::TokenizerWords, 16),
            [[n, 0, 1, 1, n, 2, 0, n, n]]
        );
        assert_eq!(
            labels(Alignment::DataWords, 16),
            [[n, 0, n, n, n, 2, 0, n, n]]
        );
        assert_eq!(
            labels(Alignment::AllTokens, 16),
            [[n, 0, 1, 1, 1, 2, 0, 1, n]]
        );
    }

    #[test]
    fn long_sentences_lose_nothing() {
        let n = IGNORED;
        // Windows of three tokens: o ' ne | ##il sat dog | ##s
        assert_eq!(
            labels(Alignment::TokenizerWords, 5),
            [vec![n, 0, 1, 1, n], vec![n, n, 2, 0, n], vec![n, n, n]]
        );
    }

    #[test]
    fn words_that_vanish_are_counted() {
        let sentences = [sentence(&["the", "\u{200e}", "cat"], &["O", "B-X", "B-X"])];
        let map = tag_map(&sentences).unwrap();
        let tagged =
            tag_examples(&test_tokenizer(), &sentences, &map, TagOptions::new(16)).unwrap();
        assert_eq!(tagged.lost_words, 1);
        assert_eq!(
            tagged.examples.token_labels(0).unwrap(),
            [IGNORED, 2, 0, IGNORED]
        );
    }

    #[test]
    fn tags_that_do_not_fit_are_named() {
        let map = LabelMap::discover(["O"]).unwrap();
        let error = |sentence| {
            let tokenizer = test_tokenizer();
            let result = tag_examples(&tokenizer, &[sentence], &map, TagOptions::new(16));
            result.unwrap_err().to_string()
        };
        let text = error(sentence(&["the"], &["B-X"]));
        assert!(text.contains("B-X"), "{text}");
        let text = error(sentence(&["the", "cat"], &["O"]));
        assert!(text.contains("2 words, 1 tags"), "{text}");
    }
}
