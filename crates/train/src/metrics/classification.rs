//! Classes told apart: accuracy, precision, recall, F1, Matthews' correlation, as scikit-learn counts.

use serde::Serialize;

use super::same_count;
use crate::TrainError;

/// Counts of gold class by predicted class; everything else follows from them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confusion {
    classes: usize,
    /// `[gold, predicted]`, row-major.
    counts: Vec<u64>,
}

/// Precision, recall and F1, each 0 where it is 0/0, and how many examples they are of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Prf {
    /// Right ones among the predicted.
    pub precision: f64,
    /// Found ones among the gold.
    pub recall: f64,
    /// Their harmonic mean.
    pub f1: f64,
    /// Examples of the class.
    pub support: u64,
}

impl Prf {
    /// From true positives, and how many were predicted and are gold.
    pub fn from_counts(right: u64, predicted: u64, gold: u64) -> Self {
        Self {
            precision: ratio(right, predicted),
            recall: ratio(right, gold),
            f1: ratio(2 * right, predicted + gold),
            support: gold,
        }
    }
}

/// `a / b`, 0 where b is 0.
pub(super) fn ratio(a: u64, b: u64) -> f64 {
    match b {
        0 => 0.0,
        _ => a as f64 / b as f64,
    }
}

impl Confusion {
    /// Counts of no example yet.
    pub fn new(classes: usize) -> Self {
        Self {
            classes,
            counts: vec![0; classes * classes],
        }
    }

    /// The counts of two lists of classes.
    ///
    /// # Errors
    /// [`TrainError::Count`] when they are not equally long, [`TrainError::Example`] when a class is not
    /// below `classes`.
    pub fn of(gold: &[u32], predicted: &[u32], classes: usize) -> Result<Self, TrainError> {
        same_count("predicted classes", predicted.len(), gold.len())?;
        let mut confusion = Self::new(classes);
        for (example, (&gold, &predicted)) in gold.iter().zip(predicted).enumerate() {
            if let Some(class) = [gold, predicted]
                .into_iter()
                .find(|&c| c as usize >= classes)
            {
                return Err(TrainError::Example {
                    example,
                    found: format!("the class {class}"),
                    expected: format!("one below {classes}"),
                });
            }
            confusion.counts[gold as usize * classes + predicted as usize] += 1;
        }
        Ok(confusion)
    }

    /// Adds the counts of other examples.
    ///
    /// # Errors
    /// [`TrainError::Count`] when they are of another number of classes.
    pub fn merge(&mut self, other: &Self) -> Result<(), TrainError> {
        same_count("classes", other.classes, self.classes)?;
        for (count, other) in self.counts.iter_mut().zip(&other.counts) {
            *count += other;
        }
        Ok(())
    }

    /// Number of examples.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    fn right(&self, class: usize) -> u64 {
        self.counts[class * self.classes + class]
    }

    fn gold(&self, class: usize) -> u64 {
        self.counts[class * self.classes..][..self.classes]
            .iter()
            .sum()
    }

    fn predicted(&self, class: usize) -> u64 {
        self.counts.iter().skip(class).step_by(self.classes).sum()
    }

    /// The part that is right; 0 of nothing.
    pub fn accuracy(&self) -> f64 {
        let right = (0..self.classes).map(|class| self.right(class)).sum();
        ratio(right, self.total())
    }

    /// One class against all others.
    ///
    /// # Panics
    /// When there is no such class.
    pub fn class(&self, class: usize) -> Prf {
        Prf::from_counts(self.right(class), self.predicted(class), self.gold(class))
    }

    /// All classes together, each example once (equal to the accuracy).
    pub fn micro(&self) -> Prf {
        let right = (0..self.classes).map(|class| self.right(class)).sum();
        Prf::from_counts(right, self.total(), self.total())
    }

    /// The mean over the classes that occur, in gold or predicted.
    pub fn macro_average(&self) -> Prf {
        let classes = self.occurring();
        let weights = vec![1.0; classes.len()];
        self.average(&classes, &weights)
    }

    /// The mean over the classes, weighted by how often they are gold.
    pub fn weighted(&self) -> Prf {
        let classes = self.occurring();
        let weights: Vec<f64> = classes
            .iter()
            .map(|&class| self.gold(class) as f64)
            .collect();
        self.average(&classes, &weights)
    }

    fn occurring(&self) -> Vec<usize> {
        let occurs = |&class: &usize| self.gold(class) + self.predicted(class) > 0;
        (0..self.classes).filter(occurs).collect()
    }

    fn average(&self, classes: &[usize], weights: &[f64]) -> Prf {
        average(classes.iter().map(|&class| self.class(class)), weights)
    }

    /// Matthews' correlation coefficient, of any number of classes; 0 where it is 0/0.
    pub fn matthews(&self) -> f64 {
        let total = self.total() as f64;
        let (mut right, mut products, mut gold2, mut predicted2) = (0.0, 0.0, 0.0, 0.0);
        for class in 0..self.classes {
            let (gold, predicted) = (self.gold(class) as f64, self.predicted(class) as f64);
            right += self.right(class) as f64;
            products += gold * predicted;
            gold2 += gold * gold;
            predicted2 += predicted * predicted;
        }
        let (gold, predicted) = (total * total - gold2, total * total - predicted2);
        match gold > 0.0 && predicted > 0.0 {
            true => (right * total - products) / (gold * predicted).sqrt(),
            false => 0.0,
        }
    }
}

pub(super) fn average(parts: impl Iterator<Item = Prf>, weights: &[f64]) -> Prf {
    let sum: f64 = weights.iter().sum();
    let mut mean = Prf::default();
    for (part, weight) in parts.zip(weights) {
        mean.support += part.support;
        if sum > 0.0 {
            mean.precision += part.precision * weight / sum;
            mean.recall += part.recall * weight / sum;
            mean.f1 += part.f1 * weight / sum;
        }
    }
    mean
}

/// Several labels an example: counts over `[n, classes]` decisions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MultiLabelCounts {
    /// Per class: right, predicted, gold.
    counts: Vec<[u64; 3]>,
    /// Examples of which every label is right.
    exact: u64,
    total: u64,
}

impl MultiLabelCounts {
    /// The counts of gold and predicted decisions, row-major.
    ///
    /// # Errors
    /// [`TrainError::Count`] when they are not equally long, or no whole rows.
    pub fn of(gold: &[bool], predicted: &[bool], classes: usize) -> Result<Self, TrainError> {
        same_count("predicted labels", predicted.len(), gold.len())?;
        let classes = classes.max(1);
        same_count("labels", gold.len(), gold.len() / classes * classes)?;
        let mut found = Self {
            counts: vec![[0; 3]; classes],
            exact: 0,
            total: (gold.len() / classes) as u64,
        };
        for (gold, predicted) in gold.chunks(classes).zip(predicted.chunks(classes)) {
            found.exact += u64::from(gold == predicted);
            for ((counts, &gold), &predicted) in found.counts.iter_mut().zip(gold).zip(predicted) {
                counts[0] += u64::from(gold && predicted);
                counts[1] += u64::from(predicted);
                counts[2] += u64::from(gold);
            }
        }
        Ok(found)
    }

    fn parts(&self) -> impl Iterator<Item = Prf> {
        self.counts
            .iter()
            .map(|&[right, predicted, gold]| Prf::from_counts(right, predicted, gold))
    }

    /// One class.
    ///
    /// # Panics
    /// When there is no such class.
    pub fn class(&self, class: usize) -> Prf {
        let [right, predicted, gold] = self.counts[class];
        Prf::from_counts(right, predicted, gold)
    }

    /// All decisions together.
    pub fn micro(&self) -> Prf {
        let sum = |i: usize| self.counts.iter().map(|counts| counts[i]).sum();
        Prf::from_counts(sum(0), sum(1), sum(2))
    }

    /// The mean over all classes.
    pub fn macro_average(&self) -> Prf {
        average(self.parts(), &vec![1.0; self.counts.len()])
    }

    /// The mean over the classes, weighted by how often they are gold.
    pub fn weighted(&self) -> Prf {
        let weights: Vec<f64> = self.counts.iter().map(|counts| counts[2] as f64).collect();
        average(self.parts(), &weights)
    }

    /// The part of examples of which every label is right.
    pub fn exact(&self) -> f64 {
        ratio(self.exact, self.total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn undefined_is_zero() {
        let confusion = Confusion::of(&[0, 0, 0], &[0, 0, 0], 3).unwrap();
        assert_eq!(confusion.accuracy(), 1.0);
        assert_eq!(confusion.matthews(), 0.0);
        assert_eq!(confusion.class(2).f1, 0.0);
        // Only class 0 occurs.
        assert_eq!(confusion.macro_average().f1, 1.0);
        assert_eq!(Confusion::new(2).accuracy(), 0.0);
        assert_eq!(Confusion::new(2).weighted().f1, 0.0);
    }

    #[test]
    fn counts_of_parts_are_counts_of_the_whole() {
        let whole = Confusion::of(&[0, 1, 2, 1], &[0, 2, 2, 1], 3).unwrap();
        let mut parts = Confusion::of(&[0, 1], &[0, 2], 3).unwrap();
        parts
            .merge(&Confusion::of(&[2, 1], &[2, 1], 3).unwrap())
            .unwrap();
        assert_eq!(parts, whole);
        assert!(parts.merge(&Confusion::new(2)).is_err());
    }

    #[test]
    fn what_does_not_fit_is_named() {
        assert!(Confusion::of(&[0], &[0, 1], 2).is_err());
        let error = Confusion::of(&[0, 5], &[0, 1], 2).unwrap_err().to_string();
        assert!(
            error.contains("example 1") && error.contains('5'),
            "{error}"
        );
        assert!(MultiLabelCounts::of(&[true; 3], &[true; 3], 2).is_err());
    }
}
