//! Pairs of segments for pre-training: next-sentence prediction (BERT) and sentence order (ALBERT).
//!
//! As the original BERT makes them: sentences of a document are gathered up to a target length (with
//! probability 0.1 a random shorter one), A is a random part of them from their beginning, and B what
//! follows, or (NSP, half of the time) sentences from a random place of another document, whereupon what
//! followed A is used again. For sentence order, A and B are swapped half of the time.

use bertha_tokenizer::Tokenizer;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::pack::Frame;
use crate::TrainError;
use crate::data::{Corpus, Examples, ExamplesBuilder, Labels, mark};
use crate::random::{Rng, Seed, Stream};

/// What the second segment is to be told apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PairObjective {
    /// Whether B follows A (class 0) or is from elsewhere (class 1), as `BertForPreTraining` counts.
    NextSentence,
    /// Whether A and B are in order (class 0) or swapped (class 1), as `AlbertForPreTraining` counts.
    SentenceOrder,
}

/// How pairs are made.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PairOptions {
    /// The longest pair, its three special tokens included.
    pub max_length: usize,
    /// What B is to be told apart by.
    pub objective: PairObjective,
    /// The probability that a pair is made shorter than it could be; 0.1 in BERT.
    pub short: f64,
}

impl PairOptions {
    /// Pairs of up to `max_length` tokens, one in ten shorter.
    pub fn new(max_length: usize, objective: PairObjective) -> Self {
        Self {
            max_length,
            objective,
            short: 0.1,
        }
    }
}

/// A pair: tokens of A and B (id and marks), and its class.
struct Pair {
    a: Vec<(i32, u8)>,
    b: Vec<(i32, u8)>,
    class: u32,
}

/// Makes pairs of a corpus, `[CLS] A [SEP] B [SEP]` with types 0 and 1 and a class each. Every `round`
/// (BERT's "dupe factor") makes others. What a document becomes depends on seed, round and its number
/// alone. [`Examples::source`] is the number of the document of A.
///
/// # Errors
/// [`TrainError::NoToken`] when the tokenizer lacks a special token, [`TrainError::Setting`] when there
/// is no room, or next sentences are asked of fewer than two documents.
pub fn sentence_pairs(
    tokenizer: &Tokenizer,
    corpus: &Corpus,
    options: &PairOptions,
    seed: Seed,
    round: u32,
) -> Result<Examples, TrainError> {
    let frame = Frame::of(tokenizer)?;
    let refuse = |setting, found: String, expected: &str| {
        Err(TrainError::Setting {
            setting,
            found,
            expected: expected.to_owned(),
        })
    };
    if options.max_length < 5 {
        let found = options.max_length.to_string();
        return refuse(
            "the length of pairs",
            found,
            "at least 5: three special tokens and two more",
        );
    }
    if !(0.0..=1.0).contains(&options.short) {
        let found = options.short.to_string();
        return refuse("the part of short pairs", found, "a number from 0 to 1");
    }
    let documents = corpus.documents();
    if options.objective == PairObjective::NextSentence && documents < 2 {
        let found = documents.to_string();
        return refuse(
            "the number of documents",
            found,
            "at least 2, to draw other sentences from",
        );
    }
    let pairs: Vec<Vec<Pair>> = (0..documents)
        .into_par_iter()
        .map(|document| {
            let mut rng = seed.rng(Stream::Pairs, document as u64, round);
            document_pairs(corpus, document, options, &mut rng)
        })
        .collect();
    let mut builder = ExamplesBuilder::default();
    let mut classes = Vec::new();
    for (document, pairs) in pairs.into_iter().enumerate() {
        for pair in pairs {
            builder.token(frame.cls, 0, mark::SPECIAL);
            for (kind, segment) in [(0, pair.a), (1, pair.b)] {
                for (place, (id, marks)) in segment.into_iter().enumerate() {
                    let cut = if place == 0 { !mark::CONTINUES } else { !0 };
                    builder.token(id, kind, marks & cut);
                }
                builder.token(frame.sep, kind, mark::SPECIAL);
            }
            builder.end(document);
            classes.push(pair.class);
        }
    }
    builder.finish(Labels::None)?.with_classes(&classes)
}

fn document_pairs(
    corpus: &Corpus,
    document: usize,
    options: &PairOptions,
    rng: &mut Rng,
) -> Vec<Pair> {
    let room = options.max_length - 3;
    let target = |rng: &mut Rng| match rng.chance(options.short) {
        true => 2 + rng.index(room - 1),
        false => room,
    };
    let sentences = corpus.document(document);
    let mut pairs = Vec::new();
    let mut chunk: Vec<usize> = Vec::new();
    let (mut length, mut wanted) = (0, target(rng));
    let mut next = sentences.start;
    while next < sentences.end {
        chunk.push(next);
        length += corpus.sentence(next).len();
        next += 1;
        if next < sentences.end && length < wanted {
            continue;
        }
        let split = match chunk.len() {
            1 => 1,
            count => 1 + rng.index(count - 1),
        };
        let mut a = tokens(corpus, &chunk[..split]);
        let pair = match options.objective {
            PairObjective::NextSentence if chunk.len() == 1 || rng.chance(0.5) => {
                let b = elsewhere(corpus, document, wanted.saturating_sub(a.len()), rng);
                // What followed A is used again.
                next -= chunk.len() - split;
                Some((b, 1))
            }
            PairObjective::NextSentence => Some((tokens(corpus, &chunk[split..]), 0)),
            // One sentence has no order.
            PairObjective::SentenceOrder if chunk.len() == 1 => None,
            PairObjective::SentenceOrder => {
                let mut b = tokens(corpus, &chunk[split..]);
                let swapped = rng.chance(0.5);
                if swapped {
                    std::mem::swap(&mut a, &mut b);
                }
                Some((b, u32::from(swapped)))
            }
        };
        if let Some((mut b, class)) = pair {
            shorten(&mut a, &mut b, room, rng);
            pairs.push(Pair { a, b, class });
        }
        chunk.clear();
        (length, wanted) = (0, target(rng));
    }
    pairs
}

/// Sentences from a random place of another document, until they have `wanted` tokens.
fn elsewhere(corpus: &Corpus, document: usize, wanted: usize, rng: &mut Rng) -> Vec<(i32, u8)> {
    // One of the others, each equally likely.
    let drawn = rng.index(corpus.documents() - 1);
    let sentences = corpus.document(drawn + usize::from(drawn >= document));
    let start = sentences.start + rng.index(sentences.len());
    let mut found = Vec::new();
    for sentence in start..sentences.end {
        found.extend(tokens(corpus, &[sentence]));
        if found.len() >= wanted {
            break;
        }
    }
    found
}

fn tokens(corpus: &Corpus, sentences: &[usize]) -> Vec<(i32, u8)> {
    let ranges = sentences.iter().map(|&sentence| corpus.sentence(sentence));
    ranges
        .flatten()
        .map(|i| (corpus.ids()[i], corpus.marks()[i]))
        .collect()
}

/// Takes tokens from the longer segment, at its front or its end, until both have room.
fn shorten(a: &mut Vec<(i32, u8)>, b: &mut Vec<(i32, u8)>, room: usize, rng: &mut Rng) {
    let (mut a_cut, mut b_cut) = (0..a.len(), 0..b.len());
    while a_cut.len() + b_cut.len() > room {
        let longer = match a_cut.len() > b_cut.len() {
            true => &mut a_cut,
            false => &mut b_cut,
        };
        match rng.chance(0.5) {
            true => longer.start += 1,
            false => longer.end -= 1,
        }
    }
    *a = a[a_cut].to_vec();
    *b = b[b_cut].to_vec();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::test_tokenizer;

    /// Document `d` has sentences of one letter each; `a` to `h` are ids 20 to 27.
    fn corpus(documents: usize, sentences: usize) -> Corpus {
        let letters = ["a", "b", "c", "d", "e", "f", "g", "h"];
        let document = |d: usize| {
            (0..sentences)
                .map(|s| vec![letters[d % 8]; 1 + s % 4].join(" "))
                .collect()
        };
        let documents: Vec<Vec<String>> = (0..documents).map(document).collect();
        Corpus::from_documents(&test_tokenizer(), &documents).unwrap()
    }

    fn pairs(corpus: &Corpus, objective: PairObjective, round: u32) -> Examples {
        let options = PairOptions::new(16, objective);
        sentence_pairs(&test_tokenizer(), corpus, &options, Seed::new(3), round).unwrap()
    }

    /// Ids of A and of B.
    fn segments(examples: &Examples, i: usize) -> (Vec<i32>, Vec<i32>) {
        let ids = examples.ids(i);
        let first = ids.iter().position(|&id| id == 3).unwrap();
        assert_eq!((ids[0], ids[ids.len() - 1]), (2, 3));
        let types = examples.types(i);
        assert!(types[..=first].iter().all(|&kind| kind == 0));
        assert!(types[first + 1..].iter().all(|&kind| kind == 1));
        (
            ids[1..first].to_vec(),
            ids[first + 1..ids.len() - 1].to_vec(),
        )
    }

    #[test]
    fn next_sentences_are_next_half_of_the_time() {
        let corpus = corpus(8, 200);
        let (mut random, mut total) = (0.0, 0.0);
        for round in 0..8 {
            let examples = pairs(&corpus, PairObjective::NextSentence, round);
            for i in 0..examples.len() {
                let (a, b) = segments(&examples, i);
                assert!(!a.is_empty() && !b.is_empty());
                assert!(a.len() + b.len() <= 13);
                let own = 20 + (examples.source(i) % 8) as i32;
                assert!(a.iter().all(|&id| id == own));
                // Each document has a letter of its own.
                assert_eq!(b[0] == own, examples.class(i) == Some(0));
                random += f64::from(examples.class(i).unwrap());
                total += 1.0;
            }
        }
        // A single sentence always gets a random one: a little more than half.
        let sigma = (total * 0.25f64).sqrt();
        assert!(
            random > total * 0.5 - 3.0 * sigma && random < total * 0.62,
            "{random}/{total}"
        );
    }

    #[test]
    fn sentence_order_is_swapped_half_of_the_time() {
        // One document, whose sentences grow: "a", "b b", …
        let lines: Vec<String> = (0..400)
            .map(|i| ["a", "b", "c", "d", "e", "f", "g", "h"][i % 8].to_owned())
            .collect();
        let corpus = Corpus::from_documents(&test_tokenizer(), &[lines]).unwrap();
        let (mut swapped, mut total) = (0.0, 0.0);
        for round in 0..20 {
            let examples = pairs(&corpus, PairObjective::SentenceOrder, round);
            for i in 0..examples.len() {
                let (a, b) = segments(&examples, i);
                let (first, second) = match examples.class(i) {
                    Some(0) => (a, b),
                    _ => (b, a),
                };
                let after = |id: i32| 20 + (id - 20 + 1) % 8;
                assert_eq!(second[0], after(first[first.len() - 1]));
                swapped += f64::from(examples.class(i).unwrap());
                total += 1.0;
            }
        }
        let sigma = (total * 0.25f64).sqrt();
        assert!(
            (swapped - total / 2.0).abs() < 3.0 * sigma,
            "{swapped}/{total}"
        );
    }

    #[test]
    fn pairs_repeat_on_any_threads() {
        let corpus = corpus(6, 30);
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            let examples = pool.install(|| pairs(&corpus, PairObjective::NextSentence, 0));
            (0..examples.len())
                .map(|i| examples.ids(i).to_vec())
                .collect::<Vec<_>>()
        };
        assert_eq!(run(1), run(3));
        let other = pairs(&corpus, PairObjective::NextSentence, 1);
        assert_ne!(run(1)[0], other.ids(0));
    }

    #[test]
    fn what_makes_no_pairs_is_refused() {
        let one = corpus(1, 3);
        let tokenizer = test_tokenizer();
        let next = PairOptions::new(16, PairObjective::NextSentence);
        assert!(sentence_pairs(&tokenizer, &one, &next, Seed::new(0), 0).is_err());
        let tight = PairOptions::new(4, PairObjective::SentenceOrder);
        assert!(sentence_pairs(&tokenizer, &one, &tight, Seed::new(0), 0).is_err());
        let short = PairOptions::new(5, PairObjective::SentenceOrder);
        let examples = sentence_pairs(&tokenizer, &one, &short, Seed::new(0), 0).unwrap();
        assert!(examples.lengths().iter().all(|&length| length == 5));
    }
}
