//! Operations on each value of a tensor.

use bertha_kernels::{Activation, Exec, activate as activate_kernel};

use super::{OpInfo, forward_only};
use crate::{AutogradError, Session, Var};

pub(super) const ACTIVATE: OpInfo = forward_only("activate");

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

fn map(
    session: &Session,
    x: Var,
    kernel: impl FnOnce(&Exec, &mut [f32]),
) -> Result<Var, AutogradError> {
    let mut x = x.into_tensor();
    kernel(session.exec(), x.as_mut_slice()?);
    Ok(Var::constant(x))
}
