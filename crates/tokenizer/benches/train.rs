//! Training beside Hugging Face's `tokenizers`: the same corpus, the same sizes, in turn in one process.
//!
//! ```text
//! BERTHA_CORPUS=corpus.txt cargo bench -p bertha-tokenizer --features train --bench train
//! ```
//!
//! Without `BERTHA_CORPUS` the corpus is the tests' text, which is small. What is timed is everything from lines in
//! memory to the vocabulary, on the threads of rayon's pool (`RAYON_NUM_THREADS`).

use std::time::Instant;

use bertha_tokenizer::train::{TokenizerKind, TokenizerTrainer};
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::models::unigram::{Unigram, UnigramTrainer};
use tokenizers::models::wordpiece::{WordPiece, WordPieceTrainer};
use tokenizers::normalizers::{
    BertNormalizer, NFKC, Nmt, Replace, Sequence, replace::ReplacePattern,
};
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};
use tokenizers::{
    AddedToken, DecoderWrapper, Model, NormalizerWrapper, PostProcessorWrapper,
    PreTokenizerWrapper, TokenizerImpl, Trainer,
};

type Peer<M> =
    TokenizerImpl<M, NormalizerWrapper, PreTokenizerWrapper, PostProcessorWrapper, DecoderWrapper>;

fn main() {
    let text = match std::env::var_os("BERTHA_CORPUS") {
        Some(path) => std::fs::read_to_string(path).unwrap(),
        None => [
            include_str!("../tests/data/english.txt"),
            include_str!("../tests/data/spanish.txt"),
            include_str!("../tests/data/turkish.txt"),
        ]
        .concat(),
    };
    let lines: Vec<&str> = text.lines().collect();
    println!("{:.1} MB in {} lines", text.len() as f64 / 1e6, lines.len());
    println!("| type | tokens | bertha, s | of it counting | tokenizers, s | ratio |");
    println!("| --- | ---: | ---: | ---: | ---: | ---: |");
    for (kind, size) in [
        (TokenizerKind::WordPiece, 30_000),
        (TokenizerKind::ByteLevelBpe, 30_000),
        (TokenizerKind::Unigram, 8_000),
    ] {
        let start = Instant::now();
        let trainer = TokenizerTrainer::new(kind)
            .vocab_size(size)
            .min_frequency(2);
        let mut counter = trainer.counter();
        counter.add_texts(&lines);
        let counts = counter.finish();
        let counting = start.elapsed().as_secs_f64();
        let trained = trainer.train(&counts).unwrap();
        let ours = start.elapsed().as_secs_f64();

        let start = Instant::now();
        let tokens = peer(kind, size, &lines);
        let theirs = start.elapsed().as_secs_f64();
        assert!(tokens.abs_diff(trained.tokens().len()) <= size / 100);
        println!(
            "| {} | {} | {ours:.2} | {counting:.2} | {theirs:.2} | {:.1} |",
            kind.name(),
            trained.tokens().len(),
            theirs / ours
        );
    }
}

/// Trains with the other library; the number of tokens.
fn peer(kind: TokenizerKind, size: usize, lines: &[&str]) -> usize {
    let special = |texts: &[&str]| -> Vec<AddedToken> {
        texts
            .iter()
            .map(|text| AddedToken::from(*text, true))
            .collect()
    };
    let special = special(kind.special_tokens());
    match kind {
        TokenizerKind::WordPiece => train(
            WordPiece::default(),
            Some(BertNormalizer::default().into()),
            BertPreTokenizer.into(),
            &mut WordPieceTrainer::builder()
                .show_progress(false)
                .vocab_size(size)
                .min_frequency(2)
                .special_tokens(special)
                .build(),
            lines,
        ),
        TokenizerKind::Unigram => {
            let spaces = Replace::new(ReplacePattern::Regex(" {2,}".into()), " ").unwrap();
            let mut trainer = UnigramTrainer::builder();
            let trainer = trainer
                .show_progress(false)
                .vocab_size(size as u32)
                .special_tokens(special)
                .unk_token(Some("<unk>".into()));
            train(
                Unigram::default(),
                Some(Sequence::new(vec![Nmt.into(), NFKC.into(), spaces.into()]).into()),
                Metaspace::new('▁', PrependScheme::Always, true).into(),
                &mut trainer.build().unwrap(),
                lines,
            )
        }
        _ => train(
            BPE::default(),
            None,
            ByteLevel::new(false, true, true).into(),
            &mut BpeTrainer::builder()
                .show_progress(false)
                .vocab_size(size)
                .min_frequency(2)
                .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
                .special_tokens(special)
                .build(),
            lines,
        ),
    }
}

fn train<M: Model + Send + Sync, T: Trainer<Model = M> + Sync>(
    model: M,
    normalizer: Option<NormalizerWrapper>,
    splitter: PreTokenizerWrapper,
    trainer: &mut T,
    lines: &[&str],
) -> usize {
    let mut tokenizer: Peer<M> = TokenizerImpl::new(model);
    tokenizer
        .with_normalizer(normalizer)
        .with_pre_tokenizer(Some(splitter));
    tokenizer.train(trainer, lines.iter()).unwrap();
    tokenizer.get_vocab_size(true)
}
