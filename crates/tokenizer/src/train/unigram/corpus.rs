//! Distinct words as numbers, end to end.

use super::super::counts::WordCounts;
use super::super::hash::Map;

/// Longer words are read in parts of this many characters: what the sums over all segmentations of a part can reach
/// stays within f64 (2^1000).
const LONGEST: usize = 1000;

/// A number that no character has.
pub(super) const NO_CHAR: u32 = u32::MAX;

/// The words of a corpus; a character is its place in the alphabet.
pub(super) struct Corpus {
    chars: Vec<u32>,
    /// Where each word ends in `chars`, and how often it occurs.
    words: Vec<(usize, u64)>,
    /// Characters by number, by code point.
    pub(super) alphabet: Vec<char>,
}

impl Corpus {
    /// Words are cut at characters that are not in the alphabet, which goes by code point.
    pub(super) fn new(words: &WordCounts, alphabet: Vec<char>) -> Self {
        let numbers: Map<char, u32> = alphabet.iter().copied().zip(0..).collect();
        let mut corpus = Self {
            chars: Vec::new(),
            words: Vec::new(),
            alphabet,
        };
        let mut parts: Map<Vec<u32>, u64> = Map::default();
        let mut part = Vec::new();
        for (word, count) in words.iter() {
            for number in word.chars().map(|c| numbers.get(&c)) {
                part.extend(number);
                if number.is_none() || part.len() == LONGEST {
                    corpus.cut(&mut parts, &mut part, count);
                }
            }
            // Whole words are distinct and in order, parts may be neither.
            if part.len() == word.chars().count() {
                corpus.push(&part, count);
                part.clear();
            } else {
                corpus.cut(&mut parts, &mut part, count);
            }
        }
        let mut parts: Vec<_> = parts.into_iter().collect();
        parts.sort_unstable();
        for (part, count) in parts {
            corpus.push(&part, count);
        }
        corpus
    }

    fn cut(&mut self, parts: &mut Map<Vec<u32>, u64>, part: &mut Vec<u32>, count: u64) {
        if !part.is_empty() {
            *parts.entry(std::mem::take(part)).or_default() += count;
        }
    }

    fn push(&mut self, word: &[u32], count: u64) {
        if !word.is_empty() {
            self.chars.extend_from_slice(word);
            self.words.push((self.chars.len(), count));
        }
    }

    /// All characters, end to end.
    pub(super) fn chars(&self) -> &[u32] {
        &self.chars
    }

    /// Number of words.
    pub(super) fn len(&self) -> usize {
        self.words.len()
    }

    /// Where a word begins and ends in [`chars`](Self::chars), and its count.
    pub(super) fn word(&self, at: usize) -> (usize, usize, u64) {
        let start = at.checked_sub(1).map_or(0, |before| self.words[before].0);
        let (end, count) = self.words[at];
        (start, end, count)
    }

    /// Ranges of words of about equal length, at most `parts` of them: the same for any number of threads.
    pub(super) fn ranges(&self, parts: usize) -> Vec<(usize, usize)> {
        let share = self.chars.len().div_ceil(parts).max(1);
        let mut ranges = Vec::with_capacity(parts);
        let mut start = 0;
        while start < self.len() {
            let from = self.word(start).0;
            let end = self.words.partition_point(|word| word.0 <= from + share);
            let end = end.max(start + 1);
            ranges.push((start, end));
            start = end;
        }
        ranges
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_cut_where_they_must() {
        let long = "a".repeat(LONGEST) + "b";
        let words: WordCounts = [("ab", 2), ("axb", 3), ("b", 1), (&*long, 5), ("x", 9)]
            .into_iter()
            .collect();
        let corpus = Corpus::new(&words, vec!['a', 'b']);
        let mut found: Vec<(Vec<u32>, u64)> = Vec::new();
        for at in 0..corpus.len() {
            let (start, end, count) = corpus.word(at);
            found.push((corpus.chars()[start..end].to_vec(), count));
        }
        let expected = [
            (vec![0, 1], 2),
            (vec![1], 1),
            (vec![0], 3),
            (vec![0; LONGEST], 5),
            (vec![1], 8),
        ];
        assert_eq!(found, expected);
        let ranges = corpus.ranges(16);
        assert_eq!((ranges[0].0, ranges[ranges.len() - 1].1), (0, corpus.len()));
        assert!(ranges.windows(2).all(|pair| pair[0].1 == pair[1].0));
        assert!(corpus.ranges(1).len() <= 2);
    }
}
