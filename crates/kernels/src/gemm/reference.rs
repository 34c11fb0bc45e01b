//! The product in three loops, summed in f64.

use super::Epilogue;
use crate::Float;
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

/// `c[m,n] (+)= a · b`, each operand a buffer with its strides from row to row and from column to column:
/// added to when `accumulate`, else overwritten.
pub fn matmul<F: Float>(
    (m, n, k): (usize, usize, usize),
    (a, a_strides): (&[F], (usize, usize)),
    (b, b_strides): (&[F], (usize, usize)),
    accumulate: bool,
    c: &mut [F],
) {
    let at = |of: &[F], (down, across): (usize, usize), i: usize, j: usize| {
        of[i * down + j * across].to_f64()
    };
    for i in 0..m {
        for j in 0..n {
            let products = (0..k).map(|l| at(a, a_strides, i, l) * at(b, b_strides, l, j));
            let sum: f64 = products.sum();
            let c = &mut c[i * n + j];
            *c = F::from_f64(sum + if accumulate { c.to_f64() } else { 0.0 });
        }
    }
}

/// `sums[N] (+)= Σ_t x[t,N]`: added to when `accumulate`, else overwritten.
pub fn column_sums<F: Float>(x: &[F], accumulate: bool, sums: &mut [F]) {
    let n = sums.len();
    for (j, sum) in sums.iter_mut().enumerate() {
        let all: f64 = x.iter().skip(j).step_by(n).map(|x| x.to_f64()).sum();
        *sum = F::from_f64(all + if accumulate { sum.to_f64() } else { 0.0 });
    }
}

/// `y[T,N] = (q(x)·Wqᵀ)·(s_x·s_w)` in 8 bits, with the weight's bytes `[N,K]` and scales `[N]`, and each row of `x`
/// quantized by its own largest value.
pub fn gemm_int8(rows: usize, x: &[f32], (w, scales): (&[i8], &[f32]), k: usize, y: &mut [f32]) {
    let n = scales.len();
    let mut q = vec![0i8; k];
    for t in 0..rows {
        let scale = super::quantize_row_int8(&x[t * k..][..k], &mut q);
        for j in 0..n {
            let products = q.iter().zip(&w[j * k..][..k]);
            let sum: i32 = products.map(|(&q, &w)| i32::from(q) * i32::from(w)).sum();
            y[t * n + j] = sum as f32 * (scale * scales[j]);
        }
    }
}
