//! Gated linear units (Shazeer 2020, <https://arxiv.org/abs/2002.05202>).

use bertha_kernels::{Activation, gate as kernel, gate_backward, reference};
use bertha_tensor::{DType, Tensor};

use super::{Float, OpInfo, differentiable};
use crate::{AutogradError, Session, Var};

pub(super) const INFO: OpInfo = differentiable("gate");

/// `act(a)·b` of the halves of each row: `x[T, 2·I]` to `[T,I]`, f32 or f64.
///
/// # Errors
/// When `x` is no matrix of an even width.
pub fn gate(session: &Session, activation: Activation, x: &Var) -> Result<Var, AutogradError> {
    let tracked = INFO.admit(session, &[x])?;
    let float = INFO.float(&[x])?;
    let (rows, n) = INFO.matrix("the input", x)?;
    if n == 0 || !n.is_multiple_of(2) {
        return Err(INFO.shape_error("the input", x.shape(), "an even width".into()));
    }
    let width = n / 2;
    let values = x.tensor().contiguous();
    let mut y = Tensor::scratch_in(session.pool(), x.dtype(), &[rows, width])?;
    match float {
        Float::F32 => kernel(
            session.exec(),
            activation,
            values.as_slice()?,
            width,
            y.as_mut_slice()?,
        ),
        Float::F64 => {
            reference::gate::<f64>(activation, values.as_slice()?, width, y.as_mut_slice()?);
        }
    }
    let Some(to) = x.target().filter(|_| tracked) else {
        return Ok(Var::constant(y));
    };
    let saved = session.save(&values)?;
    Ok(INFO.record(y, move |flow, dy| {
        let dy = dy.contiguous();
        let session = flow.session();
        let values = saved.load(session)?;
        let mut dx = Tensor::scratch_in(session.pool(), dy.dtype(), values.shape())?;
        match dy.dtype() {
            DType::F64 => reference::gate_backward::<f64>(
                activation,
                values.as_slice()?,
                width,
                dy.as_slice()?,
                dx.as_mut_slice()?,
            ),
            _ => gate_backward(
                session.exec(),
                activation,
                values.as_slice()?,
                width,
                dy.as_slice()?,
                dx.as_mut_slice()?,
            ),
        }
        flow.add(&to.source, dx)
    }))
}
