//! Normalization before text is cut into words, and where every piece of normalized text comes from.
//!
//! [`Normalizer::normalize`] gives text with [`Spans`]: runs of text that stand in the original as they are but for
//! bytes replaced in place (lowercase), and runs that all stand for one range of the original. Plain English is one run.

mod bert;
mod precompiled;
mod spans;
mod steps;

pub(crate) use bert::Bert;
pub(crate) use precompiled::Precompiled;
pub(crate) use spans::{Aligned, Spans};
pub(crate) use steps::Step;

use std::borrow::Cow;

/// What happens to text first.
#[derive(Debug, Clone)]
pub(crate) enum Normalizer {
    /// BERT's, in one pass.
    Bert(Bert),
    /// Steps one after the other; none leaves the text as it is.
    Steps(Vec<Step>),
}

/// The names of the normalizers that tokenizer.json may ask for.
pub(crate) const KNOWN: &str = "BertNormalizer, ByteLevel, Lowercase, NFC, NFD, NFKC, NFKD, Nmt, Precompiled, Prepend, \
     Replace, Sequence, Strip, StripAccents, null";

/// Normalized text.
#[derive(Debug)]
pub(crate) struct Normalized<'t> {
    pub(crate) text: Cow<'t, str>,
    pub(crate) spans: Spans,
}

impl Normalizer {
    pub(crate) fn normalize<'t>(&self, text: &'t str) -> Normalized<'t> {
        match self {
            Self::Bert(bert) => bert.normalize(text),
            Self::Steps(steps) => {
                let mut normalized = Normalized {
                    text: Cow::Borrowed(text),
                    spans: Spans::identity(),
                };
                for step in steps {
                    // Most steps have nothing to do for most texts.
                    if !step.keeps(&normalized.text) {
                        normalized.apply(step);
                    }
                }
                normalized
            }
        }
    }
}

impl Normalized<'_> {
    fn apply(&mut self, step: &Step) {
        if matches!(step, Step::Lowercase) && self.text.is_ascii() {
            self.text.to_mut().make_ascii_lowercase();
            return;
        }
        let mut cursor = self.spans.cursor();
        let mut chars: steps::Chars = self
            .text
            .char_indices()
            .map(|(at, c)| (c, cursor.original(at, at + c.len_utf8())))
            .collect();
        step.apply(&mut chars);
        let mut out = Aligned::with_capacity(self.text.len());
        for (c, span) in chars {
            out.push(c, span);
        }
        *self = out.finish();
    }
}
