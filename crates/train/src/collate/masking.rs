//! Masked language modelling: which tokens a model has to guess, and what it sees in their place.

use std::collections::BTreeSet;

use bertha_tokenizer::{SpecialToken, Tokenizer};
use serde::{Deserialize, Serialize};

use crate::TrainError;
use crate::data::mark;
use crate::random::Rng;

/// Which tokens are chosen. Special tokens never are.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "selection", deny_unknown_fields)]
pub enum Selection {
    /// Each token with probability `rate` (RoBERTa, `DataCollatorForLanguageModeling`): how many varies.
    Dynamic {
        /// The probability.
        rate: f64,
    },
    /// `min(largest, max(1, round(length · rate)))` tokens, the length with special tokens (the original
    /// BERT and MLPerf).
    Static {
        /// The part of tokens.
        rate: f64,
        /// At most so many.
        largest: usize,
    },
    /// As many as `Static`, by whole words; a word that is too long for what is left is passed over.
    WholeWord {
        /// The part of tokens.
        rate: f64,
        /// At most so many.
        largest: usize,
    },
    /// Runs of whole words of random length until `ceil(length · rate)` tokens are chosen (SpanBERT,
    /// Joshi et al. 2020, <https://arxiv.org/abs/1907.10529>). Lengths are geometric, of those up to
    /// `longest`. A run is masked, kept or replaced as one.
    Span {
        /// The part of tokens.
        rate: f64,
        /// The geometric distribution's probability to end; 0.2 in the paper.
        p: f64,
        /// The longest run, in words; 10 in the paper (the mean length is 3.8 then).
        longest: usize,
    },
}

/// How tokens are chosen and what is put in their place. Of the chosen tokens `mask` become the mask
/// token, `random` another token, and the rest stays (but is to be guessed all the same).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MaskingOptions {
    /// Which tokens are chosen.
    #[serde(flatten)]
    pub selection: Selection,
    /// The part that becomes the mask token.
    pub mask: f64,
    /// The part that becomes a random token of the whole vocabulary.
    pub random: f64,
}

impl MaskingOptions {
    /// The usual 80 % mask, 10 % random, 10 % kept.
    pub fn new(selection: Selection) -> Self {
        Self {
            selection,
            mask: 0.8,
            random: 0.1,
        }
    }
}

impl Default for MaskingOptions {
    /// Each token with probability 0.15.
    fn default() -> Self {
        Self::new(Selection::Dynamic { rate: 0.15 })
    }
}

/// A token to be guessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Masked {
    /// Its place in the sequence.
    pub place: u32,
    /// What it was.
    pub id: u32,
}

/// Masks sequences.
#[derive(Clone, Debug)]
pub struct Masker {
    options: MaskingOptions,
    mask_id: u32,
    vocabulary: u64,
    special: BTreeSet<u32>,
}

impl Masker {
    /// A masker for a tokenizer's vocabulary. Never chosen are the tokens that the template added and
    /// `[CLS]`, `[SEP]`, `[PAD]`, `[MASK]` wherever they stand.
    ///
    /// # Errors
    /// [`TrainError::NoToken`] when the tokenizer has no mask token, [`TrainError::Setting`] when a rate
    /// is out of range.
    pub fn new(tokenizer: &Tokenizer, options: MaskingOptions) -> Result<Self, TrainError> {
        let id = |role| tokenizer.special_token(role).map(|(_, id)| id);
        let Some(mask_id) = id(SpecialToken::Mask) else {
            return Err(TrainError::NoToken {
                token: "mask",
                task: "masked language modelling",
            });
        };
        let roles = [SpecialToken::Cls, SpecialToken::Sep, SpecialToken::Pad];
        let special = roles.into_iter().filter_map(id).chain([mask_id]);
        Self::from_ids(mask_id, tokenizer.vocab_size(), special, options)
    }

    /// A masker for ids below `vocabulary`, `special` being those that are never chosen.
    ///
    /// # Errors
    /// [`TrainError::Setting`] when a rate is out of range.
    pub fn from_ids(
        mask_id: u32,
        vocabulary: usize,
        special: impl IntoIterator<Item = u32>,
        options: MaskingOptions,
    ) -> Result<Self, TrainError> {
        let part = |setting, value: f64| match (0.0..=1.0).contains(&value) {
            true => Ok(()),
            false => Err(TrainError::Setting {
                setting,
                found: value.to_string(),
                expected: "a number from 0 to 1".into(),
            }),
        };
        part("the part of chosen tokens that is masked", options.mask)?;
        part("the part of chosen tokens that is replaced", options.random)?;
        part(
            "what is masked or replaced of chosen tokens",
            options.mask + options.random,
        )?;
        let (Selection::Dynamic { rate }
        | Selection::Static { rate, .. }
        | Selection::WholeWord { rate, .. }
        | Selection::Span { rate, .. }) = options.selection;
        part("the rate of masking", rate)?;
        if let Selection::Span { p, longest, .. } = options.selection {
            part("the probability to end a span", p)?;
            if p == 0.0 || longest == 0 {
                return Err(TrainError::Setting {
                    setting: "the length of spans",
                    found: format!("p {p}, longest {longest}"),
                    expected: "p above 0, longest at least 1".into(),
                });
            }
        }
        if vocabulary == 0 {
            return Err(TrainError::Setting {
                setting: "the size of the vocabulary",
                found: "0".into(),
                expected: "at least 1".into(),
            });
        }
        Ok(Self {
            options,
            mask_id,
            vocabulary: vocabulary as u64,
            special: special.into_iter().collect(),
        })
    }

    /// Masks a sequence in place; gives what is to be guessed, by rising place. `marks` are those of the
    /// tokens (see [`mark`](crate::data::mark)).
    ///
    /// # Panics
    /// When there are not as many marks as ids.
    pub fn mask(&self, ids: &mut [u32], marks: &[u8], rng: &mut Rng) -> Vec<Masked> {
        assert_eq!(ids.len(), marks.len(), "a mark for every id");
        let free = |i: usize| marks[i] & mark::SPECIAL == 0 && !self.special.contains(&ids[i]);
        let mut candidates: Vec<usize> = (0..ids.len()).filter(|&i| free(i)).collect();
        // Groups of chosen places; each group shares its fate only if spans do.
        let (groups, together): (Vec<Vec<usize>>, bool) = match self.options.selection {
            Selection::Dynamic { rate } => {
                candidates.retain(|_| rng.chance(rate));
                (vec![candidates], false)
            }
            Selection::Static { rate, largest } => {
                rng.shuffle(&mut candidates);
                candidates.truncate(budget(ids.len(), rate, largest));
                (vec![candidates], false)
            }
            Selection::WholeWord { rate, largest } => {
                let mut words = words(&candidates, marks);
                rng.shuffle(&mut words);
                let mut left = budget(ids.len(), rate, largest);
                words.retain(|word| {
                    let fits = word.len() <= left;
                    if fits {
                        left -= word.len();
                    }
                    fits
                });
                (words, false)
            }
            Selection::Span { rate, p, longest } => {
                let wanted = (ids.len() as f64 * rate).ceil() as usize;
                (
                    spans(&words(&candidates, marks), wanted, p, longest, rng),
                    true,
                )
            }
        };
        let mut masked = Vec::new();
        for group in groups {
            let mut fate = rng.uniform();
            for place in group {
                masked.push(Masked {
                    place: place as u32,
                    id: ids[place],
                });
                if !together {
                    fate = rng.uniform();
                }
                if fate < self.options.mask {
                    ids[place] = self.mask_id;
                } else if fate < self.options.mask + self.options.random {
                    ids[place] = rng.below(self.vocabulary) as u32;
                }
            }
        }
        masked.sort_unstable_by_key(|masked| masked.place);
        masked
    }
}

/// How many tokens the static ways choose; halves are rounded to even, as Python does.
fn budget(length: usize, rate: f64, largest: usize) -> usize {
    let wanted = (length as f64 * rate).round_ties_even() as usize;
    wanted.max(1).min(largest)
}

/// Candidates by word.
fn words(candidates: &[usize], marks: &[u8]) -> Vec<Vec<usize>> {
    let same = |a: &usize, b: &usize| a + 1 == *b && marks[*b] & mark::CONTINUES != 0;
    candidates.chunk_by(same).map(<[usize]>::to_vec).collect()
}

/// Runs of neighbouring words that have `wanted` tokens together, or a few less.
fn spans(
    words: &[Vec<usize>],
    wanted: usize,
    p: f64,
    longest: usize,
    rng: &mut Rng,
) -> Vec<Vec<usize>> {
    let mut taken = vec![false; words.len()];
    let (mut spans, mut chosen) = (Vec::new(), 0);
    let total: usize = words.iter().map(Vec::len).sum();
    let wanted = wanted.min(total);
    // What falls on taken words is drawn again; when little is left that could go on for long.
    let mut tries = 10 * words.len() + 100;
    while chosen < wanted && tries > 0 {
        tries -= 1;
        let length = geometric(p, longest, rng);
        let start = rng.index(words.len());
        let mut span: Vec<usize> = Vec::new();
        for word in start..(start + length).min(words.len()) {
            let here = &words[word];
            // A run ends at a word that is taken, at a special token, and at the budget.
            let broken = span.last().is_some_and(|last| last + 1 != here[0]);
            let over = chosen + span.len() + here.len() > wanted;
            if taken[word] || broken || over {
                break;
            }
            taken[word] = true;
            span.extend(here);
        }
        if !span.is_empty() {
            chosen += span.len();
            spans.push(span);
        }
    }
    spans
}

/// A length from 1 to `longest`, geometric among those.
fn geometric(p: f64, longest: usize, rng: &mut Rng) -> usize {
    if p >= 1.0 {
        return 1;
    }
    // The inverse of the distribution function, cut at `longest`.
    let mass = 1.0 - (1.0 - p).powf(longest as f64);
    let length = (1.0 - rng.uniform() * mass).ln() / (1.0 - p).ln();
    (length.ceil() as usize).clamp(1, longest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Seed, Stream};

    const VOCABULARY: u32 = 1000;
    const MASK: u32 = 4;

    fn masker(selection: Selection) -> Masker {
        let options = MaskingOptions::new(selection);
        Masker::from_ids(MASK, VOCABULARY as usize, [0, 2, 3, 4], options).unwrap()
    }

    /// `[CLS]`, 126 tokens of which every third goes on with a word, `[SEP]`.
    fn sequence(item: u64) -> (Vec<u32>, Vec<u8>) {
        let mut rng = Seed::new(77).rng(Stream::Eval, item, 0);
        let mut ids: Vec<u32> = (0..128).map(|_| 5 + rng.below(995) as u32).collect();
        let mut marks: Vec<u8> = (0..128)
            .map(|i| if i % 3 == 2 { mark::CONTINUES } else { 0 })
            .collect();
        (ids[0], ids[127]) = (2, 3);
        // The text itself holds a mask token.
        ids[50] = MASK;
        (marks[0], marks[127]) = (mark::SPECIAL, mark::SPECIAL);
        (ids, marks)
    }

    #[derive(Default)]
    struct Counts {
        free: f64,
        chosen: f64,
        masked: f64,
        kept: f64,
        other: f64,
    }

    fn count(masker: &Masker, sequences: u64) -> Counts {
        let mut counts = Counts::default();
        for item in 0..sequences {
            let (before, marks) = sequence(item);
            let mut ids = before.clone();
            let mut rng = Seed::new(1).rng(Stream::Mask, item, 0);
            let masked = masker.mask(&mut ids, &marks, &mut rng);
            assert!(masked.is_sorted_by(|a, b| a.place < b.place));
            let chosen: BTreeSet<usize> = masked.iter().map(|m| m.place as usize).collect();
            for place in 0..ids.len() {
                if !chosen.contains(&place) {
                    assert_eq!(ids[place], before[place]);
                }
            }
            for Masked { place, id } in masked {
                let place = place as usize;
                assert_eq!(id, before[place], "the label is what was there");
                assert!(place != 0 && place != 127 && place != 50, "a special token");
                match ids[place] {
                    MASK => counts.masked += 1.0,
                    found if found == id => counts.kept += 1.0,
                    found => {
                        assert!(found < VOCABULARY);
                        counts.other += 1.0;
                    }
                }
                counts.chosen += 1.0;
            }
            counts.free += 125.0;
        }
        counts
    }

    /// Within three standard deviations of `n` draws with probability `p`.
    fn near(found: f64, n: f64, p: f64) {
        let sigma = (n * p * (1.0 - p)).sqrt();
        assert!((found - n * p).abs() < 3.0 * sigma, "{found} of {n} at {p}");
    }

    #[test]
    fn dynamic_rates_are_as_asked() {
        let counts = count(&masker(Selection::Dynamic { rate: 0.15 }), 8000);
        assert!(counts.free >= 1e6);
        near(counts.chosen, counts.free, 0.15);
        // A random token is the mask token, or the same, once in a thousand.
        near(counts.masked, counts.chosen, 0.8 + 0.1 * 0.001);
        near(counts.kept, counts.chosen, 0.1 + 0.1 * 0.001);
        near(counts.other, counts.chosen, 0.1 * 0.998);
    }

    #[test]
    fn static_counts_are_exact() {
        for (largest, expected) in [(76, 19.0), (10, 10.0)] {
            let counts = count(
                &masker(Selection::Static {
                    rate: 0.15,
                    largest,
                }),
                2000,
            );
            assert_eq!(counts.chosen, 2000.0 * expected);
            near(counts.masked, counts.chosen, 0.8001);
            near(counts.kept, counts.chosen, 0.1001);
        }
        assert_eq!(budget(3, 0.15, 20), 1);
        // 0.5 · 5 = 2.5 goes to 2, as in Python.
        assert_eq!(budget(5, 0.5, 20), 2);
    }

    #[test]
    fn words_are_masked_whole() {
        let rate = 0.15;
        for selection in [
            Selection::WholeWord { rate, largest: 76 },
            Selection::Span {
                rate,
                p: 0.2,
                longest: 10,
            },
        ] {
            let masker = masker(selection);
            let mut chosen = 0;
            for item in 0..500 {
                let (mut ids, marks) = sequence(item);
                let mut rng = Seed::new(2).rng(Stream::Mask, item, 0);
                let masked = masker.mask(&mut ids, &marks, &mut rng);
                let places: BTreeSet<u32> = masked.iter().map(|m| m.place).collect();
                for place in 1..127u32 {
                    // 49 and 51 are parted by the mask token of the text.
                    if marks[place as usize] & mark::CONTINUES != 0 && place != 50 {
                        assert_eq!(places.contains(&place), places.contains(&(place - 1)));
                    }
                }
                chosen += places.len();
                assert!(places.len() <= 20);
            }
            assert!(chosen > 500 * 18, "{selection:?}: {chosen}");
        }
    }

    #[test]
    fn spans_share_their_fate_and_have_their_lengths() {
        let mut rng = Seed::new(3).rng(Stream::Mask, 0, 0);
        let n = 100_000;
        let lengths: Vec<f64> = (0..n)
            .map(|_| geometric(0.2, 10, &mut rng) as f64)
            .collect();
        let mean = lengths.iter().sum::<f64>() / f64::from(n);
        assert!((mean - 3.797).abs() < 0.03, "{mean}");
        let ones = lengths.iter().filter(|&&length| length == 1.0).count();
        near(ones as f64, f64::from(n), 0.2 / (1.0 - 0.8f64.powi(10)));
        assert!(lengths.iter().all(|&length| length <= 10.0));

        let all = MaskingOptions {
            mask: 0.5,
            random: 0.0,
            selection: Selection::Span {
                rate: 0.3,
                p: 0.2,
                longest: 10,
            },
        };
        let masker = Masker::from_ids(MASK, 1000, [0, 2, 3, 4], all).unwrap();
        let (before, marks) = sequence(1);
        let mut same_as_neighbour = 0;
        let mut pairs = 0;
        for item in 0..200 {
            let mut ids = before.clone();
            let masked = masker.mask(
                &mut ids,
                &marks,
                &mut Seed::new(4).rng(Stream::Mask, item, 0),
            );
            for pair in masked
                .windows(2)
                .filter(|pair| pair[0].place + 1 == pair[1].place)
            {
                pairs += 1;
                let hidden = |m: &Masked| ids[m.place as usize] == MASK;
                same_as_neighbour += usize::from(hidden(&pair[0]) == hidden(&pair[1]));
            }
        }
        // Neighbours of different spans agree half of the time.
        assert!(
            same_as_neighbour as f64 > 0.85 * pairs as f64,
            "{same_as_neighbour}/{pairs}"
        );
    }

    #[test]
    fn the_same_seed_masks_the_same() {
        for selection in [
            Selection::Dynamic { rate: 0.15 },
            Selection::Static {
                rate: 0.15,
                largest: 20,
            },
            Selection::WholeWord {
                rate: 0.15,
                largest: 20,
            },
        ] {
            let run = |item, epoch| {
                let (mut ids, marks) = sequence(1);
                masker(selection).mask(
                    &mut ids,
                    &marks,
                    &mut Seed::new(5).rng(Stream::Mask, item, epoch),
                );
                ids
            };
            assert_eq!(run(0, 0), run(0, 0));
            assert_ne!(run(0, 0), run(0, 1));
            assert_ne!(run(0, 0), run(1, 0));
        }
    }

    #[test]
    fn nothing_but_special_tokens_stays() {
        for selection in [
            Selection::Static {
                rate: 0.5,
                largest: 9,
            },
            Selection::Span {
                rate: 0.5,
                p: 0.2,
                longest: 10,
            },
        ] {
            let mut ids = vec![2, 3];
            let marks = [mark::SPECIAL; 2];
            let mut rng = Seed::new(6).rng(Stream::Mask, 0, 0);
            assert!(
                masker(selection)
                    .mask(&mut ids, &marks, &mut rng)
                    .is_empty()
            );
            assert!(masker(selection).mask(&mut [], &[], &mut rng).is_empty());
        }
    }

    #[test]
    fn rates_out_of_range_are_named() {
        let options = MaskingOptions {
            mask: 0.8,
            random: 0.3,
            ..MaskingOptions::default()
        };
        assert!(Masker::from_ids(4, 10, [], options).is_err());
        let options = MaskingOptions::new(Selection::Dynamic { rate: f64::NAN });
        let error = Masker::from_ids(4, 10, [], options)
            .unwrap_err()
            .to_string();
        assert!(error.contains("rate"), "{error}");
    }
}
