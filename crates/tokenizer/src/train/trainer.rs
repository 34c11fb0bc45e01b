//! What to train, and training it.

use std::collections::BTreeSet;

use super::counts::{WordCounter, WordCounts};
use super::error::TrainError;
use super::merges::{self, Alphabet};
use super::text::Splitting;
use super::{byte_level, special, unigram};
use crate::special::SpecialToken;

/// A way of cutting words into tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TokenizerKind {
    /// BERT's: whole words, and pieces of words that begin with `##`.
    WordPiece,
    /// Merges of characters; a word begins with `▁`, which stands for its space.
    Bpe,
    /// GPT-2's and RoBERTa's: merges of bytes, so that no text is unknown.
    ByteLevelBpe,
    /// SentencePiece's and XLM-RoBERTa's: pieces with probabilities; a word begins with `▁`.
    Unigram,
}

impl TokenizerKind {
    /// All kinds.
    pub const ALL: [Self; 4] = [
        Self::WordPiece,
        Self::Bpe,
        Self::ByteLevelBpe,
        Self::Unigram,
    ];

    /// Its name: `wordpiece`, `bpe`, `byte-level-bpe` or `unigram`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::WordPiece => "wordpiece",
            Self::Bpe => "bpe",
            Self::ByteLevelBpe => "byte-level-bpe",
            Self::Unigram => "unigram",
        }
    }

    /// The special tokens where none are given: BERT's for WordPiece, RoBERTa's for the others.
    #[must_use]
    pub fn special_tokens(self) -> &'static [&'static str] {
        match self {
            Self::WordPiece => &["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"],
            _ => &["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        }
    }

    /// Whether text becomes lowercase where nothing is said: as in BERT's uncased models for WordPiece.
    #[must_use]
    pub fn lowercase(self) -> bool {
        self == Self::WordPiece
    }
}

/// Trains the vocabulary of a tokenizer on counts of words.
///
/// ```
/// use bertha_tokenizer::train::{TokenizerKind, TokenizerTrainer};
///
/// let trainer = TokenizerTrainer::new(TokenizerKind::WordPiece).vocab_size(40);
/// let mut counter = trainer.counter();
/// counter.add_texts(&["The old river went to the sea.", "To the sea went the old man."]);
/// let trained = trainer.train(&counter.finish())?;
/// assert!(trained.tokens().contains(&"the".to_owned()));
/// # let dir = tempfile::tempdir()?;
/// # let dir = dir.path().join("tokenizer");
/// trained.save(&dir, false)?;
/// let tokenizer = bertha_tokenizer::Tokenizer::from_dir(&dir)?;
/// assert_eq!(tokenizer.vocab_size(), trained.tokens().len());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct TokenizerTrainer {
    kind: TokenizerKind,
    vocab_size: usize,
    min_frequency: u64,
    limit_alphabet: Option<usize>,
    initial_alphabet: BTreeSet<char>,
    special_tokens: Vec<String>,
    lowercase: bool,
    max_piece_length: usize,
    shrinking_factor: f64,
    sub_iterations: usize,
    seed_pieces: usize,
}

impl TokenizerTrainer {
    /// A trainer for 30,000 tokens, with the special tokens and the case of the kind, without limits.
    #[must_use]
    pub fn new(kind: TokenizerKind) -> Self {
        Self {
            kind,
            vocab_size: 30_000,
            min_frequency: 0,
            limit_alphabet: None,
            initial_alphabet: match kind {
                TokenizerKind::ByteLevelBpe => byte_level::all_chars().collect(),
                _ => BTreeSet::new(),
            },
            special_tokens: kind.special_tokens().iter().map(|&t| t.into()).collect(),
            lowercase: kind.lowercase(),
            max_piece_length: 16,
            shrinking_factor: 0.75,
            sub_iterations: 2,
            seed_pieces: 1_000_000,
        }
    }

    /// Sets how many tokens to have, special tokens and characters included. A small corpus may give fewer.
    #[must_use]
    pub fn vocab_size(mut self, tokens: usize) -> Self {
        self.vocab_size = tokens;
        self
    }

    /// Sets how often two neighbours must occur to become one token. Unigram has no such limit.
    #[must_use]
    pub fn min_frequency(mut self, times: u64) -> Self {
        self.min_frequency = times;
        self
    }

    /// Sets how many characters to keep, at most: the most frequent, among equally frequent ones those of smaller code
    /// points. In WordPiece and BPE the others are left out of the words that are trained on, as in `tokenizers`; in
    /// Unigram words are cut at them. The tokenizer will not know them.
    #[must_use]
    pub fn limit_alphabet(mut self, characters: Option<usize>) -> Self {
        self.limit_alphabet = characters;
        self
    }

    /// Sets characters to have even if they are never seen; they count as the most frequent. The 256 characters of
    /// byte-level BPE need not be named.
    #[must_use]
    pub fn initial_alphabet(mut self, characters: impl IntoIterator<Item = char>) -> Self {
        self.initial_alphabet = characters.into_iter().collect();
        if self.kind == TokenizerKind::ByteLevelBpe {
            self.initial_alphabet.extend(byte_level::all_chars());
        }
        self
    }

    /// Sets the special tokens, which get the first ids in this order. Those named as BERT's or RoBERTa's are (`[CLS]`
    /// or `<s>`, `[SEP]` or `</s>`, `[PAD]`, `[UNK]`, `[MASK]` or the like in angle brackets) have those roles.
    #[must_use]
    pub fn special_tokens<S: Into<String>>(mut self, tokens: impl IntoIterator<Item = S>) -> Self {
        self.special_tokens = tokens.into_iter().map(Into::into).collect();
        self
    }

    /// Sets whether text becomes lowercase (in WordPiece: without accents, too).
    #[must_use]
    pub fn lowercase(mut self, lowercase: bool) -> Self {
        self.lowercase = lowercase;
        self
    }

    /// Sets the longest piece of Unigram in characters; by default 16.
    #[must_use]
    pub fn max_piece_length(mut self, characters: usize) -> Self {
        self.max_piece_length = characters;
        self
    }

    /// Sets the share of pieces that Unigram keeps in each round, between 0 and 1; by default 0.75.
    #[must_use]
    pub fn shrinking_factor(mut self, share: f64) -> Self {
        self.shrinking_factor = share;
        self
    }

    /// Sets how often Unigram estimates probabilities in each round; by default 2.
    #[must_use]
    pub fn sub_iterations(mut self, times: usize) -> Self {
        self.sub_iterations = times;
        self
    }

    /// Sets how many pieces Unigram begins with, at most; by default 1,000,000.
    #[must_use]
    pub fn seed_pieces(mut self, pieces: usize) -> Self {
        self.seed_pieces = pieces;
        self
    }

    /// Starts to count words, cut as the tokenizer will cut them.
    #[must_use]
    pub fn counter(&self) -> WordCounter {
        let lowercase = self.lowercase;
        WordCounter::new(match self.kind {
            TokenizerKind::WordPiece => Splitting::Bert { lowercase },
            TokenizerKind::ByteLevelBpe => Splitting::ByteLevel { lowercase },
            TokenizerKind::Bpe | TokenizerKind::Unigram => Splitting::Metaspace { lowercase },
        })
    }

    /// Checks the options, which [`train`](Self::train) does before anything else.
    ///
    /// # Errors
    /// When one makes no sense, or a special token that the kind needs is missing.
    pub fn check(&self) -> Result<(), TrainError> {
        let invalid = |option, found: String, expected: &str| {
            Err(TrainError::InvalidOption {
                option,
                found,
                expected: expected.to_owned(),
            })
        };
        for (i, token) in self.special_tokens.iter().enumerate() {
            if token.is_empty() || token.contains(['\n', '\r']) {
                let expected = "tokens of at least one character, without line ends";
                return invalid("special_tokens", format!("{token:?}"), expected);
            }
            if self.special_tokens[..i].contains(token) {
                let expected = "every token once";
                return invalid("special_tokens", format!("{token:?} twice"), expected);
            }
        }
        let unknown = special::of_role(&self.special_tokens, SpecialToken::Unk);
        if self.kind != TokenizerKind::ByteLevelBpe && unknown.is_none() {
            let expected = format!(
                "an unknown token, {}, among them",
                special::names(SpecialToken::Unk)
            );
            let found = format!("{:?}", self.special_tokens);
            return invalid("special_tokens", found, &expected);
        }
        if u32::try_from(self.vocab_size).is_err() {
            let expected = "at most 4294967295";
            return invalid("vocab_size", self.vocab_size.to_string(), expected);
        }
        if self.kind == TokenizerKind::Unigram {
            if !(self.shrinking_factor > 0.0 && self.shrinking_factor < 1.0) {
                let found = self.shrinking_factor.to_string();
                return invalid("shrinking_factor", found, "a number between 0 and 1");
            }
            for (option, found) in [
                ("max_piece_length", self.max_piece_length),
                ("sub_iterations", self.sub_iterations),
            ] {
                if !(1..=1000).contains(&found) {
                    return invalid(option, found.to_string(), "1 to 1000");
                }
            }
        }
        Ok(())
    }

    /// Trains on counted words. The result is the same for any number of threads.
    ///
    /// # Errors
    /// When an option makes no sense, there are no words, or the special tokens and characters alone are more than
    /// the vocabulary may hold.
    pub fn train(&self, words: &WordCounts) -> Result<TrainedTokenizer, TrainError> {
        self.train_with(words, &mut |_, _| {})
    }

    /// Trains as [`train`](Self::train) does, and calls `progress` with how much is done and how much there will
    /// probably be: tokens, or rounds of Unigram.
    ///
    /// # Errors
    /// As [`train`](Self::train).
    pub fn train_with(
        &self,
        words: &WordCounts,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<TrainedTokenizer, TrainError> {
        self.check()?;
        if words.is_empty() {
            return Err(TrainError::NoWords);
        }
        let limit_alphabet = match self.kind {
            TokenizerKind::ByteLevelBpe => None,
            _ => self.limit_alphabet,
        };
        let mut trained = TrainedTokenizer {
            kind: self.kind,
            lowercase: self.lowercase,
            special_tokens: self.special_tokens.clone(),
            tokens: Vec::new(),
            merges: Vec::new(),
            scores: Vec::new(),
            alphabet: Alphabet::default(),
        };
        if self.kind == TokenizerKind::Unigram {
            let special = self.special_tokens.len();
            let options = unigram::Options {
                pieces: self.vocab_size.saturating_sub(special),
                vocab_size: self.vocab_size,
                special,
                limit_alphabet,
                initial_alphabet: &self.initial_alphabet,
                longest: self.max_piece_length,
                shrinking_factor: self.shrinking_factor,
                sub_iterations: self.sub_iterations,
                seeds: self.seed_pieces,
            };
            let learned = unigram::learn(words, &options, progress)?;
            let special = self.special_tokens.iter().map(|token| (token.clone(), 0.0));
            let is_special = |piece: &str| self.special_tokens.iter().any(|token| token == piece);
            let pieces = learned
                .pieces
                .into_iter()
                .filter(|piece| !is_special(&piece.0));
            (trained.tokens, trained.scores) = special.chain(pieces).unzip();
            trained.alphabet = learned.alphabet;
        } else {
            let options = merges::Options {
                vocab_size: self.vocab_size,
                min_frequency: self.min_frequency,
                limit_alphabet,
                initial_alphabet: &self.initial_alphabet,
                special: &self.special_tokens,
                prefix: match self.kind {
                    TokenizerKind::WordPiece => WORD_PIECE_PREFIX,
                    _ => "",
                },
            };
            let of = self.vocab_size;
            let learned = merges::learn(words, &options, &mut |done| progress(done, of))?;
            trained.tokens = learned.tokens;
            trained.merges = learned.merges;
            trained.alphabet = learned.alphabet;
        }
        Ok(trained)
    }
}

/// What tokens inside words begin with.
pub(super) const WORD_PIECE_PREFIX: &str = "##";

/// A trained vocabulary, ready to be written as a folder.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainedTokenizer {
    pub(super) kind: TokenizerKind,
    pub(super) lowercase: bool,
    pub(super) special_tokens: Vec<String>,
    pub(super) tokens: Vec<String>,
    pub(super) merges: Vec<(u32, u32)>,
    pub(super) scores: Vec<f64>,
    alphabet: Alphabet,
}

impl TrainedTokenizer {
    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> TokenizerKind {
        self.kind
    }

    /// The tokens by id: special tokens, then for WordPiece and BPE characters by code point, those inside words
    /// (`##`) by code point, and merges in the order in which they were made; for Unigram pieces by falling
    /// probability.
    #[must_use]
    pub fn tokens(&self) -> &[String] {
        &self.tokens
    }

    /// Ids of the two tokens of every merge of WordPiece and BPE, in order.
    #[must_use]
    pub fn merges(&self) -> &[(u32, u32)] {
        &self.merges
    }

    /// The natural logarithm of the probability of every token of Unigram, 0 for special tokens; empty for other kinds.
    #[must_use]
    pub fn scores(&self) -> &[f64] {
        &self.scores
    }

    /// The special tokens.
    #[must_use]
    pub fn special_tokens(&self) -> &[String] {
        &self.special_tokens
    }

    /// Number of distinct characters that were kept.
    #[must_use]
    pub fn alphabet_size(&self) -> usize {
        self.alphabet.kept.len()
    }

    /// Number of distinct characters in the corpus.
    #[must_use]
    pub fn characters_seen(&self) -> usize {
        self.alphabet.seen
    }

    /// Share of the corpus' characters that were kept, each counted as often as it occurs.
    #[must_use]
    pub fn coverage(&self) -> f64 {
        match self.alphabet.total {
            0 => 1.0,
            total => self.alphabet.covered as f64 / total as f64,
        }
    }
}
