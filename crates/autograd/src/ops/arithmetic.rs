//! Arithmetic on two values, with broadcasting: a − b is of the shape that `a` and `b` broadcast to.

use super::broadcast::{broadcast_shape, sum_to, with_float, zip};
use super::{Float, OpInfo, differentiable};
use crate::{AutogradError, Session, Var};

pub(super) const ADD: OpInfo = differentiable("add");
pub(super) const SUB: OpInfo = differentiable("sub");
pub(super) const MUL: OpInfo = differentiable("mul");
pub(super) const DIV: OpInfo = differentiable("div");

/// `a + b`, f32 or f64, with broadcasting.
///
/// # Errors
/// When the shapes do not broadcast or the dtypes differ.
pub fn add(session: &Session, a: &Var, b: &Var) -> Result<Var, AutogradError> {
    let (tracked, float) = (ADD.admit(session, &[a, b])?, ADD.float(&[a, b])?);
    let shape = broadcast_shape(ADD, a.shape(), b.shape())?;
    let y =
        with_float!(float, T => zip::<T>(session, &shape, a.tensor(), b.tensor(), |a, b| a + b)?);
    if !tracked {
        return Ok(Var::constant(y));
    }
    let (to_a, to_b) = (a.target(), b.target());
    Ok(ADD.record(y, move |flow, dy| {
        let session = flow.session();
        if let Some(a) = to_a {
            flow.add(&a.source, sum_to(session, dy.clone(), &a.shape)?)?;
        }
        if let Some(b) = to_b {
            flow.add(&b.source, sum_to(session, dy, &b.shape)?)?;
        }
        Ok(())
    }))
}

/// `a − b`, f32 or f64, with broadcasting.
///
/// # Errors
/// When the shapes do not broadcast or the dtypes differ.
pub fn sub(session: &Session, a: &Var, b: &Var) -> Result<Var, AutogradError> {
    let (tracked, float) = (SUB.admit(session, &[a, b])?, SUB.float(&[a, b])?);
    let shape = broadcast_shape(SUB, a.shape(), b.shape())?;
    let y =
        with_float!(float, T => zip::<T>(session, &shape, a.tensor(), b.tensor(), |a, b| a - b)?);
    if !tracked {
        return Ok(Var::constant(y));
    }
    let (to_a, to_b) = (a.target(), b.target());
    Ok(SUB.record(y, move |flow, dy| {
        let session = flow.session();
        if let Some(b) = to_b {
            let negative =
                with_float!(float, T => super::broadcast::map::<T>(session, &dy, |dy| -dy)?);
            flow.add(&b.source, sum_to(session, negative, &b.shape)?)?;
        }
        if let Some(a) = to_a {
            flow.add(&a.source, sum_to(session, dy, &a.shape)?)?;
        }
        Ok(())
    }))
}

/// `a · b`, value by value, f32 or f64, with broadcasting.
///
/// # Errors
/// When the shapes do not broadcast or the dtypes differ.
pub fn mul(session: &Session, a: &Var, b: &Var) -> Result<Var, AutogradError> {
    let (tracked, float) = (MUL.admit(session, &[a, b])?, MUL.float(&[a, b])?);
    let shape = broadcast_shape(MUL, a.shape(), b.shape())?;
    let y =
        with_float!(float, T => zip::<T>(session, &shape, a.tensor(), b.tensor(), |a, b| a * b)?);
    if !tracked {
        return Ok(Var::constant(y));
    }
    let (to_a, to_b) = (a.target(), b.target());
    let (a, b) = (
        to_b.is_some().then(|| a.tensor().clone()),
        to_a.is_some().then(|| b.tensor().clone()),
    );
    Ok(MUL.record(y, move |flow, dy| {
        let session = flow.session();
        for (to, other) in [(to_a, b), (to_b, a)] {
            if let (Some(to), Some(other)) = (to, other) {
                let product = with_float!(float, T => zip::<T>(session, &shape, &dy, &other, |dy, x| dy * x)?);
                flow.add(&to.source, sum_to(session, product, &to.shape)?)?;
            }
        }
        Ok(())
    }))
}

/// `a / b`, value by value, f32 or f64, with broadcasting.
///
/// # Errors
/// When the shapes do not broadcast or the dtypes differ.
pub fn div(session: &Session, a: &Var, b: &Var) -> Result<Var, AutogradError> {
    let (tracked, float) = (DIV.admit(session, &[a, b])?, DIV.float(&[a, b])?);
    let shape = broadcast_shape(DIV, a.shape(), b.shape())?;
    let y =
        with_float!(float, T => zip::<T>(session, &shape, a.tensor(), b.tensor(), |a, b| a / b)?);
    if !tracked {
        return Ok(Var::constant(y));
    }
    let (to_a, to_b) = (a.target(), b.target());
    let (b, quotient) = (b.tensor().clone(), to_b.is_some().then(|| y.clone()));
    Ok(DIV.record(y, move |flow, dy| {
        let session = flow.session();
        let of_a = with_float!(float, T => zip::<T>(session, &shape, &dy, &b, |dy, b| dy / b)?);
        if let (Some(to), Some(quotient)) = (to_b, quotient) {
            // ∂(a/b)/∂b = −(a/b)/b
            let of_b = with_float!(float, T => zip::<T>(session, &shape, &of_a, &quotient, |da, y| -da * y)?);
            flow.add(&to.source, sum_to(session, of_b, &to.shape)?)?;
        }
        if let Some(to) = to_a {
            flow.add(&to.source, sum_to(session, of_a, &to.shape)?)?;
        }
        Ok(())
    }))
}
