//! Numbers compared with numbers: Pearson, Spearman, mean errors, and the area under the ROC curve.

use super::same_count;
use crate::TrainError;

/// Pearson's correlation, in f64 in two passes; NaN where either list is constant or has under two
/// numbers.
///
/// # Errors
/// [`TrainError::Count`] when the lists are not equally long.
pub fn pearson(x: &[f64], y: &[f64]) -> Result<f64, TrainError> {
    same_count("numbers to correlate", y.len(), x.len())?;
    let n = x.len() as f64;
    let mean = |values: &[f64]| values.iter().sum::<f64>() / n;
    let (mean_x, mean_y) = (mean(x), mean(y));
    let (mut xy, mut xx, mut yy) = (0.0, 0.0, 0.0);
    for (x, y) in x.iter().zip(y) {
        let (x, y) = (x - mean_x, y - mean_y);
        xy += x * y;
        xx += x * x;
        yy += y * y;
    }
    match xx > 0.0 && yy > 0.0 {
        true => Ok((xy / (xx.sqrt() * yy.sqrt())).clamp(-1.0, 1.0)),
        false => Ok(f64::NAN),
    }
}

/// Spearman's correlation: Pearson's of the ranks, equal numbers having the mean of their ranks.
///
/// # Errors
/// [`TrainError::Count`] when the lists are not equally long.
pub fn spearman(x: &[f64], y: &[f64]) -> Result<f64, TrainError> {
    pearson(&ranks(x), &ranks(y))
}

/// Ranks from 1; equal numbers have the mean of their ranks.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut before = 0;
    for tied in order.chunk_by(|&a, &b| values[a] == values[b]) {
        // Ranks before+1 to before+n.
        let mean = before as f64 + (tied.len() as f64 + 1.0) / 2.0;
        for &i in tied {
            ranks[i] = mean;
        }
        before += tied.len();
    }
    ranks
}

/// The mean of squared errors; NaN of nothing.
///
/// # Errors
/// [`TrainError::Count`] when the lists are not equally long.
pub fn mean_squared_error(gold: &[f64], predicted: &[f64]) -> Result<f64, TrainError> {
    same_count("predicted numbers", predicted.len(), gold.len())?;
    let errors = gold.iter().zip(predicted).map(|(a, b)| (a - b) * (a - b));
    Ok(errors.sum::<f64>() / gold.len() as f64)
}

/// The mean of absolute errors; NaN of nothing.
///
/// # Errors
/// [`TrainError::Count`] when the lists are not equally long.
pub fn mean_absolute_error(gold: &[f64], predicted: &[f64]) -> Result<f64, TrainError> {
    same_count("predicted numbers", predicted.len(), gold.len())?;
    let errors = gold.iter().zip(predicted).map(|(a, b)| (a - b).abs());
    Ok(errors.sum::<f64>() / gold.len() as f64)
}

/// The area under the ROC curve: the probability that a positive has a larger score than a negative,
/// half for equal scores. NaN where there are not both.
///
/// # Errors
/// [`TrainError::Count`] when there are not as many scores as labels.
pub fn roc_auc(positive: &[bool], scores: &[f64]) -> Result<f64, TrainError> {
    same_count("scores", scores.len(), positive.len())?;
    let count = positive.iter().filter(|&&positive| positive).count() as f64;
    let others = positive.len() as f64 - count;
    if count == 0.0 || others == 0.0 {
        return Ok(f64::NAN);
    }
    let ranks = ranks(scores);
    let sum: f64 = ranks
        .iter()
        .zip(positive)
        .filter(|(_, p)| **p)
        .map(|(rank, _)| rank)
        .sum();
    Ok((sum - count * (count + 1.0) / 2.0) / (count * others))
}

/// The area under the ROC curve of each class against the others, averaged over the classes that have
/// both; `scores` are `[n, classes]`, row-major. NaN where no class has.
///
/// # Errors
/// [`TrainError::Count`] when there are not `classes` scores for each class label.
pub fn roc_auc_macro(gold: &[u32], scores: &[f64], classes: usize) -> Result<f64, TrainError> {
    same_count("scores", scores.len(), gold.len() * classes)?;
    let mut areas = Vec::new();
    for class in 0..classes {
        let positive: Vec<bool> = gold.iter().map(|&gold| gold as usize == class).collect();
        let column: Vec<f64> = scores
            .iter()
            .skip(class)
            .step_by(classes)
            .copied()
            .collect();
        let area = roc_auc(&positive, &column)?;
        if !area.is_nan() {
            areas.push(area);
        }
    }
    Ok(areas.iter().sum::<f64>() / areas.len() as f64)
}

/// Average precision, the area under the steps of the precision-recall curve: `Σ (Rₙ - Rₙ₋₁)·Pₙ` over
/// distinct scores. 0 where nothing is positive.
///
/// # Errors
/// [`TrainError::Count`] when there are not as many scores as labels.
pub fn average_precision(positive: &[bool], scores: &[f64]) -> Result<f64, TrainError> {
    same_count("scores", scores.len(), positive.len())?;
    let all = positive.iter().filter(|&&positive| positive).count() as f64;
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    let (mut seen, mut right, mut sum) = (0.0, 0.0, 0.0);
    for tied in order.chunk_by(|&a, &b| scores[a] == scores[b]) {
        let new = tied.iter().filter(|&&i| positive[i]).count() as f64;
        seen += tied.len() as f64;
        right += new;
        if new > 0.0 {
            sum += new / all * (right / seen);
        }
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_specified_area() {
        let positive = [false, false, true, true];
        assert_eq!(roc_auc(&positive, &[0.1, 0.4, 0.4, 0.8]).unwrap(), 0.875);
        assert!(roc_auc(&[true], &[1.0]).unwrap().is_nan());
    }

    #[test]
    fn a_constant_correlates_with_nothing() {
        assert!(pearson(&[1.0, 1.0], &[1.0, 2.0]).unwrap().is_nan());
        assert!(spearman(&[], &[]).unwrap().is_nan());
        assert!(pearson(&[1.0], &[1.0, 2.0]).is_err());
        // A large offset does not drown the differences.
        let x = [1e9, 1e9 + 1.0, 1e9 + 2.0];
        let found = pearson(&x, &[1.0, 2.0, 3.0]).unwrap();
        assert!((found - 1.0).abs() < 1e-12, "{found}");
    }

    #[test]
    fn equal_numbers_share_their_ranks() {
        assert_eq!(ranks(&[3.0, 1.0, 3.0, 2.0, 3.0]), [4.0, 1.0, 4.0, 2.0, 4.0]);
    }
}
