//! A value with a gradient by a rule of the caller's.

use bertha_tensor::Tensor;

use super::{OpInfo, differentiable};
use crate::{AutogradError, Session, Var};

pub(super) const INFO: OpInfo = differentiable("custom_gradient");

/// `value`, computed of `x` by the caller; `rule` gives the gradient of `x`, of its shape and dtype, from that of the
/// value. For estimators, whose gradients are not those of their values.
///
/// # Errors
/// When `x` is no float.
pub fn custom_gradient(
    session: &Session,
    x: &Var,
    value: Tensor,
    rule: impl FnOnce(&Session, Tensor) -> Result<Tensor, AutogradError> + Send + 'static,
) -> Result<Var, AutogradError> {
    let tracked = INFO.admit(session, &[x])?;
    INFO.float(&[x])?;
    let Some(to) = x.target().filter(|_| tracked) else {
        return Ok(Var::constant(value));
    };
    Ok(INFO.record(value, move |flow, dy| {
        let dx = rule(flow.session(), dy)?;
        if dx.shape() != to.shape {
            let expected = format!("{:?}", to.shape);
            return Err(INFO.shape_error("the rule's gradient", dx.shape(), expected));
        }
        flow.add(&to.source, dx)
    }))
}
