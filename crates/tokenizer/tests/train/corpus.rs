//! Real text, and the tokenizers of the other library that cut it.

use bertha_tokenizer::train::{TokenizerKind, TokenizerTrainer, WordCounts};
use tokenizers::{NormalizedString, Normalizer, normalizers::replace::ReplacePattern};
use tokenizers::{
    NormalizerWrapper, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer,
    PreTokenizerWrapper, Trainer,
    normalizers::{BertNormalizer, Lowercase, NFKC, Nmt, Replace, Sequence},
    pre_tokenizers::bert::BertPreTokenizer,
    pre_tokenizers::byte_level::ByteLevel,
    pre_tokenizers::metaspace::{Metaspace, PrependScheme},
};

const ENGLISH: &str = include_str!("../data/english.txt");
const SPANISH: &str = include_str!("../data/spanish.txt");
const TURKISH: &str = include_str!("../data/turkish.txt");
const UMLAUT: &str = include_str!("../data/umlaut.txt");
const LANGUAGES: &str = include_str!("../data/languages.txt");

/// Text in Latin script.
pub const LATIN: [&str; 4] = [ENGLISH, SPANISH, TURKISH, UMLAUT];

/// All text, a line each.
pub fn lines() -> Vec<&'static str> {
    let files = [ENGLISH, SPANISH, TURKISH, UMLAUT, LANGUAGES];
    files.iter().flat_map(|text| text.lines()).collect()
}

/// The words of texts.
pub fn counts(trainer: &TokenizerTrainer, texts: &[&str]) -> WordCounts {
    let mut counter = trainer.counter();
    counter.add_texts(texts);
    counter.finish()
}

/// What `tokenizers` cuts a text into.
pub fn their_words(kind: TokenizerKind, lowercase: bool, text: &str) -> Vec<String> {
    let lower = lowercase.then(|| NormalizerWrapper::from(Lowercase));
    let metaspace = || {
        let steps = [Nmt.into(), NFKC.into()].into_iter().chain(lower.clone());
        let spaces = Replace::new(ReplacePattern::Regex(" {2,}".into()), " ").unwrap();
        let normalizer = Sequence::new(steps.chain([spaces.into()]).collect());
        let splitter = Metaspace::new('▁', PrependScheme::Always, true);
        (
            NormalizerWrapper::from(normalizer),
            PreTokenizerWrapper::from(splitter),
        )
    };
    let (normalizer, splitter) = match kind {
        TokenizerKind::WordPiece => (
            BertNormalizer::new(true, true, None, lowercase).into(),
            BertPreTokenizer.into(),
        ),
        TokenizerKind::ByteLevelBpe => (
            Sequence::new(lower.into_iter().collect()).into(),
            ByteLevel::new(false, true, true).into(),
        ),
        _ => metaspace(),
    };
    let mut normalized = NormalizedString::from(text);
    normalizer.normalize(&mut normalized).unwrap();
    let mut words = PreTokenizedString::from(normalized);
    splitter.pre_tokenize(&mut words).unwrap();
    let splits = words.get_splits(OffsetReferential::Original, OffsetType::Byte);
    splits.into_iter().map(|split| split.0.to_owned()).collect()
}

/// Gives counted words to a trainer of `tokenizers`.
pub fn feed(trainer: &mut impl Trainer, words: &WordCounts) {
    let repeated = |text: &str| {
        let (count, word) = text.split_once(' ').unwrap();
        Ok(vec![word.to_owned(); count.parse().unwrap()])
    };
    let texts = words.iter().map(|(word, count)| format!("{count} {word}"));
    trainer.feed(texts, repeated).unwrap();
}
