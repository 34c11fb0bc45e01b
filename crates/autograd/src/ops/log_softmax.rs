//! The logarithm of the softmax over the last dimension.

use bertha_kernels::{log_softmax as kernel, log_softmax_backward, reference};

use super::{Float, OpInfo, differentiable};
use crate::{AutogradError, Session, Var};

pub(super) const LOG_SOFTMAX: OpInfo = differentiable("log_softmax");

/// `x − ln Σ eˣ` over the last dimension, of any shape, f32 or f64: the logarithm of [`softmax`](super::softmax),
/// without overflow.
///
/// # Errors
/// When `x` has no dimension, or is neither f32 nor f64.
pub fn log_softmax(session: &Session, x: &Var) -> Result<Var, AutogradError> {
    let tracked = LOG_SOFTMAX.admit(session, &[x])?;
    let float = LOG_SOFTMAX.float(&[x])?;
    let Some(&n) = x.shape().last() else {
        return Err(LOG_SOFTMAX.shape_error("the input", &[], "one dimension or more".into()));
    };
    // Shared with `x`, and so copied before it is written.
    let mut y = x.tensor().clone();
    if y.numel() > 0 {
        match float {
            Float::F32 => kernel(session.exec(), y.as_mut_slice()?, n),
            Float::F64 => reference::log_softmax::<f64>(y.as_mut_slice()?, n),
        }
    }
    let Some(to) = x.target().filter(|_| tracked) else {
        return Ok(Var::constant(y));
    };
    let kept = y.clone();
    Ok(LOG_SOFTMAX.record(y, move |flow, dy| {
        let mut dx = dy;
        if dx.numel() > 0 {
            let exec = flow.session().exec();
            match float {
                Float::F32 => log_softmax_backward(exec, kept.as_slice()?, dx.as_mut_slice()?, n),
                Float::F64 => {
                    reference::log_softmax_backward::<f64>(kept.as_slice()?, dx.as_mut_slice()?, n);
                }
            }
        }
        flow.add(&to.source, dx)
    }))
}

#[cfg(test)]
mod tests {
    use bertha_tensor::Tensor;

    use super::*;

    #[test]
    fn logarithms_of_small_probabilities_keep_their_digits() {
        let session = Session::new(Some(1)).unwrap();
        let x = Tensor::from_vec(vec![0.0_f32, 200.0, 3.0, 3.0], &[2, 2]).unwrap();
        let y = log_softmax(&session, &Var::constant(x)).unwrap();
        let expected = [-200.0, 0.0, -(2_f32.ln()), -(2_f32.ln())];
        for (found, expected) in y.as_slice().unwrap().iter().zip(expected) {
            assert!((found - expected).abs() < 1e-6, "{found} and {expected}");
        }
    }
}
