//! What a caller asks of one encoding: special tokens, truncation, kind of offsets.

use serde::Deserialize;

/// What to encode: one text or a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input<'a> {
    /// One text.
    Single(&'a str),
    /// Two texts that the model reads together, such as a question and a passage.
    Pair(&'a str, &'a str),
}

impl<'a> From<&'a str> for Input<'a> {
    fn from(text: &'a str) -> Self {
        Self::Single(text)
    }
}

impl<'a> From<&'a String> for Input<'a> {
    fn from(text: &'a String) -> Self {
        Self::Single(text)
    }
}

impl<'a> From<(&'a str, &'a str)> for Input<'a> {
    fn from((first, second): (&'a str, &'a str)) -> Self {
        Self::Pair(first, second)
    }
}

impl<'a> From<(&'a String, &'a String)> for Input<'a> {
    fn from((first, second): (&'a String, &'a String)) -> Self {
        Self::Pair(first, second)
    }
}

/// How to encode.
///
/// The default adds special tokens, does not truncate and counts offsets in characters, as Python does.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct EncodeOptions {
    /// Whether to add the model's special tokens (`[CLS]`, `[SEP]`).
    pub add_special_tokens: bool,
    /// Whether the text of a special token inside the input, such as a literal `[SEP]`, becomes that token. Switch
    /// off for text from strangers.
    pub match_special_tokens: bool,
    /// What to do with input that is too long; `None` keeps it whole.
    pub truncation: Option<Truncation>,
    /// Whether what truncation cuts off comes back as further windows ([`Encoding::overflowing`]).
    ///
    /// [`Encoding::overflowing`]: crate::Encoding::overflowing
    pub overflow: bool,
    /// The unit of offsets.
    pub offsets: OffsetKind,
}

impl Default for EncodeOptions {
    fn default() -> Self {
        Self {
            add_special_tokens: true,
            match_special_tokens: true,
            truncation: None,
            overflow: true,
            offsets: OffsetKind::Chars,
        }
    }
}

impl EncodeOptions {
    /// Default options that keep at most `max_length` tokens, special tokens included.
    #[must_use]
    pub fn truncated(max_length: usize) -> Self {
        Self {
            truncation: Some(Truncation::new(max_length)),
            ..Self::default()
        }
    }

    /// Sets whether special tokens are added.
    #[must_use]
    pub fn special_tokens(mut self, add: bool) -> Self {
        self.add_special_tokens = add;
        self
    }

    /// Sets the truncation.
    #[must_use]
    pub fn truncation(mut self, truncation: Option<Truncation>) -> Self {
        self.truncation = truncation;
        self
    }

    /// Sets the unit of offsets.
    #[must_use]
    pub fn offsets(mut self, kind: OffsetKind) -> Self {
        self.offsets = kind;
        self
    }

    /// Sets whether the windows beyond the first are returned.
    #[must_use]
    pub fn overflow(mut self, keep: bool) -> Self {
        self.overflow = keep;
        self
    }

    /// Sets whether special tokens written out in the text are recognised.
    #[must_use]
    pub fn match_special_tokens(mut self, matched: bool) -> Self {
        self.match_special_tokens = matched;
        self
    }
}

/// The unit of offsets into the original text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OffsetKind {
    /// Unicode characters, as Python counts.
    #[default]
    Chars,
    /// UTF-8 bytes, as Rust slices.
    Bytes,
}

/// How input that is too long is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Truncation {
    /// The longest result in tokens, special tokens included.
    pub max_length: usize,
    /// Which text of a pair is cut.
    #[serde(default)]
    pub strategy: TruncationStrategy,
    /// Tokens that a window repeats from the one before.
    #[serde(default)]
    pub stride: usize,
    /// The end that is cut.
    #[serde(default)]
    pub direction: Direction,
}

impl Truncation {
    /// Cuts the longest text on the right, without overlap.
    #[must_use]
    pub fn new(max_length: usize) -> Self {
        Self {
            max_length,
            strategy: TruncationStrategy::default(),
            stride: 0,
            direction: Direction::Right,
        }
    }

    /// Sets which text of a pair is cut.
    #[must_use]
    pub fn strategy(mut self, strategy: TruncationStrategy) -> Self {
        self.strategy = strategy;
        self
    }

    /// Sets the tokens that a window repeats from the one before.
    #[must_use]
    pub fn stride(mut self, stride: usize) -> Self {
        self.stride = stride;
        self
    }

    /// Sets the end that is cut.
    #[must_use]
    pub fn direction(mut self, direction: Direction) -> Self {
        self.direction = direction;
        self
    }
}

/// Which text of a pair is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub enum TruncationStrategy {
    /// The longer one, until both are equally long, then both.
    #[default]
    LongestFirst,
    /// The first only.
    OnlyFirst,
    /// The second only.
    OnlySecond,
}

/// A side of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub enum Direction {
    /// The beginning.
    Left,
    /// The end.
    #[default]
    Right,
}

/// Padding saved in tokenizer.json. bertha packs sequences end to end and never pads; it is here for those who do.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Padding {
    /// How long padded sequences get.
    pub strategy: PaddingStrategy,
    /// The side that is filled.
    #[serde(default)]
    pub direction: Direction,
    /// Round the length up to a multiple.
    #[serde(default)]
    pub pad_to_multiple_of: Option<usize>,
    /// Id of the filling token.
    pub pad_id: u32,
    /// Type id of the filling token.
    #[serde(default)]
    pub pad_type_id: u32,
    /// Text of the filling token.
    pub pad_token: String,
}

/// How long padded sequences get.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum PaddingStrategy {
    /// As the longest of a batch.
    BatchLongest,
    /// A fixed number of tokens.
    Fixed(usize),
}

/// What a `vocab.txt` leaves open; the defaults are those of `bert-base-uncased`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BertOptions {
    /// Whether to lowercase.
    pub lowercase: bool,
    /// Whether to strip accents; `None` follows `lowercase`.
    pub strip_accents: Option<bool>,
    /// Whether to put every Chinese character into a word of its own.
    pub tokenize_chinese_chars: bool,
    /// Whether to delete control characters.
    pub clean_text: bool,
    /// Token for words that the vocabulary cannot spell.
    pub unk_token: String,
    /// Token between and after texts.
    pub sep_token: String,
    /// Token that fills up batches.
    pub pad_token: String,
    /// Token before the first text.
    pub cls_token: String,
    /// Token that masked language models fill in.
    pub mask_token: String,
    /// Tokens that are matched in the text as they stand.
    pub never_split: Vec<String>,
}

impl Default for BertOptions {
    fn default() -> Self {
        Self {
            lowercase: true,
            strip_accents: None,
            tokenize_chinese_chars: true,
            clean_text: true,
            unk_token: "[UNK]".into(),
            sep_token: "[SEP]".into(),
            pad_token: "[PAD]".into(),
            cls_token: "[CLS]".into(),
            mask_token: "[MASK]".into(),
            never_split: Vec::new(),
        }
    }
}
