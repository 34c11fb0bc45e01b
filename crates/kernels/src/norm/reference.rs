//! LayerNorm one value at a time, in f64.

/// `(x − mean)/√(var + eps)·gamma + beta` over each row of `x[T,N]`, in place.
pub fn layer_norm(x: &mut [f32], gamma: &[f32], beta: &[f32], eps: f32) {
    let n = gamma.len();
    assert_eq!(beta.len(), n, "beta is as long as gamma");
    assert!(
        n > 0 && x.len().is_multiple_of(n),
        "whole rows of {n} values"
    );
    for row in x.chunks_exact_mut(n) {
        let mean = row.iter().map(|&x| f64::from(x)).sum::<f64>() / n as f64;
        let squares = row.iter().map(|&x| (f64::from(x) - mean).powi(2));
        let variance = squares.sum::<f64>() / n as f64;
        let scale = 1.0 / (variance + f64::from(eps)).sqrt();
        for ((x, &gamma), &beta) in row.iter_mut().zip(gamma).zip(beta) {
            *x = ((f64::from(*x) - mean) * scale * f64::from(gamma) + f64::from(beta)) as f32;
        }
    }
}
