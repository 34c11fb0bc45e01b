//! The greater and the lesser of two values, with broadcasting.

use super::broadcast::{broadcast_shape, sum_to, with_float, zip, zip_same};
use super::real::Real;
use super::{Float, OpInfo, differentiable};
use crate::{AutogradError, Session, Var};

pub(super) const MAXIMUM: OpInfo = differentiable("maximum");
pub(super) const MINIMUM: OpInfo = differentiable("minimum");

/// `max(a, b)`, value by value, f32 or f64, with broadcasting; NaN where one is. Of equal values each gets half
/// of the gradient.
///
/// # Errors
/// When the shapes do not broadcast or the dtypes differ.
pub fn maximum(session: &Session, a: &Var, b: &Var) -> Result<Var, AutogradError> {
    extremum(session, MAXIMUM, a, b)
}

/// `min(a, b)`, value by value, f32 or f64, with broadcasting; NaN where one is. Of equal values each gets half
/// of the gradient.
///
/// # Errors
/// When the shapes do not broadcast or the dtypes differ.
pub fn minimum(session: &Session, a: &Var, b: &Var) -> Result<Var, AutogradError> {
    extremum(session, MINIMUM, a, b)
}

fn extremum(session: &Session, info: OpInfo, a: &Var, b: &Var) -> Result<Var, AutogradError> {
    let (tracked, float) = (info.admit(session, &[a, b])?, info.float(&[a, b])?);
    let shape = broadcast_shape(info, a.shape(), b.shape())?;
    let greatest = info == MAXIMUM;
    let y = with_float!(float, T => if greatest {
        zip::<T>(session, &shape, a.tensor(), b.tensor(), T::greater)?
    } else {
        zip::<T>(session, &shape, a.tensor(), b.tensor(), T::lesser)?
    });
    if !tracked {
        return Ok(Var::constant(y));
    }
    let (to_a, to_b) = (a.target(), b.target());
    let (a, b) = (a.tensor().clone(), b.tensor().clone());
    Ok(info.record(y, move |flow, dy| {
        let session = flow.session();
        for (to, own, other) in [(to_a, &a, &b), (to_b, &b, &a)] {
            let Some(to) = to else { continue };
            let dx = with_float!(float, T => {
                let share = zip::<T>(session, &shape, own, other, |own, other| {
                    if own == other {
                        T::from_f64(0.5)
                    } else if (own > other) == greatest {
                        T::ONE
                    } else {
                        T::ZERO
                    }
                })?;
                zip_same::<T>(session, &dy, &share, |dy, share| dy * share)?
            });
            flow.add(&to.source, sum_to(session, dx, &to.shape)?)?;
        }
        Ok(())
    }))
}
