//! WordPiece and BPE learn the same tokens in the same order.
//!
//! `tokenizers` gives the characters inside words their ids in the order of a hash table, which differs from run to run,
//! and breaks ties by ids. So that there is one right answer, its trainer gets these characters as special tokens, in
//! bertha's order.

use bertha_tokenizer::train::{TokenizerKind, TokenizerTrainer, TrainedTokenizer, WordCounts};
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::{AddedToken, Trainer};

use crate::corpus::{LATIN, counts, feed, lines};

/// Ids by token of what `tokenizers` learns, the first `given` tokens given.
fn theirs(words: &WordCounts, ours: &TrainedTokenizer, given: usize, min_frequency: u64) -> BPE {
    let special = ours.tokens()[..given].iter();
    let mut builder = BpeTrainer::builder()
        .show_progress(false)
        .vocab_size(ours.tokens().len())
        .min_frequency(min_frequency)
        .special_tokens(
            special
                .map(|token| AddedToken::from(token.as_str(), true))
                .collect(),
        );
    if ours.kind() == TokenizerKind::WordPiece {
        builder = builder.continuing_subword_prefix("##".into());
    }
    let mut trainer = builder.build();
    feed(&mut trainer, words);
    let mut model = BPE::default();
    trainer.train(&mut model).unwrap();
    model
}

/// Special tokens and single characters.
fn given(trained: &TrainedTokenizer) -> usize {
    let merged = |&(left, right): &(u32, u32)| {
        let [left, right] = [left, right].map(|id| &*trained.tokens()[id as usize]);
        let right = match trained.kind() {
            TokenizerKind::WordPiece => right.strip_prefix("##").unwrap(),
            _ => right,
        };
        [left, right].concat()
    };
    let (left, right) = trained.merges()[0];
    let first = merged(&(left, right));
    let position = trained.tokens().iter().position(|token| *token == first);
    position.unwrap()
}

#[track_caller]
fn same(kind: TokenizerKind, texts: &[&str], vocab_size: usize, min_frequency: u64) {
    let trainer = TokenizerTrainer::new(kind)
        .vocab_size(vocab_size)
        .min_frequency(min_frequency);
    let words = counts(&trainer, texts);
    let ours = trainer.train(&words).unwrap();
    let theirs = theirs(&words, &ours, given(&ours), min_frequency);
    let mut tokens: Vec<(u32, String)> = theirs
        .get_vocab()
        .into_iter()
        .map(|(token, id)| (id, token))
        .collect();
    tokens.sort();
    let tokens: Vec<String> = tokens.into_iter().map(|of| of.1).collect();
    let at = ours
        .tokens()
        .iter()
        .zip(&tokens)
        .position(|(ours, theirs)| ours != theirs);
    assert_eq!(at, None, "{kind:?}: the first token that differs");
    assert_eq!(tokens.len(), ours.tokens().len());
}

#[test]
fn word_piece_learns_the_same_tokens() {
    same(TokenizerKind::WordPiece, &lines(), 8000, 0);
    same(TokenizerKind::WordPiece, &lines(), 30_000, 2);
}

#[test]
fn bpe_learns_the_same_tokens() {
    same(TokenizerKind::Bpe, &lines(), 8000, 0);
    same(TokenizerKind::Bpe, &LATIN, 30_000, 3);
}

#[test]
fn byte_level_bpe_learns_the_same_tokens() {
    same(TokenizerKind::ByteLevelBpe, &lines(), 8000, 0);
    same(TokenizerKind::ByteLevelBpe, &LATIN, 30_000, 2);
}
