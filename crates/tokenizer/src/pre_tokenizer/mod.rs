//! Cutting normalized text into words, each of which the model cuts into tokens.

pub(crate) mod byte_level;
pub(crate) mod metaspace;

use std::ops::ControlFlow;

use crate::normalizer::Aligned;
use crate::pattern::{self, Behavior, Pattern};
use crate::scan::{CLASSES, Class};
use crate::unicode::{self, PUNCTUATION, SPACE, WORD};
use metaspace::Metaspace;

/// One way of cutting.
#[derive(Debug, Clone)]
pub(crate) enum Splitter {
    /// At whitespace, which goes; punctuation characters are words of their own.
    Bert,
    /// At whitespace, which goes; runs of `\w` and runs of what is neither are words.
    Whitespace,
    /// At whitespace, which goes.
    WhitespaceSplit,
    /// At punctuation.
    Punctuation(Behavior),
    /// At digits and other numeric characters, each by itself or in runs.
    Digits { individual: bool },
    /// At a character, which goes.
    Character(char),
    /// At a pattern, or at what lies between its matches.
    Pattern {
        pattern: Pattern,
        behavior: Behavior,
        inverted: bool,
    },
    /// Into pieces of so many characters.
    FixedLength(usize),
    /// Spaces become marks that begin words.
    Metaspace(Metaspace),
    /// Bytes become characters.
    ByteLevel(ByteLevel),
}

/// Byte-level cutting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ByteLevel {
    /// Whether text that begins with no space gets one.
    pub(crate) add_prefix_space: bool,
    /// Whether to cut into GPT-2's words.
    pub(crate) words: bool,
}

/// The names of the pre-tokenizers that tokenizer.json may ask for.
pub(crate) const KNOWN: &str = "BertPreTokenizer, ByteLevel, CharDelimiterSplit, Digits, FixedLength, Metaspace, \
     Punctuation, Sequence, Split, Whitespace, WhitespaceSplit, null";

/// What becomes of a word: (start, end) in the text.
type Emit<'a> = dyn FnMut(usize, usize) -> ControlFlow<()> + 'a;

/// Where a range of a piece of text, which is not empty and consists of whole characters, stands in the original.
pub(crate) type Locate<'a> = dyn FnMut(usize, usize) -> (u32, u32) + 'a;

/// What becomes of a word that may have been changed: its text, and where its parts come from.
pub(crate) type EmitText<'a> = dyn FnMut(&str, &mut Locate<'_>) -> ControlFlow<()> + 'a;

impl Splitter {
    /// Whether words stand in the text as they are.
    pub(crate) fn only_cuts(&self) -> bool {
        !matches!(self, Self::Metaspace(_) | Self::ByteLevel(_))
    }
}

/// Calls `emit` with every word of `text`, which splitters that only cut do one after the other, until it breaks.
/// Without splitters the text is one word.
#[inline]
pub(crate) fn words(
    splitters: &[Splitter],
    text: &str,
    mut emit: impl FnMut(usize, usize) -> ControlFlow<()>,
) -> ControlFlow<()> {
    match splitters {
        [Splitter::Bert] => bert(text, emit),
        _ => cut(splitters, text, 0, &mut emit),
    }
}

fn cut(splitters: &[Splitter], text: &str, shift: usize, emit: &mut Emit<'_>) -> ControlFlow<()> {
    let Some((first, further)) = splitters.split_first() else {
        return if text.is_empty() {
            ControlFlow::Continue(())
        } else {
            emit(shift, shift + text.len())
        };
    };
    first.cut(text, &mut |start, end| match further {
        [] => emit(shift + start, shift + end),
        _ => cut(further, &text[start..end], shift + start, emit),
    })
}

/// As [`words`], with splitters of every kind.
pub(crate) fn texts(
    splitters: &[Splitter],
    text: &str,
    locate: &mut Locate<'_>,
    emit: &mut EmitText<'_>,
) -> ControlFlow<()> {
    let Some((first, further)) = splitters.split_first() else {
        return if text.is_empty() {
            ControlFlow::Continue(())
        } else {
            emit(text, locate)
        };
    };
    match first {
        Splitter::Metaspace(metaspace) => metaspace.texts(text, locate, &mut |text, locate| {
            texts(further, text, locate, emit)
        }),
        Splitter::ByteLevel(byte_level) => byte_level.texts(text, locate, &mut |text, locate| {
            texts(further, text, locate, emit)
        }),
        _ => first.cut(text, &mut |start, end| {
            let mut inner = |s: usize, e: usize| locate(start + s, start + e);
            texts(further, &text[start..end], &mut inner, emit)
        }),
    }
}

impl Splitter {
    /// Cuts text without changing it.
    fn cut(&self, text: &str, emit: &mut Emit<'_>) -> ControlFlow<()> {
        match self {
            Self::Bert => bert(text, emit),
            Self::Whitespace => runs(
                text,
                |c| (!unicode::is(c, SPACE)).then(|| unicode::is(c, WORD)),
                emit,
            ),
            Self::WhitespaceSplit => runs(text, |c| (!unicode::is(c, SPACE)).then_some(()), emit),
            Self::Punctuation(behavior) => {
                at_characters(text, |c| unicode::is(c, PUNCTUATION), *behavior, emit)
            }
            Self::Digits { individual: true } => {
                at_characters(text, char::is_numeric, Behavior::Isolated, emit)
            }
            Self::Digits { individual: false } => runs(text, |c| Some(c.is_numeric()), emit),
            Self::Character(delimiter) => runs(text, |c| (c != *delimiter).then_some(()), emit),
            Self::Pattern {
                pattern,
                behavior,
                inverted,
            } => pattern.split(text, *behavior, *inverted, emit),
            Self::FixedLength(length) => {
                let mut start = 0;
                let ends = text.char_indices().map(|(at, c)| at + c.len_utf8());
                for end in ends.skip(length - 1).step_by(*length) {
                    emit(start, end)?;
                    start = end;
                }
                if start < text.len() {
                    emit(start, text.len())?;
                }
                ControlFlow::Continue(())
            }
            // These do more than cut: see `texts`.
            Self::Metaspace(_) | Self::ByteLevel(_) => emit(0, text.len()),
        }
    }
}

impl ByteLevel {
    /// Whether a piece of text gets a space in front.
    pub(crate) fn prefixes(self, text: &str) -> bool {
        self.add_prefix_space && !text.is_empty() && !text.starts_with(' ')
    }

    /// Cuts into words and writes every byte as its character.
    fn texts(
        self,
        text: &str,
        locate: &mut Locate<'_>,
        emit: &mut EmitText<'_>,
    ) -> ControlFlow<()> {
        let mut prefixed = String::new();
        let first = text.chars().next().map_or(0, char::len_utf8);
        let prefix = usize::from(self.prefixes(text));
        if prefix > 0 {
            prefixed.push(' ');
            prefixed.push_str(text);
        }
        let source = if prefix > 0 { &prefixed } else { text };
        // The space in front stands for the first character.
        let mut unprefixed = |start: usize, end: usize| {
            let end = if end <= prefix { first } else { end - prefix };
            locate(start.saturating_sub(prefix), end)
        };
        let mut word = |start: usize, end: usize| {
            let mut out = Aligned::with_capacity(2 * (end - start));
            for (at, c) in source[start..end].char_indices() {
                let span = (at as u32, (at + c.len_utf8()) as u32);
                for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                    out.push(byte_level::CHARS[byte as usize], span);
                }
            }
            let mapped = out.finish();
            let mut cursor = mapped.spans.cursor();
            emit(&mapped.text, &mut |s, e| {
                let (s, e) = cursor.original(s, e);
                unprefixed(start + s as usize, start + e as usize)
            })
        };
        if self.words {
            Pattern::Gpt2.parts(source, |(start, end, _)| word(start, end))
        } else if source.is_empty() {
            ControlFlow::Continue(())
        } else {
            word(0, source.len())
        }
    }
}

/// Cuts before and after characters of a kind, which a behavior then puts together again.
fn at_characters(
    text: &str,
    of_kind: impl Fn(char) -> bool,
    behavior: Behavior,
    emit: &mut Emit<'_>,
) -> ControlFlow<()> {
    let mut parts: Vec<pattern::Part> = Vec::new();
    let mut start = 0;
    for (at, c) in text.char_indices() {
        if of_kind(c) {
            if start < at {
                parts.push((start, at, false));
            }
            start = at + c.len_utf8();
            parts.push((at, start, true));
        }
    }
    if start < text.len() {
        parts.push((start, text.len(), false));
    }
    pattern::merge(parts, behavior, emit)
}

/// Words between whitespace, punctuation apart.
#[inline]
fn bert(text: &str, mut emit: impl FnMut(usize, usize) -> ControlFlow<()>) -> ControlFlow<()> {
    let bytes = text.as_bytes();
    let mut start = 0;
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let (class, len) = match CLASSES[byte as usize] {
            Class::Word => {
                at += 1;
                continue;
            }
            Class::Multibyte => match text[at..].chars().next() {
                None => break,
                Some(c) => {
                    let flags = unicode::flags(c);
                    let class = match () {
                        () if flags & SPACE != 0 => Class::Space,
                        () if flags & PUNCTUATION != 0 => Class::Punctuation,
                        () => Class::Word,
                    };
                    (class, c.len_utf8())
                }
            },
            class => (class, 1),
        };
        let end = at;
        at += len;
        if class == Class::Word {
            continue;
        }
        if start < end {
            emit(start, end)?;
        }
        if class == Class::Punctuation {
            emit(end, at)?;
        }
        start = at;
    }
    if start < bytes.len() {
        emit(start, bytes.len())
    } else {
        ControlFlow::Continue(())
    }
}

/// Runs of characters of equal kind; characters without a kind are between runs.
fn runs<K: PartialEq>(
    text: &str,
    kind: impl Fn(char) -> Option<K>,
    mut emit: impl FnMut(usize, usize) -> ControlFlow<()>,
) -> ControlFlow<()> {
    let mut run: Option<(usize, K)> = None;
    for (at, c) in text.char_indices() {
        let kind = kind(c);
        if let Some((start, of)) = &run {
            if kind.as_ref() == Some(of) {
                continue;
            }
            emit(*start, at)?;
        }
        run = kind.map(|kind| (at, kind));
    }
    run.map_or(ControlFlow::Continue(()), |(start, _)| {
        emit(start, text.len())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split<'a>(splitters: &[Splitter], text: &'a str) -> Vec<&'a str> {
        let mut found = Vec::new();
        let _ = words(splitters, text, |start, end| {
            found.push(&text[start..end]);
            ControlFlow::Continue(())
        });
        found
    }

    #[test]
    fn berts_words() {
        let split = |text| split(&[Splitter::Bert], text);
        assert_eq!(
            split(" Hey  you,\tthere's ¿qué?\u{3000}a\u{a0}b"),
            [
                "Hey", "you", ",", "there", "'", "s", "¿", "qué", "?", "a", "b"
            ]
        );
        assert_eq!(split("a€b ±1 <$>"), ["a€b", "±1", "<", "$", ">"]);
        assert!(split(" \n\u{2028}").is_empty());
        assert!(split("").is_empty());
        assert_eq!(split("…"), ["…"]);
        // Control characters are part of words: removing them is the normalizer's business.
        assert_eq!(split("a\u{1}b"), ["a\u{1}b"]);
    }

    #[test]
    fn whitespace_in_two_ways() {
        assert_eq!(
            split(&[Splitter::Whitespace], "it's a_b  €5!? ok"),
            ["it", "'", "s", "a_b", "€", "5", "!?", "ok"]
        );
        assert_eq!(
            split(&[Splitter::WhitespaceSplit], " it's\u{2003}ok "),
            ["it's", "ok"]
        );
    }

    #[test]
    fn punctuation_in_every_way() {
        let split = |behavior| split(&[Splitter::Punctuation(behavior)], "the-final--count");
        assert_eq!(split(Behavior::Removed), ["the", "final", "count"]);
        assert_eq!(
            split(Behavior::Isolated),
            ["the", "-", "final", "-", "-", "count"]
        );
        assert_eq!(
            split(Behavior::MergedWithPrevious),
            ["the-", "final-", "-", "count"]
        );
        assert_eq!(
            split(Behavior::MergedWithNext),
            ["the", "-final", "-", "-count"]
        );
        assert_eq!(
            split(Behavior::Contiguous),
            ["the", "-", "final", "--", "count"]
        );
    }

    #[test]
    fn splitters_follow_each_other() {
        let both = [
            Splitter::WhitespaceSplit,
            Splitter::Punctuation(Behavior::Isolated),
        ];
        let text = "Hey, you 're «it»\u{2009}!";
        assert_eq!(split(&both, text), split(&[Splitter::Bert], text));
        assert_eq!(split(&[], " a b "), [" a b "]);
        assert!(split(&[], "").is_empty());
    }

    #[test]
    fn stops_when_told() {
        let mut count = 0;
        let flow = words(&[Splitter::Bert], "a b c", |_, _| {
            count += 1;
            if count == 2 {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        assert_eq!((flow, count), (ControlFlow::Break(()), 2));
    }
}
