//! Layer normalisation over the last dimension (Ba et al. 2016, <https://arxiv.org/abs/1607.06450>).

use bertha_kernels::layer_norm_in_place;

use super::{OpInfo, forward_only};
use crate::{AutogradError, Session, Var};

pub(super) const INFO: OpInfo = forward_only("layer_norm");

/// `(x − mean)/√(var + eps)·gamma + beta` for each row of `x[T,N]`, f32.
///
/// In place when nobody else holds `x`, on a copy otherwise.
///
/// # Errors
/// When the shapes disagree, or `x` is tracked.
pub fn layer_norm(
    session: &Session,
    x: Var,
    gamma: &[f32],
    beta: &[f32],
    eps: f32,
) -> Result<Var, AutogradError> {
    INFO.admit(&[&x])?;
    INFO.rows_of("the input", &x, gamma.len())?;
    INFO.vector("beta", beta, gamma.len())?;
    let mut x = x.into_tensor();
    layer_norm_in_place(session.exec(), x.as_mut_slice()?, gamma, beta, eps);
    Ok(Var::constant(x))
}
