//! The most probable spans of a window of question and context.

use bertha_tokenizer::Encoding;

use crate::scores::{descending, softmax};

/// The logit of a token that can be no part of an answer, as `transformers` sets it.
const MASKED: f32 = -10_000.0;

/// The probabilities of a window's tokens to start and to end an answer.
pub(crate) struct Window {
    start: Vec<f64>,
    end: Vec<f64>,
    /// Which tokens are the context's.
    context: Vec<bool>,
}

/// Tokens `first` to `last` as an answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct TokenSpan {
    pub(crate) first: usize,
    pub(crate) last: usize,
    pub(crate) score: f64,
}

impl Window {
    /// From the logits of a window's tokens. The context's tokens compete with `cls`, which stands for
    /// there being no answer.
    pub(crate) fn new(encoding: &Encoding, cls: Option<u32>, start: &[f32], end: &[f32]) -> Self {
        let context: Vec<bool> = encoding
            .sequence_ids()
            .iter()
            .map(|&sequence| sequence == Some(1))
            .collect();
        let is_cls = encoding.ids().iter().map(|&id| cls == Some(id));
        Self::from_parts(context, is_cls.collect(), start, end)
    }

    fn from_parts(context: Vec<bool>, cls: Vec<bool>, start: &[f32], end: &[f32]) -> Self {
        let probabilities = |logits: &[f32]| {
            let allowed = context
                .iter()
                .zip(&cls)
                .map(|(&context, &cls)| context || cls);
            let masked = |(&logit, allowed)| if allowed { logit } else { MASKED };
            softmax(&logits.iter().zip(allowed).map(masked).collect::<Vec<_>>())
        };
        Self {
            start: probabilities(start),
            end: probabilities(end),
            context,
        }
    }

    /// The probability that the window holds no answer: that it starts and ends at its first token.
    pub(crate) fn no_answer(&self) -> f64 {
        match (self.start.first(), self.end.first()) {
            (Some(start), Some(end)) => start * end,
            _ => 0.0,
        }
    }
}

/// The `count` most probable spans of at most `longest` tokens of the context, best first; of equal
/// ones the earlier, then the shorter first.
pub(crate) fn best_spans(window: &Window, count: usize, longest: usize) -> Vec<TokenSpan> {
    let tokens = window.context.len();
    let in_context = |&i: &usize| window.context[i];
    let mut spans = Vec::new();
    for first in (0..tokens).filter(in_context) {
        let end = first.saturating_add(longest).min(tokens);
        spans.extend((first..end).filter(in_context).map(|last| TokenSpan {
            first,
            last,
            score: window.start[first] * window.end[last],
        }));
    }
    let by_rank = |a: &TokenSpan, b: &TokenSpan| {
        descending(a.score, b.score).then((a.first, a.last).cmp(&(b.first, b.last)))
    };
    if count < spans.len() {
        spans.select_nth_unstable_by(count, by_rank);
        spans.truncate(count);
    }
    spans.sort_unstable_by(by_rank);
    spans
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `[CLS] question [SEP] a b c [SEP]`.
    fn window(start: [f32; 7], end: [f32; 7]) -> Window {
        let context = [false, false, false, true, true, true, false];
        let cls = [true, false, false, false, false, false, false];
        Window::from_parts(context.to_vec(), cls.to_vec(), &start, &end)
    }

    #[test]
    fn only_the_context_and_no_answer_share_the_probability() {
        let window = window([1.0, 90.0, 90.0, 1.0, 1.0, 1.0, 90.0], [0.0; 7]);
        assert_eq!(window.start[0], 0.25);
        assert_eq!(window.start[1], 0.0);
        assert_eq!(window.no_answer(), 0.0625);
    }

    #[test]
    fn spans_run_forward_and_stay_short() {
        // The best start is behind the best end.
        let window = window(
            [0.0, 9.0, 9.0, 1.0, 2.0, 5.0, 9.0],
            [0.0, 9.0, 9.0, 5.0, 2.0, 1.0, 9.0],
        );
        let spans = |count, longest| {
            let spans = best_spans(&window, count, longest);
            assert!(spans.is_sorted_by(|a, b| a.score >= b.score));
            spans
                .iter()
                .map(|span| (span.first, span.last))
                .collect::<Vec<_>>()
        };
        assert_eq!(spans(99, 99).len(), 6);
        assert!(spans(99, 99).iter().all(|&(first, last)| first <= last));
        let mut single = spans(99, 1);
        single.sort_unstable();
        assert_eq!(single, [(3, 3), (4, 4), (5, 5)]);
        // e^(1+5) and e^(5+1) tie: the earlier comes first.
        assert_eq!(spans(2, 99), [(3, 3), (5, 5)]);
    }

    #[test]
    fn a_window_without_context_has_no_span() {
        let none = Window::from_parts(vec![false; 2], vec![true, false], &[0.0; 2], &[0.0; 2]);
        assert!(best_spans(&none, 5, 15).is_empty());
        assert_eq!(none.no_answer(), 1.0);
    }
}
