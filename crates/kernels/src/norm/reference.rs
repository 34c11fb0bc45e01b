//! LayerNorm one value at a time, in f64.

use crate::Float;

/// `(x − mean)/√(var + eps)·gamma + beta` over each row of `x[T,N]`, in place.
pub fn layer_norm<F: Float>(x: &mut [F], gamma: &[F], beta: &[F], eps: f32) {
    let n = gamma.len();
    assert_eq!(beta.len(), n, "beta is as long as gamma");
    assert!(
        n > 0 && x.len().is_multiple_of(n),
        "whole rows of {n} values"
    );
    for row in x.chunks_exact_mut(n) {
        let (mean, scale) = statistics(row, eps);
        for ((x, &gamma), &beta) in row.iter_mut().zip(gamma).zip(beta) {
            *x = F::from_f64((x.to_f64() - mean) * scale * gamma.to_f64() + beta.to_f64());
        }
    }
}

/// A row's mean, and `1/√(var + eps)`.
fn statistics<F: Float>(row: &[F], eps: f32) -> (f64, f64) {
    let n = row.len() as f64;
    let mean = row.iter().map(|x| x.to_f64()).sum::<f64>() / n;
    let squares = row.iter().map(|x| (x.to_f64() - mean).powi(2));
    let variance = squares.sum::<f64>() / n;
    (mean, 1.0 / (variance + f64::from(eps)).sqrt())
}

/// The gradients of [`layer_norm`]: `dx` in place of `dy`, and what is added to `dgamma` and `dbeta`.
pub fn layer_norm_backward<F: Float>(
    x: &[F],
    gamma: &[F],
    eps: f32,
    dy: &mut [F],
    dgamma: &mut [F],
    dbeta: &mut [F],
) {
    let n = gamma.len();
    let (mut gamma_sums, mut beta_sums) = (vec![0.0; n], vec![0.0; n]);
    for (x, dy) in x.chunks_exact(n).zip(dy.chunks_exact_mut(n)) {
        let (mean, scale) = statistics(x, eps);
        let normal: Vec<f64> = x.iter().map(|x| (x.to_f64() - mean) * scale).collect();
        let g: Vec<f64> = dy
            .iter()
            .zip(gamma)
            .map(|(dy, gamma)| dy.to_f64() * gamma.to_f64())
            .collect();
        let g_mean = g.iter().sum::<f64>() / n as f64;
        let product = g.iter().zip(&normal).map(|(g, x)| g * x).sum::<f64>() / n as f64;
        for (j, dy) in dy.iter_mut().enumerate() {
            gamma_sums[j] += dy.to_f64() * normal[j];
            beta_sums[j] += dy.to_f64();
            *dy = F::from_f64(scale * (g[j] - g_mean - normal[j] * product));
        }
    }
    for (to, sums) in [(dgamma, gamma_sums), (dbeta, beta_sums)] {
        for (to, sum) in to.iter_mut().zip(sums) {
            *to = F::from_f64(to.to_f64() + sum);
        }
    }
}
