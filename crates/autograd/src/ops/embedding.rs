//! The sum of a token's embeddings, normalised.

use bertha_kernels::{
    EmbeddingTables, embedding_backward, embedding_layer_norm as kernel, embedding_sum, reference,
};
use bertha_tensor::{DType, Tensor};

use super::layer_norm::{Normalized, layer_norm};
use super::{Float, OpInfo, differentiable};
use crate::tape::{Flow, Target};
use crate::{AutogradError, Session, Var};

pub(super) const INFO: OpInfo = differentiable("embedding_layer_norm");
pub(super) const LOOKUP: OpInfo = differentiable("embedding");

/// The embedding tables, each of rows of `N` values.
#[derive(Clone, Copy, Debug)]
pub struct Tables<'a> {
    /// A row for each token of the vocabulary, `[V,N]`.
    pub word: &'a Var,
    /// A row for each position, if there is such a table.
    pub position: Option<&'a Var>,
    /// A row for each token type, if there is such a table.
    pub token_type: Option<&'a Var>,
}

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

/// `LayerNorm(word[id] + position[p] + token_type[t])` for each of `T` tokens as `[T,N]`, f32 or f64.
///
/// # Errors
/// When an index is outside its table, or shapes or dtypes disagree.
pub fn embedding_layer_norm(
    session: &Session,
    tables: Tables<'_>,
    inputs: EmbeddingInputs<'_>,
    gamma: &Var,
    beta: &Var,
    eps: f32,
) -> Result<Var, AutogradError> {
    let zeros;
    let type_ids = match inputs.type_ids {
        Some(type_ids) => type_ids,
        None => {
            zeros = vec![0; inputs.ids.len()];
            &zeros
        }
    };
    let lookups = [
        Some(("token id", tables.word, inputs.ids)),
        tables
            .position
            .map(|table| ("position", table, inputs.positions)),
        tables
            .token_type
            .map(|table| ("token type", table, type_ids)),
    ];
    let mut all = vec![gamma, beta];
    all.extend(lookups.iter().flatten().map(|lookup| lookup.1));
    let tracked = INFO.admit(session, &all)?;
    let float = INFO.float(&all)?;
    let n = gamma.tensor().numel();
    if beta.shape() != [n] || gamma.shape() != [n] {
        return Err(INFO.shape_error("beta", beta.shape(), format!("[{n}], and so gamma")));
    }
    for (what, table, indices) in lookups.iter().flatten() {
        INFO.rows_of("a table", table, n)?;
        in_table(INFO, what, indices, table.shape()[0])?;
        if indices.len() != inputs.ids.len() {
            return Err(INFO.shape_error(
                "the indices",
                &[indices.len()],
                format!("[{}]", inputs.ids.len()),
            ));
        }
    }
    if float == Float::F64 {
        // By parts, each with its own reference.
        let mut sum: Option<Var> = None;
        for (_, table, indices) in lookups.into_iter().flatten() {
            let rows = embedding(session, table, indices)?;
            sum = Some(match sum {
                None => rows,
                Some(sum) => super::add(session, &sum, &rows)?,
            });
        }
        let Some(sum) = sum else {
            return Err(INFO.shape_error("the tables", &[], "one at least".into()));
        };
        return layer_norm(session, sum, gamma, beta, eps);
    }

    let values = EmbeddingTables {
        word: tables.word.as_slice()?,
        position: tables.position.map(Var::as_slice).transpose()?,
        token_type: tables.token_type.map(Var::as_slice).transpose()?,
    };
    let EmbeddingInputs {
        ids,
        positions,
        type_ids: given,
    } = inputs;
    let mut out = session.scratch(&[ids.len(), n])?;
    if !tracked {
        let (gamma, beta) = (gamma.as_slice()?, beta.as_slice()?);
        kernel(
            session.exec(),
            values,
            ids,
            positions,
            given,
            gamma,
            beta,
            eps,
            out.as_mut_slice()?,
        );
        return Ok(Var::constant(out));
    }
    embedding_sum(
        session.exec(),
        values,
        ids,
        positions,
        given,
        n,
        out.as_mut_slice()?,
    );
    let to_norm = [gamma.target(), beta.target()];
    let kept = gamma.tensor().clone();
    let (y, normalized) = Normalized::new(session, &out, kept, beta.as_slice()?, eps, ids.len())?;
    let to_tables: Vec<(Target, Vec<u32>)> = lookups
        .iter()
        .flatten()
        .filter_map(|(_, table, indices)| Some((table.target()?, indices.to_vec())))
        .collect();
    Ok(INFO.record(y, move |flow, dy| {
        let [to_gamma, to_beta] = &to_norm;
        let dsum = normalized.gradient(flow, dy, [to_gamma.as_ref(), to_beta.as_ref()])?;
        to_tables
            .iter()
            .try_for_each(|(to, indices)| scatter(flow, to, indices, &dsum))
    }))
}

/// Row `indices[t]` of `table[V,N]` for each of `T` indices, as `[T,N]`, f32 or f64.
///
/// # Errors
/// When an index is outside the table.
pub fn embedding(session: &Session, table: &Var, indices: &[u32]) -> Result<Var, AutogradError> {
    let tracked = LOOKUP.admit(session, &[table])?;
    let float = LOOKUP.float(&[table])?;
    let y = rows(LOOKUP, session, float, table, "row", indices)?;
    let Some(to) = table.target().filter(|_| tracked) else {
        return Ok(Var::constant(y));
    };
    let indices = indices.to_vec();
    Ok(LOOKUP.record(y, move |flow, dy| scatter(flow, &to, &indices, &dy)))
}

/// Copies of the rows that indices name.
pub(super) fn rows(
    op: OpInfo,
    session: &Session,
    float: Float,
    table: &Var,
    what: &'static str,
    indices: &[u32],
) -> Result<Tensor, AutogradError> {
    fn copy<T: Copy>(from: &[T], n: usize, indices: &[u32], to: &mut [T]) {
        if n > 0 {
            for (&index, row) in indices.iter().zip(to.chunks_exact_mut(n)) {
                row.copy_from_slice(&from[index as usize * n..][..n]);
            }
        }
    }
    let (count, n) = op.matrix("the table", table)?;
    in_table(op, what, indices, count)?;
    let mut y = Tensor::scratch_in(session.pool(), table.dtype(), &[indices.len(), n])?;
    let table = table.tensor().contiguous();
    match float {
        Float::F32 => copy::<f32>(table.as_slice()?, n, indices, y.as_mut_slice()?),
        Float::F64 => copy::<f64>(table.as_slice()?, n, indices, y.as_mut_slice()?),
    }
    Ok(y)
}

/// Adds rows to those rows of a table's gradient that indices name.
pub(super) fn scatter(
    flow: &mut Flow<'_>,
    to: &Target,
    indices: &[u32],
    dy: &Tensor,
) -> Result<(), AutogradError> {
    let n = to.shape.last().copied().unwrap_or(0);
    if n == 0 {
        return Ok(());
    }
    let exec = flow.session().exec();
    let dy = dy.contiguous();
    match dy.dtype() {
        DType::F64 => {
            let dy = dy.as_slice::<f64>()?;
            flow.write(to, |table, add| {
                if !add {
                    table.fill(0.0);
                }
                reference::embedding_backward(indices, dy, n, table);
            })
        }
        _ => {
            let dy = dy.as_slice::<f32>()?;
            flow.write(to, |table, add| {
                if !add {
                    table.fill(0.0);
                }
                embedding_backward(exec, indices, dy, n, table);
            })
        }
    }
}

pub(super) fn in_table(
    op: OpInfo,
    what: &'static str,
    indices: &[u32],
    rows: usize,
) -> Result<(), AutogradError> {
    match indices.iter().find(|&&index| index as usize >= rows) {
        Some(&index) => Err(AutogradError::Index {
            op: op.name,
            what,
            index,
            rows,
        }),
        None => Ok(()),
    }
}
