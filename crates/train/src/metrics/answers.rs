//! From a reader's logits to the answer of a question, as `transformers`' `run_qa` decodes them.

use super::AnswerPrediction;
use super::same_count;
use crate::TrainError;

/// What a model says of one window of a question: logits of its tokens to start and to end the answer.
#[derive(Clone, Copy, Debug)]
pub struct WindowLogits<'a> {
    /// Of each token.
    pub start: &'a [f32],
    /// Of each token.
    pub end: &'a [f32],
    /// Where each token stands in the context, in characters; `None` for those that are not the
    /// context's.
    pub offsets: &'a [Option<(u32, u32)>],
}

/// How answers are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnswerSearch {
    /// How many of the best starts and of the best ends are tried with each other.
    pub best: usize,
    /// The longest answer in tokens.
    pub longest: usize,
}

impl Default for AnswerSearch {
    /// 20 starts, 20 ends, 30 tokens.
    fn default() -> Self {
        Self {
            best: 20,
            longest: 30,
        }
    }
}

/// The answer of the windows of one question. `null_odds` is the score of "no answer" (start and end at
/// the first token, the least of all windows) minus that of the answer; without any answer the text is
/// empty and the odds infinite.
///
/// # Errors
/// [`TrainError::Count`] when a window has not a start, an end and an offset for every token.
pub fn best_answer(
    context: &str,
    windows: &[WindowLogits<'_>],
    search: AnswerSearch,
) -> Result<AnswerPrediction, TrainError> {
    let mut null = f64::INFINITY;
    let mut found: Option<(f64, u32, u32)> = None;
    for window in windows {
        same_count("logits of ends", window.end.len(), window.start.len())?;
        same_count("offsets", window.offsets.len(), window.start.len())?;
        if let (Some(&start), Some(&end)) = (window.start.first(), window.end.first()) {
            null = null.min(f64::from(start) + f64::from(end));
        }
        let ends = largest(window.end, search.best);
        for first in largest(window.start, search.best) {
            for &last in &ends {
                let (Some((from, _)), Some((_, to))) =
                    (window.offsets[first], window.offsets[last])
                else {
                    continue;
                };
                if last < first || last - first >= search.longest {
                    continue;
                }
                let score = f64::from(window.start[first]) + f64::from(window.end[last]);
                if found.is_none_or(|(best, ..)| score > best) {
                    found = Some((score, from, to));
                }
            }
        }
    }
    Ok(match found {
        Some((score, from, to)) => AnswerPrediction {
            text: characters(context, from as usize, to as usize).to_owned(),
            null_odds: null - score,
        },
        None => AnswerPrediction {
            text: String::new(),
            null_odds: f64::INFINITY,
        },
    })
}

/// The indices of the `count` largest values, largest first; of equal ones the earlier first.
fn largest(values: &[f32], count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[b].total_cmp(&values[a]).then(a.cmp(&b)));
    order.truncate(count);
    order
}

/// The characters `from..to` of a text, as far as it has them.
fn characters(text: &str, from: usize, to: usize) -> &str {
    let byte = |place: usize| {
        text.char_indices()
            .nth(place)
            .map_or(text.len(), |(byte, _)| byte)
    };
    let start = byte(from);
    &text[start..byte(to).max(start)]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `[CLS] q [SEP] é bb c [SEP]`, the context being "é bb c".
    const OFFSETS: [Option<(u32, u32)>; 7] = [
        None,
        None,
        None,
        Some((0, 1)),
        Some((2, 4)),
        Some((5, 6)),
        None,
    ];

    fn answer(start: [f32; 7], end: [f32; 7], search: AnswerSearch) -> AnswerPrediction {
        let window = WindowLogits {
            start: &start,
            end: &end,
            offsets: &OFFSETS,
        };
        best_answer("é bb c", &[window], search).unwrap()
    }

    #[test]
    fn the_best_span_of_the_context_is_the_answer() {
        // The question and the separators score highest, and do not count.
        let start = [1.0, 9.0, 9.0, 2.0, 3.0, 0.0, 9.0];
        let end = [1.0, 9.0, 9.0, 5.0, 1.0, 4.0, 9.0];
        let found = answer(start, end, AnswerSearch::default());
        // bb c (3 + 4) and é (2 + 5) tie: the best start wins.
        assert_eq!(found.text, "bb c");
        assert_eq!(found.null_odds, 2.0 - 7.0);
        let short = AnswerSearch {
            longest: 1,
            ..AnswerSearch::default()
        };
        assert_eq!(answer(start, end, short).text, "é");
        let few = AnswerSearch {
            best: 3,
            ..AnswerSearch::default()
        };
        assert_eq!(answer(start, end, few).text, "");
        assert_eq!(answer(start, end, few).null_odds, f64::INFINITY);
    }

    #[test]
    fn windows_compete_and_the_least_null_counts() {
        let (one, two) = (
            [0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0],
            [5.0, 0.0, 0.0, 0.0, 0.0, 2.0, 0.0],
        );
        let window = |logits| WindowLogits {
            start: logits,
            end: logits,
            offsets: &OFFSETS,
        };
        let windows = [window(&one), window(&two)];
        let found = best_answer("é bb c", &windows, AnswerSearch::default()).unwrap();
        assert_eq!((found.text.as_str(), found.null_odds), ("c", -4.0));
        assert_eq!(
            best_answer("x", &[], AnswerSearch::default()).unwrap().text,
            ""
        );
        // Offsets beyond the context give what there is.
        let found = best_answer("é", &windows, AnswerSearch::default()).unwrap();
        assert_eq!(found.text, "");
    }
}
