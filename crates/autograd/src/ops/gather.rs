//! Selecting rows and columns: the first token of each sequence, the masked positions, one score.

use super::{OpInfo, forward_only};
use crate::{AutogradError, Session, Var};

pub(super) const ROWS: OpInfo = forward_only("gather_rows");
pub(super) const COLUMN: OpInfo = forward_only("column");

/// The rows of `x[T,N]` that `indices` name, in their order, as `[len(indices), N]` f32.
///
/// # Errors
/// When an index is not below `T`, or `x` is tracked.
pub fn gather_rows(session: &Session, x: &Var, indices: &[u32]) -> Result<Var, AutogradError> {
    ROWS.admit(&[x])?;
    let (rows, n) = ROWS.matrix("the input", x)?;
    if let Some(&index) = indices.iter().find(|&&index| index as usize >= rows) {
        return Err(AutogradError::Index {
            op: ROWS.name,
            what: "row",
            index,
            rows,
        });
    }
    let mut y = session.scratch(&[indices.len(), n])?;
    if n > 0 {
        let source = x.as_slice()?;
        let target = y.as_mut_slice::<f32>()?;
        for (&index, row) in indices.iter().zip(target.chunks_exact_mut(n)) {
            row.copy_from_slice(&source[index as usize * n..][..n]);
        }
    }
    Ok(Var::constant(y))
}

/// Column `c` of `x[T,N]`, as `[T]` f32.
///
/// # Errors
/// When `c` is not below `N`, or `x` is tracked.
pub fn column(session: &Session, x: &Var, c: usize) -> Result<Var, AutogradError> {
    COLUMN.admit(&[x])?;
    let (rows, n) = COLUMN.matrix("the input", x)?;
    if c >= n {
        return Err(COLUMN.shape_error("the input", x.shape(), format!("[*, {}] or wider", c + 1)));
    }
    let mut y = session.scratch(&[rows])?;
    let values = x.as_slice()?.iter().skip(c).step_by(n);
    for (target, &value) in y.as_mut_slice::<f32>()?.iter_mut().zip(values) {
        *target = value;
    }
    Ok(Var::constant(y))
}
