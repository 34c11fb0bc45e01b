//! Patterns that text is split or replaced by: plain strings, regular expressions, and scanners written by hand for the
//! regular expressions that models in use have.

use std::ops::ControlFlow;

use crate::pre_tokenizer::byte_level;

/// A pattern. Matches do not overlap and come from left to right.
#[derive(Debug, Clone)]
pub(crate) enum Pattern {
    /// A string that is not empty.
    Text(String),
    /// Two spaces or more.
    Spaces,
    /// GPT-2's words. Every character belongs to one.
    Gpt2,
    /// The words of cl100k and its relatives. Every character belongs to one.
    Cl100k,
    Regex(Box<fancy_regex::Regex>),
}

/// What becomes of matches when text is cut at them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
pub(crate) enum Behavior {
    Removed,
    #[default]
    Isolated,
    MergedWithPrevious,
    MergedWithNext,
    Contiguous,
}

/// A part of a text: (start, end, whether it matches).
pub(crate) type Part = (usize, usize, bool);

const CL100K: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

impl Pattern {
    /// Where a string stands as it is.
    pub(crate) fn text(text: String) -> Result<Self, String> {
        if text.is_empty() {
            // It matches between all characters, as a regular expression does.
            return Self::compile("");
        }
        Ok(Self::Text(text))
    }

    /// Where a regular expression matches. `Err` says why it is none.
    pub(crate) fn regex(regex: &str) -> Result<Self, String> {
        match regex {
            " {2,}" => Ok(Self::Spaces),
            GPT2 => Ok(Self::Gpt2),
            CL100K => Ok(Self::Cl100k),
            _ => Self::compile(regex),
        }
    }

    /// A regular expression, even where a scanner does the same.
    fn compile(regex: &str) -> Result<Self, String> {
        let compiled = fancy_regex::Regex::new(regex);
        compiled
            .map(|regex| Self::Regex(Box::new(regex)))
            .map_err(|error| error.to_string())
    }

    /// Calls `each` with all parts of the text, until it breaks. Empty parts come only where an expression matches
    /// nothing.
    pub(crate) fn parts(
        &self,
        text: &str,
        mut each: impl FnMut(Part) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let mut done = 0;
        let mut found = |start: usize, end: usize| {
            if done < start {
                each((done, start, false))?;
            }
            done = end;
            each((start, end, true))
        };
        match self {
            Self::Text(pattern) => {
                for (start, found_text) in text.match_indices(pattern.as_str()) {
                    found(start, start + found_text.len())?;
                }
            }
            Self::Spaces => {
                let bytes = text.as_bytes();
                let mut at = 0;
                while let Some(space) = text[at..].find("  ") {
                    let start = at + space;
                    at = start + bytes[start..].iter().take_while(|&&b| b == b' ').count();
                    found(start, at)?;
                }
            }
            Self::Gpt2 => {
                let mut at = 0;
                while at < text.len() {
                    let end = byte_level::gpt2_word(text, at);
                    found(at, end)?;
                    at = end;
                }
            }
            Self::Cl100k => {
                let mut at = 0;
                while at < text.len() {
                    let end = byte_level::cl100k_word(text, at);
                    found(at, end)?;
                    at = end;
                }
            }
            Self::Regex(regex) if !text.is_empty() => {
                // An expression that backtracks beyond all measure finds nothing more, as in `tokenizers`.
                for matched in regex.find_iter(text).map_while(Result::ok) {
                    found(matched.start(), matched.end())?;
                }
            }
            Self::Regex(_) => {}
        }
        if done < text.len() {
            each((done, text.len(), false))?;
        }
        ControlFlow::Continue(())
    }

    /// Whether the text has a match.
    pub(crate) fn is_in(&self, text: &str) -> bool {
        match self {
            Self::Text(pattern) => text.contains(pattern.as_str()),
            Self::Spaces => text.contains("  "),
            Self::Gpt2 | Self::Cl100k => !text.is_empty(),
            Self::Regex(regex) => !text.is_empty() && regex.is_match(text).unwrap_or(true),
        }
    }

    /// Cuts a text, `inverted` at what does not match. Calls `emit` with the pieces that are not empty.
    pub(crate) fn split(
        &self,
        text: &str,
        behavior: Behavior,
        inverted: bool,
        mut emit: impl FnMut(usize, usize) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        match behavior {
            Behavior::Isolated => self.parts(text, |(start, end, _)| match start < end {
                true => emit(start, end),
                false => ControlFlow::Continue(()),
            }),
            Behavior::Removed => self.parts(text, |(start, end, matches)| {
                match start < end && matches == inverted {
                    true => emit(start, end),
                    false => ControlFlow::Continue(()),
                }
            }),
            _ => {
                let mut parts = Vec::new();
                let _ = self.parts(text, |(start, end, matches)| {
                    parts.push((start, end, matches != inverted));
                    ControlFlow::Continue(())
                });
                merge(parts, behavior, emit)
            }
        }
    }
}

/// Puts parts together as a behavior asks, and calls `emit` with what is not empty.
pub(crate) fn merge(
    mut parts: Vec<Part>,
    behavior: Behavior,
    mut emit: impl FnMut(usize, usize) -> ControlFlow<()>,
) -> ControlFlow<()> {
    let mut merged: Vec<(usize, usize)> = Vec::with_capacity(parts.len());
    // Whether the part before (in the order of the walk) matched.
    let mut before = false;
    match behavior {
        Behavior::Isolated => merged.extend(parts.iter().map(|part| (part.0, part.1))),
        Behavior::Removed => {
            parts.retain(|part| !part.2);
            merged.extend(parts.iter().map(|part| (part.0, part.1)));
        }
        Behavior::Contiguous | Behavior::MergedWithPrevious => {
            for (start, end, matches) in parts {
                let joins = match behavior {
                    Behavior::Contiguous => matches == before,
                    _ => matches && !before,
                };
                match merged.last_mut() {
                    Some(last) if joins => last.1 = end,
                    _ => merged.push((start, end)),
                }
                before = matches;
            }
        }
        Behavior::MergedWithNext => {
            for (start, end, matches) in parts.into_iter().rev() {
                match merged.last_mut() {
                    Some(last) if matches && !before => last.0 = start,
                    _ => merged.push((start, end)),
                }
                before = matches;
            }
            merged.reverse();
        }
    }
    merged
        .into_iter()
        .filter(|(start, end)| start < end)
        .try_for_each(|(start, end)| emit(start, end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parts(pattern: &Pattern, text: &str) -> Vec<Part> {
        let mut parts = Vec::new();
        let _ = pattern.parts(text, |part| {
            parts.push(part);
            ControlFlow::Continue(())
        });
        parts
    }

    #[test]
    fn behaviors() {
        let pattern = Pattern::text("-".into()).unwrap();
        let split = |behavior, inverted| {
            let text = "the-final--countdown";
            let mut pieces = Vec::new();
            let _ = pattern.split(text, behavior, inverted, |start, end| {
                pieces.push(&text[start..end]);
                ControlFlow::Continue(())
            });
            pieces
        };
        assert_eq!(
            split(Behavior::Removed, false),
            ["the", "final", "countdown"]
        );
        assert_eq!(split(Behavior::Removed, true), ["-", "-", "-"]);
        assert_eq!(
            split(Behavior::Isolated, false),
            ["the", "-", "final", "-", "-", "countdown"]
        );
        assert_eq!(
            split(Behavior::MergedWithPrevious, false),
            ["the-", "final-", "-", "countdown"]
        );
        assert_eq!(
            split(Behavior::MergedWithNext, false),
            ["the", "-final", "-", "-countdown"]
        );
        assert_eq!(
            split(Behavior::Contiguous, false),
            ["the", "-", "final", "--", "countdown"]
        );
    }

    #[test]
    fn broken_expressions_are_errors() {
        assert!(Pattern::regex("(").unwrap_err().contains("error"));
        assert!(Pattern::regex("(a+)+$").is_ok());
    }

    fn text() -> impl Strategy<Value = String> {
        let c = prop_oneof![
            3 => any::<char>(),
            3 => proptest::char::range(' ', '~'),
            8 => proptest::sample::select(
                "''sStTrReEvVlLmMdD \u{17f}  \n\r\t\u{a0}\u{3000}\u{85}\u{2028}a1é漢½Ⅷ²\u{301}!。_".chars().collect::<Vec<_>>()
            ),
        ];
        proptest::collection::vec(c, 0..40).prop_map(String::from_iter)
    }

    proptest! {
        /// The scanners find what their expressions find.
        #[test]
        fn scanners_are_their_expressions(text in text()) {
            for regex in [GPT2, CL100K, " {2,}"] {
                let scanner = Pattern::regex(regex).unwrap();
                prop_assert!(!matches!(scanner, Pattern::Regex(_)));
                let compiled = Pattern::compile(regex).unwrap();
                prop_assert_eq!(parts(&scanner, &text), parts(&compiled, &text), "{}", regex);
            }
        }
    }
}
