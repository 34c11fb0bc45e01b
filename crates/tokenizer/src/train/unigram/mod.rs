//! Unigram: from many pieces to those that describe the corpus best, by expectation and maximization.
//!
//! Kudo, "Subword Regularization" (2018), <https://arxiv.org/abs/1804.10959>, as SentencePiece and `tokenizers` do it:
//! frequent substrings are the first pieces ([`seeds`]); then in turn the pieces' probabilities are estimated
//! (`sub_iterations` times, in the variational form of Liang and Klein's "Structured Bayesian Nonparametric Models with
//! Variational Inference", whose digamma lets rare pieces die) and a quarter of the pieces is dropped, those without
//! which the corpus is least less probable. In two points it differs: a substring counts as often as it occurs, not once
//! for each distinct word; and the last step down to the size asked for drops by the same loss, too.
//!
//! Sums of floating-point numbers are taken over fixed parts of the corpus and in fixed order, so that the result does
//! not depend on the number of threads.

mod corpus;
mod lattice;
mod pieces;
mod seeds;

use std::collections::BTreeSet;

use super::counts::WordCounts;
use super::error::TrainError;
use super::merges::Alphabet;
use super::parallel;
use corpus::Corpus;
use lattice::{Model, Scratch};
use pieces::{NO_PIECE, Pieces};

/// Parts of the corpus, whatever the number of threads: more threads than this are of no use.
const PARTS: usize = 16;
/// Pieces that are expected more rarely go.
const LEAST_EXPECTED: f64 = 0.5;
/// Between the scores of characters that lost their piece.
const SCORE_STEP: f64 = 1e-4;

/// What is to be learned.
pub(super) struct Options<'a> {
    /// Pieces to have in all, beside the special tokens.
    pub(super) pieces: usize,
    /// What the caller asked for, and special tokens, for the error.
    pub(super) vocab_size: usize,
    pub(super) special: usize,
    /// Characters to keep, at most.
    pub(super) limit_alphabet: Option<usize>,
    /// Characters to have whether or not they are seen.
    pub(super) initial_alphabet: &'a BTreeSet<char>,
    /// Characters of the longest piece.
    pub(super) longest: usize,
    /// Share of the pieces that stays in each round.
    pub(super) shrinking_factor: f64,
    /// Estimations in each round.
    pub(super) sub_iterations: usize,
    /// Pieces to begin with, at most.
    pub(super) seeds: usize,
}

/// What was learned.
pub(super) struct Learned {
    /// Pieces with natural logarithms of their probabilities, by falling probability, then by code points.
    pub(super) pieces: Vec<(String, f64)>,
    /// The characters.
    pub(super) alphabet: Alphabet,
}

/// Learns pieces. `progress` gets the round and an estimate of the rounds there will be.
pub(super) fn learn(
    words: &WordCounts,
    options: &Options<'_>,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Learned, TrainError> {
    let alphabet = Alphabet::of(words, options.initial_alphabet, options.limit_alphabet)?;
    if alphabet.kept.len() > options.pieces {
        return Err(TrainError::VocabularyTooSmall {
            vocab_size: options.vocab_size,
            special: options.special,
            alphabet: alphabet.kept.len(),
        });
    }
    let corpus = Corpus::new(words, alphabet.kept.clone());
    let limit = u64::from(u32::MAX);
    if corpus.chars().len() as u64 >= limit {
        return Err(TrainError::TooManySymbols {
            symbols: corpus.chars().len() as u64,
            limit,
        });
    }
    let mut pieces = seeds::seeds(&corpus, options.longest, options.seeds);
    // A little more than asked for, so that the last choice is one.
    let enough = options.pieces.saturating_mul(11) / 10;
    let rounds = |len: usize| {
        let ratio = (enough.max(1) as f64 / len.max(1) as f64).min(1.0);
        (ratio.ln() / options.shrinking_factor.ln()).ceil() as usize + 1
    };
    for round in 0.. {
        progress(round, round + rounds(pieces.len()));
        for _ in 0..options.sub_iterations {
            pieces = estimate(&corpus, &pieces);
        }
        if pieces.len() <= enough {
            break;
        }
        let smaller = (pieces.len() as f64 * options.shrinking_factor) as usize;
        let kept = prune(&corpus, &pieces, enough.max(smaller));
        if kept.len() == pieces.len() {
            break;
        }
        pieces = kept;
    }
    let pieces = complete(&corpus, &pieces, options.pieces);
    Ok(Learned { pieces, alphabet })
}

/// New scores by how often each piece is expected under the old ones; pieces that are hardly expected go.
fn estimate(corpus: &Corpus, pieces: &Pieces) -> Pieces {
    let model = Model::new(pieces, corpus.alphabet.len());
    let parts = parallel::map(corpus.ranges(PARTS), |(start, end)| {
        let mut expected = vec![0.0; pieces.len()];
        let mut scratch = Scratch::default();
        for at in start..end {
            let (from, to, count) = corpus.word(at);
            let word = &corpus.chars()[from..to];
            model.expect(word, count as f64, &mut expected, &mut scratch);
        }
        expected
    });
    let mut parts = parts.into_iter();
    let mut expected = parts.next().unwrap_or_default();
    for part in parts {
        for (sum, more) in expected.iter_mut().zip(part) {
            *sum += more;
        }
    }
    let frequent = |count: &f64| *count >= LEAST_EXPECTED;
    let total = digamma(expected.iter().copied().filter(frequent).sum());
    pieces.filtered(|at| {
        let count = expected.get(at).filter(|count| frequent(count));
        count.map(|count| digamma(*count) - total)
    })
}

/// The `keep` pieces whose loss would cost most, and all characters.
///
/// The loss of a piece is estimated as if all its occurrences in the best segmentations were replaced by the best
/// segmentation of the piece itself without it.
fn prune(corpus: &Corpus, pieces: &Pieces, keep: usize) -> Pieces {
    let model = Model::new(pieces, corpus.alphabet.len());
    let mut frequency = vec![0u64; pieces.len()];
    let (mut unknown, mut sentences) = (0u64, 0u64);
    let parts = parallel::map(corpus.ranges(PARTS), |(start, end)| {
        let mut frequency = vec![0u64; pieces.len()];
        let (mut unknown, mut sentences) = (0, 0);
        let mut scratch = Scratch::default();
        for at in start..end {
            let (from, to, count) = corpus.word(at);
            let word = &corpus.chars()[from..to];
            sentences += count;
            model.best(word, NO_PIECE, &mut scratch, |piece| {
                *frequency.get_mut(piece as usize).unwrap_or(&mut unknown) += count;
            });
        }
        (frequency, unknown, sentences)
    });
    for (part, more_unknown, more_sentences) in parts {
        for (sum, more) in frequency.iter_mut().zip(part) {
            *sum += more;
        }
        unknown += more_unknown;
        sentences += more_sentences;
    }
    let total = frequency.iter().sum::<u64>() as f64 + unknown as f64;
    let of = |piece: u32| *frequency.get(piece as usize).unwrap_or(&unknown) as f64;
    let share = pieces.len().div_ceil(PARTS).max(1);
    let ranges: Vec<usize> = (0..pieces.len()).step_by(share).collect();
    let parts = parallel::map(ranges, |start| {
        let mut ranked: Vec<(f64, usize)> = Vec::new();
        let (mut scratch, mut others) = (Scratch::default(), Vec::new());
        for (at, &count) in frequency.iter().enumerate().skip(start).take(share) {
            let (piece, count) = (pieces.get(at), count as f64);
            if piece.len() == 1 || count == 0.0 {
                continue;
            }
            others.clear();
            model.best(piece, at as u32, &mut scratch, |other| others.push(other));
            let without = (total + count * (others.len() - 1) as f64).ln();
            let others: f64 = others
                .iter()
                .map(|&other| (of(other) + count).ln() - without)
                .sum();
            let loss = count / sentences as f64 * (count.ln() - total.ln() - others);
            ranked.push((loss, at));
        }
        ranked
    });
    let mut ranked = parts.concat();
    let mut kept: Vec<bool> = (0..pieces.len())
        .map(|at| pieces.get(at).len() == 1)
        .collect();
    seeds::rank(&mut ranked);
    let singles = kept.iter().filter(|&&single| single).count();
    for &(_, at) in ranked.iter().take(keep.saturating_sub(singles)) {
        kept[at] = true;
    }
    pieces.filtered(|at| kept[at].then(|| pieces.scores[at]))
}

/// All characters and the best of the other pieces, `size` in all if there are so many. Characters that lost their
/// piece get a score at the lower end.
fn complete(corpus: &Corpus, pieces: &Pieces, size: usize) -> Vec<(String, f64)> {
    let mut scores = vec![None; corpus.alphabet.len()];
    for at in 0..pieces.len() {
        if let [single] = pieces.get(at) {
            scores[*single as usize] = Some(pieces.scores[at]);
        }
    }
    let lost = scores.iter().filter(|score| score.is_none()).count();
    let room = size.saturating_sub(lost);
    let chosen = match pieces.len() > room {
        true => &prune(corpus, pieces, room),
        false => pieces,
    };
    let mut all: Vec<(String, f64)> = Vec::with_capacity(size);
    for at in 0..chosen.len() {
        let piece = chosen.get(at).iter();
        let text = piece.map(|&number| corpus.alphabet[number as usize]);
        all.push((text.collect(), chosen.scores[at]));
    }
    let mut least = chosen.scores.iter().copied().fold(0.0, f64::min);
    for (&c, score) in corpus.alphabet.iter().zip(&scores) {
        if score.is_none() {
            all.push((c.to_string(), least));
            least += SCORE_STEP;
        }
    }
    all.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    all
}

/// The derivative of the logarithm of the gamma function, for x > 0: recurrence up to 7, then the asymptotic series
/// (Abramowitz and Stegun, 6.3.5 and 6.3.18).
fn digamma(x: f64) -> f64 {
    let mut x = x;
    let mut below = 0.0;
    while x < 7.0 {
        below += x.recip();
        x += 1.0;
    }
    let square = (x * x).recip();
    let series = square
        * (1.0 / 12.0
            - square
                * (1.0 / 120.0 - square * (1.0 / 252.0 - square * (1.0 / 240.0 - square / 132.0))));
    x.ln() - 0.5 / x - series - below
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digamma_at_known_places() {
        const EULER: f64 = 0.577_215_664_901_532_9;
        let harmonic = |n: u32| (1..n).map(|k| f64::from(k).recip()).sum::<f64>();
        for n in [1, 2, 3, 7, 20, 1000] {
            assert!(
                (digamma(f64::from(n)) - (harmonic(n) - EULER)).abs() < 1e-11,
                "{n}"
            );
        }
        let half = -EULER - 2.0 * std::f64::consts::LN_2;
        assert!((digamma(0.5) - half).abs() < 1e-11);
        assert!((digamma(1e9) - (1e9f64.ln() - 0.5e-9)).abs() < 1e-12);
    }

    fn options(initial: &BTreeSet<char>, pieces: usize) -> Options<'_> {
        Options {
            pieces,
            vocab_size: pieces,
            special: 0,
            limit_alphabet: None,
            initial_alphabet: initial,
            longest: 16,
            shrinking_factor: 0.75,
            sub_iterations: 2,
            seeds: 1_000_000,
        }
    }

    #[test]
    fn words_that_recur_become_pieces() {
        let words: WordCounts = [
            ("▁river", 50),
            ("▁rivers", 20),
            ("▁man", 40),
            ("▁mans", 5),
            ("▁x", 1),
        ]
        .into_iter()
        .collect();
        let initial = BTreeSet::from(['z']);
        let learned = learn(&words, &options(&initial, 20), &mut |_, _| {}).unwrap();
        let texts: Vec<&str> = learned.pieces.iter().map(|(text, _)| &**text).collect();
        for text in ["▁river", "▁man", "s", "z", "x"] {
            assert!(texts.contains(&text), "{text} is not in {texts:?}");
        }
        assert!(texts.len() <= 20);
        assert!(learned.pieces.is_sorted_by(|a, b| a.1 >= b.1));
        assert!(
            learned
                .pieces
                .iter()
                .all(|(_, score)| *score < 0.0 && score.is_finite())
        );
        let Err(error) = learn(&words, &options(&initial, 10), &mut |_, _| {}) else {
            panic!("ten pieces are not enough for twelve characters");
        };
        assert!(matches!(error, TrainError::VocabularyTooSmall { .. }));
    }
}
