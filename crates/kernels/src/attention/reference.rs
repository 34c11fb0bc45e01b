//! Attention one value at a time, in f64.

use super::{AttentionDropout, AttentionShape, Mask, Segments, Strided};
use crate::Float;

/// `softmax(scale · Q·Kᵀ)·V` for each head of each sequence; see [`attention`](crate::attention()).
pub fn attention<F: Float>(
    q: Strided<'_, F>,
    k: Strided<'_, F>,
    v: Strided<'_, F>,
    segments: Segments<'_>,
    mask: Mask,
    shape: AttentionShape,
    out: &mut [F],
) {
    attention_with_dropout(q, k, v, segments, mask, shape, None, out);
}

/// [`attention`] whose weights are dropped; see [`attention_keeping`](crate::attention_keeping).
#[allow(clippy::too_many_arguments)]
pub fn attention_with_dropout<F: Float>(
    q: Strided<'_, F>,
    k: Strided<'_, F>,
    v: Strided<'_, F>,
    segments: Segments<'_>,
    mask: Mask,
    shape: AttentionShape,
    dropout: Option<&AttentionDropout<'_>>,
    out: &mut [F],
) {
    let Mask::Full = mask;
    let width = shape.heads * shape.head_dim;
    each_query(q, k, segments, shape, dropout, |t, head, keys| {
        let mut context = vec![0.0; shape.head_dim];
        for key in keys {
            for (c, v) in context.iter_mut().zip(row(&v, shape, head, key.row)) {
                *c += key.weight * key.factor * v;
            }
        }
        let to = &mut out[t * width + head * shape.head_dim..][..shape.head_dim];
        for (to, value) in to.iter_mut().zip(context) {
            *to = F::from_f64(value);
        }
    });
}

/// The gradients of [`attention_with_dropout`]: `dq`, `dk` and `dv`, each `[T, H·D]`, for `dout[T, H·D]`.
#[allow(clippy::too_many_arguments)]
pub fn attention_backward<F: Float>(
    q: Strided<'_, F>,
    k: Strided<'_, F>,
    v: Strided<'_, F>,
    segments: Segments<'_>,
    mask: Mask,
    shape: AttentionShape,
    dropout: Option<&AttentionDropout<'_>>,
    dout: &[F],
) -> [Vec<F>; 3] {
    let Mask::Full = mask;
    let width = shape.heads * shape.head_dim;
    let scale = f64::from(shape.scale);
    let mut gradients = [(); 3].map(|()| vec![0.0; dout.len()]);
    let dout = Strided {
        data: dout,
        stride: width,
    };
    each_query(q, k, segments, shape, dropout, |t, head, keys| {
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let up = row(&dout, shape, head, t);
        let dp = |key: &Key| key.factor * dot(&up, &row(&v, shape, head, key.row));
        let mean: f64 = keys.iter().map(|key| key.weight * dp(key)).sum();
        let query = row(&q, shape, head, t);
        for key in keys {
            let ds = key.weight * (dp(key) - mean) * scale;
            let kept = row(&k, shape, head, key.row);
            for d in 0..shape.head_dim {
                let column = head * shape.head_dim + d;
                gradients[0][t * width + column] += ds * kept[d];
                gradients[1][key.row * width + column] += ds * query[d];
                gradients[2][key.row * width + column] += key.weight * key.factor * up[d];
            }
        }
    });
    gradients.map(|values| values.into_iter().map(F::from_f64).collect())
}

/// A key that a query sees.
struct Key {
    row: usize,
    /// Its softmax.
    weight: f64,
    /// What dropout multiplies that by.
    factor: f64,
}

fn row<F: Float>(of: &Strided<'_, F>, shape: AttentionShape, head: usize, t: usize) -> Vec<f64> {
    let values = &of.data[t * of.stride + head * shape.head_dim..][..shape.head_dim];
    values.iter().map(|value| value.to_f64()).collect()
}

/// Calls `with` for each query (its row, its head) with the keys it sees.
fn each_query<F: Float>(
    q: Strided<'_, F>,
    k: Strided<'_, F>,
    segments: Segments<'_>,
    shape: AttentionShape,
    dropout: Option<&AttentionDropout<'_>>,
    mut with: impl FnMut(usize, usize, &[Key]),
) {
    for sequence in segments.ranges() {
        for head in 0..shape.heads {
            for t in sequence.clone() {
                let query = row(&q, shape, head, t);
                let scores: Vec<f64> = sequence
                    .clone()
                    .map(|s| {
                        let key = row(&k, shape, head, s);
                        let product: f64 = query.iter().zip(&key).map(|(q, k)| q * k).sum();
                        product * f64::from(shape.scale)
                    })
                    .collect();
                let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let powers: Vec<f64> = scores.iter().map(|score| (score - max).exp()).collect();
                let sum: f64 = powers.iter().sum();
                let keys: Vec<Key> = powers
                    .iter()
                    .enumerate()
                    .map(|(i, power)| Key {
                        row: sequence.start + i,
                        weight: power / sum,
                        factor: dropout.map_or(1.0, |dropout| dropout.factor(t, head, i)),
                    })
                    .collect();
                with(t, head, &keys);
            }
        }
    }
}
