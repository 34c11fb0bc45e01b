//! The work on one text: from the text to tokens, of which nothing is cut off yet.

use std::ops::ControlFlow;
use std::sync::{Mutex, PoisonError};

use crate::added::Stage;
use crate::encoding::Token;
use crate::error::TokenizerError;
use crate::model::cache::Key;
use crate::model::{Model, Piece, Scratch};
use crate::options::EncodeOptions;
use crate::pre_tokenizer::{self, ByteLevel, Splitter, byte_level};
use crate::template::Blank;
use crate::tokenizer::Parts;
use crate::unicode::{self, SPACE};

/// What is made of the tokens that are found.
pub(crate) trait Out {
    /// Makes room for tokens to come.
    fn reserve(&mut self, tokens: usize);
    /// Takes a token. `range` is where it stands in the text, `blank` how much white space its text begins and ends with.
    fn push(
        &mut self,
        id: u32,
        word: u32,
        range: impl FnOnce() -> (u32, u32),
        blank: impl FnOnce() -> (u32, u32),
    );
    /// Tokens so far.
    fn count(&self) -> usize;
}

/// All about the tokens.
#[derive(Debug, Default)]
pub(crate) struct Tokens {
    pub(crate) tokens: Vec<Token>,
    pub(crate) blanks: Vec<Blank>,
    /// Whether to look for blanks.
    trims: bool,
}

impl Tokens {
    /// The tokens of a text; after at least `enough` of them the rest may be missing.
    pub(crate) fn of(
        parts: &Parts,
        text: &str,
        options: &EncodeOptions,
        enough: usize,
    ) -> Result<Self, TokenizerError> {
        let out = Self {
            trims: !parts.template.trims.is_empty(),
            ..Self::default()
        };
        Work::run(parts, text, options, enough, out)
    }
}

impl Out for Tokens {
    fn reserve(&mut self, tokens: usize) {
        self.tokens.reserve(tokens);
    }

    #[inline]
    fn push(
        &mut self,
        id: u32,
        word: u32,
        range: impl FnOnce() -> (u32, u32),
        blank: impl FnOnce() -> (u32, u32),
    ) {
        let (start, end) = range();
        if self.trims {
            let (lead, trail) = blank();
            if lead + trail > 0 {
                let at = self.tokens.len();
                self.blanks.push(Blank { at, lead, trail });
            }
        }
        self.tokens.push(Token {
            id,
            start,
            end,
            word,
        });
    }

    #[inline]
    fn count(&self) -> usize {
        self.tokens.len()
    }
}

/// Ids alone.
#[derive(Debug, Default)]
pub(crate) struct Ids(Vec<u32>);

impl Ids {
    /// The ids of a text; after at least `enough` of them the rest may be missing.
    pub(crate) fn of(
        parts: &Parts,
        text: &str,
        options: &EncodeOptions,
        enough: usize,
    ) -> Result<Vec<u32>, TokenizerError> {
        Work::run(parts, text, options, enough, Self::default()).map(|ids| ids.0)
    }
}

impl Out for Ids {
    fn reserve(&mut self, tokens: usize) {
        self.0.reserve(tokens);
    }

    #[inline]
    fn push(
        &mut self,
        id: u32,
        _: u32,
        _: impl FnOnce() -> (u32, u32),
        _: impl FnOnce() -> (u32, u32),
    ) {
        self.0.push(id);
    }

    #[inline]
    fn count(&self) -> usize {
        self.0.len()
    }
}

/// How words come to the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Path {
    /// Cut out of the text.
    Cuts,
    /// Cut out of the text, the last time into byte-level words, for a model that takes them as they are.
    Bytes(ByteLevel),
    /// Changed on the way.
    Texts,
}

impl Path {
    /// Whether a BPE model behind these splitters may take byte-level words as they are.
    pub(crate) fn is_byte_level(splitters: &[Splitter]) -> bool {
        match splitters.split_last() {
            Some((Splitter::ByteLevel(_), before)) => before.iter().all(Splitter::only_cuts),
            _ => false,
        }
    }

    pub(crate) fn of(splitters: &[Splitter], model: &Model) -> Self {
        match (model, splitters.last()) {
            (Model::Bpe(model), Some(Splitter::ByteLevel(byte_level))) if model.is_byte_level() => {
                Self::Bytes(*byte_level)
            }
            _ if splitters.iter().all(Splitter::only_cuts) => Self::Cuts,
            _ => Self::Texts,
        }
    }
}

/// What is kept from text to text: as many memories as texts were worked on at once.
#[derive(Debug, Default)]
pub(crate) struct Memories(Mutex<Vec<Memory>>);

/// What one text at a time needs besides the text.
#[derive(Debug, Default)]
struct Memory {
    pieces: Vec<Piece>,
    scratch: Scratch,
}

/// Memory that long words took is not kept beyond this many tokens.
const KEPT_PIECES: usize = 1 << 16;

impl Memories {
    fn take(&self) -> Memory {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.pop().unwrap_or_default()
    }

    fn give_back(&self, mut memory: Memory) {
        if memory.pieces.capacity() > KEPT_PIECES {
            memory.pieces = Vec::new();
            memory.scratch.forget_long_words();
        }
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push(memory);
    }
}

/// The work on one text.
struct Work<'t, O> {
    parts: &'t Parts,
    match_special: bool,
    enough: usize,
    out: O,
    memory: Memory,
    /// The number of the next word.
    word: u32,
    failed: Option<TokenizerError>,
}

impl<O: Out> Work<'_, O> {
    fn run(
        parts: &Parts,
        text: &str,
        options: &EncodeOptions,
        enough: usize,
        out: O,
    ) -> Result<O, TokenizerError> {
        if u32::try_from(text.len()).is_err() {
            return Err(TokenizerError::TextTooLong { bytes: text.len() });
        }
        let mut work = Work {
            parts,
            match_special: options.match_special_tokens,
            enough,
            out,
            memory: parts.memories.take(),
            word: 0,
            failed: None,
        };
        // Nothing is wrong with stopping early, unless something is.
        let _ = work.raw(text);
        parts.memories.give_back(work.memory);
        match work.failed {
            None => Ok(work.out),
            Some(error) => Err(error),
        }
    }

    /// The text as it is.
    fn raw(&mut self, text: &str) -> ControlFlow<()> {
        match self.parts.added.split(text, Stage::Raw, self.match_special) {
            None => self.plain(text, 0),
            Some(pieces) => pieces
                .into_iter()
                .try_for_each(|(start, end, id)| match id {
                    None => self.plain(&text[start..end], start as u32),
                    Some(id) => self.added(id, &text[start..end], (start as u32, end as u32)),
                }),
        }
    }

    /// A part of the text that holds no added token as it is. It begins at byte `shift`.
    fn plain(&mut self, text: &str, shift: u32) -> ControlFlow<()> {
        let normalized = self.parts.normalizer.normalize(text);
        let mut cursor = normalized.spans.cursor();
        let text = &*normalized.text;
        let mut original = |start, end| {
            let (start, end) = cursor.original(start, end);
            (shift + start, shift + end)
        };
        match self
            .parts
            .added
            .split(text, Stage::Normalized, self.match_special)
        {
            None => self.words(text, 0, &mut original),
            Some(pieces) => pieces
                .into_iter()
                .try_for_each(|(start, end, id)| match id {
                    None => self.words(&text[start..end], start, &mut original),
                    Some(id) => self.added(id, &text[start..end], original(start, end)),
                }),
        }
    }

    /// Normalized text without added tokens, which begins at byte `shift` of the normalized text.
    fn words(
        &mut self,
        text: &str,
        shift: usize,
        original: &mut impl FnMut(usize, usize) -> (u32, u32),
    ) -> ControlFlow<()> {
        // Four or five bytes make a token of English.
        self.out.reserve((text.len() / 4 + 1).min(self.enough));
        let parts = self.parts;
        match parts.path {
            Path::Cuts => pre_tokenizer::words(&parts.splitters, text, |start, end| {
                let from = shift + start;
                self.word(&text[start..end], |s, e| original(from + s, from + e))
            }),
            Path::Bytes(byte_level) => {
                let before = &parts.splitters[..parts.splitters.len() - 1];
                if before.is_empty() {
                    return self.bytes(byte_level, text, shift, original);
                }
                pre_tokenizer::words(before, text, |start, end| {
                    self.bytes(byte_level, &text[start..end], shift + start, original)
                })
            }
            Path::Texts => {
                let mut locate = |start, end| original(shift + start, shift + end);
                pre_tokenizer::texts(&parts.splitters, text, &mut locate, &mut |word, locate| {
                    self.word(word, locate)
                })
            }
        }
    }

    /// A piece of text that is cut into byte-level words. It begins at byte `shift` of the normalized text.
    fn bytes(
        &mut self,
        byte_level: ByteLevel,
        text: &str,
        shift: usize,
        original: &mut impl FnMut(usize, usize) -> (u32, u32),
    ) -> ControlFlow<()> {
        if !byte_level.prefixes(text) {
            return self.byte_words(byte_level, text, |s, e| original(shift + s, shift + e));
        }
        let mut prefixed = String::with_capacity(text.len() + 1);
        prefixed.push(' ');
        prefixed.push_str(text);
        let first = text.chars().next().map_or(0, char::len_utf8);
        // The space in front stands for the first character.
        self.byte_words(byte_level, &prefixed, |s, e| {
            let end = if e <= 1 { first } else { e - 1 };
            original(shift + s.saturating_sub(1), shift + end)
        })
    }

    fn byte_words(
        &mut self,
        byte_level: ByteLevel,
        text: &str,
        mut locate: impl FnMut(usize, usize) -> (u32, u32),
    ) -> ControlFlow<()> {
        if !byte_level.words {
            return match text.is_empty() {
                true => ControlFlow::Continue(()),
                false => self.word(text, locate),
            };
        }
        let mut at = 0;
        while at < text.len() {
            let end = byte_level::gpt2_word(text, at);
            self.word(&text[at..end], |s, e| locate(at + s, at + e))?;
            at = end;
        }
        ControlFlow::Continue(())
    }

    /// Makes tokens of a word. `locate` says where a part of it stands in the text.
    #[inline]
    fn word(
        &mut self,
        word: &str,
        mut locate: impl FnMut(usize, usize) -> (u32, u32),
    ) -> ControlFlow<()> {
        let parts = self.parts;
        let number = self.word;
        if let Some(id) = parts.model.whole(word) {
            let blank = || blanks_of(parts, id, word.as_bytes());
            self.out.push(id, number, || locate(0, word.len()), blank);
        } else {
            self.pieces(word, number, locate)?;
        }
        self.word = number.saturating_add(1);
        self.go_on()
    }

    /// Makes tokens of a word that is not seen to be one token.
    #[inline]
    fn pieces(
        &mut self,
        word: &str,
        number: u32,
        mut locate: impl FnMut(usize, usize) -> (u32, u32),
    ) -> ControlFlow<()> {
        let parts = self.parts;
        let out = &mut self.out;
        let mut push = |Piece { id, start, end }: Piece| {
            let (start, end) = (start as usize, end as usize);
            let blank = || {
                let bytes = word.as_bytes();
                blanks_of(parts, id, bytes.get(start..end).unwrap_or_default())
            };
            let range = || {
                let (start, end) = whole_characters(word, start, end);
                locate(start, end)
            };
            out.push(id, number, range, blank);
        };
        let Memory { pieces, scratch } = &mut self.memory;
        let key = Key::of(word.as_bytes());
        if let Some(key) = &key
            && let Some(known) = scratch.cache.find(key)
        {
            known.for_each(push);
            return ControlFlow::Continue(());
        }
        if parts.model.tokenize(word, scratch, pieces).is_err() {
            return self.fail(word);
        }
        if let Some(key) = &key {
            scratch.cache.insert(key, pieces);
        }
        pieces.iter().copied().for_each(&mut push);
        ControlFlow::Continue(())
    }

    #[cold]
    fn fail(&mut self, word: &str) -> ControlFlow<()> {
        self.failed = Some(TokenizerError::Unspellable {
            word: word.chars().take(40).collect(),
        });
        ControlFlow::Break(())
    }

    /// Adds an added token, which stands for `text`.
    fn added(&mut self, id: u32, text: &str, range: (u32, u32)) -> ControlFlow<()> {
        self.out.push(id, self.word, || range, || blanks(text));
        self.word = self.word.saturating_add(1);
        self.go_on()
    }

    #[inline]
    fn go_on(&self) -> ControlFlow<()> {
        if self.out.count() < self.enough {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    }
}

/// Makes a part of a word one of whole characters, and one that is inside the word.
#[inline]
fn whole_characters(word: &str, start: usize, end: usize) -> (usize, usize) {
    let (mut start, mut end) = (start.min(word.len()), end.min(word.len()));
    while !word.is_char_boundary(start) {
        start -= 1;
    }
    while !word.is_char_boundary(end) {
        end += 1;
    }
    (start, end)
}

/// The white space that a token's text begins and ends with. `bytes` are those of the word that it stands for.
fn blanks_of(parts: &Parts, id: u32, bytes: &[u8]) -> (u32, u32) {
    let spaces = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    if matches!(parts.path, Path::Bytes(_)) {
        let space = |byte: &&u8| **byte == b' ';
        let lead = bytes.iter().take_while(space).count();
        let trail = bytes.iter().rev().take_while(space).count();
        return (spaces(lead), spaces(trail));
    }
    match std::str::from_utf8(bytes) {
        Ok(text) if parts.model.stands_for_any_text(id) => blanks(text),
        _ => blanks(parts.model.vocab().token(id).unwrap_or_default()),
    }
}

/// The white space that a text begins and ends with, byte-level spaces included.
fn blanks(text: &str) -> (u32, u32) {
    let space = |c: &char| *c == byte_level::CHARS[b' ' as usize] || unicode::is(*c, SPACE);
    let lead = text.chars().take_while(space).count() as u32;
    let trail = text.chars().rev().take_while(space).count() as u32;
    (lead, trail)
}
