//! Operations on each value, or on each row, of a tensor.

use bertha_kernels::{
    Activation, activate as activate_kernel, activate_backward, reference,
    softmax as softmax_kernel, softmax_backward,
};
use bertha_tensor::DType;

use super::{Float, OpInfo, differentiable};
use crate::{AutogradError, Session, Var};

pub(super) const ACTIVATE: OpInfo = differentiable("activate");
pub(super) const SOFTMAX: OpInfo = differentiable("softmax");

/// `act(x)` for every value; any shape, f32 or f64. In place when nothing is recorded and nobody else holds `x`.
///
/// # Errors
/// When `x` is of another dtype.
pub fn activate(session: &Session, activation: Activation, x: Var) -> Result<Var, AutogradError> {
    let tracked = ACTIVATE.admit(session, &[&x])?;
    let float = ACTIVATE.float(&[&x])?;
    let to = x.target().filter(|_| tracked);
    let mut y = x.into_tensor();
    let before = to.is_some().then(|| y.contiguous());
    match float {
        Float::F32 => activate_kernel(session.exec(), activation, y.as_mut_slice()?),
        Float::F64 => reference::activate::<f64>(activation, y.as_mut_slice()?),
    }
    let (Some(to), Some(before)) = (to, before) else {
        return Ok(Var::constant(y));
    };
    Ok(ACTIVATE.record(y, move |flow, dy| {
        let mut dx = dy;
        match dx.dtype() {
            DType::F64 => {
                reference::activate_backward::<f64>(
                    activation,
                    before.as_slice()?,
                    dx.as_mut_slice()?,
                );
            }
            _ => activate_backward(
                flow.session().exec(),
                activation,
                before.as_slice()?,
                dx.as_mut_slice()?,
            ),
        }
        flow.add(&to.source, dx)
    }))
}

/// Softmax over the last dimension; any shape, f32 or f64. In place when nobody else holds `x`.
///
/// # Errors
/// When `x` has no dimension or is of another dtype.
pub fn softmax(session: &Session, x: Var) -> Result<Var, AutogradError> {
    let tracked = SOFTMAX.admit(session, &[&x])?;
    let float = SOFTMAX.float(&[&x])?;
    let Some(&n) = x.shape().last() else {
        return Err(SOFTMAX.shape_error("the input", &[], "one dimension or more".into()));
    };
    let to = x.target().filter(|_| tracked);
    let mut y = x.into_tensor();
    if y.numel() > 0 {
        match float {
            Float::F32 => softmax_kernel(session.exec(), y.as_mut_slice()?, n),
            Float::F64 => reference::softmax::<f64>(y.as_mut_slice()?, n),
        }
    }
    let Some(to) = to else {
        return Ok(Var::constant(y));
    };
    let kept = y.clone();
    Ok(SOFTMAX.record(y, move |flow, dy| {
        let mut dx = dy;
        if dx.numel() > 0 {
            match dx.dtype() {
                DType::F64 => {
                    reference::softmax_backward::<f64>(kept.as_slice()?, dx.as_mut_slice()?, n)
                }
                _ => softmax_backward(
                    flow.session().exec(),
                    kept.as_slice()?,
                    dx.as_mut_slice()?,
                    n,
                ),
            }
        }
        flow.add(&to.source, dx)
    }))
}
