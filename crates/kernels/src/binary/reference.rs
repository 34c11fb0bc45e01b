//! Products of signs as products.

use super::attention::softmax_steps;
use super::{Attends, BinaryAttentionShape};

/// 1 where a value is not negative, else −1.
pub fn sign(x: f32) -> f32 {
    if x >= 0.0 { 1.0 } else { -1.0 }
}

/// `y[T,N] = α·(sign(x[T,K])·sign(w[N,K])ᵀ)`, with a scale for each row of `w`.
pub fn gemm_binary(rows: usize, x: &[f32], (w, scales): (&[f32], &[f32]), k: usize, y: &mut [f32]) {
    let n = scales.len();
    for t in 0..rows {
        for j in 0..n {
            let pairs = x[t * k..][..k].iter().zip(&w[j * k..][..k]);
            let sum: f32 = pairs.map(|(&x, &w)| sign(x) * sign(w)).sum();
            y[t * n + j] = sum * scales[j];
        }
    }
}

/// Attention of signs: see [`binary_attention`](crate::binary_attention).
pub fn binary_attention(
    qkv: &[f32],
    cu_seqlens: &[u32],
    shape: BinaryAttentionShape,
    out: &mut [f32],
) {
    let (heads, dim) = (shape.heads, shape.head_dim);
    let width = heads * dim;
    let at = |token: usize, which: usize, place: usize| {
        sign(qkv[token * 3 * width + which * width + place])
    };
    for ends in cu_seqlens.windows(2) {
        let rows = ends[0] as usize..ends[1] as usize;
        for query in rows.clone() {
            for head in 0..heads {
                let places = head * dim..(head + 1) * dim;
                out[query * width..][places.clone()].fill(0.0);
                let score = |key: usize| -> f32 {
                    let places = places.clone();
                    places.map(|i| at(query, 0, i) * at(key, 1, i)).sum()
                };
                let scores: Vec<f32> = rows.clone().map(score).collect();
                let largest = scores.iter().copied().fold(f32::MIN, f32::max);
                let scale = match shape.attends {
                    Attends::Softmax { scale, .. } => scale,
                    _ => 0.0,
                };
                let less = softmax_steps(scale, dim);
                let below = |score: &f32| ((largest - score) / 2.0) as usize;
                let weight = |score: &f32| less[below(score)];
                // Equal ones first, so that rounding is that of the kernel.
                let equal = |i: usize| scores.iter().filter(|score| below(score) == i).count();
                let sum: f32 = (0..=dim).map(|i| equal(i) as f32 * less[i]).sum();
                for (key, score) in rows.clone().zip(&scores) {
                    let attends = match shape.attends {
                        Attends::Positive => *score > 0.0,
                        Attends::NotNegative => *score >= 0.0,
                        Attends::All => true,
                        Attends::Softmax { threshold, .. } => weight(score) >= threshold * sum,
                    };
                    if attends {
                        for i in places.clone() {
                            out[query * width + i] += at(key, 2, i);
                        }
                    }
                }
            }
        }
    }
}
