//! Attention one value at a time, in f64.

use super::{AttentionDropout, AttentionInputs, AttentionShape, Strided};
use crate::rope::reference::rope;
use crate::{Float, RotaryTable};

/// [`attention`](crate::attention()), one value at a time.
pub fn attention<F: Float>(
    inputs: AttentionInputs<'_, F>,
    dropout: Option<&AttentionDropout<'_>>,
    out: &mut [F],
) {
    if let Some(table) = inputs.rotary {
        let [q, k] = turned(&inputs, table);
        return attention(unturned(inputs, &q, &k), dropout, out);
    }
    let AttentionInputs { v, shape, .. } = inputs;
    let width = shape.heads * shape.head_dim;
    each_query(inputs, dropout, |t, head, keys| {
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

/// What [`attention_backward`] gives.
#[derive(Debug)]
pub struct MaskedGradients<F> {
    /// `[Tq, H·D]`.
    pub q: Vec<F>,
    /// `[Tk, H·D]`.
    pub k: Vec<F>,
    /// `[Tk, H·D]`.
    pub v: Vec<F>,
    /// As the bias; empty without one.
    pub bias: Vec<F>,
}

/// The gradients of [`attention`] for `dout[Tq, H·D]`.
pub fn attention_backward<F: Float>(
    inputs: AttentionInputs<'_, F>,
    dropout: Option<&AttentionDropout<'_>>,
    dout: &[F],
) -> MaskedGradients<F> {
    if let Some(table) = inputs.rotary {
        let [q, k] = turned(&inputs, table);
        let mut found = attention_backward(unturned(inputs, &q, &k), dropout, dout);
        let (segments, heads) = (inputs.keys, inputs.shape.heads);
        for gradient in [&mut found.q, &mut found.k] {
            rope(
                gradient,
                heads * inputs.shape.head_dim,
                segments,
                heads,
                table,
                true,
            );
        }
        return found;
    }
    let AttentionInputs { q, k, v, shape, .. } = inputs;
    let width = shape.heads * shape.head_dim;
    let scale = f64::from(shape.scale);
    let mut dq = vec![0.0; dout.len()];
    let mut dk = vec![0.0; inputs.keys.tokens() * width];
    let mut dv = dk.clone();
    let mut dbias = vec![0.0; inputs.bias.map_or(0, |bias| bias.values.len())];
    let dout = Strided {
        data: dout,
        stride: width,
    };
    each_query(inputs, dropout, |t, head, keys| {
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let up = row(&dout, shape, head, t);
        let dp = |key: &Key| key.factor * dot(&up, &row(&v, shape, head, key.row));
        let mean: f64 = keys.iter().map(|key| key.weight * dp(key)).sum();
        let query = row(&q, shape, head, t);
        for key in keys {
            let dscore = key.weight * (dp(key) - mean);
            if let Some(at) = key.bias {
                dbias[at] += dscore;
            }
            let kept = row(&k, shape, head, key.row);
            for d in 0..shape.head_dim {
                let column = head * shape.head_dim + d;
                dq[t * width + column] += dscore * scale * kept[d];
                dk[key.row * width + column] += dscore * scale * query[d];
                dv[key.row * width + column] += key.weight * key.factor * up[d];
            }
        }
    });
    let narrow = |values: Vec<f64>| values.into_iter().map(F::from_f64).collect();
    MaskedGradients {
        q: narrow(dq),
        k: narrow(dk),
        v: narrow(dv),
        bias: narrow(dbias),
    }
}

/// Queries and keys by themselves, turned: `[T, H·D]` each.
fn turned<F: Float>(inputs: &AttentionInputs<'_, F>, table: &RotaryTable) -> [Vec<F>; 2] {
    let AttentionShape {
        heads, head_dim, ..
    } = inputs.shape;
    let width = heads * head_dim;
    [inputs.q, inputs.k].map(|of| {
        let rows = (0..inputs.keys.tokens()).map(|t| &of.data[t * of.stride..][..width]);
        let mut values: Vec<F> = rows.flatten().copied().collect();
        rope(&mut values, width, inputs.keys, heads, table, false);
        values
    })
}

/// The inputs with queries and keys that are turned already.
fn unturned<'a, F>(
    inputs: AttentionInputs<'a, F>,
    q: &'a [F],
    k: &'a [F],
) -> AttentionInputs<'a, F> {
    let stride = inputs.shape.heads * inputs.shape.head_dim;
    AttentionInputs {
        q: Strided { data: q, stride },
        k: Strided { data: k, stride },
        rotary: None,
        ..inputs
    }
}

/// A key that a query sees.
struct Key {
    row: usize,
    /// Its softmax.
    weight: f64,
    /// What dropout multiplies that by.
    factor: f64,
    /// Where its bias is.
    bias: Option<usize>,
}

fn row<F: Float>(of: &Strided<'_, F>, shape: AttentionShape, head: usize, t: usize) -> Vec<f64> {
    let values = &of.data[t * of.stride + head * shape.head_dim..][..shape.head_dim];
    values.iter().map(|value| value.to_f64()).collect()
}

/// Calls `with` for each query (its row, its head) with the keys it sees.
fn each_query<F: Float>(
    inputs: AttentionInputs<'_, F>,
    dropout: Option<&AttentionDropout<'_>>,
    mut with: impl FnMut(usize, usize, &[Key]),
) {
    let AttentionInputs { q, k, shape, .. } = inputs;
    let sequences = inputs.queries.ranges().zip(inputs.keys.ranges());
    for (sequence, (queries, keys)) in sequences.enumerate() {
        for head in 0..shape.heads {
            for (i, t) in queries.clone().enumerate() {
                let query = row(&q, shape, head, t);
                let places = inputs.mask.visible(sequence, head, i, keys.len());
                let bias = |place: usize| inputs.bias.map(|bias| bias.at(head, i, place));
                let scores: Vec<f64> = places
                    .iter()
                    .map(|&place| {
                        let key = row(&k, shape, head, keys.start + place);
                        let product: f64 = query.iter().zip(&key).map(|(q, k)| q * k).sum();
                        let bias = bias(place).zip(inputs.bias);
                        let bias = bias.map_or(0.0, |(at, bias)| bias.values[at].to_f64());
                        product * f64::from(shape.scale) + bias
                    })
                    .collect();
                let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let powers: Vec<f64> = scores.iter().map(|score| (score - max).exp()).collect();
                let sum: f64 = powers.iter().sum();
                let keys: Vec<Key> = powers
                    .iter()
                    .zip(&places)
                    .map(|(power, &place)| Key {
                        row: keys.start + place,
                        weight: power / sum,
                        factor: dropout.map_or(1.0, |dropout| dropout.factor(t, head, place)),
                        bias: bias(place),
                    })
                    .collect();
                with(t, head, &keys);
            }
        }
    }
}
