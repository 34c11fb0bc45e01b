//! Softmax and its logarithm over the last dimension.

use bertha_tensor::Tensor;

use super::broadcast::with_float;
use super::real::{Real, dot, sum};
use super::reduce::log_sum_exp;
use super::{Float, OpInfo, differentiable};
use crate::{AutogradError, Session, Var};

pub(super) const SOFTMAX: OpInfo = differentiable("softmax");
pub(super) const LOG_SOFTMAX: OpInfo = differentiable("log_softmax");

/// `eˣ / Σ eˣ` over the last dimension, of any shape, f32 or f64.
///
/// # Errors
/// When `x` has no dimension, or is neither f32 nor f64.
pub fn softmax(session: &Session, x: &Var) -> Result<Var, AutogradError> {
    let (float, n) = (SOFTMAX.float(&[x])?, last(SOFTMAX, x)?);
    let y = match float {
        Float::F32 => {
            let mut y = Tensor::scratch_in(session.pool(), x.dtype(), x.shape())?;
            let values = y.as_mut_slice::<f32>()?;
            values.copy_from_slice(x.tensor().contiguous().as_slice()?);
            if !values.is_empty() {
                bertha_kernels::softmax(session.exec(), values, n);
            }
            y
        }
        Float::F64 => rows(session, x.tensor(), n, |row: &[f64], y| {
            let log_sum = log_sum_exp(row);
            for (y, x) in y.iter_mut().zip(row) {
                *y = (x - log_sum).exp();
            }
        })?,
    };
    let Some(to) = x.target() else {
        return Ok(Var::constant(y));
    };
    let kept = y.clone();
    Ok(SOFTMAX.record(y, move |flow, dy| {
        let dx = with_float!(float, T => row_pairs::<T>(flow.session(), &kept, &dy, n, |y, dy, dx| {
            let inner = T::from_f64(dot(y, dy));
            for (dx, (&y, &dy)) in dx.iter_mut().zip(y.iter().zip(dy)) {
                *dx = y * (dy - inner);
            }
        })?);
        flow.add(&to.source, dx)
    }))
}

/// `x − ln Σ eˣ` over the last dimension, of any shape, f32 or f64: the logarithm of [`softmax`], without overflow.
///
/// # Errors
/// When `x` has no dimension, or is neither f32 nor f64.
pub fn log_softmax(session: &Session, x: &Var) -> Result<Var, AutogradError> {
    let (float, n) = (LOG_SOFTMAX.float(&[x])?, last(LOG_SOFTMAX, x)?);
    let y = with_float!(float, T => rows::<T>(session, x.tensor(), n, |row, y| {
        let log_sum = log_sum_exp(row);
        for (y, x) in y.iter_mut().zip(row) {
            *y = T::from_f64(x.to_f64() - log_sum);
        }
    })?);
    let Some(to) = x.target() else {
        return Ok(Var::constant(y));
    };
    let kept = y.clone();
    Ok(LOG_SOFTMAX.record(y, move |flow, dy| {
        let dx = with_float!(float, T => row_pairs::<T>(flow.session(), &kept, &dy, n, |y, dy, dx| {
            let total = T::from_f64(sum(dy));
            for (dx, (&y, &dy)) in dx.iter_mut().zip(y.iter().zip(dy)) {
                *dx = dy - y.exp() * total;
            }
        })?);
        flow.add(&to.source, dx)
    }))
}

fn last(info: OpInfo, x: &Var) -> Result<usize, AutogradError> {
    let last = x.shape().last().copied();
    last.ok_or_else(|| info.shape_error("the input", &[], "one dimension or more".into()))
}

/// Lets `f` write each row of `n` values from that of `x`.
fn rows<T: Real>(
    session: &Session,
    x: &Tensor,
    n: usize,
    f: impl Fn(&[T], &mut [T]),
) -> Result<Tensor, AutogradError> {
    let mut y = Tensor::scratch_in(session.pool(), T::DTYPE, x.shape())?;
    let x = x.contiguous();
    if n > 0 {
        let rows = x.as_slice::<T>()?.chunks_exact(n);
        rows.zip(y.as_mut_slice::<T>()?.chunks_exact_mut(n))
            .for_each(|(x, y)| f(x, y));
    }
    Ok(y)
}

/// Lets `f` write each row of `n` values from those of `a` and `b`, which are of one shape.
fn row_pairs<T: Real>(
    session: &Session,
    a: &Tensor,
    b: &Tensor,
    n: usize,
    f: impl Fn(&[T], &[T], &mut [T]),
) -> Result<Tensor, AutogradError> {
    let mut y = Tensor::scratch_in(session.pool(), T::DTYPE, a.shape())?;
    let (a, b) = (a.contiguous(), b.contiguous());
    if n > 0 {
        let pairs = a
            .as_slice::<T>()?
            .chunks_exact(n)
            .zip(b.as_slice::<T>()?.chunks_exact(n));
        pairs
            .zip(y.as_mut_slice::<T>()?.chunks_exact_mut(n))
            .for_each(|((a, b), y)| f(a, b, y));
    }
    Ok(y)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logarithms_of_small_probabilities_keep_their_digits() {
        let session = Session::new(Some(1)).unwrap();
        let x = Tensor::from_vec(vec![0.0_f32, 200.0, 3.0, 3.0], &[2, 2]).unwrap();
        let y = log_softmax(&session, &Var::constant(x.clone())).unwrap();
        let half = -(2_f32.ln());
        assert_eq!(y.as_slice().unwrap(), [-200.0, 0.0, half, half]);
        let p = softmax(&session, &Var::constant(x)).unwrap();
        assert_eq!(p.as_slice().unwrap()[1..], [1.0, 0.5, 0.5]);
    }
}
