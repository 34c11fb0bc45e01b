//! Operations on each value, or on each row, of a tensor.

use bertha_kernels::{Activation, Exec, activate as activate_kernel, softmax as softmax_kernel};

use super::{OpInfo, forward_only};
use crate::{AutogradError, Session, Var};

pub(super) const ACTIVATE: OpInfo = forward_only("activate");
pub(super) const SOFTMAX: OpInfo = forward_only("softmax");

/// `act(x)` for every value; any shape, f32. In place when nobody else holds `x`.
///
/// # Errors
/// When `x` is tracked or not contiguous f32.
pub fn activate(session: &Session, activation: Activation, x: Var) -> Result<Var, AutogradError> {
    ACTIVATE.admit(&[&x])?;
    map(session, x, |exec, values| {
        activate_kernel(exec, activation, values)
    })
}

/// Softmax over the last dimension; any shape, f32. In place when nobody else holds `x`.
///
/// # Errors
/// When `x` is tracked, has no dimension, or is not contiguous f32.
pub fn softmax(session: &Session, x: Var) -> Result<Var, AutogradError> {
    SOFTMAX.admit(&[&x])?;
    let Some(&n) = x.shape().last() else {
        return Err(SOFTMAX.shape_error("the input", &[], "one dimension or more".into()));
    };
    map(session, x, |exec, values| {
        if !values.is_empty() {
            softmax_kernel(exec, values, n);
        }
    })
}

fn map(
    session: &Session,
    x: Var,
    kernel: impl FnOnce(&Exec, &mut [f32]),
) -> Result<Var, AutogradError> {
    let mut x = x.into_tensor();
    kernel(session.exec(), x.as_mut_slice()?);
    Ok(Var::constant(x))
}
