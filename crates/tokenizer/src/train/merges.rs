//! Byte-pair encoding: the most frequent pair of neighbours becomes a token, over and over.
//!
//! Sennrich, Haddow and Birch, "Neural Machine Translation of Rare Words with Subword Units" (2016),
//! <https://arxiv.org/abs/1508.07909>. With a prefix that marks symbols inside words it is what the trainer of
//! WordPiece in `tokenizers` does.
//!
//! A symbol of a distinct word is a node of one array, linked to its neighbours. Every pair of neighbours has its count
//! (words that occur n times count n times) and the places where it was seen. A heap yields the most frequent pair;
//! merging it touches only its places. Counts in the heap may be old: one that is gets pushed again as it is now.
//!
//! Order is defined throughout: of equally frequent pairs the one with the smaller ids comes first, by the left id, then
//! the right. Ids are given in the order: special tokens, characters by code point, characters inside words (with the
//! prefix) by code point, merges.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

use super::counts::WordCounts;
use super::error::TrainError;
use super::hash::Map;

/// What is to be learned.
pub(super) struct Options<'a> {
    /// Tokens to have in all.
    pub(super) vocab_size: usize,
    /// A pair that is rarer is not merged.
    pub(super) min_frequency: u64,
    /// Characters to keep, at most.
    pub(super) limit_alphabet: Option<usize>,
    /// Characters to have whether or not they are seen.
    pub(super) initial_alphabet: &'a BTreeSet<char>,
    /// Tokens that come first.
    pub(super) special: &'a [String],
    /// What symbols inside words begin with.
    pub(super) prefix: &'a str,
}

/// What was learned.
pub(super) struct Learned {
    /// Tokens by id.
    pub(super) tokens: Vec<String>,
    /// Ids of the two sides of every merge, in order.
    pub(super) merges: Vec<(u32, u32)>,
    /// The characters.
    pub(super) alphabet: Alphabet,
}

/// The characters of a corpus.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Alphabet {
    /// Characters that are kept, by code point.
    pub(super) kept: Vec<char>,
    /// Number of distinct characters seen.
    pub(super) seen: usize,
    /// How often kept characters occur.
    pub(super) covered: u64,
    /// How often characters occur.
    pub(super) total: u64,
}

impl Alphabet {
    /// The characters of words. Of more than `limit` the most frequent are kept, among equally frequent ones the smaller
    /// code points; `initial` counts as more frequent than any.
    ///
    /// # Errors
    /// When the counts overflow: then no count of anything in the words can.
    pub(super) fn of(
        words: &WordCounts,
        initial: &BTreeSet<char>,
        limit: Option<usize>,
    ) -> Result<Self, TrainError> {
        let mut counts: Map<char, u64> = Map::default();
        let mut total = 0u64;
        for (word, count) in words.iter() {
            for c in word.chars() {
                total = total.checked_add(count).ok_or(TrainError::CountsTooLarge)?;
                *counts.entry(c).or_default() += count;
            }
        }
        let seen = counts.len();
        let mut kept: Vec<(bool, u64, Reverse<char>)> = counts
            .iter()
            .map(|(&c, &count)| (initial.contains(&c), count, Reverse(c)))
            .collect();
        kept.extend(
            initial
                .iter()
                .filter(|c| !counts.contains_key(c))
                .map(|&c| (true, 0, Reverse(c))),
        );
        kept.sort_unstable_by(|a, b| b.cmp(a));
        kept.truncate(limit.unwrap_or(usize::MAX));
        let covered = kept.iter().map(|of| of.1).sum();
        let mut kept: Vec<char> = kept.into_iter().map(|of| of.2.0).collect();
        kept.sort_unstable();
        Ok(Self {
            kept,
            seen,
            covered,
            total,
        })
    }
}

/// No neighbour; no symbol.
const NONE: u32 = u32::MAX;

/// A symbol in a word.
#[derive(Clone, Copy)]
struct Symbol {
    /// Its token, or [`NONE`] once it is part of the symbol to its left.
    id: u32,
    previous: u32,
    next: u32,
    word: u32,
}

/// Two ids in one number, which orders as they do.
type Pair = u64;

fn pair(left: u32, right: u32) -> Pair {
    u64::from(left) << 32 | u64::from(right)
}

/// A pair's count and the left symbols of the places where it was seen, some of which may be gone.
#[derive(Default)]
struct Seen {
    count: u64,
    places: Vec<u32>,
}

/// Learns a vocabulary. `progress` gets the number of tokens so far.
pub(super) fn learn(
    words: &WordCounts,
    options: &Options<'_>,
    progress: &mut dyn FnMut(usize),
) -> Result<Learned, TrainError> {
    let alphabet = Alphabet::of(words, options.initial_alphabet, options.limit_alphabet)?;
    let mut vocab = Vocabulary::new(options.special);
    let special = vocab.tokens.len();
    let mut symbols = Symbols::new(words, &alphabet, &mut vocab, options.prefix)?;
    if vocab.tokens.len() > options.vocab_size {
        return Err(TrainError::VocabularyTooSmall {
            vocab_size: options.vocab_size,
            special,
            alphabet: vocab.tokens.len() - special,
        });
    }
    let mut heap: BinaryHeap<(u64, Reverse<Pair>)> = symbols
        .pairs
        .iter()
        .map(|(&pair, seen)| (seen.count, Reverse(pair)))
        .collect();
    let mut merges = Vec::new();
    while vocab.tokens.len() < options.vocab_size {
        let Some((count, Reverse(top))) = heap.pop() else {
            break;
        };
        let now = symbols.pairs.get(&top).map_or(0, |seen| seen.count);
        if now == 0 {
            symbols.pairs.remove(&top);
            continue;
        }
        if now != count {
            heap.push((now, Reverse(top)));
            continue;
        }
        if count < options.min_frequency {
            break;
        }
        let (left, right) = ((top >> 32) as u32, top as u32);
        let id = vocab.join(left, right, options.prefix);
        merges.push((left, right));
        for grown in symbols.merge(left, right, id) {
            let count = symbols.pairs.get(&grown).map_or(0, |seen| seen.count);
            if count > 0 {
                heap.push((count, Reverse(grown)));
            }
        }
        progress(vocab.tokens.len());
    }
    Ok(Learned {
        tokens: vocab.tokens,
        merges,
        alphabet,
    })
}

/// Tokens by id and back.
struct Vocabulary {
    tokens: Vec<String>,
    ids: Map<String, u32>,
}

impl Vocabulary {
    fn new(special: &[String]) -> Self {
        let mut vocab = Self {
            tokens: Vec::new(),
            ids: Map::default(),
        };
        for token in special {
            vocab.id(token.clone());
        }
        vocab
    }

    /// The id of a token, which becomes a new one if there is none.
    fn id(&mut self, token: String) -> u32 {
        if let Some(&id) = self.ids.get(&token) {
            return id;
        }
        let id = self.tokens.len() as u32;
        self.tokens.push(token.clone());
        self.ids.insert(token, id);
        id
    }

    /// The id of two tokens joined.
    fn join(&mut self, left: u32, right: u32, prefix: &str) -> u32 {
        let right = self.tokens[right as usize].as_str();
        let right = right.strip_prefix(prefix).unwrap_or(right);
        self.id([self.tokens[left as usize].as_str(), right].concat())
    }
}

/// All words as linked symbols, and their pairs.
struct Symbols {
    symbols: Vec<Symbol>,
    /// How often each word occurs.
    counts: Vec<u64>,
    pairs: Map<Pair, Seen>,
}

impl Symbols {
    /// Takes words apart into characters. Characters that are not in the alphabet are left out, as if they were not
    /// there; a character that follows one is inside the word all the same.
    fn new(
        words: &WordCounts,
        alphabet: &Alphabet,
        vocab: &mut Vocabulary,
        prefix: &str,
    ) -> Result<Self, TrainError> {
        let mut first: Map<char, u32> = Map::default();
        for &c in &alphabet.kept {
            first.insert(c, vocab.id(c.to_string()));
        }
        let inside = match prefix.is_empty() {
            true => first.clone(),
            false => {
                let seen: BTreeSet<char> = words
                    .iter()
                    .flat_map(|(word, _)| word.chars().skip(1))
                    .filter(|c| first.contains_key(c))
                    .collect();
                let with_prefix = |c: char| (c, vocab.id(format!("{prefix}{c}")));
                seen.into_iter().map(with_prefix).collect()
            }
        };
        let length: u64 = words
            .iter()
            .map(|(word, _)| word.chars().count() as u64)
            .sum();
        if length >= u64::from(NONE) {
            return Err(TrainError::TooManySymbols {
                symbols: length,
                limit: u64::from(NONE),
            });
        }
        let mut all = Self {
            symbols: Vec::with_capacity(length as usize),
            counts: words.iter().map(|(_, count)| count).collect(),
            pairs: Map::default(),
        };
        for ((word, count), number) in words.iter().zip(0..) {
            let mut previous = NONE;
            for (i, c) in word.chars().enumerate() {
                let ids = if i == 0 { &first } else { &inside };
                let Some(&id) = ids.get(&c) else {
                    continue;
                };
                let at = all.symbols.len() as u32;
                if let Some(left) = all.symbols.get_mut(previous as usize) {
                    left.next = at;
                    let pair = pair(left.id, id);
                    all.add(pair, previous, count);
                }
                all.symbols.push(Symbol {
                    id,
                    previous,
                    next: NONE,
                    word: number,
                });
                previous = at;
            }
        }
        Ok(all)
    }

    #[inline]
    fn add(&mut self, pair: Pair, place: u32, count: u64) {
        let seen = self.pairs.entry(pair).or_default();
        // The sum over all characters was checked.
        seen.count = seen.count.saturating_add(count);
        seen.places.push(place);
    }

    #[inline]
    fn subtract(&mut self, pair: Pair, count: u64) {
        if let Some(seen) = self.pairs.get_mut(&pair) {
            seen.count = seen.count.saturating_sub(count);
        }
    }

    /// Makes one symbol of every pair of neighbours `left`, `right`, from the left of each word to its right. Returns
    /// the pairs that became more frequent.
    fn merge(&mut self, left: u32, right: u32, id: u32) -> Vec<Pair> {
        let mut places = match self.pairs.remove(&pair(left, right)) {
            Some(seen) => seen.places,
            None => return Vec::new(),
        };
        if !places.is_sorted() {
            places.sort_unstable();
        }
        let mut grown = Vec::new();
        for place in places {
            let Symbol {
                id: here,
                previous,
                next,
                word,
            } = self.symbols[place as usize];
            let Some(&Symbol {
                id: there,
                next: after,
                ..
            }) = self.symbols.get(next as usize)
            else {
                continue;
            };
            if here != left || there != right {
                continue;
            }
            let count = self.counts[word as usize];
            self.symbols[next as usize].id = NONE;
            self.symbols[place as usize].id = id;
            self.symbols[place as usize].next = after;
            if let Some(before) = self.symbols.get(previous as usize) {
                let before = before.id;
                self.subtract(pair(before, left), count);
                self.add(pair(before, id), previous, count);
                grown.push(pair(before, id));
            }
            if let Some(after) = self.symbols.get_mut(after as usize) {
                after.previous = place;
                let after = after.id;
                self.subtract(pair(right, after), count);
                self.add(pair(id, after), place, count);
                grown.push(pair(id, after));
            }
        }
        grown.sort_unstable();
        grown.dedup();
        grown
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn options<'a>(initial: &'a BTreeSet<char>, prefix: &'a str, vocab_size: usize) -> Options<'a> {
        Options {
            vocab_size,
            min_frequency: 1,
            limit_alphabet: None,
            initial_alphabet: initial,
            special: &[],
            prefix,
        }
    }

    /// The definition, without any cleverness: count all pairs, merge the first of the most frequent, begin again.
    fn by_definition(words: &WordCounts, prefix: &str, vocab_size: usize) -> Vec<String> {
        let empty = BTreeSet::new();
        let start = learn(words, &options(&empty, prefix, vocab_size), &mut |_| {});
        let Ok(start) = start else {
            return Vec::new();
        };
        let mut tokens: Vec<String> =
            start.tokens[..start.tokens.len() - distinct(&start)].to_vec();
        let id = |tokens: &[String], text: &str| tokens.iter().position(|token| token == text);
        let mut split: Vec<(Vec<usize>, u64)> = words
            .iter()
            .map(|(word, count)| {
                let ids = word.chars().enumerate().map(|(i, c)| {
                    let prefix = if i == 0 { "" } else { prefix };
                    id(&tokens, &format!("{prefix}{c}")).unwrap()
                });
                (ids.collect(), count)
            })
            .collect();
        while tokens.len() < vocab_size {
            let mut counts = std::collections::BTreeMap::new();
            for (ids, count) in &split {
                for pair in ids.windows(2) {
                    *counts.entry((pair[0], pair[1])).or_insert(0) += count;
                }
            }
            let best = counts
                .into_iter()
                .max_by_key(|&(pair, n)| (n, Reverse(pair)));
            let Some(((left, right), _)) = best else {
                break;
            };
            let tail = tokens[right].strip_prefix(prefix).unwrap_or(&tokens[right]);
            let joined = format!("{}{tail}", tokens[left]);
            let new = id(&tokens, &joined).unwrap_or_else(|| {
                tokens.push(joined);
                tokens.len() - 1
            });
            for (ids, _) in &mut split {
                let mut at = 0;
                while at + 1 < ids.len() {
                    if (ids[at], ids[at + 1]) == (left, right) {
                        ids.splice(at..at + 2, [new]);
                    }
                    at += 1;
                }
            }
        }
        tokens
    }

    /// Tokens that merges brought.
    fn distinct(learned: &Learned) -> usize {
        let single = |token: &&String| token.trim_start_matches('#').chars().count() <= 1;
        learned.tokens.len() - learned.tokens.iter().filter(single).count()
    }

    proptest! {
        #[test]
        fn it_is_what_the_definition_says(
            words in proptest::collection::vec(("[a-d]{1,9}", 1..5u64), 1..40),
            prefix in prop_oneof![Just(""), Just("##")],
            size in 10..60usize,
        ) {
            let words: WordCounts = words.into_iter().collect();
            let empty = BTreeSet::new();
            let learned = learn(&words, &options(&empty, prefix, size), &mut |_| {}).unwrap();
            prop_assert_eq!(learned.tokens, by_definition(&words, prefix, size));
        }
    }

    #[test]
    fn runs_of_one_character_and_ties() {
        let words: WordCounts = [("aaaaa", 3), ("bb", 3), ("cb", 3)].into_iter().collect();
        let empty = BTreeSet::new();
        let learned = learn(&words, &options(&empty, "", 9), &mut |_| {}).unwrap();
        assert_eq!(
            learned.tokens,
            ["a", "b", "c", "aa", "bb", "cb", "aaa", "aaaaa"]
        );
        assert_eq!(learned.merges, [(0, 0), (1, 1), (2, 1), (3, 0), (3, 6)]);
    }

    #[test]
    fn the_alphabet_can_be_limited_and_widened() {
        let words: WordCounts = [("abc", 5), ("abd", 4), ("xé", 1)].into_iter().collect();
        let initial = BTreeSet::from(['z']);
        let alphabet = Alphabet::of(&words, &initial, Some(4)).unwrap();
        assert_eq!(alphabet.kept, ['a', 'b', 'c', 'z']);
        assert_eq!(
            (alphabet.seen, alphabet.covered, alphabet.total),
            (6, 23, 29)
        );
        // Of equally frequent characters the smaller stays.
        let alphabet = Alphabet::of(&words, &BTreeSet::new(), Some(5)).unwrap();
        assert_eq!(alphabet.kept, ['a', 'b', 'c', 'd', 'x']);
        let mut limited = options(&initial, "##", 100);
        limited.limit_alphabet = Some(4);
        let learned = learn(&words, &limited, &mut |_| {}).unwrap();
        assert_eq!(
            learned.tokens,
            ["a", "b", "c", "z", "##b", "##c", "ab", "abc"]
        );
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let words: WordCounts = [("abc", 1)].into_iter().collect();
        let empty = BTreeSet::new();
        let special = ["[UNK]".to_owned(), "[PAD]".to_owned()];
        let mut small = options(&empty, "##", 6);
        small.special = &special;
        let Err(error) = learn(&words, &small, &mut |_| {}) else {
            panic!("six tokens are not enough");
        };
        assert_eq!(
            error.to_string(),
            "vocab_size is 6, expected at least 7: 2 special tokens and 5 tokens of one character; ask for more, or \
             for fewer characters with limit_alphabet"
        );
        let words: WordCounts = [("ab", u64::MAX), ("c", 1)].into_iter().collect();
        let learned = learn(&words, &options(&empty, "", 100), &mut |_| {});
        assert!(matches!(learned, Err(TrainError::CountsTooLarge)));
    }

    #[test]
    fn words_that_look_like_the_prefix_do_no_harm() {
        let words: WordCounts = [("####a##a", 4), ("##", 3), ("##a", 9), ("#a#a", 2)]
            .into_iter()
            .collect();
        let empty = BTreeSet::new();
        let learned = learn(&words, &options(&empty, "##", 50), &mut |_| {}).unwrap();
        let distinct: BTreeSet<&String> = learned.tokens.iter().collect();
        assert_eq!(distinct.len(), learned.tokens.len());
    }
}
