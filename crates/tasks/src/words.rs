//! From tokens to words to entities: the aggregation strategies of `transformers`'
//! token-classification pipeline.

use std::str::FromStr;

use crate::TaskError;
use crate::scores::argmax;

/// How the labels of tokens become entities.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Aggregation {
    /// Every token by itself.
    #[default]
    None,
    /// Neighbouring tokens of one label together (`B-` starts a new entity), even within a word.
    Simple,
    /// As simple, after every word took the scores of its first token.
    First,
    /// As simple, after every word took the mean scores of its tokens.
    Average,
    /// As simple, after every word took the scores of its most certain token.
    Max,
}

impl FromStr for Aggregation {
    type Err = TaskError;

    fn from_str(name: &str) -> Result<Self, TaskError> {
        match name {
            "none" => Ok(Self::None),
            "simple" => Ok(Self::Simple),
            "first" => Ok(Self::First),
            "average" => Ok(Self::Average),
            "max" => Ok(Self::Max),
            _ => Err(TaskError::InvalidOption {
                option: "aggregation",
                found: format!("\"{name}\""),
                expected: "none, simple, first, average or max".into(),
            }),
        }
    }
}

/// A token of the text with the probability of each class.
pub(crate) struct Token {
    pub(crate) word: String,
    pub(crate) scores: Vec<f64>,
    /// Its place in its window, special tokens counted.
    pub(crate) index: usize,
    pub(crate) start: usize,
    pub(crate) end: usize,
    /// Whether it goes on with the word of the token before.
    pub(crate) continues: bool,
}

/// A stretch of text with one label.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Span {
    pub(crate) label: String,
    pub(crate) score: f64,
    pub(crate) index: Option<usize>,
    pub(crate) word: String,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

/// The entities of one window. `join` makes a text of tokens' texts, as the tokenizer decodes.
pub(crate) fn aggregate(
    tokens: &[Token],
    labels: &[String],
    aggregation: Aggregation,
    join: &dyn Fn(&[&str]) -> String,
) -> Vec<Span> {
    let label = |class: usize| labels.get(class).cloned().unwrap_or_default();
    match aggregation {
        Aggregation::None | Aggregation::Simple => {
            let spans = tokens.iter().map(|token| {
                let class = argmax(&token.scores);
                Span {
                    label: label(class),
                    score: token.scores[class],
                    index: Some(token.index),
                    word: token.word.clone(),
                    start: token.start,
                    end: token.end,
                }
            });
            match aggregation {
                Aggregation::None => spans.collect(),
                _ => group(&spans.collect::<Vec<_>>(), join),
            }
        }
        Aggregation::First | Aggregation::Average | Aggregation::Max => {
            // A window may begin in the middle of a word: its first token starts one all the same.
            let words = tokens.chunk_by(|_, next| next.continues).map(|word| {
                let scores = word_scores(word, aggregation);
                let class = argmax(&scores);
                let texts: Vec<&str> = word.iter().map(|token| token.word.as_str()).collect();
                Span {
                    label: label(class),
                    score: scores[class],
                    index: None,
                    word: join(&texts),
                    start: word[0].start,
                    end: word[word.len() - 1].end,
                }
            });
            group(&words.collect::<Vec<_>>(), join)
        }
    }
}

/// The scores on which the tokens of a word agree.
fn word_scores(word: &[Token], aggregation: Aggregation) -> Vec<f64> {
    let largest = |token: &Token| token.scores[argmax(&token.scores)];
    match aggregation {
        Aggregation::Average => {
            let mut means = vec![0.0; word[0].scores.len()];
            for token in word {
                for (mean, score) in means.iter_mut().zip(&token.scores) {
                    *mean += score / word.len() as f64;
                }
            }
            means
        }
        Aggregation::Max => {
            let certainty: Vec<f64> = word.iter().map(largest).collect();
            word[argmax(&certainty)].scores.clone()
        }
        _ => word[0].scores.clone(),
    }
}

/// Joins neighbours of one label; a `B-` starts anew.
fn group(spans: &[Span], join: &dyn Fn(&[&str]) -> String) -> Vec<Span> {
    let joined = spans.chunk_by(|last, next| {
        let (begins, tag) = split_label(&next.label);
        !begins && split_label(&last.label).1 == tag
    });
    joined
        .map(|spans| {
            let (first, last) = (&spans[0], &spans[spans.len() - 1]);
            let texts: Vec<&str> = spans.iter().map(|span| span.word.as_str()).collect();
            Span {
                label: first.label.rsplit('-').next().unwrap_or("").to_owned(),
                score: spans.iter().map(|span| span.score).sum::<f64>() / spans.len() as f64,
                index: None,
                word: join(&texts),
                start: first.start,
                end: last.end,
            }
        })
        .collect()
}

/// Whether a label begins an entity, and the label without `B-` or `I-`.
fn split_label(label: &str) -> (bool, &str) {
    match label.strip_prefix("B-") {
        Some(tag) => (true, tag),
        None => (false, label.strip_prefix("I-").unwrap_or(label)),
    }
}

/// Of the entities of overlapping windows those that are longest, then those of the highest score.
pub(crate) fn without_overlaps(mut spans: Vec<Span>) -> Vec<Span> {
    spans.sort_by_key(|span| span.start);
    let mut kept: Vec<Span> = Vec::with_capacity(spans.len());
    for span in spans {
        match kept.last_mut() {
            Some(last) if last.start <= span.start && span.start < last.end => {
                let (length, kept_length) = (span.end - span.start, last.end - last.start);
                let longer = length > kept_length;
                if longer || length == kept_length && span.score > last.score {
                    *last = span;
                }
            }
            _ => kept.push(span),
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels() -> Vec<String> {
        ["O", "B-PER", "I-PER"].map(str::to_owned).to_vec()
    }

    fn token(word: &str, start: usize, continues: bool, scores: [f64; 3]) -> Token {
        let plain = word.strip_prefix("##").unwrap_or(word);
        Token {
            word: word.to_owned(),
            scores: scores.to_vec(),
            index: start,
            start,
            end: start + plain.len(),
            continues,
        }
    }

    fn join(words: &[&str]) -> String {
        words.join(" ").replace(" ##", "")
    }

    /// "Ann Lee, Bo": a person, a comma, a person.
    fn people() -> Vec<Token> {
        vec![
            token("ann", 0, false, [0.1, 0.6, 0.3]),
            token("lee", 4, false, [0.1, 0.3, 0.6]),
            token(",", 7, false, [0.8, 0.1, 0.1]),
            token("b", 9, false, [0.1, 0.5, 0.4]),
            token("##o", 10, true, [0.1, 0.8, 0.1]),
        ]
    }

    fn found(aggregation: Aggregation) -> Vec<(String, String, usize, usize)> {
        let spans = aggregate(&people(), &labels(), aggregation, &join);
        let parts = |span: Span| (span.label, span.word, span.start, span.end);
        spans.into_iter().map(parts).collect()
    }

    #[test]
    fn names_of_strategies() {
        for (name, aggregation) in [
            ("none", Aggregation::None),
            ("simple", Aggregation::Simple),
            ("first", Aggregation::First),
            ("average", Aggregation::Average),
            ("max", Aggregation::Max),
        ] {
            assert_eq!(name.parse::<Aggregation>().unwrap(), aggregation);
        }
        let error = "mean".parse::<Aggregation>().unwrap_err().to_string();
        assert!(
            error.contains("mean") && error.contains("average"),
            "{error}"
        );
    }

    #[test]
    fn every_token_by_itself() {
        let spans = aggregate(&people(), &labels(), Aggregation::None, &join);
        let names: Vec<_> = spans.iter().map(|span| span.label.as_str()).collect();
        assert_eq!(names, ["B-PER", "I-PER", "O", "B-PER", "B-PER"]);
        assert_eq!(spans[1].index, Some(4));
        assert_eq!(spans[1].score, 0.6);
    }

    #[test]
    fn simple_splits_words_and_the_others_do_not() {
        let expected = |last: &[(&str, usize, usize)]| {
            let mut all = vec![("PER", "ann lee", 0, 7), ("O", ",", 7, 8)];
            all.extend(
                last.iter()
                    .map(|&(word, start, end)| ("PER", word, start, end)),
            );
            let own = |(label, word, start, end): (&str, &str, usize, usize)| {
                (label.to_owned(), word.to_owned(), start, end)
            };
            all.into_iter().map(own).collect::<Vec<_>>()
        };
        assert_eq!(
            found(Aggregation::Simple),
            expected(&[("b", 9, 10), ("##o", 10, 11)])
        );
        for aggregation in [Aggregation::First, Aggregation::Average, Aggregation::Max] {
            assert_eq!(found(aggregation), expected(&[("bo", 9, 11)]));
        }
    }

    #[test]
    fn words_agree_in_three_ways() {
        let word = [
            token("x", 0, false, [0.5, 0.4, 0.1]),
            token("##y", 1, true, [0.1, 0.2, 0.7]),
            token("##z", 2, true, [0.3, 0.6, 0.1]),
        ];
        let outcome = |aggregation| {
            let spans = aggregate(&word, &labels(), aggregation, &join);
            assert_eq!(spans.len(), 1);
            (spans[0].label.clone(), spans[0].score)
        };
        assert_eq!(outcome(Aggregation::First), ("O".to_owned(), 0.5));
        assert_eq!(outcome(Aggregation::Max), ("PER".to_owned(), 0.7));
        let (label, score) = outcome(Aggregation::Average);
        assert_eq!(label, "PER");
        assert!((score - 0.4).abs() < 1e-12);
    }

    #[test]
    fn a_window_that_starts_within_a_word_starts_a_word() {
        let tokens = [token("##o", 0, true, [0.1, 0.8, 0.1])];
        let spans = aggregate(&tokens, &labels(), Aggregation::First, &join);
        assert_eq!(spans[0].word, "##o");
        assert!(aggregate(&[], &labels(), Aggregation::First, &join).is_empty());
    }

    #[test]
    fn of_overlapping_entities_the_longest_then_the_surest_stays() {
        let span = |start, end, score| Span {
            label: "PER".into(),
            score,
            index: None,
            word: String::new(),
            start,
            end,
        };
        let kept = without_overlaps(vec![
            span(0, 4, 0.5),
            span(20, 24, 0.9),
            span(2, 9, 0.1),
            span(9, 10, 0.3),
            span(20, 24, 0.95),
        ]);
        assert_eq!(
            kept,
            [span(2, 9, 0.1), span(9, 10, 0.3), span(20, 24, 0.95)]
        );
    }
}
