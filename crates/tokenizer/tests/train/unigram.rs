//! Unigram's pieces describe the corpus as well as those of `tokenizers` do.
//!
//! The two need not learn the same pieces: seeds are counted in another way, and sums are taken in another order. Both
//! vocabularies are judged by one measure of the test's own.

use std::collections::HashMap;

use bertha_tokenizer::train::{TokenizerKind, TokenizerTrainer, WordCounts};
use tokenizers::models::unigram::{Unigram, UnigramTrainer};
use tokenizers::{AddedToken, Trainer};

use crate::corpus::{LATIN, counts, feed};

/// Logarithm of the corpus' probability by word, over all segmentations, and tokens by word of the best ones.
fn measure(pieces: &HashMap<String, f64>, words: &WordCounts) -> (f64, f64) {
    let (mut log, mut tokens) = (0.0, 0.0);
    for (word, count) in words.iter() {
        let chars: Vec<char> = word.chars().collect();
        let mut all = vec![f64::NEG_INFINITY; chars.len() + 1];
        let mut best = vec![(f64::NEG_INFINITY, 0u32); chars.len() + 1];
        (all[0], best[0].0) = (0.0, 0.0);
        for start in 0..chars.len() {
            let mut piece = String::new();
            for end in start + 1..=chars.len().min(start + 16) {
                piece.push(chars[end - 1]);
                let Some(score) = pieces.get(&piece) else {
                    continue;
                };
                let (a, b) = (all[end], all[start] + score);
                all[end] = a.max(b) + (-(a - b).abs()).exp().ln_1p();
                let way = (best[start].0 + score, best[start].1 + 1);
                if way.0 > best[end].0 {
                    best[end] = way;
                }
            }
        }
        log += count as f64 * all[chars.len()];
        tokens += count as f64 * f64::from(best[chars.len()].1);
    }
    let total = words.total() as f64;
    (log / total, tokens / total)
}

/// Probabilities that add up to 1, so that the two likelihoods can be compared.
fn normalized(pieces: impl Iterator<Item = (String, f64)>) -> HashMap<String, f64> {
    let mut pieces: HashMap<String, f64> = pieces.collect();
    let sum: f64 = pieces.values().map(|score| score.exp()).sum();
    pieces.values_mut().for_each(|score| *score -= sum.ln());
    pieces
}

fn compare(texts: &[&str], vocab_size: usize) {
    let trainer = TokenizerTrainer::new(TokenizerKind::Unigram).vocab_size(vocab_size);
    let words = counts(&trainer, texts);
    let ours = trainer.train(&words).unwrap();
    let special = ours.special_tokens().len();
    let mut peer = UnigramTrainer::builder();
    let peer = peer
        .show_progress(false)
        .vocab_size(ours.tokens().len() as u32)
        .special_tokens(
            ours.special_tokens()
                .iter()
                .map(|token| AddedToken::from(token.as_str(), true))
                .collect(),
        )
        .unk_token(Some("<unk>".into()));
    let mut peer = peer.build().unwrap();
    feed(&mut peer, &words);
    let mut theirs = Unigram::default();
    peer.train(&mut theirs).unwrap();
    let theirs: Vec<(String, f64)> = theirs.iter().skip(special).cloned().collect();
    let pieces = ours
        .tokens()
        .iter()
        .cloned()
        .zip(ours.scores().iter().copied());
    let pieces: Vec<(String, f64)> = pieces.skip(special).collect();
    assert_eq!(pieces.len(), theirs.len());
    let (our_log, our_tokens) = measure(&normalized(pieces.into_iter()), &words);
    let (their_log, their_tokens) = measure(&normalized(theirs.into_iter()), &words);
    println!(
        "{vocab_size}: log-likelihood of a word {our_log:.4}, tokenizers {their_log:.4}; tokens of a word \
         {our_tokens:.4}, tokenizers {their_tokens:.4}"
    );
    assert!(
        our_log >= their_log * 1.01,
        "{our_log} is worse than {their_log}"
    );
    assert!(
        our_tokens <= their_tokens * 1.01,
        "{our_tokens} is worse than {their_tokens}"
    );
}

#[test]
fn pieces_are_as_good_as_those_of_tokenizers() {
    compare(&LATIN, 4000);
    compare(&LATIN[..1], 2000);
}
