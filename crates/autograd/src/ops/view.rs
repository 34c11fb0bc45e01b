//! Other shapes and orders of the same values. None copies in its forward, except [`reshape`] of values that do not
//! lie in order.

use bertha_tensor::{Tensor, TensorError};

use super::broadcast::sum_to;
use super::reduce::inverse;
use super::{OpInfo, differentiable};
use crate::{AutogradError, Session, Var};

pub(super) const RESHAPE: OpInfo = differentiable("reshape");
pub(super) const PERMUTE: OpInfo = differentiable("permute");
pub(super) const TRANSPOSE: OpInfo = differentiable("transpose");
pub(super) const SQUEEZE: OpInfo = differentiable("squeeze");
pub(super) const UNSQUEEZE: OpInfo = differentiable("unsqueeze");
pub(super) const BROADCAST_TO: OpInfo = differentiable("broadcast_to");
pub(super) const NARROW: OpInfo = differentiable("narrow");
pub(super) const SELECT: OpInfo = differentiable("select");

/// The same values, row-major, in another shape; any dtype.
///
/// # Errors
/// When the number of values would change.
pub fn reshape(session: &Session, x: &Var, shape: &[usize]) -> Result<Var, AutogradError> {
    view(
        session,
        RESHAPE,
        x,
        x.tensor().reshape(shape),
        |_, dy, shape| Ok(dy.reshape(shape)?),
    )
}

/// Dimensions in another order: dimension `i` of the result is dimension `axes[i]` of `x`; any dtype.
///
/// # Errors
/// When `axes` does not name each dimension once.
pub fn permute(session: &Session, x: &Var, axes: &[usize]) -> Result<Var, AutogradError> {
    let order = axes.to_vec();
    view(
        session,
        PERMUTE,
        x,
        x.tensor().permute(axes),
        move |_, dy, _| Ok(dy.permute(&inverse(&order))?),
    )
}

/// Dimensions `a` and `b` exchanged; any dtype.
///
/// # Errors
/// When one of them does not exist.
pub fn transpose(session: &Session, x: &Var, a: usize, b: usize) -> Result<Var, AutogradError> {
    view(
        session,
        TRANSPOSE,
        x,
        x.tensor().transpose(a, b),
        move |_, dy, _| Ok(dy.transpose(a, b)?),
    )
}

/// Without dimension `dim`, which must be of size 1; any dtype.
///
/// # Errors
/// When `x` has no such dimension, or it is of another size.
pub fn squeeze(session: &Session, x: &Var, dim: usize) -> Result<Var, AutogradError> {
    view(
        session,
        SQUEEZE,
        x,
        x.tensor().squeeze(dim),
        move |_, dy, _| Ok(dy.unsqueeze(dim)?),
    )
}

/// With a new dimension of size 1 before dimension `dim`, or after the last one; any dtype.
///
/// # Errors
/// When `dim` is above the rank.
pub fn unsqueeze(session: &Session, x: &Var, dim: usize) -> Result<Var, AutogradError> {
    view(
        session,
        UNSQUEEZE,
        x,
        x.tensor().unsqueeze(dim),
        move |_, dy, _| Ok(dy.squeeze(dim)?),
    )
}

/// Repeated along dimensions of size 1 and along new leading ones, as NumPy does; any dtype.
///
/// # Errors
/// When the shapes do not fit.
pub fn broadcast_to(session: &Session, x: &Var, shape: &[usize]) -> Result<Var, AutogradError> {
    view(
        session,
        BROADCAST_TO,
        x,
        x.tensor().broadcast_to(shape),
        sum_to,
    )
}

/// `len` indices of dimension `dim`, from `start` on; any dtype.
///
/// # Errors
/// When there are no such.
pub fn narrow(
    session: &Session,
    x: &Var,
    dim: usize,
    start: usize,
    len: usize,
) -> Result<Var, AutogradError> {
    let y = x.tensor().narrow(dim, start, len);
    view(session, NARROW, x, y, move |session, dy, shape| {
        let mut dx = Tensor::zeros_in(session.pool(), dy.dtype(), shape)?;
        write_part(&mut dx, &dy, dim, start)?;
        Ok(dx)
    })
}

/// Index `index` of dimension `dim`, which disappears; any dtype.
///
/// # Errors
/// When there is no such.
pub fn select(session: &Session, x: &Var, dim: usize, index: usize) -> Result<Var, AutogradError> {
    let y = x.tensor().select(dim, index);
    view(session, SELECT, x, y, move |session, dy, shape| {
        let mut dx = Tensor::zeros_in(session.pool(), dy.dtype(), shape)?;
        write_part(&mut dx, &dy.unsqueeze(dim)?, dim, index)?;
        Ok(dx)
    })
}

/// A view of `x`, whose gradient `back` makes from that of the view and the shape of `x`.
fn view(
    session: &Session,
    info: OpInfo,
    x: &Var,
    y: Result<Tensor, TensorError>,
    back: impl FnOnce(&Session, Tensor, &[usize]) -> Result<Tensor, AutogradError> + Send + 'static,
) -> Result<Var, AutogradError> {
    let y = y.map_err(|source| AutogradError::View {
        op: info.name,
        source,
    })?;
    let Some(to) = x.target().filter(|_| session.records()) else {
        return Ok(Var::constant(y));
    };
    Ok(info.record(y, move |flow, dy| {
        let dx = back(flow.session(), dy, &to.shape)?;
        flow.add(&to.source, dx)
    }))
}

/// Copies `part` to the indices of dimension `dim` of `whole` from `start` on. Both are of one dtype, f32 or f64, and
/// agree in all other dimensions; `whole` is contiguous.
pub(super) fn write_part(
    whole: &mut Tensor,
    part: &Tensor,
    dim: usize,
    start: usize,
) -> Result<(), AutogradError> {
    fn copy<T: bertha_tensor::Element>(
        whole: &mut Tensor,
        part: &Tensor,
        [size, start, len, inner]: [usize; 4],
    ) -> Result<(), AutogradError> {
        let part = part.contiguous();
        let rows = whole.as_mut_slice::<T>()?.chunks_exact_mut(size * inner);
        for (row, values) in rows.zip(part.as_slice::<T>()?.chunks_exact(len * inner)) {
            row[start * inner..][..len * inner].copy_from_slice(values);
        }
        Ok(())
    }
    if part.numel() == 0 {
        return Ok(());
    }
    let inner = part.shape()[dim + 1..].iter().product();
    let sizes = [whole.shape()[dim], start, part.shape()[dim], inner];
    use bertha_tensor::DType::{Bool, F32, F64, I32, I64, U8};
    match part.dtype() {
        F32 => copy::<f32>(whole, part, sizes),
        F64 => copy::<f64>(whole, part, sizes),
        I32 => copy::<i32>(whole, part, sizes),
        I64 => copy::<i64>(whole, part, sizes),
        U8 => copy::<u8>(whole, part, sizes),
        Bool => copy::<bool>(whole, part, sizes),
        other => Err(AutogradError::DType {
            op: "concat",
            found: vec![other],
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_share_memory() {
        let session = Session::new(Some(1)).unwrap();
        let x = Tensor::from_vec((0..12).map(|i| i as f32).collect(), &[3, 1, 4]).unwrap();
        let address = x.as_slice::<f32>().unwrap().as_ptr();
        let x = Var::constant(x);
        let first = |y: Result<Var, AutogradError>| {
            let y = y.unwrap();
            let view = y.tensor().view::<f32>().unwrap();
            view.as_ptr()
        };
        assert_eq!(first(reshape(&session, &x, &[2, 6])), address);
        assert_eq!(first(permute(&session, &x, &[2, 0, 1])), address);
        assert_eq!(first(transpose(&session, &x, 0, 2)), address);
        assert_eq!(first(squeeze(&session, &x, 1)), address);
        assert_eq!(first(unsqueeze(&session, &x, 3)), address);
        assert_eq!(first(broadcast_to(&session, &x, &[5, 3, 2, 4])), address);
        assert_eq!(first(narrow(&session, &x, 2, 0, 2)), address);
        assert_eq!(first(select(&session, &x, 0, 0)), address);
    }

    #[test]
    fn what_does_not_fit_is_refused_by_name() {
        let session = Session::new(Some(1)).unwrap();
        let x = Var::constant(Tensor::zeros(bertha_tensor::DType::F32, &[2, 3]).unwrap());
        let error = reshape(&session, &x, &[4]).unwrap_err().to_string();
        assert!(error.contains("`reshape`"), "{error}");
        let error = narrow(&session, &x, 1, 2, 2).unwrap_err().to_string();
        assert!(error.contains("`narrow`"), "{error}");
    }
}
