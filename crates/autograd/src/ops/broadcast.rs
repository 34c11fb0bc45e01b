//! What operations with broadcasting share: NumPy's rule for shapes, values side by side, and the way back.

use bertha_tensor::{Element, Tensor};

use super::OpInfo;
use super::reduce::sum_axes_of;
use crate::{AutogradError, Session};

/// The shape that two shapes broadcast to: aligned at the last dimension, a dimension of 1 repeats.
pub(super) fn broadcast_shape(
    op: OpInfo,
    a: &[usize],
    b: &[usize],
) -> Result<Vec<usize>, AutogradError> {
    let rank = a.len().max(b.len());
    let size = |shape: &[usize], axis: usize| {
        (axis + shape.len())
            .checked_sub(rank)
            .map_or(1, |i| shape[i])
    };
    let join = |axis| match (size(a, axis), size(b, axis)) {
        (x, y) if x == y => Ok(x),
        (1, y) => Ok(y),
        (x, 1) => Ok(x),
        _ => Err(op.shape_error(
            "the second input",
            b,
            format!("a shape that broadcasts with {a:?}"),
        )),
    };
    (0..rank).map(join).collect()
}

/// `f(x)` for every value, in a tensor of the pool.
pub(super) fn map<T: Element>(
    session: &Session,
    x: &Tensor,
    f: impl Fn(T) -> T,
) -> Result<Tensor, AutogradError> {
    let mut out = Tensor::scratch_in(session.pool(), T::DTYPE, x.shape())?;
    let x = x.contiguous();
    let values = x.as_slice::<T>()?.iter();
    out.as_mut_slice::<T>()?
        .iter_mut()
        .zip(values)
        .for_each(|(out, &x)| *out = f(x));
    Ok(out)
}

/// `f(a, b)` for every pair of values of two tensors that broadcast to `shape`, in a tensor of the pool.
pub(super) fn zip<T: Element>(
    session: &Session,
    shape: &[usize],
    a: &Tensor,
    b: &Tensor,
    f: impl Fn(T, T) -> T,
) -> Result<Tensor, AutogradError> {
    let mut out = Tensor::scratch_in(session.pool(), T::DTYPE, shape)?;
    if a.shape() == shape && b.shape() == shape && a.is_contiguous() && b.is_contiguous() {
        let pairs = a.as_slice::<T>()?.iter().zip(b.as_slice::<T>()?);
        out.as_mut_slice::<T>()?
            .iter_mut()
            .zip(pairs)
            .for_each(|(out, (&a, &b))| *out = f(a, b));
        return Ok(out);
    }
    let (a, b) = (a.broadcast_to(shape)?, b.broadcast_to(shape)?);
    let (a, b) = (a.view::<T>()?, b.view::<T>()?);
    let values = out.as_mut_slice::<T>()?;
    for (out, (&a, &b)) in values.iter_mut().zip(a.iter().zip(b.iter())) {
        *out = f(a, b);
    }
    Ok(out)
}

/// The gradient of what was broadcast from `shape`: summed over the dimensions that were repeated.
pub(super) fn sum_to(
    session: &Session,
    gradient: Tensor,
    shape: &[usize],
) -> Result<Tensor, AutogradError> {
    if gradient.shape() == shape {
        return Ok(gradient);
    }
    // Repeated were the leading dimensions that the shape lacks, and those where it has 1.
    let new = gradient.rank() - shape.len();
    let axes: Vec<usize> = (0..gradient.rank())
        .filter(|&axis| axis < new || (shape[axis - new] == 1 && gradient.shape()[axis] != 1))
        .collect();
    Ok(sum_axes_of(session, &gradient, &axes)?.reshape(shape)?)
}

/// Runs a block with `T` as the Rust type of a [`Float`].
macro_rules! with_float {
    ($float:expr, $T:ident => $body:expr) => {
        match $float {
            Float::F32 => {
                type $T = f32;
                $body
            }
            Float::F64 => {
                type $T = f64;
                $body
            }
        }
    };
}
pub(super) use with_float;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gradients_are_summed_over_what_was_repeated() {
        let session = Session::new(Some(1)).unwrap();
        let gradient = Tensor::from_vec((0..12).map(|i| i as f32).collect(), &[2, 2, 3]).unwrap();
        let sum = |shape: &[usize]| {
            sum_to(&session, gradient.clone(), shape)
                .unwrap()
                .to_vec::<f32>()
                .unwrap()
        };
        assert_eq!(sum(&[3]), [18.0, 22.0, 26.0]);
        assert_eq!(
            sum(&[2, 1]),
            [
                0.0 + 1.0 + 2.0 + 6.0 + 7.0 + 8.0,
                3.0 + 4.0 + 5.0 + 9.0 + 10.0 + 11.0
            ]
        );
        assert_eq!(sum(&[1, 2, 3]), [6.0, 8.0, 10.0, 12.0, 14.0, 16.0]);
        assert_eq!(sum(&[]), [66.0]);
    }
}
