//! Attention one value at a time, in f64.

use super::{AttentionShape, Mask, Segments, Strided};

/// `softmax(scale · Q·Kᵀ)·V` for each head of each sequence; see [`attention`](crate::attention()).
pub fn attention(
    q: Strided<'_>,
    k: Strided<'_>,
    v: Strided<'_>,
    segments: Segments<'_>,
    mask: Mask,
    shape: AttentionShape,
    out: &mut [f32],
) {
    let AttentionShape {
        heads,
        head_dim,
        scale,
    } = shape;
    let width = heads * head_dim;
    for sequence in segments.ranges() {
        for head in 0..heads {
            let row = |of: &Strided<'_>, t: usize| -> Vec<f64> {
                let values = &of.data[t * of.stride + head * head_dim..][..head_dim];
                values.iter().copied().map(f64::from).collect()
            };
            for t in sequence.clone() {
                let query = row(&q, t);
                let Mask::Full = mask;
                let scores: Vec<f64> = sequence
                    .clone()
                    .map(|s| {
                        let key = row(&k, s);
                        let product: f64 = query.iter().zip(&key).map(|(q, k)| q * k).sum();
                        product * f64::from(scale)
                    })
                    .collect();
                let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let powers: Vec<f64> = scores.iter().map(|score| (score - max).exp()).collect();
                let sum: f64 = powers.iter().sum();
                let mut context = vec![0.0; head_dim];
                for (s, power) in sequence.clone().zip(&powers) {
                    for (c, v) in context.iter_mut().zip(row(&v, s)) {
                        *c += power / sum * v;
                    }
                }
                let to = &mut out[t * width + head * head_dim..][..head_dim];
                for (to, value) in to.iter_mut().zip(context) {
                    *to = value as f32;
                }
            }
        }
    }
}
