//! The decoders that may follow one another, each over the list of tokens.

use std::borrow::Cow;
use std::ops::ControlFlow;

use super::clean_up;
use crate::pattern::Pattern;
use crate::pre_tokenizer::byte_level;
use crate::pre_tokenizer::metaspace::{Metaspace, Prepend};

/// One decoder.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// As [`super::Decoder::WordPiece`].
    WordPiece { prefix: String, cleanup: bool },
    /// Characters that stand for bytes become those.
    ByteLevel,
    /// Marks become spaces, but for those of the first token.
    Metaspace(Metaspace),
    /// A suffix becomes a space, but at the end nothing.
    Bpe { suffix: String },
    /// Tokens such as `<0x61>` become bytes.
    ByteFallback,
    /// All tokens become one.
    Fuse,
    /// So many of a character go from the beginning and from the end of each token.
    Strip {
        content: char,
        start: usize,
        stop: usize,
    },
    /// Something takes the place of every match.
    Replace { pattern: Pattern, content: String },
    /// Repeated tokens become one, padding goes, a delimiter becomes a space.
    Ctc {
        pad_token: String,
        word_delimiter_token: String,
        cleanup: bool,
    },
}

impl Step {
    pub(super) fn apply(&self, tokens: &mut Vec<Cow<'_, str>>) {
        match self {
            Self::WordPiece { prefix, cleanup } => {
                for (i, token) in tokens.iter_mut().enumerate() {
                    if i > 0 {
                        *token = match token.strip_prefix(prefix.as_str()) {
                            Some(rest) => Cow::Owned(rest.to_owned()),
                            None => Cow::Owned(format!(" {token}")),
                        };
                    }
                    if *cleanup {
                        clean_up(token.to_mut(), 0);
                    }
                }
            }
            Self::ByteLevel => {
                let mut bytes = Vec::with_capacity(tokens.iter().map(|token| token.len()).sum());
                for token in tokens.iter() {
                    let start = bytes.len();
                    for c in token.chars() {
                        let Some(byte) = byte_level::byte_of(c) else {
                            // A token with any other character is text as it stands.
                            bytes.truncate(start);
                            bytes.extend_from_slice(token.as_bytes());
                            break;
                        };
                        bytes.push(byte);
                    }
                }
                let text = String::from_utf8(bytes)
                    .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned());
                *tokens = vec![Cow::Owned(text)];
            }
            Self::Metaspace(metaspace) => {
                for (i, token) in tokens.iter_mut().enumerate() {
                    if token.contains(metaspace.mark) {
                        let drop = i == 0 && metaspace.prepend != Prepend::Never;
                        *token =
                            Cow::Owned(token.replace(metaspace.mark, if drop { "" } else { " " }));
                    }
                }
            }
            Self::Bpe { suffix } => {
                let last = tokens.len().saturating_sub(1);
                for (i, token) in tokens.iter_mut().enumerate() {
                    if token.contains(suffix.as_str()) {
                        *token = Cow::Owned(
                            token.replace(suffix.as_str(), if i == last { "" } else { " " }),
                        );
                    }
                }
            }
            Self::ByteFallback => {
                let mut bytes = Vec::new();
                let mut out = Vec::with_capacity(tokens.len());
                for token in tokens.drain(..) {
                    match fallback_byte(&token) {
                        Some(byte) => bytes.push(byte),
                        None => {
                            flush(&mut bytes, &mut out);
                            out.push(token);
                        }
                    }
                }
                flush(&mut bytes, &mut out);
                *tokens = out;
            }
            Self::Fuse => *tokens = vec![Cow::Owned(tokens.concat())],
            &Self::Strip {
                content,
                start,
                stop,
            } => {
                for token in tokens.iter_mut() {
                    let of_content = |c: &char| *c == content;
                    let lead = token.chars().take(start).take_while(of_content).count();
                    let trail = token
                        .chars()
                        .rev()
                        .take(stop)
                        .take_while(of_content)
                        .count();
                    if lead + trail > 0 {
                        let keep = token.chars().count().saturating_sub(lead + trail);
                        *token = Cow::Owned(token.chars().skip(lead).take(keep).collect());
                    }
                }
            }
            Self::Replace { pattern, content } => {
                for token in tokens.iter_mut() {
                    if !pattern.is_in(token) {
                        continue;
                    }
                    let mut text = String::new();
                    let _ = pattern.parts(token, |(start, end, matches)| {
                        text.push_str(if matches { content } else { &token[start..end] });
                        ControlFlow::Continue(())
                    });
                    *token = Cow::Owned(text);
                }
            }
            Self::Ctc {
                pad_token,
                word_delimiter_token,
                cleanup,
            } => {
                tokens.dedup();
                for token in tokens.iter_mut() {
                    let mut text = token.replace(pad_token.as_str(), "");
                    if *cleanup {
                        clean_up(&mut text, 0);
                        text = text.replace(word_delimiter_token.as_str(), " ");
                    }
                    *token = Cow::Owned(text);
                }
                tokens.retain(|token| !token.is_empty());
            }
        }
    }
}

/// The byte that a token such as `<0x61>` stands for.
fn fallback_byte(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    if digits.len() != 2 {
        return None;
    }
    u8::from_str_radix(digits, 16).ok()
}

/// Ends a run of byte tokens: the text that they spell, or as many replacement characters.
fn flush(bytes: &mut Vec<u8>, out: &mut Vec<Cow<'_, str>>) {
    if bytes.is_empty() {
        return;
    }
    match String::from_utf8(std::mem::take(bytes)) {
        Ok(text) => out.push(Cow::Owned(text)),
        Err(error) => {
            let unknown = Cow::Borrowed("\u{FFFD}");
            out.extend(std::iter::repeat_n(unknown, error.as_bytes().len()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(step: &Step, tokens: &[&str]) -> Vec<String> {
        let mut tokens: Vec<Cow<'_, str>> =
            tokens.iter().map(|token| Cow::Borrowed(*token)).collect();
        step.apply(&mut tokens);
        tokens.into_iter().map(Cow::into_owned).collect()
    }

    #[test]
    fn steps() {
        assert_eq!(
            apply(&Step::ByteLevel, &["ĠcafÃ", "©", "Ġ漢", "Ã"]),
            [" caf\u{e9}Ġ漢\u{fffd}"]
        );
        assert_eq!(
            apply(
                &Step::ByteFallback,
                &["a", "<0xC3>", "<0xA9>", "<0xC3>b", "<0xC3>"]
            ),
            ["a", "é", "<0xC3>b", "\u{fffd}"]
        );
        assert_eq!(apply(&Step::Fuse, &["a", "b"]), ["ab"]);
        let strip = Step::Strip {
            content: '_',
            start: 1,
            stop: 2,
        };
        assert_eq!(apply(&strip, &["__a___", "_", "b"]), ["_a_", "", "b"]);
        let bpe = Step::Bpe {
            suffix: "</w>".into(),
        };
        assert_eq!(apply(&bpe, &["a", "b</w>", "c</w>"]), ["a", "b ", "c"]);
        assert_eq!(apply(&bpe, &[]), [""; 0]);
        let ctc = Step::Ctc {
            pad_token: "<p>".into(),
            word_delimiter_token: "|".into(),
            cleanup: true,
        };
        assert_eq!(
            apply(&ctc, &["a", "a", "<p>", "a", "|", " ."]),
            ["a", "a", " ", "."]
        );
    }
}
