//! Where normalized text comes from in the original.

use std::borrow::Cow;

use super::Normalized;

/// A range of bytes of the original.
pub(crate) type Span = (u32, u32);

/// Where normalized text comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Spans {
    /// All of it stands in the original as it is, from this byte on.
    Parallel(u32),
    /// Runs in the order of the text.
    Runs(Vec<Run>),
}

/// Normalized text from `at` up to the next run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    at: usize,
    source: Source,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    /// Characters that begin and end where the original's do, from this byte on.
    Parallel(u32),
    /// Everything stands for this range.
    Whole(Span),
}

impl Spans {
    /// Text as it was.
    pub(crate) fn identity() -> Self {
        Self::Parallel(0)
    }

    /// Starts to look up ranges, which should rise: then all look-ups together are one walk.
    #[inline]
    pub(crate) fn cursor(&self) -> Cursor<'_> {
        let (parallel, runs) = match self {
            Self::Parallel(origin) => (Some(*origin), &[][..]),
            Self::Runs(runs) => (None, &runs[..]),
        };
        Cursor {
            parallel,
            runs,
            start: 0,
            end: 0,
        }
    }
}

/// Looks up ranges. See [`Spans::cursor`].
pub(crate) struct Cursor<'a> {
    parallel: Option<u32>,
    runs: &'a [Run],
    start: usize,
    end: usize,
}

impl Cursor<'_> {
    /// The original range of a range of normalized text that is not empty.
    #[inline]
    pub(crate) fn original(&mut self, start: usize, end: usize) -> Span {
        if let Some(origin) = self.parallel {
            return (origin + start as u32, origin + end as u32);
        }
        self.run_of(start, end)
    }

    fn run_of(&mut self, start: usize, end: usize) -> Span {
        self.start = seek(self.runs, self.start, start);
        self.end = seek(self.runs, self.end.max(self.start), end.saturating_sub(1));
        let from = match self.runs.get(self.start) {
            Some(&Run {
                at,
                source: Source::Parallel(origin),
            }) => origin + (start - at) as u32,
            Some(&Run {
                source: Source::Whole(span),
                ..
            }) => span.0,
            None => 0,
        };
        let to = match self.runs.get(self.end) {
            Some(&Run {
                at,
                source: Source::Parallel(origin),
            }) => origin + (end - at) as u32,
            Some(&Run {
                source: Source::Whole(span),
                ..
            }) => span.1,
            None => 0,
        };
        (from, to)
    }
}

/// The run that holds a byte, searched for from the run `from`.
#[inline]
fn seek(runs: &[Run], mut from: usize, byte: usize) -> usize {
    if runs.get(from).is_some_and(|run| run.at > byte) {
        return runs.partition_point(|run| run.at <= byte).saturating_sub(1);
    }
    while runs.get(from + 1).is_some_and(|next| next.at <= byte) {
        from += 1;
    }
    from
}

/// Normalized text as it grows.
#[derive(Debug, Default)]
pub(crate) struct Aligned {
    text: String,
    /// All runs but the last.
    runs: Vec<Run>,
    last: Option<Run>,
}

impl Aligned {
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Self {
            text: String::with_capacity(bytes),
            ..Self::default()
        }
    }

    /// Adds a character that stands for a range of the original.
    #[inline]
    pub(crate) fn push(&mut self, c: char, span: Span) {
        if c.len_utf8() as u32 == span.1 - span.0 {
            self.go_parallel(span.0);
        } else if self
            .last
            .is_none_or(|last| last.source != Source::Whole(span))
        {
            self.start_run(Source::Whole(span));
        }
        self.text.push(c);
    }

    /// Adds text as it stands in the original from `start` on.
    #[inline]
    pub(crate) fn push_parallel(&mut self, text: &str, start: u32) {
        self.go_parallel(start);
        self.text.push_str(text);
    }

    /// As [`Aligned::push_parallel`], in ASCII lowercase.
    #[inline]
    pub(crate) fn push_parallel_lowercase(&mut self, text: &str, start: u32) {
        let at = self.text.len();
        self.push_parallel(text, start);
        self.text[at..].make_ascii_lowercase();
    }

    /// What comes next stands in the original from `start` on.
    #[inline]
    fn go_parallel(&mut self, start: u32) {
        let goes_on = match self.last {
            Some(Run {
                at,
                source: Source::Parallel(origin),
            }) => origin + (self.text.len() - at) as u32 == start,
            Some(Run {
                source: Source::Whole(_),
                ..
            })
            | None => false,
        };
        if !goes_on {
            self.start_run(Source::Parallel(start));
        }
    }

    fn start_run(&mut self, source: Source) {
        let run = Run {
            at: self.text.len(),
            source,
        };
        self.runs.extend(self.last.replace(run));
    }

    pub(crate) fn finish(self) -> Normalized<'static> {
        let Self {
            text,
            mut runs,
            last,
        } = self;
        let spans = match last {
            Some(Run {
                source: Source::Parallel(origin),
                ..
            }) if runs.is_empty() => Spans::Parallel(origin),
            last => {
                runs.extend(last);
                Spans::Runs(runs)
            }
        };
        Normalized {
            text: Cow::Owned(text),
            spans,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_original_of_every_range() {
        // "É漢İx" in BERT's way: e, space, 漢, space, i, x.
        let mut out = Aligned::default();
        out.push('e', (0, 2));
        for c in [' ', '漢', ' '] {
            out.push(c, (2, 5));
        }
        out.push('i', (5, 7));
        out.push('\u{307}', (5, 7));
        out.push_parallel_lowercase("XYZ", 7);
        let Normalized { text, spans } = out.finish();
        assert_eq!(text, "e 漢 i\u{307}xyz");
        let ranges = [
            ((0, 1), (0, 2)),
            ((1, 2), (2, 5)),
            ((2, 5), (2, 5)),
            ((0, 6), (0, 5)),
            ((6, 7), (5, 7)),
            ((7, 9), (5, 7)),
            ((6, 10), (5, 8)),
            ((10, 12), (8, 10)),
        ];
        for ((start, end), expected) in ranges {
            assert_eq!(
                spans.cursor().original(start, end),
                expected,
                "{start}..{end}"
            );
        }
        let mut cursor = spans.cursor();
        for ((start, end), expected) in ranges.iter().chain(ranges.iter().rev()) {
            assert_eq!(cursor.original(*start, *end), *expected, "{start}..{end}");
        }
    }

    #[test]
    fn parallel_text_is_one_run() {
        let mut out = Aligned::default();
        out.push_parallel("ab", 0);
        out.push('д', (2, 4));
        out.push_parallel_lowercase("C", 4);
        assert_eq!(out.finish().spans, Spans::identity());
        let mut out = Aligned::default();
        out.push_parallel("ab", 1);
        out.push_parallel("c", 4);
        assert_eq!(out.finish().spans.cursor().original(0, 3), (1, 5));
        assert_eq!(Spans::identity().cursor().original(3, 5), (3, 5));
    }
}
