//! A value whose gradient is that of another (the straight-through estimator, Bengio et al. 2013,
//! <https://arxiv.org/abs/1308.3432>).

use bertha_tensor::Tensor;

use super::{OpInfo, differentiable};
use crate::{AutogradError, Session, Var};

pub(super) const INFO: OpInfo = differentiable("straight_through");

/// `value`, whose gradient goes to `surrogate` as it is: what was rounded learns as if it had been the surrogate. Both
/// have one shape, and one dtype, f32 or f64.
///
/// # Errors
/// When shapes or dtypes differ.
pub fn straight_through(
    session: &Session,
    surrogate: &Var,
    value: Tensor,
) -> Result<Var, AutogradError> {
    let tracked = INFO.admit(session, &[surrogate])?;
    INFO.float(&[surrogate])?;
    if value.shape() != surrogate.shape() {
        let expected = format!("{:?}", surrogate.shape());
        return Err(INFO.shape_error("the value", value.shape(), expected));
    }
    if value.dtype() != surrogate.dtype() {
        return Err(AutogradError::DType {
            op: INFO.name,
            found: vec![surrogate.dtype(), value.dtype()],
        });
    }
    let Some(to) = surrogate.target().filter(|_| tracked) else {
        return Ok(Var::constant(value));
    };
    Ok(INFO.record(value, move |flow, dy| flow.add(&to.source, dy)))
}
