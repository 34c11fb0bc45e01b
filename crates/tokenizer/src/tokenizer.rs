//! The whole way from text to ids and back.

use std::fmt;
use std::sync::Arc;

use crate::added::AddedTokens;
use crate::decoder::Decoder;
use crate::encoding::{Encoding, count_chars};
use crate::error::TokenizerError;
use crate::load;
use crate::model::Model;
use crate::normalizer::Normalizer;
use crate::options::{
    BertOptions, Direction, EncodeOptions, Input, OffsetKind, Padding, Truncation,
};
use crate::pre_tokenizer::Splitter;
use crate::special::SpecialToken;
use crate::template::{Side, Template};
use crate::truncation;
use crate::work::{Ids, Memories, Path, Tokens};

/// A tokenizer, read from a model folder.
///
/// Clones share the vocabulary. One tokenizer may serve any number of threads.
///
/// ```no_run
/// use bertha_tokenizer::{EncodeOptions, Tokenizer};
///
/// # fn main() -> Result<(), bertha_tokenizer::TokenizerError> {
/// let tokenizer = Tokenizer::from_dir("models/all-MiniLM-L6-v2")?;
/// let pair = tokenizer.encode(("Who?", "Ada Lovelace."), &EncodeOptions::default())?;
/// assert_eq!(pair.type_ids(), [0, 0, 0, 0, 1, 1, 1, 1, 1]);
/// assert_eq!(tokenizer.decode(pair.ids(), true)?, "who? ada lovelace.");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Tokenizer {
    parts: Arc<Parts>,
}

/// What a tokenizer is made of.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) normalizer: Normalizer,
    pub(crate) splitters: Vec<Splitter>,
    /// How words come from the splitters to the model.
    pub(crate) path: Path,
    pub(crate) model: Model,
    pub(crate) added: AddedTokens,
    pub(crate) template: Template,
    pub(crate) decoder: Decoder,
    pub(crate) truncation: Option<Truncation>,
    pub(crate) padding: Option<Padding>,
    /// Id of each special token, by role.
    pub(crate) special: [Option<u32>; 5],
    /// Memory for the work on texts.
    pub(crate) memories: Memories,
}

impl Parts {
    pub(crate) fn token_to_id(&self, token: &str) -> Option<u32> {
        self.added
            .id(token)
            .or_else(|| self.model.vocab().id(token))
    }

    pub(crate) fn id_to_token(&self, id: u32) -> Option<&str> {
        self.added
            .token(id)
            .or_else(|| self.model.vocab().token(id))
    }
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Parts {
            normalizer,
            splitters,
            template,
            truncation,
            ..
        } = &*self.parts;
        f.debug_struct("Tokenizer")
            .field("vocab_size", &self.vocab_size())
            .field("normalizer", normalizer)
            .field("pre_tokenizer", splitters)
            .field("template", template)
            .field("truncation", truncation)
            .finish_non_exhaustive()
    }
}

impl Tokenizer {
    /// Reads the tokenizer of a model folder: `tokenizer.json`, or if there is none `vocab.txt`, `vocab.json` with
    /// `merges.txt`, or a sentencepiece model, with `tokenizer_config.json`, `special_tokens_map.json` and
    /// `added_tokens.json` where they are.
    ///
    /// # Errors
    /// When there is neither, a file cannot be read or is damaged, or a component is unknown.
    pub fn from_dir(dir: impl AsRef<std::path::Path>) -> Result<Self, TokenizerError> {
        load::from_dir(dir.as_ref()).map(Self::new)
    }

    /// Reads a `tokenizer.json`.
    ///
    /// # Errors
    /// When the file cannot be read or is damaged, or a component is unknown.
    pub fn from_file(path: impl AsRef<std::path::Path>) -> Result<Self, TokenizerError> {
        load::from_file(path.as_ref()).map(Self::new)
    }

    /// Makes a tokenizer of the contents of a `tokenizer.json`.
    ///
    /// # Errors
    /// When the contents are damaged, or a component is unknown.
    pub fn from_json(json: impl AsRef<[u8]>) -> Result<Self, TokenizerError> {
        load::from_json(json.as_ref()).map(Self::new)
    }

    /// Makes BERT's tokenizer of a `vocab.txt`, which has a token per line, the first with id 0.
    ///
    /// # Errors
    /// When the file cannot be read or is not UTF-8, or lacks the unknown, separator or classifier token.
    pub fn from_vocab_file(
        path: impl AsRef<std::path::Path>,
        options: BertOptions,
    ) -> Result<Self, TokenizerError> {
        load::from_vocab_file(path.as_ref(), &options).map(Self::new)
    }

    pub(crate) fn new(parts: Parts) -> Self {
        Self {
            parts: Arc::new(parts),
        }
    }

    /// Tokenizes a text or a pair of texts.
    ///
    /// # Errors
    /// When a text is longer than 4 GiB, or the options' truncation cannot be done: no room for special tokens, a
    /// stride as long as a window, the text that may be cut too short.
    pub fn encode<'a>(
        &self,
        input: impl Into<Input<'a>>,
        options: &EncodeOptions,
    ) -> Result<Encoding, TokenizerError> {
        let (first, second) = match input.into() {
            Input::Single(text) => (text, None),
            Input::Pair(first, second) => (first, Some(second)),
        };
        let parts = &*self.parts;
        let (special, enough) = parts.limits(second.is_some(), options);
        let first = parts.tokenize(first, options, enough)?;
        let second = second
            .map(|text| parts.tokenize(text, options, enough))
            .transpose()?;
        let second_len = second.as_ref().map(|second| second.tokens.len());
        let whole = [0..first.tokens.len(), 0..second_len.unwrap_or(0)];
        let total = whole[0].end + whole[1].end + special;
        let planned = match &options.truncation {
            Some(truncation) if total > truncation.max_length => Some(truncation::plan(
                first.tokens.len(),
                second_len,
                truncation,
                special,
            )?),
            _ => None,
        };
        let (first_windows, second_windows) = match &planned {
            Some((first, second)) => (&first[..], &second[..]),
            None => whole.split_at(1),
        };
        let first = Side {
            tokens: &first.tokens,
            blanks: &first.blanks,
            windows: first_windows,
        };
        let second = second.as_ref().map(|second| Side {
            tokens: &second.tokens,
            blanks: &second.blanks,
            windows: second_windows,
        });
        parts.template.apply(
            &first,
            second.as_ref(),
            options.add_special_tokens,
            options.overflow,
        )
    }

    /// Tokenizes a text or a pair of texts to the ids that [`Tokenizer::encode`] gives, and nothing else, which is
    /// faster. Of the options those about offsets and overflow are of no consequence.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_ids<'a>(
        &self,
        input: impl Into<Input<'a>>,
        options: &EncodeOptions,
    ) -> Result<Vec<u32>, TokenizerError> {
        let (first, second) = match input.into() {
            Input::Single(text) => (text, None),
            Input::Pair(first, second) => (first, Some(second)),
        };
        let parts = &*self.parts;
        let options = EncodeOptions {
            overflow: false,
            ..options.clone()
        };
        let (special, enough) = parts.limits(second.is_some(), &options);
        let first = Ids::of(parts, first, &options, enough)?;
        let second = second
            .map(|text| Ids::of(parts, text, &options, enough))
            .transpose()?;
        let total = first.len() + second.as_ref().map_or(0, Vec::len) + special;
        let (mut keep_first, mut keep_second) = (0..first.len(), 0..total);
        if let Some(truncation) = &options.truncation
            && total > truncation.max_length
        {
            let second_len = second.as_ref().map(Vec::len);
            let (firsts, seconds) = truncation::plan(first.len(), second_len, truncation, special)?;
            keep_first = firsts.into_iter().next().unwrap_or(0..0);
            keep_second = seconds.into_iter().next().unwrap_or(0..0);
        }
        let second = second.as_ref().map(|second| {
            let end = keep_second.end.min(second.len());
            &second[keep_second.start..end]
        });
        Ok(parts
            .template
            .ids(&first[keep_first], second, options.add_special_tokens))
    }

    /// Tokenizes many inputs, with the feature `rayon` on the threads of the pool that it is called in.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`]; of several inputs' errors, the first input's.
    pub fn encode_batch<'a, I>(
        &self,
        inputs: &[I],
        options: &EncodeOptions,
    ) -> Result<Vec<Encoding>, TokenizerError>
    where
        I: Into<Input<'a>> + Copy + Sync,
    {
        #[cfg(feature = "rayon")]
        {
            use rayon::prelude::*;
            // All results first: which error comes first must not depend on the threads.
            let encodings: Vec<_> = inputs
                .par_iter()
                .map(|&input| self.encode(input, options))
                .collect();
            encodings.into_iter().collect()
        }
        #[cfg(not(feature = "rayon"))]
        inputs
            .iter()
            .map(|&input| self.encode(input, options))
            .collect()
    }

    /// The text of tokens. It is not always the text that they came from: what normalization changed stays changed.
    ///
    /// # Errors
    /// When no token has one of the ids.
    pub fn decode(&self, ids: &[u32], skip_special_tokens: bool) -> Result<String, TokenizerError> {
        let parts = &*self.parts;
        let mut tokens = Vec::with_capacity(ids.len());
        for &id in ids {
            let Some(token) = parts.id_to_token(id) else {
                let largest = parts
                    .model
                    .vocab()
                    .largest_id()
                    .max(parts.added.largest_id());
                let largest = largest.unwrap_or(0);
                return Err(TokenizerError::UnknownId {
                    id,
                    size: self.vocab_size(),
                    largest,
                });
            };
            if !(skip_special_tokens && parts.added.is_special(token)) {
                tokens.push(token);
            }
        }
        Ok(parts.decoder.decode(tokens.into_iter()))
    }

    /// The id of a token, added tokens included.
    #[must_use]
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.parts.token_to_id(token)
    }

    /// The token of an id, added tokens included.
    #[must_use]
    pub fn id_to_token(&self, id: u32) -> Option<&str> {
        self.parts.id_to_token(id)
    }

    /// Number of tokens, added tokens included. Ids may have gaps: the largest may be larger.
    #[must_use]
    pub fn vocab_size(&self) -> usize {
        self.parts.model.vocab().len() + self.parts.added.new_tokens()
    }

    /// The texts of an encoding's tokens.
    pub fn tokens<'a>(&'a self, encoding: &'a Encoding) -> impl Iterator<Item = &'a str> {
        // An encoding of another tokenizer may have ids that this one has not.
        encoding
            .ids()
            .iter()
            .map(|&id| self.id_to_token(id).unwrap_or(""))
    }

    /// The text and id of the special token with a role, if there is one.
    #[must_use]
    pub fn special_token(&self, role: SpecialToken) -> Option<(&str, u32)> {
        let id = self.parts.special[role as usize]?;
        Some((self.id_to_token(id)?, id))
    }

    /// Number of special tokens that are added to a text or a pair.
    #[must_use]
    pub fn num_special_tokens(&self, pair: bool) -> usize {
        self.parts.template.added(pair)
    }

    /// The truncation that `tokenizer.json` carries. It is only done where [`EncodeOptions`] ask for it.
    #[must_use]
    pub fn truncation(&self) -> Option<&Truncation> {
        self.parts.truncation.as_ref()
    }

    /// The padding that `tokenizer.json` carries, for information: it is never done.
    #[must_use]
    pub fn padding(&self) -> Option<&Padding> {
        self.parts.padding.as_ref()
    }
}

impl Parts {
    /// The special tokens that will be added, and the number of tokens beyond which the rest of a text need not be
    /// tokenized.
    fn limits(&self, pair: bool, options: &EncodeOptions) -> (usize, usize) {
        let special = match options.add_special_tokens {
            true => self.template.added(pair),
            false => 0,
        };
        // What comes after the limit need not be tokenized if nobody will see it.
        let enough = match &options.truncation {
            Some(truncation)
                if !pair && !options.overflow && truncation.direction == Direction::Right =>
            {
                truncation
                    .max_length
                    .saturating_sub(special)
                    .saturating_add(1)
            }
            _ => usize::MAX,
        };
        (special, enough)
    }

    /// The tokens of one text; after at least `enough` of them the rest may be missing.
    fn tokenize(
        &self,
        text: &str,
        options: &EncodeOptions,
        enough: usize,
    ) -> Result<Tokens, TokenizerError> {
        let mut tokens = Tokens::of(self, text, options, enough)?;
        if options.offsets == OffsetKind::Chars {
            count_chars(&mut tokens.tokens, text);
        }
        Ok(tokens)
    }
}
