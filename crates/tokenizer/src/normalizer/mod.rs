//! Normalization before text is cut into words, and where every piece of normalized text comes from.
//!
//! [`Normalizer::normalize`] gives text with [`Spans`]: runs of text that stand in the original as they are but for
//! bytes replaced in place (lowercase), and runs that all stand for one range of the original. Plain English is one run.

mod bert;
mod spans;
mod steps;

pub(crate) use bert::Bert;
pub(crate) use spans::{Aligned, Spans};
pub(crate) use steps::Step;

use std::borrow::Cow;

/// What happens to text first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Normalizer {
    /// BERT's, in one pass.
    Bert(Bert),
    /// Steps one after the other; none leaves the text as it is.
    Steps(Vec<Step>),
}

/// The names of the normalizers that tokenizer.json may ask for.
pub(crate) const KNOWN: &str =
    "BertNormalizer, NFC, NFD, NFKC, NFKD, Lowercase, StripAccents, Strip, Sequence, null";

/// Normalized text.
#[derive(Debug)]
pub(crate) struct Normalized<'t> {
    pub(crate) text: Cow<'t, str>,
    pub(crate) spans: Spans,
}

impl Normalizer {
    pub(crate) fn normalize<'t>(&self, text: &'t str) -> Normalized<'t> {
        match self {
            Self::Steps(steps) if steps.is_empty() => Normalized {
                text: Cow::Borrowed(text),
                spans: Spans::identity(),
            },
            Self::Steps(steps) => {
                let mut chars = steps::chars(text);
                for step in steps {
                    step.apply(&mut chars);
                }
                let mut out = Aligned::with_capacity(text.len());
                for (c, span) in chars {
                    out.push(c, span);
                }
                out.finish()
            }
            Self::Bert(bert) => bert.normalize(text),
        }
    }
}
