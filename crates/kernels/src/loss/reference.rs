//! The losses one value at a time, in f64.

use super::{CrossEntropy, Labels};
use crate::Float;

/// See [`cross_entropy`](crate::cross_entropy).
pub fn cross_entropy<F: Float>(
    logits: &mut [F],
    classes: usize,
    labels: Labels<'_>,
    settings: &CrossEntropy<'_>,
    scale: f64,
    losses: &mut [F],
) {
    let epsilon = f64::from(settings.label_smoothing);
    let weight = |class: usize| settings.class_weights.map_or(1.0, |w| f64::from(w[class]));
    for (row, (logits, loss)) in logits.chunks_exact_mut(classes).zip(losses).enumerate() {
        let label = labels.get(row);
        if label == settings.ignore_index {
            logits.fill(F::default());
            *loss = F::default();
            continue;
        }
        let max = logits
            .iter()
            .fold(f64::NEG_INFINITY, |max, x| max.max(x.to_f64()));
        let sum: f64 = logits.iter().map(|x| (x.to_f64() - max).exp()).sum();
        let log: Vec<f64> = logits.iter().map(|x| x.to_f64() - max - sum.ln()).collect();
        // The target's mass on each class, times the class's weight.
        let target: Vec<f64> = (0..classes)
            .map(|class| {
                let own = if class as i64 == label {
                    1.0 - epsilon
                } else {
                    0.0
                };
                weight(class) * (own + epsilon / classes as f64)
            })
            .collect();
        let all: f64 = target.iter().sum();
        *loss = F::from_f64(-target.iter().zip(&log).map(|(t, log)| t * log).sum::<f64>());
        for ((x, log), target) in logits.iter_mut().zip(&log).zip(&target) {
            *x = F::from_f64(scale * (all * log.exp() - target));
        }
    }
}

/// See [`binary_cross_entropy`](crate::binary_cross_entropy).
pub fn binary_cross_entropy<F: Float>(
    logits: &mut [F],
    targets: &[F],
    scale: f64,
    losses: &mut [F],
) {
    for ((x, t), loss) in logits.iter_mut().zip(targets).zip(losses) {
        let (logit, t) = (x.to_f64(), t.to_f64());
        *loss = F::from_f64(logit.max(0.0) - logit * t + (-logit.abs()).exp().ln_1p());
        *x = F::from_f64(scale * (1.0 / (1.0 + (-logit).exp()) - t));
    }
}

/// See [`mean_squared_error`](crate::mean_squared_error).
pub fn mean_squared_error<F: Float>(values: &mut [F], targets: &[F], scale: f64, losses: &mut [F]) {
    for ((x, t), loss) in values.iter_mut().zip(targets).zip(losses) {
        let error = x.to_f64() - t.to_f64();
        *loss = F::from_f64(error * error);
        *x = F::from_f64(2.0 * error * scale);
    }
}
