//! Selecting rows and columns: the first token of each sequence, the masked positions, one score.

use bertha_tensor::{DType, Element, Tensor};

use super::broadcast::with_float;
use super::embedding::{rows, scatter};
use super::{Float, OpInfo, differentiable};
use crate::{AutogradError, Session, Var};

pub(super) const ROWS: OpInfo = differentiable("gather_rows");
pub(super) const COLUMN: OpInfo = differentiable("column");

/// The rows of `x[T,N]` that `indices` name, in their order, as `[len(indices), N]`, f32 or f64.
///
/// # Errors
/// When an index is not below `T`.
pub fn gather_rows(session: &Session, x: &Var, indices: &[u32]) -> Result<Var, AutogradError> {
    let tracked = ROWS.admit(session, &[x])?;
    let float = ROWS.float(&[x])?;
    let y = rows(ROWS, session, float, x, "row", indices)?;
    let Some(to) = x.target().filter(|_| tracked) else {
        return Ok(Var::constant(y));
    };
    let indices = indices.to_vec();
    Ok(ROWS.record(y, move |flow, dy| scatter(flow, &to, &indices, &dy)))
}

/// Column `c` of `x[T,N]`, as `[T]`, f32 or f64.
///
/// # Errors
/// When `c` is not below `N`.
pub fn column(session: &Session, x: &Var, c: usize) -> Result<Var, AutogradError> {
    let tracked = COLUMN.admit(session, &[x])?;
    let float = COLUMN.float(&[x])?;
    let (rows, n) = COLUMN.matrix("the input", x)?;
    if c >= n {
        return Err(COLUMN.shape_error("the input", x.shape(), format!("[*, {}] or wider", c + 1)));
    }
    fn copy<T: Element>(
        x: &Tensor,
        c: usize,
        n: usize,
        y: &mut Tensor,
    ) -> Result<(), AutogradError> {
        let x = x.contiguous();
        let values = x.as_slice::<T>()?.iter().skip(c).step_by(n);
        y.as_mut_slice::<T>()?
            .iter_mut()
            .zip(values)
            .for_each(|(y, &x)| *y = x);
        Ok(())
    }
    let mut y = Tensor::scratch_in(session.pool(), x.dtype(), &[rows])?;
    with_float!(float, T => copy::<T>(x.tensor(), c, n, &mut y)?);
    let Some(to) = x.target().filter(|_| tracked) else {
        return Ok(Var::constant(y));
    };
    fn spread<T: Element + std::ops::AddAssign>(
        dx: &mut [T],
        add: bool,
        c: usize,
        n: usize,
        dy: &[T],
    ) {
        if !add {
            dx.fill(T::default());
        }
        dx.iter_mut()
            .skip(c)
            .step_by(n)
            .zip(dy)
            .for_each(|(dx, &dy)| *dx += dy);
    }
    Ok(COLUMN.record(y, move |flow, dy| {
        let dy = dy.contiguous();
        match dy.dtype() {
            DType::F64 => {
                let dy = dy.as_slice::<f64>()?;
                flow.write(&to, |dx, add| spread(dx, add, c, n, dy))
            }
            _ => {
                let dy = dy.as_slice::<f32>()?;
                flow.write(&to, |dx, add| spread(dx, add, c, n, dy))
            }
        }
    }))
}
