//! Where special tokens go: the template of one text and that of a pair, and the windows put together by them.

use std::ops::Range;

use crate::encoding::{Encoding, Token};
use crate::error::TokenizerError;

/// A piece of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Part {
    /// Special tokens (mostly one).
    Special { ids: Vec<u32>, type_id: u32 },
    /// The first (0) or the second (1) text.
    Text { text: u8, type_id: u32 },
}

/// The templates of a tokenizer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Template {
    pub(crate) single: Vec<Part>,
    pub(crate) pair: Vec<Part>,
    /// What happens to the offsets.
    pub(crate) trims: Vec<Trim>,
}

impl Default for Template {
    /// The texts alone.
    fn default() -> Self {
        let text = |text: u8| Part::Text {
            text,
            type_id: text.into(),
        };
        Self {
            single: vec![text(0)],
            pair: vec![text(0), text(1)],
            trims: Vec::new(),
        }
    }
}

/// One text's tokens and windows.
pub(crate) struct Side<'a> {
    pub(crate) tokens: &'a [Token],
    /// Tokens that begin or end in white space, as far as that is to be trimmed.
    pub(crate) blanks: &'a [Blank],
    pub(crate) windows: &'a [Range<usize>],
}

/// A token whose text begins or ends in white space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Blank {
    /// The token's place.
    pub(crate) at: usize,
    /// White space at its beginning and at its end, in characters.
    pub(crate) lead: u32,
    pub(crate) trail: u32,
}

/// White space goes from the offsets of tokens. If it says so, one space is left to the first token, which a
/// pre-tokenizer may have put there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Trim {
    pub(crate) add_prefix_space: bool,
}

impl Trim {
    fn apply(self, blank: Blank, first: bool, offsets: &mut (u32, u32)) {
        let Blank {
            mut lead, trail, ..
        } = blank;
        if lead > 0 {
            if (first || offsets.0 == 0) && self.add_prefix_space && lead == 1 {
                lead = 0;
            }
            offsets.0 = offsets.0.saturating_add(lead).min(offsets.1);
        }
        if trail > 0 && offsets.1 >= trail {
            offsets.1 = (offsets.1 - trail).max(offsets.0);
        }
    }
}

/// Windows hold copies of tokens, some 27 bytes each. A request for more than this many would end in an allocation that
/// fails.
const MOST_WINDOW_TOKENS: u64 = 1 << 26;

/// What an encoding takes beside its tokens, in tokens: a template that names a text several times makes very many
/// combinations of very short windows.
const ENCODING_TOKENS: u64 = 32;

impl Template {
    /// BERT's: `[CLS] A [SEP]` and `[CLS] A [SEP] B [SEP]`.
    pub(crate) fn bert(cls: u32, sep: u32) -> Self {
        let special = |id, type_id| Part::Special {
            ids: vec![id],
            type_id,
        };
        let text = |text, type_id| Part::Text { text, type_id };
        Self {
            single: vec![special(cls, 0), text(0, 0), special(sep, 0)],
            pair: vec![
                special(cls, 0),
                text(0, 0),
                special(sep, 0),
                text(1, 1),
                special(sep, 1),
            ],
            trims: Vec::new(),
        }
    }

    /// RoBERTa's: `<s> A </s>` and `<s> A </s></s> B </s>`, of one segment.
    pub(crate) fn roberta(cls: u32, sep: u32) -> Self {
        let special = |id| Part::Special {
            ids: vec![id],
            type_id: 0,
        };
        let text = |text| Part::Text { text, type_id: 0 };
        Self {
            single: vec![special(cls), text(0), special(sep)],
            pair: vec![
                special(cls),
                text(0),
                special(sep),
                special(sep),
                text(1),
                special(sep),
            ],
            trims: Vec::new(),
        }
    }

    fn parts(&self, pair: bool) -> &[Part] {
        if pair { &self.pair } else { &self.single }
    }

    /// Number of special tokens that the template adds.
    pub(crate) fn added(&self, pair: bool) -> usize {
        let count = |part: &Part| match part {
            Part::Special { ids, .. } => ids.len(),
            Part::Text { .. } => 0,
        };
        self.parts(pair).iter().map(count).sum()
    }

    /// The ids of the first window of each text.
    pub(crate) fn ids(&self, first: &[u32], second: Option<&[u32]>, add_special: bool) -> Vec<u32> {
        let parts = self.parts(second.is_some());
        let mut ids = Vec::with_capacity(first.len() + second.map_or(0, <[u32]>::len) + 4);
        for part in parts {
            match part {
                Part::Special { ids: special, .. } if add_special => ids.extend_from_slice(special),
                Part::Special { .. } => {}
                Part::Text { text: 0, .. } => ids.extend_from_slice(first),
                Part::Text { .. } => ids.extend_from_slice(second.unwrap_or_default()),
            }
        }
        ids
    }

    /// Puts the first window of each text together, and behind it, if `overflow`, all other combinations of windows.
    pub(crate) fn apply(
        &self,
        first: &Side<'_>,
        second: Option<&Side<'_>>,
        add_special: bool,
        overflow: bool,
    ) -> Result<Encoding, TokenizerError> {
        let parts = self.parts(second.is_some());
        let side = |text: u8| if text == 0 { Some(first) } else { second };
        // The encoding of one window per text: of the first windows, or of those chosen.
        let build = |chosen: Option<&[usize]>| {
            let mut texts = 0;
            let pieces: Vec<Piece<'_>> = parts
                .iter()
                .filter_map(|part| match part {
                    Part::Special { ids, type_id } => add_special.then_some(Piece::Special {
                        ids,
                        type_id: *type_id,
                    }),
                    Part::Text { text, type_id } => {
                        let side = side(*text)?;
                        let window = chosen.map_or(0, |chosen| chosen[texts]);
                        texts += 1;
                        Some(Piece::Text {
                            side,
                            window: side.windows[window].clone(),
                            text: *text,
                            type_id: *type_id,
                        })
                    }
                })
                .collect();
            assemble(&pieces, &self.trims)
        };
        let mut encoding = build(None);
        let cut = first.windows.len() > 1 || second.is_some_and(|second| second.windows.len() > 1);
        if overflow && cut {
            let windows = |part: &Part| match part {
                Part::Text { text, .. } => side(*text).map(|side| side.windows.len()),
                Part::Special { .. } => None,
            };
            let windows: Vec<usize> = parts.iter().filter_map(windows).collect();
            let all = windows
                .iter()
                .try_fold(1u64, |all, &count| all.checked_mul(count as u64));
            let len = encoding.len();
            let tokens = all.and_then(|all| all.checked_mul(len as u64 + ENCODING_TOKENS));
            if tokens.is_none_or(|tokens| tokens > MOST_WINDOW_TOKENS) {
                return Err(TokenizerError::TooManyWindows {
                    windows,
                    tokens: len,
                });
            }
            let further = combinations(&windows);
            encoding.overflowing = further[1..]
                .iter()
                .map(|chosen| build(Some(chosen)))
                .collect();
        }
        Ok(encoding)
    }
}

/// All choices of one window per text, in the order of `tokenizers`: the choice of the first windows, then what begins
/// with further windows of what is to the left, then its first window with the further ones to the right.
fn combinations(counts: &[usize]) -> Vec<Vec<usize>> {
    let mut all = vec![Vec::with_capacity(counts.len())];
    for &count in counts {
        let (main, further) = (&all[0], &all[1..]);
        let join = |left: &Vec<usize>, right: usize| {
            let mut joined = left.clone();
            joined.push(right);
            joined
        };
        let mut next = vec![join(main, 0)];
        next.extend(
            further
                .iter()
                .flat_map(|left| (0..count).map(move |right| join(left, right))),
        );
        next.extend((1..count).map(|right| join(main, right)));
        all = next;
    }
    all
}

enum Piece<'a> {
    Special {
        ids: &'a [u32],
        type_id: u32,
    },
    Text {
        side: &'a Side<'a>,
        window: Range<usize>,
        text: u8,
        type_id: u32,
    },
}

impl Piece<'_> {
    fn len(&self) -> usize {
        match self {
            Self::Special { ids, .. } => ids.len(),
            Self::Text { window, .. } => window.len(),
        }
    }
}

/// Puts pieces together.
fn assemble(pieces: &[Piece<'_>], trims: &[Trim]) -> Encoding {
    let mut out = Encoding::with_capacity(pieces.iter().map(Piece::len).sum());
    for piece in pieces {
        match piece {
            Piece::Special { ids, type_id } => {
                out.ids.extend_from_slice(ids);
                let len = out.ids.len();
                out.type_ids.resize(len, *type_id);
                out.offsets.resize(len, (0, 0));
                out.special.resize(len, true);
                out.words.resize(len, None);
                out.sequences.resize(len, None);
            }
            Piece::Text {
                side,
                window,
                text,
                type_id,
            } => {
                let tokens = &side.tokens[window.clone()];
                let before = out.offsets.len();
                out.ids.extend(tokens.iter().map(|token| token.id));
                let len = out.ids.len();
                out.type_ids.resize(len, *type_id);
                out.offsets
                    .extend(tokens.iter().map(|token| (token.start, token.end)));
                let blanks = &side.blanks[side.blanks.partition_point(|b| b.at < window.start)..];
                for blank in blanks.iter().take_while(|blank| blank.at < window.end) {
                    let at = blank.at - window.start;
                    for trim in trims {
                        trim.apply(*blank, at == 0, &mut out.offsets[before + at]);
                    }
                }
                out.special.resize(len, false);
                out.words
                    .extend(tokens.iter().map(|token| Some(token.word)));
                out.sequences.resize(len, Some(*text));
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::truncation::whole;

    fn tokens(ids: &[u32]) -> Vec<Token> {
        ids.iter()
            .zip(0..)
            .map(|(&id, i)| Token {
                id,
                start: i,
                end: i + 1,
                word: i,
            })
            .collect()
    }

    #[test]
    fn a_pair_has_its_marks() {
        let (a, b) = (tokens(&[10, 11]), tokens(&[20]));
        let (whole_a, whole_b) = (whole(2), whole(1));
        let template = Template::bert(1, 2);
        assert_eq!((template.added(false), template.added(true)), (2, 3));
        let first = Side {
            tokens: &a,
            blanks: &[],
            windows: &whole_a,
        };
        let second = Side {
            tokens: &b,
            blanks: &[],
            windows: &whole_b,
        };
        let encoding = template.apply(&first, Some(&second), true, true).unwrap();
        assert_eq!(encoding.ids(), [1, 10, 11, 2, 20, 2]);
        assert_eq!(encoding.type_ids(), [0, 0, 0, 0, 1, 1]);
        assert_eq!(
            encoding.offsets(),
            [(0, 0), (0, 1), (1, 2), (0, 0), (0, 1), (0, 0)]
        );
        assert_eq!(
            encoding.special_tokens_mask(),
            [true, false, false, true, false, true]
        );
        assert_eq!(
            encoding.word_ids(),
            [None, Some(0), Some(1), None, Some(0), None]
        );
        assert_eq!(
            encoding.sequence_ids(),
            [None, Some(0), Some(0), None, Some(1), None]
        );
        assert!(encoding.overflowing().is_empty());
        let bare = template.apply(&first, Some(&second), false, true).unwrap();
        assert_eq!(bare.ids(), [10, 11, 20]);
        assert_eq!(bare.type_ids(), [0, 0, 1]);
    }

    #[test]
    fn windows_of_both_texts_are_combined() {
        let (a, b) = (tokens(&[10, 11]), tokens(&[20, 21, 22]));
        let (of_a, of_b) = ([0..1, 1..2], [0..1, 1..2, 2..3]);
        let first = Side {
            tokens: &a,
            blanks: &[],
            windows: &of_a,
        };
        let second = Side {
            tokens: &b,
            blanks: &[],
            windows: &of_b,
        };
        let encoding = Template::default()
            .apply(&first, Some(&second), true, true)
            .unwrap();
        assert_eq!(encoding.ids(), [10, 20]);
        let further: Vec<&[u32]> = encoding.overflowing().iter().map(Encoding::ids).collect();
        assert_eq!(further, [[11, 20], [11, 21], [11, 22], [10, 21], [10, 22]]);
        let alone = Template::default()
            .apply(&first, Some(&second), true, false)
            .unwrap();
        assert!(alone.overflowing().is_empty());
    }

    #[test]
    fn absurdly_many_windows_are_refused() {
        let (a, b) = (tokens(&[1; 100_000]), tokens(&[2; 100_000]));
        let windows: Vec<_> = (0..100_000).map(|at| at..at + 1).collect();
        let first = Side {
            tokens: &a,
            blanks: &[],
            windows: &windows,
        };
        let second = Side {
            tokens: &b,
            blanks: &[],
            windows: &windows,
        };
        let error = Template::bert(1, 2)
            .apply(&first, Some(&second), true, true)
            .unwrap_err();
        assert!(
            matches!(error, TokenizerError::TooManyWindows { .. }),
            "{error}"
        );
        assert!(error.to_string().contains("100000"), "{error}");

        // A template that names a text six times: eleven million encodings of a few tokens each.
        let text = Part::Text {
            text: 0,
            type_id: 0,
        };
        let template = Template {
            single: vec![text; 6],
            pair: Vec::new(),
            trims: Vec::new(),
        };
        let side = Side {
            tokens: &a[..15],
            blanks: &[],
            windows: &windows[..15],
        };
        let error = template.apply(&side, None, true, true).unwrap_err();
        assert!(
            matches!(error, TokenizerError::TooManyWindows { .. }),
            "{error}"
        );
    }
}
