//! BERT's normalizer: delete control characters, make every space one, set Chinese characters apart, strip accents,
//! lowercase.
//!
//! `_clean_text`, `_tokenize_chinese_chars` and `_run_strip_accents` of
//! <https://github.com/google-research/bert/blob/master/tokenization.py>.

use std::collections::VecDeque;

use super::Normalized;
use super::spans::{Aligned, Span};
use crate::scan::printable_ascii;
use crate::unicode::{self, CJK, CONTROL, DECOMPOSES, MARK, NON_STARTER, SPACE};

/// What BERT's normalizer does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bert {
    pub(crate) clean_text: bool,
    pub(crate) handle_chinese_chars: bool,
    pub(crate) strip_accents: bool,
    pub(crate) lowercase: bool,
}

impl Bert {
    pub(crate) fn normalize(self, text: &str) -> Normalized<'static> {
        let mut pass = Pass {
            bert: self,
            out: Aligned::with_capacity(text.len()),
            marks: Vec::new(),
            waiting: VecDeque::new(),
            last: (0, 0),
        };
        let bytes = text.as_bytes();
        let mut at = 0;
        while at < bytes.len() {
            let run = printable_ascii(&bytes[at..]);
            if run > 0 {
                pass.flush();
                let plain = &text[at..at + run];
                if self.lowercase {
                    pass.out.push_parallel_lowercase(plain, at as u32);
                } else {
                    pass.out.push_parallel(plain, at as u32);
                }
                at += run;
            }
            // Up to the next character that may begin a run.
            for c in text[at..].chars() {
                if matches!(c, ' '..='~') {
                    break;
                }
                let end = at + c.len_utf8();
                pass.take(c, (at as u32, end as u32));
                at = end;
            }
        }
        pass.flush();
        pass.out.finish()
    }
}

/// One pass over a text.
struct Pass {
    bert: Bert,
    out: Aligned,
    /// Non-starters since the last starter: (combining class, character, whether it is the first of its source).
    marks: Vec<(u8, char, bool)>,
    /// The sources of those that are the first.
    waiting: VecDeque<Span>,
    /// The source used last.
    last: Span,
}

impl Pass {
    /// Takes a character of the text.
    #[inline]
    fn take(&mut self, c: char, span: Span) {
        let flags = unicode::flags(c);
        if self.bert.clean_text {
            if flags & CONTROL != 0 {
                return;
            }
            if flags & SPACE != 0 {
                return self.decompose(' ', 0, span);
            }
        }
        if self.bert.handle_chinese_chars && flags & CJK != 0 {
            self.decompose(' ', 0, span);
            self.decompose(c, flags, span);
            self.decompose(' ', 0, span);
        } else {
            self.decompose(c, flags, span);
        }
    }

    /// Decomposes where accents are to go. A decomposed character's parts after the first take the source of whatever
    /// comes before them in canonical order, and the first parts take the sources in the order of the text: that is how
    /// `tokenizers` aligns text that canonical ordering moves about.
    #[inline]
    fn decompose(&mut self, c: char, flags: u8, span: Span) {
        if !self.bert.strip_accents {
            return self.lower(c, span);
        }
        if let Some(base) = unicode::without_marks(c) {
            // The marks would go, and as no first parts they would leave nothing else behind.
            self.flush();
            self.last = span;
            return self.lower(base, span);
        }
        let hangul = matches!(c, '\u{AC00}'..='\u{D7A3}');
        if flags & (DECOMPOSES | NON_STARTER) == 0 && !hangul {
            self.flush();
            self.last = span;
            return self.strip(c, flags, span);
        }
        self.waiting.push_back(span);
        let mut first = true;
        unicode::decompose_canonical(c, |part| {
            let flags = unicode::flags(part);
            if flags & NON_STARTER == 0 {
                self.flush();
                self.place(part, flags, first);
            } else {
                self.marks
                    .push((unicode::combining_class(part), part, first));
            }
            first = false;
        });
    }

    /// Puts the non-starters into canonical order and places them.
    #[inline]
    fn flush(&mut self) {
        if !self.marks.is_empty() {
            self.flush_marks();
        }
    }

    fn flush_marks(&mut self) {
        let mut marks = std::mem::take(&mut self.marks);
        marks.sort_by_key(|mark| mark.0);
        for (_, c, first) in marks.drain(..) {
            self.place(c, unicode::flags(c), first);
        }
        self.marks = marks;
    }

    fn place(&mut self, c: char, flags: u8, first: bool) {
        if first {
            self.last = self.waiting.pop_front().unwrap_or(self.last);
        }
        self.strip(c, flags, self.last);
    }

    #[inline]
    fn strip(&mut self, c: char, flags: u8, span: Span) {
        if flags & MARK == 0 {
            self.lower(c, span);
        }
    }

    #[inline]
    fn lower(&mut self, c: char, span: Span) {
        if !self.bert.lowercase {
            self.out.push(c, span);
        } else if c.is_ascii() {
            self.out.push(c.to_ascii_lowercase(), span);
        } else {
            for lower in c.to_lowercase() {
                self.out.push(lower, span);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Normalizer, Step};
    use super::*;
    use proptest::prelude::*;

    const UNCASED: Bert = Bert {
        clean_text: true,
        handle_chinese_chars: true,
        strip_accents: true,
        lowercase: true,
    };

    #[test]
    fn each_of_its_works() {
        let text = |bert: Bert, text| bert.normalize(text).text.into_owned();
        let none = Bert {
            clean_text: false,
            handle_chinese_chars: false,
            strip_accents: false,
            lowercase: false,
        };
        let messy = "A\u{0}b\u{200b}c\u{fffd}\td\u{3000}É";
        assert_eq!(text(none, messy), messy);
        assert_eq!(
            text(
                Bert {
                    clean_text: true,
                    ..none
                },
                messy
            ),
            "Abc d É"
        );
        assert_eq!(
            text(
                Bert {
                    strip_accents: true,
                    ..none
                },
                "Éa\u{303}\u{327}ñ"
            ),
            "Ean"
        );
        assert_eq!(
            text(
                Bert {
                    lowercase: true,
                    ..none
                },
                "ÉİΣ"
            ),
            "éi\u{307}σ"
        );
        assert_eq!(
            text(
                Bert {
                    handle_chinese_chars: true,
                    ..none
                },
                "a漢かb"
            ),
            "a 漢 かb"
        );
        assert_eq!(
            text(UNCASED, "Île\u{ad} de 漢İ한"),
            "ile de  漢 i\u{1112}\u{1161}\u{11ab}"
        );
    }

    #[test]
    fn spans_lead_back() {
        let normalized = UNCASED.normalize("Île\u{ad}s");
        assert_eq!(normalized.text, "iles");
        let mut cursor = normalized.spans.cursor();
        assert_eq!(cursor.original(0, 1), (0, 2));
        assert_eq!(cursor.original(1, 3), (2, 4));
        assert_eq!(cursor.original(2, 4), (3, 7));
    }

    fn bert() -> impl Strategy<Value = Bert> {
        any::<[bool; 4]>().prop_map(
            |[clean_text, handle_chinese_chars, strip_accents, lowercase]| Bert {
                clean_text,
                handle_chinese_chars,
                strip_accents,
                lowercase,
            },
        )
    }

    /// Characters that something happens to, often.
    fn interesting() -> impl Strategy<Value = String> {
        let c = prop_oneof![
            4 => any::<char>(),
            4 => proptest::char::range(' ', '~'),
            2 => proptest::sample::select(
                "\0\t\n\r\u{7f}\u{85}\u{a0}\u{ad}éÉñİßΣ\u{300}\u{301}\u{323}\u{327}\u{344}\u{f73}\u{f71}\u{302e}\
                 \u{302f}\u{1d165}\u{1d16d}\u{1d15f}漢\u{f900}\u{2f800}\u{2b820}한\u{1100}각\u{200b}\u{fffd}\u{3000}"
                    .chars()
                    .collect::<Vec<_>>()
            ),
            1 => proptest::char::range('\u{300}', '\u{36f}'),
        ];
        proptest::collection::vec(c, 0..24).prop_map(String::from_iter)
    }

    proptest! {
        /// The one pass does what the works do one after the other.
        #[test]
        fn one_pass_is_all_steps(bert in bert(), text in interesting()) {
            let fast = bert.normalize(&text);
            let slow = Normalizer::Steps(vec![Step::Bert(bert)]).normalize(&text);
            prop_assert_eq!(&fast.text, &slow.text);
            let (mut fast_at, mut slow_at) = (fast.spans.cursor(), slow.spans.cursor());
            for (start, c) in fast.text.char_indices() {
                let end = start + c.len_utf8();
                prop_assert_eq!(fast_at.original(start, end), slow_at.original(start, end), "{:?} {}", c, start);
            }
        }
    }
}
