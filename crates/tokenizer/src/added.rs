//! Tokens found in the text before the model sees it: special tokens, and those that users added.
//!
//! Tokens that are not `normalized` are searched for in the text as it is, the others, themselves normalized, in the
//! normalized text between those.

use std::collections::{HashMap, HashSet};

use crate::matcher::Matcher;
use crate::model::vocab::Vocab;
use crate::normalizer::Normalizer;
use crate::unicode::{self, SPACE, WORD};

/// A token and how it is searched for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct AddedToken {
    pub(crate) content: String,
    /// Only where no word character touches it.
    pub(crate) single_word: bool,
    /// Takes in the whitespace to its left.
    pub(crate) lstrip: bool,
    /// Takes in the whitespace to its right.
    pub(crate) rstrip: bool,
    /// Searched for in the normalized text.
    pub(crate) normalized: bool,
    /// Left out of decoded text when asked for.
    pub(crate) special: bool,
}

impl AddedToken {
    /// A special token as it stands.
    pub(crate) fn special(content: impl Into<String>) -> Self {
        Self {
            normalized: false,
            special: true,
            ..Self::plain(content)
        }
    }

    /// A token that users added.
    pub(crate) fn plain(content: impl Into<String>) -> Self {
        Self {
            content: content.into(),
            single_word: false,
            lstrip: false,
            rstrip: false,
            normalized: true,
            special: false,
        }
    }
}

/// The added tokens of a tokenizer.
#[derive(Debug, Default)]
pub(crate) struct AddedTokens {
    ids: HashMap<String, u32>,
    tokens: HashMap<u32, AddedToken>,
    /// The contents of special tokens.
    special: HashSet<String>,
    /// Contents that the model's vocabulary does not have.
    new: usize,
    raw: Option<Search>,
    normalized: Option<Search>,
}

/// A set of tokens to search for.
#[derive(Debug)]
struct Search {
    matcher: Matcher,
    /// The id of each pattern.
    ids: Vec<u32>,
}

/// A part of a text: (start, end, the id of the added token that it is).
pub(crate) type Part = (usize, usize, Option<u32>);

/// In which text to search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    Raw,
    Normalized,
}

impl AddedTokens {
    /// Gives ids to tokens: the model's, or the next free ones. `Err` is a token for which there is none.
    pub(crate) fn new(
        tokens: Vec<AddedToken>,
        vocab: &Vocab,
        normalizer: &Normalizer,
    ) -> Result<Self, String> {
        let mut added = Self::default();
        let mut specials = Vec::new();
        for token in tokens
            .iter()
            .filter(|token| token.special && !token.content.is_empty())
        {
            if added.special.insert(token.content.clone()) {
                specials.push(token.clone());
            }
        }
        let mut plain = Vec::new();
        let mut seen = HashSet::new();
        let mut next = vocab.len() as u64;
        for token in tokens {
            if token.content.is_empty() || !seen.insert(token.clone()) {
                continue;
            }
            let known = added
                .id(&token.content)
                .or_else(|| vocab.id(&token.content));
            let id = match known {
                Some(id) => id,
                None => {
                    let id = u32::try_from(next).map_err(|_| token.content.clone())?;
                    next += 1;
                    id
                }
            };
            if added.ids.insert(token.content.clone(), id).is_none()
                && vocab.id(&token.content).is_none()
            {
                added.new += 1;
            }
            if !added.special.contains(&token.content) {
                plain.push(token.clone());
            }
            added.tokens.insert(id, token);
        }
        let all = specials.iter().chain(&plain);
        let (normalized, raw): (Vec<_>, Vec<_>) = all.partition(|token| token.normalized);
        added.raw = added.search(&raw, |content| content.to_owned());
        added.normalized = added.search(&normalized, |content| {
            normalizer.normalize(content).text.into_owned()
        });
        Ok(added)
    }

    fn search(&self, tokens: &[&AddedToken], text: impl Fn(&str) -> String) -> Option<Search> {
        let patterns: Vec<String> = tokens.iter().map(|token| text(&token.content)).collect();
        let ids = tokens
            .iter()
            .filter_map(|token| self.id(&token.content))
            .collect();
        let matcher = Matcher::new(patterns.iter().map(String::as_str))?;
        Some(Search { matcher, ids })
    }

    /// The id of an added token.
    pub(crate) fn id(&self, content: &str) -> Option<u32> {
        self.ids.get(content).copied()
    }

    /// The added token of an id.
    pub(crate) fn token(&self, id: u32) -> Option<&str> {
        self.tokens.get(&id).map(|token| token.content.as_str())
    }

    /// Whether a token's text is that of a special token.
    pub(crate) fn is_special(&self, content: &str) -> bool {
        self.special.contains(content)
    }

    /// Number of tokens that the model's vocabulary does not have.
    pub(crate) fn new_tokens(&self) -> usize {
        self.new
    }

    /// The largest id of an added token.
    pub(crate) fn largest_id(&self) -> Option<u32> {
        self.tokens.keys().copied().max()
    }

    /// Cuts a text into added tokens and what is between them; `None` if it holds no added token. Special tokens are
    /// searched for if `match_special`.
    pub(crate) fn split(&self, text: &str, stage: Stage, match_special: bool) -> Option<Vec<Part>> {
        let search = match stage {
            Stage::Raw => self.raw.as_ref()?,
            Stage::Normalized => self.normalized.as_ref()?,
        };
        let matches = search.matcher.find_all(text);
        if matches.is_empty() {
            return None;
        }
        let mut parts = Vec::with_capacity(2 * matches.len() + 1);
        let mut done = 0;
        // Whitespace that was walked through last, so that no run of it is walked twice.
        let mut spaces = 0..0;
        for found in matches {
            let id = search.ids[found.pattern as usize];
            let Some(token) = self.tokens.get(&id) else {
                continue;
            };
            if !match_special && self.is_special(&token.content) {
                continue;
            }
            let (mut start, mut end) = (found.start, found.end);
            let word = |c: Option<char>| c.is_some_and(|c| unicode::is(c, WORD));
            if token.single_word
                && (word(text[..start].chars().next_back()) || word(text[end..].chars().next()))
            {
                continue;
            }
            let space = |c| unicode::is(c, SPACE);
            if token.lstrip {
                // Not beyond what is done: else a long run of whitespace would be walked again and again.
                let from = done.min(start);
                start = from + text[from..start].trim_end_matches(space).len();
                start = start.max(done);
            }
            if token.rstrip {
                if !spaces.contains(&end) {
                    spaces = end..text.len() - text[end..].trim_start_matches(space).len();
                }
                end = spaces.end;
            }
            if done < start {
                parts.push((done, start, None));
            }
            if start < end {
                parts.push((start, end, Some(id)));
            }
            done = end;
        }
        if done != text.len() {
            parts.push((done, text.len(), None));
        }
        Some(parts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn added(tokens: Vec<AddedToken>) -> AddedTokens {
        let vocab = Vocab::new(&[("[UNK]", 0), ("yes", 1), ("no", 2)]);
        AddedTokens::new(
            tokens,
            &vocab,
            &Normalizer::Steps(vec![crate::normalizer::Step::Lowercase]),
        )
        .unwrap()
    }

    fn split<'a>(added: &AddedTokens, text: &'a str, stage: Stage) -> Vec<(&'a str, Option<u32>)> {
        let parts = added
            .split(text, stage, true)
            .unwrap_or_else(|| vec![(0, text.len(), None)]);
        parts
            .into_iter()
            .map(|(start, end, id)| (&text[start..end], id))
            .collect()
    }

    #[test]
    fn ids_are_the_models_or_the_next() {
        let tokens = ["<a>", "yes", "", "<b>", "<a>"].map(AddedToken::special);
        let added = added(tokens.into());
        assert_eq!(
            ["<a>", "yes", "<b>", ""].map(|token| added.id(token)),
            [Some(3), Some(1), Some(4), None]
        );
        assert_eq!(added.token(4), Some("<b>"));
        assert_eq!(added.token(0), None);
        assert_eq!((added.new_tokens(), added.largest_id()), (2, Some(4)));
        assert!(added.is_special("yes") && !added.is_special("no"));
    }

    #[test]
    fn what_is_between_stays() {
        let added = added(vec![AddedToken::special("<a>"), AddedToken::plain("Day")]);
        assert_eq!(
            split(&added, "x<a>Y<a>", Stage::Raw),
            [("x", None), ("<a>", Some(3)), ("Y", None), ("<a>", Some(3))]
        );
        assert_eq!(added.split("nothing", Stage::Raw, true), None);
        // Unmatched special tokens leave the text in one piece.
        assert_eq!(
            added.split("x<a>", Stage::Raw, false),
            Some(vec![(0, 4, None)])
        );
        // The normalized search is for the normalized content.
        assert_eq!(
            split(&added, "a day", Stage::Normalized),
            [("a ", None), ("day", Some(4))]
        );
        assert_eq!(added.split("Day", Stage::Normalized, true), None);
    }

    #[test]
    fn single_words_and_whitespace() {
        let token = AddedToken {
            single_word: true,
            ..AddedToken::special("yes")
        };
        let whole = added(vec![token]);
        assert_eq!(
            split(&whole, "yes, eyes yes_ yesé", Stage::Raw),
            [("yes", Some(1)), (", eyes yes_ yesé", None)]
        );
        let left = AddedToken {
            lstrip: true,
            ..AddedToken::special("<m>")
        };
        let right = AddedToken {
            rstrip: true,
            ..AddedToken::special("<r>")
        };
        let both = added(vec![left, right]);
        assert_eq!(
            split(&both, "a \u{2003}<m> <m>b", Stage::Raw),
            [
                ("a", None),
                (" \u{2003}<m>", Some(3)),
                (" <m>", Some(3)),
                ("b", None)
            ]
        );
        assert_eq!(
            split(&both, "<r> \n<m> ", Stage::Raw),
            [("<r> \n", Some(4)), ("<m>", Some(3)), (" ", None)]
        );
    }

    #[test]
    fn running_out_of_ids_is_an_error() {
        let vocab = Vocab::new(&[("a", u32::MAX)]);
        let tokens = vec![AddedToken::special("a"), AddedToken::special("b")];
        let added = AddedTokens::new(tokens, &vocab, &Normalizer::Steps(vec![])).unwrap();
        assert_eq!((added.id("a"), added.id("b")), (Some(u32::MAX), Some(1)));
    }
}
