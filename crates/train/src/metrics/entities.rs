//! Entities in tag sequences, found and counted as `seqeval` does.

use std::collections::{BTreeMap, BTreeSet};

use super::classification::{Prf, average};
use super::same_count;
use crate::TrainError;

/// What counts as an entity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// As the CoNLL script: an `I-` without a beginning begins an entity (seqeval's default). Tags of IOB,
    /// IOBES and BILOU-like schemes (`B I E S`) are understood.
    #[default]
    Lenient,
    /// Only `B-X`, and `I-X` after it, make an entity (seqeval's `mode="strict", scheme=IOB2`).
    StrictIob2,
}

/// A stretch of tokens `start..=end` of one type.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Entity {
    /// The type, such as `PER`.
    pub kind: String,
    /// The first token.
    pub start: usize,
    /// The last token.
    pub end: usize,
}

/// The entities of one sentence's tags.
pub fn entities(tags: &[&str], scheme: Scheme) -> Vec<Entity> {
    let mut found: Vec<Entity> = Vec::new();
    let (mut prefix, mut kind, mut start) = ('O', "", None::<usize>);
    let end_of_sentence = std::iter::once("O");
    for (i, tag) in tags.iter().copied().chain(end_of_sentence).enumerate() {
        let (next, next_kind) = split(tag);
        let (ends, begins) = match scheme {
            Scheme::Lenient => (
                lenient_end(prefix, next, kind != next_kind),
                lenient_start(prefix, next, kind != next_kind),
            ),
            Scheme::StrictIob2 => {
                let goes_on = next == 'I' && start.is_some() && kind == next_kind;
                (start.is_some() && !goes_on, next == 'B')
            }
        };
        if ends && let Some(start) = start.take() {
            found.push(Entity {
                kind: kind.to_owned(),
                start,
                end: i - 1,
            });
        }
        if begins {
            start = Some(i);
        }
        (prefix, kind) = (next, next_kind);
    }
    found
}

/// A tag's prefix and type: `B-PER` is `B`, `PER`. Without a type it is `_`.
fn split(tag: &str) -> (char, &str) {
    let mut chars = tag.chars();
    let prefix = chars.next().unwrap_or('O');
    let rest = chars.as_str();
    let kind = rest.split_once('-').map_or(rest, |(_, kind)| kind);
    (prefix, if kind.is_empty() { "_" } else { kind })
}

fn lenient_end(prefix: char, next: char, other_kind: bool) -> bool {
    match prefix {
        'E' | 'S' => true,
        'B' | 'I' if matches!(next, 'B' | 'S' | 'O') => true,
        'O' | '.' => false,
        _ => other_kind,
    }
}

fn lenient_start(prefix: char, next: char, other_kind: bool) -> bool {
    match next {
        'B' | 'S' => true,
        'E' | 'I' if matches!(prefix, 'E' | 'S' | 'O') => true,
        'O' | '.' => false,
        _ => other_kind,
    }
}

/// How well entities were found, over all sentences.
#[derive(Clone, Debug, PartialEq)]
pub struct EntityScores {
    /// All entities together: the F1 that is reported.
    pub micro: Prf,
    /// The mean over the types that occur.
    pub macro_average: Prf,
    /// The mean over the types, weighted by how often they are gold.
    pub weighted: Prf,
    /// Each type that occurs, in gold or predicted.
    pub kinds: BTreeMap<String, Prf>,
    /// The part of tokens whose tag is right, `O` included.
    pub accuracy: f64,
}

/// Compares the tags of sentences.
///
/// # Errors
/// [`TrainError::Count`] when there are not as many predicted sentences as gold ones,
/// [`TrainError::Example`] when a sentence has another number of predicted tags than gold ones.
pub fn entity_scores(
    gold: &[Vec<&str>],
    predicted: &[Vec<&str>],
    scheme: Scheme,
) -> Result<EntityScores, TrainError> {
    same_count("predicted sentences", predicted.len(), gold.len())?;
    // Per type: right, predicted, gold.
    let mut counts: BTreeMap<String, [u64; 3]> = BTreeMap::new();
    let (mut right_tags, mut tags) = (0, 0);
    for (example, (gold, predicted)) in gold.iter().zip(predicted).enumerate() {
        if gold.len() != predicted.len() {
            return Err(TrainError::Example {
                example,
                found: format!("{} predicted tags", predicted.len()),
                expected: gold.len().to_string(),
            });
        }
        tags += gold.len() as u64;
        right_tags += gold.iter().zip(predicted).filter(|(a, b)| a == b).count() as u64;
        let gold: BTreeSet<Entity> = entities(gold, scheme).into_iter().collect();
        let predicted: BTreeSet<Entity> = entities(predicted, scheme).into_iter().collect();
        let mut add = |entity: &Entity, which: usize| {
            counts.entry(entity.kind.clone()).or_default()[which] += 1;
        };
        gold.intersection(&predicted)
            .for_each(|entity| add(entity, 0));
        predicted.iter().for_each(|entity| add(entity, 1));
        gold.iter().for_each(|entity| add(entity, 2));
    }
    let sum = |i: usize| counts.values().map(|counts| counts[i]).sum();
    let kinds: BTreeMap<String, Prf> = counts
        .iter()
        .map(|(kind, &[right, predicted, gold])| {
            (kind.clone(), Prf::from_counts(right, predicted, gold))
        })
        .collect();
    let weights: Vec<f64> = kinds.values().map(|prf| prf.support as f64).collect();
    Ok(EntityScores {
        micro: Prf::from_counts(sum(0), sum(1), sum(2)),
        macro_average: average(kinds.values().copied(), &vec![1.0; kinds.len()]),
        weighted: average(kinds.values().copied(), &weights),
        kinds,
        accuracy: super::classification::ratio(right_tags, tags),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(tags: &str, scheme: Scheme) -> Vec<(String, usize, usize)> {
        let tags: Vec<&str> = tags.split(' ').collect();
        let entities = entities(&tags, scheme).into_iter();
        entities
            .map(|entity| (entity.kind, entity.start, entity.end))
            .collect()
    }

    #[test]
    fn as_seqeval_finds_them() {
        type Spans = &'static [(&'static str, usize, usize)];
        let table: [(&str, Spans, Spans); 6] = [
            ("O I-PER I-PER O", &[("PER", 1, 2)], &[]),
            (
                "B-PER I-LOC O",
                &[("PER", 0, 0), ("LOC", 1, 1)],
                &[("PER", 0, 0)],
            ),
            (
                "B-PER B-PER I-PER",
                &[("PER", 0, 0), ("PER", 1, 2)],
                &[("PER", 0, 0), ("PER", 1, 2)],
            ),
            (
                "B-PER O I-PER",
                &[("PER", 0, 0), ("PER", 2, 2)],
                &[("PER", 0, 0)],
            ),
            (
                "B-PER I-PER I-LOC I-LOC",
                &[("PER", 0, 1), ("LOC", 2, 3)],
                &[("PER", 0, 1)],
            ),
            (
                "I-PER B-PER",
                &[("PER", 0, 0), ("PER", 1, 1)],
                &[("PER", 1, 1)],
            ),
        ];
        let own = |spans: Spans| {
            let spans = spans
                .iter()
                .map(|&(kind, start, end)| (kind.to_owned(), start, end));
            spans.collect::<Vec<_>>()
        };
        for (tags, lenient, strict) in table {
            assert_eq!(found(tags, Scheme::Lenient), own(lenient), "{tags}");
            assert_eq!(found(tags, Scheme::StrictIob2), own(strict), "{tags}");
        }
    }

    #[test]
    fn any_tag_is_taken() {
        assert_eq!(found("S-A E-A B I é-X", Scheme::Lenient).len(), 4);
        assert!(entities(&[], Scheme::Lenient).is_empty());
        assert!(entities(&["", "O"], Scheme::StrictIob2).is_empty());
    }

    #[test]
    fn sentences_of_another_length_are_named() {
        let error = entity_scores(&[vec!["O"]], &[vec![]], Scheme::Lenient).unwrap_err();
        assert!(error.to_string().contains("example 0"), "{error}");
        assert!(entity_scores(&[], &[vec![]], Scheme::Lenient).is_err());
    }
}
