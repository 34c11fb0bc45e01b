//! The pieces to begin with: every frequent substring.
//!
//! All places of all words are sorted by the text that follows, up to the longest piece or the word's end. Substrings
//! that are followed by different text at different places are then the intervals between drops of the common prefix
//! (Abouelhoda, Kurtz and Ohlebusch, "Replacing suffix trees with enhanced suffix arrays", 2004). Others always stand
//! within such a one and are no better; of what stands at one place of the distinct words, only whole words are taken.

use std::cmp::{Ordering, Reverse};

use super::super::parallel;
use super::corpus::Corpus;
use super::pieces::Pieces;

/// A place in the corpus.
#[derive(Clone, Copy)]
struct Place {
    start: u32,
    /// Characters to the word's end, or to the length of the longest piece.
    length: u32,
    word: u32,
}

/// A substring, where it stands, and its score: how much of the corpus it covers.
struct Candidate {
    score: u64,
    start: u32,
    length: u32,
}

/// All characters, and the substrings of two to `longest` characters that cover most of the corpus, counted as often as
/// they occur (at least twice), `most` pieces in all. Of substrings that cover the same, the first in lexicographic
/// order come first. Scores are logarithms of shares.
pub(super) fn seeds(corpus: &Corpus, longest: usize, most: usize) -> Pieces {
    let chars = corpus.chars();
    let mut singles = vec![0u64; corpus.alphabet.len()];
    let mut places = Vec::with_capacity(chars.len());
    for word in 0..corpus.len() {
        let (start, end, count) = corpus.word(word);
        for at in start..end {
            singles[chars[at] as usize] += count;
            places.push(Place {
                start: at as u32,
                length: (end - at).min(longest) as u32,
                word: word as u32,
            });
        }
    }
    let text = |start: u32, length: u32| &chars[start as usize..(start + length) as usize];
    parallel::sort_by(&mut places, |a, b| {
        let texts = text(a.start, a.length).cmp(text(b.start, b.length));
        texts.then(a.start.cmp(&b.start))
    });
    let mut candidates = candidates(corpus, &places);
    let better = |a: &Candidate, b: &Candidate| -> Ordering {
        let texts = || text(a.start, a.length).cmp(text(b.start, b.length));
        b.score.cmp(&a.score).then_with(texts)
    };
    parallel::sort_by(&mut candidates, better);
    let used = singles.iter().filter(|&&count| count > 0).count();
    candidates.truncate(most.saturating_sub(used));
    parallel::sort_by(&mut candidates, |a, b| {
        text(a.start, a.length).cmp(text(b.start, b.length))
    });

    // A character comes before what begins with it.
    let total: f64 = singles.iter().map(|&count| count as f64).sum::<f64>()
        + candidates.iter().map(|of| of.score as f64).sum::<f64>();
    let score = |count: u64| (count as f64).ln() - total.ln();
    let mut pieces = Pieces::default();
    let mut rest = &candidates[..];
    for (number, count) in (0..).zip(singles) {
        if count > 0 {
            pieces.push(&[number], score(count));
        }
        let begins = |of: &Candidate| chars[of.start as usize] == number;
        let (these, others) = rest.split_at(rest.partition_point(|of| begins(of)));
        rest = others;
        for of in these {
            pieces.push(text(of.start, of.length), score(of.score));
        }
    }
    pieces
}

/// The substrings of at least two characters that occur at least twice.
fn candidates(corpus: &Corpus, places: &[Place]) -> Vec<Candidate> {
    let chars = corpus.chars();
    let common = |a: &Place, b: &Place| {
        let most = a.length.min(b.length);
        let (a, b) = (a.start as usize, b.start as usize);
        (0..most)
            .find(|&i| chars[a + i as usize] != chars[b + i as usize])
            .unwrap_or(most)
    };
    let count = |place: &Place| corpus.word(place.word as usize).2;
    let mut found = Vec::new();
    // Open intervals: (length of what all places share, count of the places before the first).
    let mut open: Vec<(u32, u64)> = vec![(0, 0)];
    let mut before = 0u64;
    let mut shared = 0;
    for (i, place) in places.iter().enumerate() {
        let next = places.get(i + 1).map_or(0, |next| common(place, next));
        let (start, end, times) = corpus.word(place.word as usize);
        let whole = place.start as usize == start && place.length as usize == end - start;
        if whole && place.length > shared.max(next) && place.length > 1 && times > 1 {
            // A word that nothing else begins with.
            found.push(Candidate {
                score: times.saturating_mul(u64::from(place.length)),
                start: place.start,
                length: place.length,
            });
        }
        let mut first = before;
        before = before.saturating_add(count(place));
        while let Some(&(length, from)) = open.last()
            && length > next
        {
            open.pop();
            first = from;
            if length > 1 {
                found.push(Candidate {
                    score: (before - from).saturating_mul(u64::from(length)),
                    start: place.start,
                    length,
                });
            }
        }
        if open.last().is_none_or(|last| last.0 < next) {
            open.push((next, first));
        }
        shared = next;
    }
    found
}

/// How pieces are ranked: the larger number first, then the earlier piece.
pub(super) fn rank(ranked: &mut [(f64, usize)]) {
    ranked.sort_unstable_by(|a, b| {
        let by = |pair: &(f64, usize)| Reverse(pair.1);
        b.0.total_cmp(&a.0).then_with(|| by(b).cmp(&by(a)))
    });
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::super::counts::WordCounts;
    use super::*;
    use proptest::prelude::*;

    fn corpus(words: &[(String, u64)]) -> Corpus {
        let words: WordCounts = words.iter().map(|(word, n)| (word, *n)).collect();
        let mut alphabet: Vec<char> = words.iter().flat_map(|(word, _)| word.chars()).collect();
        alphabet.sort_unstable();
        alphabet.dedup();
        Corpus::new(&words, alphabet)
    }

    proptest! {
        /// Every substring is a seed unless it always stands within a longer one that is as frequent.
        #[test]
        fn seeds_are_the_frequent_substrings(
            words in proptest::collection::vec(("[a-c]{1,7}", 1..4u64), 1..12),
            longest in 2..6usize,
        ) {
            let corpus = corpus(&words);
            let mut counts: BTreeMap<Vec<u32>, u64> = BTreeMap::new();
            let mut places: BTreeMap<Vec<u32>, usize> = BTreeMap::new();
            for at in 0..corpus.len() {
                let (start, end, count) = corpus.word(at);
                for from in start..end {
                    for to in from + 1..=end.min(from + longest) {
                        let piece = corpus.chars()[from..to].to_vec();
                        *places.entry(piece.clone()).or_default() += 1;
                        *counts.entry(piece).or_default() += count;
                    }
                }
            }
            let pieces = seeds(&corpus, longest, usize::MAX);
            let found: Vec<Vec<u32>> = (0..pieces.len()).map(|i| pieces.get(i).to_vec()).collect();
            prop_assert!(found.is_sorted());
            let scores: BTreeMap<_, _> = found.iter().zip(&pieces.scores).collect();
            prop_assert_eq!(scores.len(), found.len());
            let weight = |piece: &Vec<u32>| (counts[piece] * piece.len() as u64) as f64;
            let total: f64 = found.iter().map(weight).sum();
            for (piece, score) in &scores {
                prop_assert!(((weight(piece) / total).ln() - **score).abs() < 1e-9);
                prop_assert!(piece.len() == 1 || counts[*piece] > 1);
            }
            for (piece, count) in &counts {
                let within = counts.iter().any(|(longer, other)| {
                    longer.len() == piece.len() + 1 && longer.starts_with(piece) && other == count
                });
                let word = (0..corpus.len()).map(|at| corpus.word(at));
                let whole = word.map(|(start, end, _)| &corpus.chars()[start..end]).any(|w| w == piece);
                if piece.len() == 1 || *count > 1 && !within && (places[piece] > 1 || whole) {
                    prop_assert!(scores.contains_key(piece), "{:?}", piece);
                }
            }
        }
    }

    #[test]
    fn the_best_are_taken_when_there_are_too_many() {
        let words: Vec<(String, u64)> = [("abab", 5), ("ab", 1), ("cd", 3)]
            .map(|(word, n)| (word.to_owned(), n))
            .into();
        let corpus = corpus(&words);
        let pieces = seeds(&corpus, 16, 5);
        let found: Vec<&[u32]> = (0..pieces.len()).map(|i| pieces.get(i)).collect();
        let expected: [&[u32]; 5] = [&[0], &[0, 1], &[1], &[2], &[3]];
        assert_eq!(found, expected);
    }
}
