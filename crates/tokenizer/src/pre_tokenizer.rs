//! Cutting normalized text into words, each of which the model cuts into tokens.

use std::ops::ControlFlow;

use crate::scan::{CLASSES, Class};
use crate::unicode::{self, PUNCTUATION, SPACE, WORD};

/// One way of cutting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Splitter {
    /// At whitespace, which goes; punctuation characters are words of their own.
    Bert,
    /// At whitespace, which goes; runs of `\w` and runs of what is neither are words.
    Whitespace,
    /// At whitespace, which goes.
    WhitespaceSplit,
    /// At punctuation.
    Punctuation(Behavior),
}

/// What becomes of the punctuation that text is cut at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
pub(crate) enum Behavior {
    Removed,
    #[default]
    Isolated,
    MergedWithPrevious,
    MergedWithNext,
    Contiguous,
}

/// The names of the pre-tokenizers that tokenizer.json may ask for.
pub(crate) const KNOWN: &str =
    "BertPreTokenizer, Whitespace, WhitespaceSplit, Punctuation, Sequence, null";

/// What becomes of a word: (start, end) in the text.
type Emit<'a> = dyn FnMut(usize, usize) -> ControlFlow<()> + 'a;

/// Calls `emit` with every word of `text`, which splitters cut one after the other, until it breaks. Without
/// splitters the text is one word.
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
    let mut next = |start: usize, end: usize| cut(further, &text[start..end], shift + start, emit);
    match first {
        Splitter::Bert => bert(text, next),
        Splitter::Whitespace => runs(
            text,
            |c| (!unicode::is(c, SPACE)).then(|| unicode::is(c, WORD)),
            next,
        ),
        Splitter::WhitespaceSplit => runs(text, |c| (!unicode::is(c, SPACE)).then_some(()), next),
        Splitter::Punctuation(behavior) => punctuation(text, *behavior, &mut next),
    }
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

fn punctuation(text: &str, behavior: Behavior, emit: &mut Emit<'_>) -> ControlFlow<()> {
    // Alternately what is between punctuation characters, and each of those.
    let mut pieces: Vec<(usize, usize, bool)> = Vec::new();
    let mut start = 0;
    for (at, c) in text.char_indices() {
        if unicode::is(c, PUNCTUATION) {
            if start < at {
                pieces.push((start, at, false));
            }
            start = at + c.len_utf8();
            pieces.push((at, start, true));
        }
    }
    if start < text.len() {
        pieces.push((start, text.len(), false));
    }
    let mut merged: Vec<(usize, usize, bool)> = Vec::with_capacity(pieces.len());
    match behavior {
        Behavior::Isolated => merged = pieces,
        Behavior::Removed => {
            pieces.retain(|piece| !piece.2);
            merged = pieces;
        }
        Behavior::Contiguous => {
            for piece in pieces {
                match merged.last_mut() {
                    Some(last) if last.2 == piece.2 => last.1 = piece.1,
                    _ => merged.push(piece),
                }
            }
        }
        Behavior::MergedWithPrevious => {
            let mut after_match = false;
            for piece in pieces {
                match merged.last_mut() {
                    Some(last) if piece.2 && !after_match => last.1 = piece.1,
                    _ => merged.push(piece),
                }
                after_match = piece.2;
            }
        }
        Behavior::MergedWithNext => {
            let mut before_match = false;
            for piece in pieces.into_iter().rev() {
                match merged.last_mut() {
                    Some(last) if piece.2 && !before_match => last.0 = piece.0,
                    _ => merged.push(piece),
                }
                before_match = piece.2;
            }
            merged.reverse();
        }
    }
    merged
        .into_iter()
        .try_for_each(|(start, end, _)| emit(start, end))
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
