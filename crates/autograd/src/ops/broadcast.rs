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

/// `f(a, b)` for every pair of values of two tensors of one shape, in a tensor of the pool.
pub(super) fn zip_same<T: Element>(
    session: &Session,
    a: &Tensor,
    b: &Tensor,
    f: impl Fn(T, T) -> T,
) -> Result<Tensor, AutogradError> {
    debug_assert_eq!(a.shape(), b.shape());
    let mut out = Tensor::scratch_in(session.pool(), T::DTYPE, a.shape())?;
    let (a, b) = (a.contiguous(), b.contiguous());
    let pairs = a.as_slice::<T>()?.iter().zip(b.as_slice::<T>()?);
    out.as_mut_slice::<T>()?
        .iter_mut()
        .zip(pairs)
        .for_each(|(out, (&a, &b))| *out = f(a, b));
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
    let (a, b) = (a.broadcast_to(shape)?, b.broadcast_to(shape)?);
    let mut runs = Runs::new(&a, &b);
    let [len, step_a, step_b] = runs.inner;
    let (a, b) = (
        a.elements_from_offset::<T>()?,
        b.elements_from_offset::<T>()?,
    );
    for out in out.as_mut_slice::<T>()?.chunks_exact_mut(len.max(1)) {
        let [at_a, at_b] = runs.next_start();
        let (a, b) = (&a[at_a..], &b[at_b..]);
        match (step_a, step_b) {
            (1, 1) => {
                let pairs = out.iter_mut().zip(a.iter().zip(b));
                pairs.for_each(|(out, (&a, &b))| *out = f(a, b));
            }
            (1, 0) => {
                let (pairs, b) = (out.iter_mut().zip(a), b[0]);
                pairs.for_each(|(out, &a)| *out = f(a, b));
            }
            _ => {
                for (i, out) in out.iter_mut().enumerate() {
                    *out = f(a[i * step_a], b[i * step_b]);
                }
            }
        }
    }
    Ok(out)
}

/// The values of two tensors of one shape in runs of one step each, row-major.
struct Runs {
    /// Length of a run, and the steps in it.
    inner: [usize; 3],
    /// Size and both strides of the axes around it; neighbouring axes are one where one stride describes them in both.
    axes: Vec<[usize; 3]>,
    index: Vec<usize>,
    /// Where the next run starts.
    next: [usize; 2],
}

impl Runs {
    fn new(a: &Tensor, b: &Tensor) -> Self {
        let mut axes: Vec<[usize; 3]> = Vec::with_capacity(a.rank());
        let strides = a.strides().iter().zip(b.strides());
        for (&len, (&a, &b)) in a.shape().iter().zip(strides) {
            match axes.last_mut() {
                _ if len == 1 => {}
                Some(outer) if outer[1] == len * a && outer[2] == len * b => {
                    *outer = [outer[0] * len, a, b];
                }
                _ => axes.push([len, a, b]),
            }
        }
        Self {
            inner: axes.pop().unwrap_or([1, 1, 1]),
            index: vec![0; axes.len()],
            axes,
            next: [0, 0],
        }
    }

    fn next_start(&mut self) -> [usize; 2] {
        let start = self.next;
        let [a, b] = &mut self.next;
        for (i, &[len, step_a, step_b]) in self.index.iter_mut().zip(&self.axes).rev() {
            *i += 1;
            (*a, *b) = (*a + step_a, *b + step_b);
            if *i < len {
                break;
            }
            *i = 0;
            (*a, *b) = (*a - len * step_a, *b - len * step_b);
        }
        start
    }
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
    fn pairs_of_every_layout_are_visited() {
        let session = Session::new(Some(1)).unwrap();
        let numbers = |shape: &[usize]| {
            let len: usize = shape.iter().product();
            Tensor::from_vec((0..len).map(|i| i as f32).collect(), shape).unwrap()
        };
        let shape = [2, 3, 4];
        let layouts = [
            numbers(&shape),
            numbers(&[4]),
            numbers(&[3, 1]),
            numbers(&[2, 1, 1]),
            numbers(&[]),
            numbers(&[4, 3, 2]).permute(&[2, 1, 0]).unwrap(),
            numbers(&[3, 4, 2]).permute(&[2, 0, 1]).unwrap(),
            numbers(&[2, 3, 9]).narrow(2, 3, 4).unwrap(),
        ];
        for a in &layouts {
            for b in &layouts {
                let found = zip::<f32>(&session, &shape, a, b, |a, b| 100.0 * a + b).unwrap();
                let wide = |x: &Tensor| x.broadcast_to(&shape).unwrap().to_vec::<f32>().unwrap();
                let pairs = wide(a).into_iter().zip(wide(b));
                let expected: Vec<f32> = pairs.map(|(a, b)| 100.0 * a + b).collect();
                assert_eq!(found.to_vec::<f32>().unwrap(), expected, "{a:?} and {b:?}");
            }
        }
    }

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
