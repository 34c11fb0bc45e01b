//! Embedding sum and LayerNorm one value at a time.

use super::EmbeddingTables;
use crate::Float;
use crate::norm::reference::layer_norm;

/// `LayerNorm(word[id] + token_type[t] + position[p])` for each of `T` tokens, into `out[T,N]`.
#[allow(clippy::too_many_arguments)]
pub fn embedding_layer_norm(
    tables: EmbeddingTables<'_>,
    ids: &[u32],
    positions: &[u32],
    type_ids: Option<&[u32]>,
    gamma: &[f32],
    beta: &[f32],
    eps: f32,
    out: &mut [f32],
) {
    let n = gamma.len();
    assert_eq!(
        out.len(),
        ids.len() * n,
        "a row of {n} values for each token"
    );
    for (t, row) in out.chunks_exact_mut(n).enumerate() {
        let index = |indices: &[u32]| indices[t] as usize * n;
        row.copy_from_slice(&tables.word[index(ids)..][..n]);
        // The order of the two additions is transformers'.
        let types = tables
            .token_type
            .map(|table| &table[type_ids.map_or(0, index)..][..n]);
        let positions = tables.position.map(|table| &table[index(positions)..][..n]);
        for table in [types, positions].into_iter().flatten() {
            for (sum, value) in row.iter_mut().zip(table) {
                *sum += value;
            }
        }
    }
    if !out.is_empty() {
        layer_norm(out, gamma, beta, eps);
    }
}

/// Adds each row of `dy[T,N]` to the row of `dtable[V,N]` that its token's index names.
pub fn embedding_backward<F: Float>(indices: &[u32], dy: &[F], n: usize, dtable: &mut [F]) {
    let mut sums: Vec<f64> = dtable.iter().map(|value| value.to_f64()).collect();
    for (&index, dy) in indices.iter().zip(dy.chunks_exact(n)) {
        for (sum, dy) in sums[index as usize * n..][..n].iter_mut().zip(dy) {
            *sum += dy.to_f64();
        }
    }
    for (to, sum) in dtable.iter_mut().zip(sums) {
        *to = F::from_f64(sum);
    }
}
