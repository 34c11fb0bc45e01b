//! Dropout (Srivastava et al. 2014, <https://jmlr.org/papers/v15/srivastava14a.html>). Its masks are a function of
//! the pass's seed and step and of the place in the model, so the backward pass asks for them again.

use bertha_kernels::{Dropout, dropout as kernel, dropout_add as kernel_add, reference};
use bertha_tensor::{DType, Tensor};

use super::{OpInfo, differentiable};
use crate::{AutogradError, Session, Var};

pub(super) const DROPOUT: OpInfo = differentiable("dropout");
pub(super) const DROPOUT_ADD: OpInfo = differentiable("dropout_add");

/// In a training session, each value of `x[T,N]` is 0 with the given probability and divided by 1 − probability
/// otherwise; elsewhere `x` as it is. f32 or f64.
///
/// # Errors
/// When the probability is not from 0 to below 1, or `x` is no matrix.
pub fn dropout(session: &Session, x: Var, probability: f32) -> Result<Var, AutogradError> {
    check(DROPOUT, probability)?;
    let Some(dropout) = session.dropout(probability) else {
        return Ok(x);
    };
    let tracked = DROPOUT.admit(session, &[&x])?;
    DROPOUT.float(&[&x])?;
    DROPOUT.matrix("the input", &x)?;
    let to = x.target().filter(|_| tracked);
    let y = apply(session, x.into_tensor(), None, &dropout)?;
    Ok(match to {
        None => Var::constant(y),
        Some(to) => DROPOUT.record(y, move |flow, dy| {
            let dx = apply(flow.session(), dy, None, &dropout)?;
            flow.add(&to.source, dx)
        }),
    })
}

/// `dropout(x) + residual`, both `[T,N]`, in one pass; see [`dropout()`].
///
/// # Errors
/// As [`dropout()`], and when shapes or dtypes disagree.
pub fn dropout_add(
    session: &Session,
    x: Var,
    residual: &Var,
    probability: f32,
) -> Result<Var, AutogradError> {
    check(DROPOUT_ADD, probability)?;
    let Some(dropout) = session.dropout(probability) else {
        return super::add(session, &x, residual);
    };
    let tracked = DROPOUT_ADD.admit(session, &[&x, residual])?;
    DROPOUT_ADD.float(&[&x, residual])?;
    DROPOUT_ADD.matrix("the input", &x)?;
    if x.shape() != residual.shape() {
        return Err(DROPOUT_ADD.shape_error(
            "the residual",
            residual.shape(),
            format!("{:?}", x.shape()),
        ));
    }
    let (to_x, to_residual) = (x.target(), residual.target());
    let y = apply(session, x.into_tensor(), Some(residual.tensor()), &dropout)?;
    if !tracked {
        return Ok(Var::constant(y));
    }
    Ok(DROPOUT_ADD.record(y, move |flow, dy| {
        if let Some(to) = to_residual {
            flow.add(&to.source, dy.clone())?;
        }
        if let Some(to) = to_x {
            let dx = apply(flow.session(), dy, None, &dropout)?;
            flow.add(&to.source, dx)?;
        }
        Ok(())
    }))
}

/// Refuses what is no probability of dropping.
pub(super) fn check(op: OpInfo, probability: f32) -> Result<(), AutogradError> {
    match (0.0..1.0).contains(&probability) {
        true => Ok(()),
        false => Err(AutogradError::Probability {
            op: op.name,
            found: probability,
        }),
    }
}

/// The dropped values, in `x`'s memory when nobody else holds it.
fn apply(
    session: &Session,
    mut x: Tensor,
    residual: Option<&Tensor>,
    dropout: &Dropout,
) -> Result<Tensor, AutogradError> {
    let n = x.shape()[1];
    if x.numel() == 0 {
        return Ok(x);
    }
    let residual = residual.map(Tensor::contiguous);
    match x.dtype() {
        DType::F64 => {
            let values = x.as_mut_slice::<f64>()?;
            reference::dropout(values, n, None, dropout);
            if let Some(residual) = residual {
                let residual = residual.as_slice::<f64>()?;
                values
                    .iter_mut()
                    .zip(residual)
                    .for_each(|(x, residual)| *x += residual);
            }
        }
        _ => {
            let values = x.as_mut_slice()?;
            match residual {
                None => kernel(session.exec(), values, n, None, dropout),
                Some(residual) => {
                    kernel_add(
                        session.exec(),
                        values,
                        residual.as_slice()?,
                        n,
                        None,
                        dropout,
                    );
                }
            }
        }
    }
    Ok(x)
}
