//! Softmax one value at a time, in f64.

use crate::Float;

/// `e^(x−max)/Σ e^(x−max)` over each row of `n` values, in place.
pub fn softmax<F: Float>(values: &mut [F], n: usize) {
    each_row(values, n, |x, max, sum| (x - max).exp() / sum);
}

/// `x − ln Σ eˣ` over each row of `n` values, in place.
pub fn log_softmax<F: Float>(values: &mut [F], n: usize) {
    each_row(values, n, |x, max, sum| x - max - sum.ln());
}

/// Replaces each value by a function of it, its row's largest value and the sum of `e^(x−max)`.
fn each_row<F: Float>(values: &mut [F], n: usize, of: impl Fn(f64, f64, f64) -> f64) {
    assert!(
        n > 0 && values.len().is_multiple_of(n),
        "whole rows of {n} values"
    );
    for row in values.chunks_exact_mut(n) {
        let max = row
            .iter()
            .fold(f64::NEG_INFINITY, |max, x| max.max(x.to_f64()));
        let sum: f64 = row.iter().map(|x| (x.to_f64() - max).exp()).sum();
        for x in row {
            *x = F::from_f64(of(x.to_f64(), max, sum));
        }
    }
}

/// `dx = y·(dy − Σ dy·y)` over each row of `n` values, in place of `dy`; `y` is the softmax.
pub fn softmax_backward<F: Float>(y: &[F], dy: &mut [F], n: usize) {
    for (y, dy) in y.chunks_exact(n).zip(dy.chunks_exact_mut(n)) {
        let sum: f64 = y
            .iter()
            .zip(&*dy)
            .map(|(y, dy)| y.to_f64() * dy.to_f64())
            .sum();
        for (y, dy) in y.iter().zip(dy) {
            *dy = F::from_f64(y.to_f64() * (dy.to_f64() - sum));
        }
    }
}

/// `dx = dy − eʸ·Σ dy` over each row of `n` values, in place of `dy`; `y` is the log-softmax.
pub fn log_softmax_backward<F: Float>(y: &[F], dy: &mut [F], n: usize) {
    for (y, dy) in y.chunks_exact(n).zip(dy.chunks_exact_mut(n)) {
        let sum: f64 = dy.iter().map(|dy| dy.to_f64()).sum();
        for (y, dy) in y.iter().zip(dy) {
            *dy = F::from_f64(dy.to_f64() - y.to_f64().exp() * sum);
        }
    }
}
