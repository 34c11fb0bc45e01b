//! Normalizers one after the other, each over all characters with the ranges that they stand for.
//!
//! This is the plain way: every step is what its name says. Unicode's forms: <https://www.unicode.org/reports/tr15/>.

use std::ops::ControlFlow;

use super::bert::Bert;
use super::precompiled::Precompiled;
use super::spans::Span;
use crate::pattern::Pattern;
use crate::pre_tokenizer::byte_level;
use crate::unicode::{self, CJK, COMPOSES, CONTROL, DECOMPOSES, MARK, NON_STARTER, SPACE};

/// Characters and the ranges that they stand for.
pub(super) type Chars = Vec<(char, Span)>;

/// One step.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    Bert(Bert),
    Nfc,
    Nfd,
    Nfkc,
    Nfkd,
    Lowercase,
    /// Deletes combining marks (M*).
    StripAccents,
    /// Deletes whitespace at the ends.
    Strip {
        left: bool,
        right: bool,
    },
    /// Writes something in the place of every match.
    Replace {
        pattern: Pattern,
        content: String,
    },
    /// Writes something in front of text that is not empty.
    Prepend(String),
    /// Deletes some control characters and makes spaces of others, as sentencepiece's rules for translation do.
    Nmt,
    /// Replaces by a compiled map.
    Precompiled(Precompiled),
    /// Writes every byte as its character.
    ByteLevel,
}

/// A character of changed text. The number is 0 for one that takes the place of the next character, 1 for one more in
/// the place of the last, and -n for one that takes the place of the next character and of n behind it.
pub(super) type Change = (char, isize);

/// What [`Step::Nmt`] makes of a character.
fn nmt(c: char) -> Option<char> {
    match c {
        '\u{1}'..='\u{8}' | '\u{B}' | '\u{E}'..='\u{1F}' | '\u{7F}' | '\u{8F}' | '\u{9F}' => None,
        '\t'
        | '\n'
        | '\u{C}'
        | '\r'
        | '\u{1680}'
        | '\u{200B}'..='\u{200F}'
        | '\u{2028}'
        | '\u{2029}'
        | '\u{2581}'
        | '\u{FEFF}'
        | '\u{FFFD}' => Some(' '),
        c => Some(c),
    }
}

impl Step {
    /// Whether the step surely leaves a text as it is. What this does not see, [`Step::apply`] does.
    pub(super) fn keeps(&self, text: &str) -> bool {
        // Below U+0300 no character composes, is reordered, or is a mark.
        let low = || text.bytes().all(|byte| byte < 0xCC);
        let hangul = |c| matches!(c, '\u{AC00}'..='\u{D7A3}');
        match self {
            Self::Nfc => {
                low()
                    || text.chars().all(|c| {
                        c < '\u{300}'
                            || !unicode::is(c, DECOMPOSES | NON_STARTER)
                                && unicode::kinds(c) & COMPOSES == 0
                    })
            }
            Self::Nfd => {
                text.is_ascii()
                    || text
                        .chars()
                        .all(|c| !unicode::is(c, DECOMPOSES | NON_STARTER) && !hangul(c))
            }
            Self::Nfkc | Self::Nfkd => text.is_ascii(),
            Self::Lowercase => text
                .bytes()
                .all(|byte| byte.is_ascii() && !byte.is_ascii_uppercase()),
            Self::StripAccents => low() || !text.chars().any(unicode::is_combining_mark),
            Self::Strip { left, right } => {
                let space = |c: char| unicode::is(c, SPACE);
                !(*left && text.starts_with(space) || *right && text.ends_with(space))
            }
            Self::Replace { pattern, .. } => !pattern.is_in(text),
            Self::Prepend(_) | Self::ByteLevel => text.is_empty(),
            Self::Nmt => text.chars().all(|c| nmt(c) == Some(c)),
            Self::Precompiled(map) => map.keeps(text),
            Self::Bert(_) => false,
        }
    }

    pub(super) fn apply(&self, chars: &mut Chars) {
        match self {
            Self::Bert(bert) => {
                if bert.clean_text {
                    chars.retain(|&(c, _)| !unicode::is(c, CONTROL));
                    for (c, _) in chars.iter_mut().filter(|(c, _)| unicode::is(*c, SPACE)) {
                        *c = ' ';
                    }
                }
                if bert.handle_chinese_chars {
                    *chars = std::mem::take(chars)
                        .into_iter()
                        .flat_map(|(c, span)| {
                            let apart = unicode::is(c, CJK);
                            let space = apart.then_some((' ', span));
                            space.into_iter().chain([(c, span)]).chain(space)
                        })
                        .collect();
                }
                if bert.strip_accents {
                    Self::Nfd.apply(chars);
                    chars.retain(|&(c, _)| !unicode::is(c, MARK));
                }
                if bert.lowercase {
                    Self::Lowercase.apply(chars);
                }
            }
            Self::Nfd => change(chars, decomposed(chars, false)),
            Self::Nfkd => change(chars, decomposed(chars, true)),
            Self::Nfc => change(chars, recomposed(decomposed(chars, false))),
            Self::Nfkc => change(chars, recomposed(decomposed(chars, true))),
            Self::Lowercase => {
                *chars = std::mem::take(chars)
                    .into_iter()
                    .flat_map(|(c, span)| c.to_lowercase().map(move |lower| (lower, span)))
                    .collect();
            }
            Self::StripAccents => chars.retain(|&(c, _)| !unicode::is_combining_mark(c)),
            Self::Strip { left, right } => {
                let space = |&&(c, _): &&(char, Span)| unicode::is(c, SPACE);
                if *right {
                    let spaces = chars.iter().rev().take_while(space).count();
                    chars.truncate(chars.len() - spaces);
                }
                if *left {
                    let spaces = chars.iter().take_while(space).count();
                    chars.drain(..spaces);
                }
            }
            Self::Replace { pattern, content } => replace(chars, pattern, content),
            Self::Prepend(content) => {
                let Some(&(first, span)) = chars.first() else {
                    return;
                };
                if content.is_empty() {
                    // A character that stands for nothing: so it is in `tokenizers`.
                    chars[0] = (first, (0, 0));
                }
                chars.splice(..0, content.chars().map(|c| (c, span)));
            }
            Self::Nmt => {
                *chars = std::mem::take(chars)
                    .into_iter()
                    .filter_map(|(c, span)| Some((nmt(c)?, span)))
                    .collect();
            }
            Self::Precompiled(map) => {
                let text: String = chars.iter().map(|&(c, _)| c).collect();
                if let Some(changes) = map.changes(&text) {
                    change(chars, changes);
                }
            }
            Self::ByteLevel => {
                let mut bytes = Vec::with_capacity(chars.len());
                for &(c, span) in chars.iter() {
                    let mut buffer = [0; 4];
                    let utf8 = c.encode_utf8(&mut buffer).bytes();
                    bytes.extend(utf8.map(|byte| (byte_level::CHARS[byte as usize], span)));
                }
                *chars = bytes;
            }
        }
    }
}

/// Writes `content` in the place of every match; it stands for the match's last character.
fn replace(chars: &mut Chars, pattern: &Pattern, content: &str) {
    let text: String = chars.iter().map(|&(c, _)| c).collect();
    let mut rest = chars.iter().copied();
    let mut replaced = Vec::with_capacity(chars.len());
    let mut last = (0, 0);
    let _ = pattern.parts(&text, |(start, end, matches)| {
        let part = rest.by_ref().take(text[start..end].chars().count());
        if matches {
            last = part.last().map_or(last, |(_, span)| span);
            replaced.extend(content.chars().map(|c| (c, last)));
        } else {
            replaced.extend(part);
            last = replaced.last().map_or(last, |&(_, span)| span);
        }
        ControlFlow::Continue(())
    });
    *chars = replaced;
}

/// Replaces the characters, giving every new one its range.
fn change(chars: &mut Chars, changes: Vec<Change>) {
    let mut next = 0usize;
    let span = |at: usize| chars.get(at).map_or((0, 0), |&(_, span)| span);
    let changed = changes
        .into_iter()
        .map(|(c, change)| {
            if change > 0 {
                return (c, next.checked_sub(1).map_or((0, 0), span));
            }
            let own = span(next);
            next += 1 + change.unsigned_abs();
            (c, own)
        })
        .collect();
    *chars = changed;
}

/// The full decomposition in canonical order.
fn decomposed(chars: &Chars, compatible: bool) -> Vec<Change> {
    let mut out: Vec<Change> = Vec::with_capacity(chars.len());
    // Where the non-starters at the end of `out` begin.
    let mut marks = 0;
    let order = |marks: &mut [Change]| {
        if marks.len() > 1 {
            marks.sort_by_key(|&(c, _)| unicode::combining_class(c));
        }
    };
    for &(c, _) in chars {
        let mut change = 0;
        let place = |part| {
            if unicode::combining_class(part) == 0 {
                order(&mut out[marks..]);
                marks = out.len() + 1;
            }
            out.push((part, change));
            change = 1;
        };
        if compatible {
            unicode::decompose_compatible(c, place);
        } else {
            unicode::decompose_canonical(c, place);
        }
    }
    let marks = marks.min(out.len());
    order(&mut out[marks..]);
    out
}

/// Canonical composition of decomposed text.
fn recomposed(changes: Vec<Change>) -> Vec<Change> {
    let mut out = Vec::with_capacity(changes.len());
    let mut starter: Option<Change> = None;
    // Non-starters behind the starter that did not compose with it, and the class of the last.
    let mut between: Vec<Change> = Vec::new();
    let mut last = None;
    for (c, change) in changes {
        let class = unicode::combining_class(c);
        let Some((first, so_far)) = starter else {
            if class == 0 {
                starter = Some((c, change));
            } else {
                out.push((c, change));
            }
            continue;
        };
        let blocked = last.is_some_and(|last| last >= class);
        if let Some(composed) = (!blocked).then(|| unicode::compose(first, c)).flatten() {
            starter = Some((composed, so_far + change - 1));
        } else if class == 0 {
            out.push((first, so_far));
            out.append(&mut between);
            starter = Some((c, change));
            last = None;
        } else {
            between.push((c, change));
            last = Some(class);
        }
    }
    out.extend(starter);
    out.append(&mut between);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(step: Step, text: &str) -> (String, Vec<Span>) {
        let spans = text.char_indices();
        let mut chars: Chars = spans
            .map(|(at, c)| (c, (at as u32, (at + c.len_utf8()) as u32)))
            .collect();
        step.apply(&mut chars);
        chars.into_iter().unzip()
    }

    #[test]
    fn forms_of_unicode() {
        assert_eq!(
            apply(Step::Nfd, "é한").0,
            "e\u{301}\u{1112}\u{1161}\u{11ab}"
        );
        assert_eq!(apply(Step::Nfd, "a\u{301}\u{327}").0, "a\u{327}\u{301}");
        assert_eq!(
            apply(Step::Nfc, "e\u{301}\u{1112}\u{1161}\u{11ab}").0,
            "é한"
        );
        assert_eq!(
            apply(Step::Nfc, "a\u{327}\u{301}\u{30a}").0,
            "á\u{327}\u{30a}"
        );
        assert_eq!(apply(Step::Nfkc, "ﬁ①ｅ\u{301}").0, "fi1é");
        assert_eq!(apply(Step::Nfkd, "ﬁé").0, "fie\u{301}");
    }

    #[test]
    fn parts_keep_the_range_of_their_character() {
        let (text, spans) = apply(Step::Nfd, "aéb");
        assert_eq!(text, "ae\u{301}b");
        assert_eq!(spans, [(0, 1), (1, 3), (1, 3), (3, 4)]);
        // What is composed stands for its first part.
        let (text, spans) = apply(Step::Nfc, "ae\u{301}b");
        assert_eq!(text, "aéb");
        assert_eq!(spans, [(0, 1), (1, 2), (4, 5)]);
    }

    #[test]
    fn strips() {
        let strip = |left, right| apply(Step::Strip { left, right }, " \u{3000}a b\t").0;
        assert_eq!(strip(true, true), "a b");
        assert_eq!(strip(true, false), "a b\t");
        assert_eq!(strip(false, true), " \u{3000}a b");
        assert_eq!(
            apply(
                Step::Strip {
                    left: true,
                    right: true
                },
                " \t"
            )
            .0,
            ""
        );
        assert_eq!(
            apply(Step::StripAccents, "e\u{301}a\u{903}\u{20dd}").0,
            "ea"
        );
        assert_eq!(apply(Step::Lowercase, "ÀİΣ").0, "ài\u{307}σ");
    }
}
