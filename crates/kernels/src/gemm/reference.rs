//! The product in three loops, summed in f64.

use super::Epilogue;
use crate::activation::reference::scalar;

/// `y[T,N] = act(x[T,K] · w[N,K]ᵀ + bias[N]) + residual[T,N]`.
pub fn gemm(
    rows: usize,
    x: &[f32],
    w: &[f32],
    (n, k): (usize, usize),
    epilogue: Epilogue<'_>,
    y: &mut [f32],
) {
    for t in 0..rows {
        for j in 0..n {
            let mut sum = 0.0;
            for i in 0..k {
                sum += f64::from(x[t * k + i]) * f64::from(w[j * k + i]);
            }
            sum += epilogue.bias.map_or(0.0, |bias| f64::from(bias[j]));
            sum = scalar(epilogue.activation, sum);
            let residual = epilogue.residual.map_or(0.0, |r| f64::from(r[t * n + j]));
            y[t * n + j] = (sum + residual) as f32;
        }
    }
}
