//! Values of places and distances, spread over pairs of places.

use bertha_kernels::{by_distance as kernel, by_distance_backward};
use bertha_tensor::Tensor;

use super::broadcast::with_float;
use super::{Float, OpInfo, differentiable};
use crate::{AutogradError, Session, Var};

pub(super) const INFO: OpInfo = differentiable("by_distance");

/// `y[b][i][j] = x[b][i][columns[S − 1 + i − j]]` of `x[B,S,R]`, as `[B,S,S]`, f32 or f64: what each place has for the
/// distance to each other. `columns` has the 2·S − 1 distances from −(S − 1) on.
///
/// # Errors
/// When `x` has not three dimensions, there is not a column for each distance, or one is not below R.
pub fn by_distance(session: &Session, x: &Var, columns: &[u32]) -> Result<Var, AutogradError> {
    let tracked = INFO.admit(session, &[x])?;
    let float = INFO.float(&[x])?;
    let &[batch, len, width] = x.shape() else {
        return Err(INFO.shape_error("the input", x.shape(), "three dimensions".into()));
    };
    if columns.len() + 1 != 2 * len {
        let expected = format!("a place for each of {} distances", columns.len());
        return Err(INFO.shape_error("the input", x.shape(), expected));
    }
    if let Some(&column) = columns.iter().find(|&&column| column as usize >= width) {
        let expected = format!("a column {column}");
        return Err(INFO.shape_error("the input", x.shape(), expected));
    }
    let mut y = Tensor::scratch_in(session.pool(), x.dtype(), &[batch, len, len])?;
    with_float!(float, T => {
        let x = x.tensor().contiguous();
        kernel(session.exec(), x.as_slice::<T>()?, width, columns, y.as_mut_slice()?);
    });
    let Some(to) = x.target().filter(|_| tracked) else {
        return Ok(Var::constant(y));
    };
    let columns = columns.to_vec();
    Ok(INFO.record(y, move |flow, dy| {
        let session = flow.session();
        let dy = dy.contiguous();
        let mut dx = Tensor::zeros_in(session.pool(), dy.dtype(), &to.shape)?;
        with_float!(float, T => {
            by_distance_backward(session.exec(), dy.as_slice::<T>()?, width, &columns, dx.as_mut_slice()?);
        });
        flow.add(&to.source, dx)
    }))
}
