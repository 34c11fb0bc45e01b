//! Rows that take the place of others.

use bertha_tensor::{DType, Element, Tensor};

use super::broadcast::with_float;
use super::embedding::{in_table, rows};
use super::{Float, OpInfo, differentiable};
use crate::{AutogradError, Session, Var};

pub(super) const INFO: OpInfo = differentiable("replace_rows");

/// `x[T,N]` with row `indices[i]` replaced by row i of `values[G,N]`, f32 or f64. In place when nobody else holds `x`.
///
/// # Errors
/// When an index is not below `T` or comes twice, or there is not one for each row of `values`.
pub fn replace_rows(
    session: &Session,
    x: Var,
    indices: &[u32],
    values: &Var,
) -> Result<Var, AutogradError> {
    let tracked = INFO.admit(session, &[&x, values])?;
    let float = INFO.float(&[&x, values])?;
    let (count, n) = INFO.matrix("the input", &x)?;
    if INFO.rows_of("the values", values, n)? != indices.len() {
        let expected = format!("[{}, {n}]", indices.len());
        return Err(INFO.shape_error("the values", values.shape(), expected));
    }
    in_table(INFO, "row", indices, count)?;
    let mut sorted = indices.to_vec();
    sorted.sort_unstable();
    if let Some(twice) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
        let expected = format!("each row once, and row {} comes twice", twice[0]);
        return Err(INFO.shape_error("the indices", &[indices.len()], expected));
    }
    let to = [x.target(), values.target()];
    let mut y = x.into_tensor();
    with_float!(float, T => put::<T>(&mut y, n, indices, &values.tensor().contiguous())?);
    if !tracked {
        return Ok(Var::constant(y));
    }
    let indices = indices.to_vec();
    Ok(INFO.record(y, move |flow, dy| {
        let [to_x, to_values] = &to;
        let float = match dy.dtype() {
            DType::F64 => Float::F64,
            _ => Float::F32,
        };
        if let Some(to) = to_values {
            let dy = Var::constant(dy.clone());
            let dvalues = rows(INFO, flow.session(), float, &dy, "row", &indices)?;
            flow.add(&to.source, dvalues)?;
        }
        if let Some(to) = to_x {
            let mut dx = dy;
            let zeros = Tensor::zeros(dx.dtype(), &[indices.len(), n])?;
            with_float!(float, T => put::<T>(&mut dx, n, &indices, &zeros)?);
            flow.add(&to.source, dx)?;
        }
        Ok(())
    }))
}

fn put<T: Element>(
    to: &mut Tensor,
    n: usize,
    indices: &[u32],
    from: &Tensor,
) -> Result<(), AutogradError> {
    if n == 0 || indices.is_empty() {
        return Ok(());
    }
    let from = from.as_slice::<T>()?;
    let to = to.as_mut_slice::<T>()?;
    for (&index, row) in indices.iter().zip(from.chunks_exact(n)) {
        to[index as usize * n..][..n].copy_from_slice(row);
    }
    Ok(())
}
