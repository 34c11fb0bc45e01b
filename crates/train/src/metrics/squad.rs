//! SQuAD's exact match and F1, with answers that may be "none" (version 2), as its official script
//! counts them.

use std::collections::HashMap;

use super::same_count;
use crate::TrainError;

/// A text as answers are compared: lower case, without ASCII punctuation, without articles, blanks
/// between words.
pub fn normalize_answer(text: &str) -> String {
    let lower: String = text
        .chars()
        .flat_map(char::to_lowercase)
        .filter(|c| !c.is_ascii_punctuation())
        .collect();
    // An article is one where no other word character touches it, as `\b(a|an|the)\b`.
    let is_word = |c: char| c.is_alphanumeric();
    let mut kept = String::with_capacity(lower.len());
    let mut rest = lower.as_str();
    while let Some(first) = rest.chars().next() {
        let word = is_word(first);
        let end = rest.find(|c| is_word(c) != word).unwrap_or(rest.len());
        let (run, after) = rest.split_at(end);
        kept.push_str(if matches!(run, "a" | "an" | "the") {
            " "
        } else {
            run
        });
        rest = after;
    }
    kept.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Whether an answer is one of the gold answers; without gold answers, whether it is empty.
pub fn exact_match(answer: &str, gold: &[&str]) -> f64 {
    best(answer, gold, |answer, gold| f64::from(answer == gold))
}

/// The largest F1 of an answer's words with those of a gold answer.
pub fn answer_f1(answer: &str, gold: &[&str]) -> f64 {
    best(answer, gold, |answer, gold| {
        if answer.is_empty() || gold.is_empty() {
            return f64::from(answer == gold);
        }
        let mut counts: HashMap<&str, i64> = HashMap::new();
        for word in gold.split(' ') {
            *counts.entry(word).or_default() += 1;
        }
        let (mut common, mut words) = (0.0, 0.0);
        for word in answer.split(' ') {
            words += 1.0;
            if let Some(count) = counts.get_mut(word).filter(|count| **count > 0) {
                *count -= 1;
                common += 1.0;
            }
        }
        if common == 0.0 {
            return 0.0;
        }
        let (precision, recall) = (common / words, common / gold.split(' ').count() as f64);
        2.0 * precision * recall / (precision + recall)
    })
}

/// The best score with a gold answer, both normalized. Gold answers of which nothing is left do not
/// count; if none does, the right answer is the empty one.
fn best(answer: &str, gold: &[&str], score: impl Fn(&str, &str) -> f64) -> f64 {
    let answer = normalize_answer(answer);
    let gold: Vec<String> = gold.iter().map(|gold| normalize_answer(gold)).collect();
    let gold = gold.iter().filter(|gold| !gold.is_empty());
    let scores = gold.map(|gold| score(&answer, gold));
    scores
        .reduce(f64::max)
        .unwrap_or_else(|| score(&answer, ""))
}

/// What a model says to one question.
#[derive(Clone, Debug, PartialEq)]
pub struct AnswerPrediction {
    /// The best answer that is one.
    pub text: String,
    /// How much better "no answer" scores than this answer (null score minus best span's score).
    pub null_odds: f64,
}

/// Scores over questions, from 0 to 100.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct SquadScores {
    /// Exact match.
    pub exact: f64,
    /// F1.
    pub f1: f64,
    /// The same over the questions that have an answer; NaN where there is none.
    pub has_answer_exact: f64,
    /// The same over the questions that have an answer; NaN where there is none.
    pub has_answer_f1: f64,
    /// The part of unanswerable questions that were left unanswered; NaN where there is none.
    pub no_answer: f64,
    /// Number of questions.
    pub total: usize,
}

/// Scores predictions against gold answers (none for a question without answer). An answer is withheld
/// where its `null_odds` are above `threshold`; without a threshold never (version 1).
///
/// # Errors
/// [`TrainError::Count`] when there are not as many predictions as questions.
pub fn squad_scores(
    predictions: &[AnswerPrediction],
    gold: &[Vec<&str>],
    threshold: Option<f64>,
) -> Result<SquadScores, TrainError> {
    same_count("predictions", predictions.len(), gold.len())?;
    let mut sums = [[0.0f64; 3]; 2];
    for (prediction, gold) in predictions.iter().zip(gold) {
        let withheld = threshold.is_some_and(|threshold| prediction.null_odds > threshold);
        let text = if withheld { "" } else { &prediction.text };
        let sums = &mut sums[usize::from(has_answer(gold))];
        sums[0] += exact_match(text, gold);
        sums[1] += answer_f1(text, gold);
        sums[2] += 1.0;
    }
    let [none, has] = sums;
    let part = |sum: f64, count: f64| 100.0 * sum / count;
    Ok(SquadScores {
        exact: part(none[0] + has[0], none[2] + has[2]),
        f1: part(none[1] + has[1], none[2] + has[2]),
        has_answer_exact: part(has[0], has[2]),
        has_answer_f1: part(has[1], has[2]),
        no_answer: part(none[0], none[2]),
        total: predictions.len(),
    })
}

fn has_answer(gold: &[&str]) -> bool {
    gold.iter().any(|gold| !normalize_answer(gold).is_empty())
}

/// The threshold of `null_odds` with the best score, and that score from 0 to 100.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct BestThreshold {
    /// The best F1.
    pub f1: f64,
    /// The threshold that gives it.
    pub f1_threshold: f64,
    /// The best exact match.
    pub exact: f64,
    /// The threshold that gives it.
    pub exact_threshold: f64,
}

/// Looks for the best thresholds, as the official script: from "everything is withheld" on, answers are
/// given in the order of their `null_odds`; of equally good thresholds the lowest wins.
///
/// # Errors
/// [`TrainError::Count`] when there are not as many predictions as questions.
pub fn best_threshold(
    predictions: &[AnswerPrediction],
    gold: &[Vec<&str>],
) -> Result<BestThreshold, TrainError> {
    same_count("predictions", predictions.len(), gold.len())?;
    let mut order: Vec<usize> = (0..predictions.len()).collect();
    order.sort_by(|&a, &b| {
        predictions[a]
            .null_odds
            .total_cmp(&predictions[b].null_odds)
    });
    let search = |score: fn(&str, &[&str]) -> f64| {
        let mut current = gold.iter().filter(|gold| !has_answer(gold)).count() as f64;
        let (mut best, mut threshold) = (current, 0.0);
        for &i in &order {
            let text = &predictions[i].text;
            current += match has_answer(&gold[i]) {
                true => score(text, &gold[i]),
                // An answer to a question that has none is one right answer less.
                false if text.is_empty() => 0.0,
                false => -1.0,
            };
            if current > best {
                (best, threshold) = (current, predictions[i].null_odds);
            }
        }
        (100.0 * best / predictions.len() as f64, threshold)
    };
    let (f1, f1_threshold) = search(answer_f1);
    let (exact, exact_threshold) = search(exact_match);
    Ok(BestThreshold {
        f1,
        f1_threshold,
        exact,
        exact_threshold,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_compared_without_articles_and_punctuation() {
        for (text, normal) in [
            ("The  Cat's hat!", "cats hat"),
            ("an apple a day", "apple day"),
            ("theory of a–the", "theory of –"),
            ("A.B.", "ab"),
            ("the", ""),
            ("École, 5½", "école 5½"),
        ] {
            assert_eq!(normalize_answer(text), normal, "{text}");
        }
    }

    #[test]
    fn the_best_gold_answer_counts() {
        assert_eq!(exact_match("The cat.", &["dog", "cat"]), 1.0);
        let f1 = answer_f1("big cat cat", &["cat", "the big dog"]);
        assert!((f1 - 0.5).abs() < 1e-12, "{f1}");
        assert_eq!(answer_f1("x", &[]), 0.0);
        assert_eq!(answer_f1("", &[]), 1.0);
        assert_eq!(answer_f1("", &["x"]), 0.0);
    }

    fn prediction(text: &str, null_odds: f64) -> AnswerPrediction {
        AnswerPrediction {
            text: text.into(),
            null_odds,
        }
    }

    #[test]
    fn a_threshold_withholds_answers() {
        let predictions = [
            prediction("cat", -5.0),
            prediction("dog", -1.0),
            prediction("mat", 3.0),
        ];
        let gold = [vec!["cat"], vec![], vec!["mat"]];
        let scores = |threshold| squad_scores(&predictions, &gold, threshold).unwrap();
        assert!((scores(None).exact - 200.0 / 3.0).abs() < 1e-9);
        assert_eq!(scores(None).no_answer, 0.0);
        assert!((scores(Some(-2.0)).exact - 200.0 / 3.0).abs() < 1e-9);
        assert_eq!(scores(Some(-2.0)).no_answer, 100.0);
        assert_eq!(scores(Some(-2.0)).has_answer_f1, 50.0);
        let best = best_threshold(&predictions, &gold).unwrap();
        assert_eq!(best.exact_threshold, -5.0);
        assert!((best.exact - 200.0 / 3.0).abs() < 1e-9);
        assert_eq!(scores(Some(best.exact_threshold)).exact, best.exact);
    }
}
