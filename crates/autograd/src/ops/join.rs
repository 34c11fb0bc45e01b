//! Tensors end to end, and apart again.

use std::sync::{Arc, Mutex, PoisonError};

use bertha_tensor::Tensor;

use super::view::write_part;
use super::{OpInfo, differentiable};
use crate::tape::Target;
use crate::{AutogradError, Session, Var};

pub(super) const CONCAT: OpInfo = differentiable("concat");
pub(super) const STACK: OpInfo = differentiable("stack");
pub(super) const SPLIT: OpInfo = differentiable("split");

/// The inputs end to end along dimension `dim`; of one dtype and equal in all other dimensions.
///
/// # Errors
/// When there is no input, dimension `dim` does not exist, or shapes or dtypes disagree.
pub fn concat(session: &Session, inputs: &[&Var], dim: usize) -> Result<Var, AutogradError> {
    let first = first(CONCAT, inputs)?;
    if dim >= first.shape().len() {
        let expected = format!("{} dimensions or more", dim + 1);
        return Err(CONCAT.shape_error("the first input", first.shape(), expected));
    }
    let mut shape = first.shape().to_vec();
    shape[dim] = 0;
    for input in inputs {
        let mut fits = input.shape().to_vec();
        if let Some(size) = fits.get_mut(dim) {
            shape[dim] += *size;
            *size = first.shape()[dim];
        }
        if fits != first.shape() {
            let expected = format!("{:?} but for dimension {dim}", first.shape());
            return Err(CONCAT.shape_error("an input", input.shape(), expected));
        }
    }
    joined(session, CONCAT, inputs, dim, shape)
}

/// The inputs, of one shape and dtype, along a new dimension `dim`.
///
/// # Errors
/// When there is no input, `dim` is above the rank, or shapes or dtypes disagree.
pub fn stack(session: &Session, inputs: &[&Var], dim: usize) -> Result<Var, AutogradError> {
    let first = first(STACK, inputs)?;
    if let Some(other) = inputs.iter().find(|input| input.shape() != first.shape()) {
        let expected = format!("{:?} as the first", first.shape());
        return Err(STACK.shape_error("an input", other.shape(), expected));
    }
    if dim > first.shape().len() {
        let expected = format!("{dim} dimensions or more");
        return Err(STACK.shape_error("the first input", first.shape(), expected));
    }
    let mut shape = first.shape().to_vec();
    shape.insert(dim, inputs.len());
    joined(session, STACK, inputs, dim, shape)
}

fn first<'a>(info: OpInfo, inputs: &[&'a Var]) -> Result<&'a Var, AutogradError> {
    let Some(&first) = inputs.first() else {
        return Err(info.shape_error("the list of inputs", &[0], "one input or more".into()));
    };
    if inputs.iter().any(|input| input.dtype() != first.dtype()) {
        return Err(AutogradError::DType {
            op: info.name,
            found: inputs.iter().map(|input| input.dtype()).collect(),
        });
    }
    Ok(first)
}

/// The inputs in a tensor of `shape`, one after the other along `dim`, which stacked ones lack.
fn joined(
    session: &Session,
    info: OpInfo,
    inputs: &[&Var],
    dim: usize,
    shape: Vec<usize>,
) -> Result<Var, AutogradError> {
    let mut y = Tensor::scratch_in(session.pool(), inputs[0].dtype(), &shape)?;
    let mut targets: Vec<(usize, usize, Target)> = Vec::new();
    let mut start = 0;
    for input in inputs {
        let part = if info == STACK {
            input.tensor().unsqueeze(dim)?
        } else {
            input.tensor().clone()
        };
        write_part(&mut y, &part, dim, start)?;
        let len = part.shape()[dim];
        let target = input.target().filter(|_| session.records());
        targets.extend(target.map(|target| (start, len, target)));
        start += len;
    }
    if targets.is_empty() {
        return Ok(Var::constant(y));
    }
    Ok(info.record(y, move |flow, dy| {
        for (start, len, target) in targets {
            // A part of its own: the view would keep the whole gradient alive.
            let part = dy.narrow(dim, start, len)?.contiguous();
            flow.add(&target.source, part.reshape(&target.shape)?)?;
        }
        Ok(())
    }))
}

/// The parts of `sizes` along dimension `dim`, views of `x`.
///
/// # Errors
/// When the sizes do not add up to dimension `dim`, or it does not exist.
pub fn split(
    session: &Session,
    x: &Var,
    dim: usize,
    sizes: &[usize],
) -> Result<Vec<Var>, AutogradError> {
    let size = x.shape().get(dim).copied();
    let total = sizes.iter().try_fold(0_usize, |sum, &n| sum.checked_add(n));
    if size.is_none() || size != total {
        let expected = format!("dimension {dim} of the sum of {sizes:?}");
        return Err(SPLIT.shape_error("the input", x.shape(), expected));
    }
    let mut parts = Vec::with_capacity(sizes.len());
    let mut start = 0;
    for &len in sizes {
        parts.push((start, x.tensor().narrow(dim, start, len)?));
        start += len;
    }
    let Some(to) = x.target().filter(|_| session.records()) else {
        return Ok(parts
            .into_iter()
            .map(|(_, part)| Var::constant(part))
            .collect());
    };
    // The parts write into one gradient, which the first of them to run announces to a node that stands before all
    // of them, and so runs after all of them.
    let gradient: Arc<Mutex<Option<Tensor>>> = Arc::default();
    let shape = to.shape.clone();
    let whole = Arc::clone(&gradient);
    let source = SPLIT.record(x.tensor().clone(), move |flow, _| {
        let dx = whole.lock().unwrap_or_else(PoisonError::into_inner).take();
        dx.map_or(Ok(()), |dx| flow.add(&to.source, dx))
    });
    let source = source.target();
    let part = |(start, part): (usize, Tensor)| {
        let (gradient, source, shape) = (Arc::clone(&gradient), source.clone(), shape.clone());
        SPLIT.record(part, move |flow, dy| {
            let mut gradient = gradient.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(dx) = &mut *gradient {
                return write_part(dx, &dy, dim, start);
            }
            let mut dx = Tensor::zeros_in(flow.session().pool(), dy.dtype(), &shape)?;
            write_part(&mut dx, &dy, dim, start)?;
            *gradient = Some(dx);
            source.map_or(Ok(()), |target| flow.add(&target.source, dy))
        })
    };
    Ok(parts.into_iter().map(part).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splitting_undoes_joining() {
        let session = Session::new(Some(1)).unwrap();
        let values = |from: usize, n: usize| (from..from + n).map(|i| i as f32).collect();
        let a = Var::constant(Tensor::from_vec(values(0, 4), &[2, 2]).unwrap());
        let b = Var::constant(Tensor::from_vec(values(4, 6), &[2, 3]).unwrap());
        let y = concat(&session, &[&a, &b], 1).unwrap();
        assert_eq!(
            y.as_slice().unwrap(),
            [0.0, 1.0, 4.0, 5.0, 6.0, 2.0, 3.0, 7.0, 8.0, 9.0]
        );
        let parts = split(&session, &y, 1, &[2, 3]).unwrap();
        for (part, whole) in parts.iter().zip([&a, &b]) {
            assert_eq!(
                part.tensor().to_vec::<f32>().unwrap(),
                whole.as_slice().unwrap()
            );
        }
        let stacked = stack(&session, &[&a, &a], 1).unwrap();
        assert_eq!(stacked.shape(), [2, 2, 2]);
        assert_eq!(
            stacked.as_slice().unwrap(),
            [0.0, 1.0, 0.0, 1.0, 2.0, 3.0, 2.0, 3.0]
        );
    }

    #[test]
    fn what_does_not_fit_is_refused_by_name() {
        let session = Session::new(Some(1)).unwrap();
        let zeros = |shape| Var::constant(Tensor::zeros(bertha_tensor::DType::F32, shape).unwrap());
        let (a, b) = (zeros(&[2, 2]), zeros(&[3, 3]));
        for result in [
            concat(&session, &[&a, &b], 0),
            concat(&session, &[], 0),
            concat(&session, &[&a], 2),
        ] {
            let error = result.unwrap_err().to_string();
            assert!(error.contains("`concat`"), "{error}");
        }
        assert!(stack(&session, &[&a, &b], 0).is_err());
        assert!(split(&session, &a, 0, &[1, 2]).is_err());
        assert!(split(&session, &a, 0, &[usize::MAX, 3]).is_err());
    }
}
