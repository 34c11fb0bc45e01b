//! Sentencepiece's words: a space becomes a mark, and a mark begins a word.
//!
//! Kudo and Richardson, "SentencePiece", <https://arxiv.org/abs/1808.06226>.

use std::ops::ControlFlow;

use super::{EmitText, Locate};
use crate::normalizer::Aligned;

/// Spaces become marks that begin words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Metaspace {
    /// The mark, mostly `▁`.
    pub(crate) mark: char,
    pub(crate) prepend: Prepend,
    /// Whether to cut before marks.
    pub(crate) split: bool,
}

/// Which text gets a mark in front if it has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Prepend {
    #[default]
    Always,
    /// That at the beginning of the input.
    First,
    Never,
}

impl Metaspace {
    fn marks(&self, c: char) -> bool {
        c == ' ' || c == self.mark
    }

    /// Whether a piece of text gets a mark in front.
    fn prepends(&self, text: &str, locate: &mut Locate<'_>) -> bool {
        let Some(first) = text.chars().next() else {
            return false;
        };
        !self.marks(first)
            && match self.prepend {
                Prepend::Always => true,
                Prepend::First => locate(0, first.len_utf8()).0 == 0,
                Prepend::Never => false,
            }
    }

    pub(super) fn texts(
        &self,
        text: &str,
        locate: &mut Locate<'_>,
        emit: &mut EmitText<'_>,
    ) -> ControlFlow<()> {
        if text.is_empty() {
            return ControlFlow::Continue(());
        }
        let prepends = self.prepends(text, locate);
        if self.split {
            self.words(text, prepends, locate, emit)
        } else {
            self.whole(text, prepends, locate, emit)
        }
    }

    /// One word of all the text.
    fn whole(
        &self,
        text: &str,
        prepends: bool,
        locate: &mut Locate<'_>,
        emit: &mut EmitText<'_>,
    ) -> ControlFlow<()> {
        let mut out = Aligned::with_capacity(text.len() + text.len() / 2);
        if prepends {
            let first = text.chars().next().map_or(0, char::len_utf8);
            out.push(self.mark, (0, first as u32));
        }
        let mut done = 0;
        for (at, _) in text.match_indices(' ') {
            if done < at {
                out.push_parallel(&text[done..at], done as u32);
            }
            out.push(self.mark, (at as u32, at as u32 + 1));
            done = at + 1;
        }
        if done < text.len() {
            out.push_parallel(&text[done..], done as u32);
        }
        let marked = out.finish();
        let mut cursor = marked.spans.cursor();
        emit(&marked.text, &mut |start, end| {
            let (start, end) = cursor.original(start, end);
            locate(start as usize, end as usize)
        })
    }

    /// A word from each mark to the next.
    fn words(
        &self,
        text: &str,
        prepends: bool,
        locate: &mut Locate<'_>,
        emit: &mut EmitText<'_>,
    ) -> ControlFlow<()> {
        let mark_len = self.mark.len_utf8();
        let mut buffer = String::new();
        // A word is the mark, which stands for a range of the text, and text as it is.
        let mut word = |mark: Option<(usize, usize)>, start: usize, end: usize| {
            let Some((from, to)) = mark else {
                if start == end {
                    return ControlFlow::Continue(());
                }
                return emit(&text[start..end], &mut |s, e| locate(start + s, start + e));
            };
            buffer.clear();
            buffer.push(self.mark);
            buffer.push_str(&text[start..end]);
            emit(&buffer, &mut |s, e| {
                let s = if s < mark_len {
                    from
                } else {
                    start + s - mark_len
                };
                let e = if e <= mark_len {
                    to
                } else {
                    start + e - mark_len
                };
                locate(s, e)
            })
        };
        let mut mark = prepends.then(|| (0, text.chars().next().map_or(0, char::len_utf8)));
        let mut start = 0;
        for (at, found) in text.match_indices(|c| self.marks(c)) {
            if at > 0 || mark.is_some() {
                word(mark, start, at)?;
            }
            start = at + found.len();
            mark = Some((at, start));
        }
        word(mark, start, text.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(metaspace: Metaspace, text: &str) -> Vec<(String, (u32, u32))> {
        let mut words = Vec::new();
        let _ = metaspace.texts(
            text,
            &mut |s, e| (s as u32, e as u32),
            &mut |word, locate| {
                words.push((word.to_owned(), locate(0, word.len())));
                ControlFlow::Continue(())
            },
        );
        words
    }

    #[test]
    fn marks_begin_words() {
        let words = Metaspace {
            mark: '▁',
            prepend: Prepend::Always,
            split: true,
        };
        let own = |words: &[(&str, (u32, u32))]| -> Vec<(String, (u32, u32))> {
            words
                .iter()
                .map(|(word, at)| ((*word).to_owned(), *at))
                .collect()
        };
        assert_eq!(
            cut(words, "é b  c▁d "),
            own(&[
                ("▁é", (0, 2)),
                ("▁b", (2, 4)),
                ("▁", (4, 5)),
                ("▁c", (5, 7)),
                ("▁d", (7, 11)),
                ("▁", (11, 12))
            ])
        );
        let never = Metaspace {
            prepend: Prepend::Never,
            ..words
        };
        assert_eq!(cut(never, "a b"), own(&[("a", (0, 1)), ("▁b", (1, 3))]));
        assert_eq!(cut(never, " a"), own(&[("▁a", (0, 2))]));
        let whole = Metaspace {
            split: false,
            ..words
        };
        assert_eq!(cut(whole, "é b▁"), own(&[("▁é▁b▁", (0, 7))]));
        assert_eq!(cut(whole, ""), []);
    }
}
