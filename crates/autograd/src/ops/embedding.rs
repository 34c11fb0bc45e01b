//! The sum of a token's embeddings, normalised.

use bertha_kernels::{EmbeddingTables, embedding_layer_norm as kernel};

use super::{OpInfo, forward_only};
use crate::{AutogradError, Session, Var};

pub(super) const INFO: OpInfo = forward_only("embedding_layer_norm");

/// The indices of `T` tokens into the embedding tables.
#[derive(Clone, Copy, Debug)]
pub struct EmbeddingInputs<'a> {
    /// Token ids, `[T]`.
    pub ids: &'a [u32],
    /// Position ids, `[T]`.
    pub positions: &'a [u32],
    /// Token types, `[T]`; absent means 0 everywhere.
    pub type_ids: Option<&'a [u32]>,
}

/// `LayerNorm(word[id] + position[p] + token_type[t])` for each of `T` tokens as `[T,N]` f32.
///
/// # Errors
/// When an index is outside its table, or a table's size is not a multiple of `N`.
pub fn embedding_layer_norm(
    session: &Session,
    tables: EmbeddingTables<'_>,
    inputs: EmbeddingInputs<'_>,
    gamma: &[f32],
    beta: &[f32],
    eps: f32,
) -> Result<Var, AutogradError> {
    let n = gamma.len();
    INFO.vector("beta", beta, n)?;
    let EmbeddingInputs {
        ids,
        positions,
        type_ids,
    } = inputs;
    in_table("token id", ids, tables.word, n)?;
    if let Some(table) = tables.position {
        in_table("position", positions, table, n)?;
    }
    if let Some(table) = tables.token_type {
        in_table("token type", type_ids.unwrap_or(&[0]), table, n)?;
    }
    let mut out = session.scratch(&[ids.len(), n])?;
    kernel(
        session.exec(),
        tables,
        ids,
        positions,
        type_ids,
        gamma,
        beta,
        eps,
        out.as_mut_slice()?,
    );
    Ok(Var::constant(out))
}

fn in_table(
    what: &'static str,
    indices: &[u32],
    table: &[f32],
    columns: usize,
) -> Result<(), AutogradError> {
    let rows = table.len() / columns.max(1);
    match indices.iter().find(|&&index| index as usize >= rows) {
        Some(&index) => Err(AutogradError::Index {
            op: INFO.name,
            what,
            index,
            rows,
        }),
        None => Ok(()),
    }
}
