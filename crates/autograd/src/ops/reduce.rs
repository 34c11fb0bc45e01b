//! Reductions over given axes: sum, mean, variance, maximum, log-sum-exp.
//!
//! Axes are counted from 0 and each is named once. With `keepdim` a reduced axis stays, of size 1; without, it
//! disappears. Sums run in f64, in an order that the shape alone decides.

use bertha_tensor::{DType, Tensor};

use super::broadcast::{map, with_float, zip};
use super::real::{Real, sum as sum_values};
use super::{Float, OpInfo, differentiable};
use crate::{AutogradError, Session, Var};

pub(super) const SUM: OpInfo = differentiable("sum");
pub(super) const MEAN: OpInfo = differentiable("mean");
pub(super) const VAR: OpInfo = differentiable("var");
pub(super) const MAX: OpInfo = differentiable("max");
pub(super) const LOGSUMEXP: OpInfo = differentiable("logsumexp");

/// The sum over `axes`; over none it is `x` itself.
///
/// # Errors
/// When an axis does not exist or is named twice, or `x` is neither f32 nor f64.
pub fn sum(
    session: &Session,
    x: &Var,
    axes: &[usize],
    keepdim: bool,
) -> Result<Var, AutogradError> {
    scaled_sum(session, SUM, x, axes, keepdim)
}

/// The sum of all values, of shape `[]`.
///
/// # Errors
/// When `x` is neither f32 nor f64.
pub fn sum_all(session: &Session, x: &Var) -> Result<Var, AutogradError> {
    sum(session, x, &all_axes(x), false)
}

/// The mean over `axes`; NaN where no value is.
///
/// # Errors
/// When an axis does not exist or is named twice, or `x` is neither f32 nor f64.
pub fn mean(
    session: &Session,
    x: &Var,
    axes: &[usize],
    keepdim: bool,
) -> Result<Var, AutogradError> {
    scaled_sum(session, MEAN, x, axes, keepdim)
}

/// The mean of all values, of shape `[]`.
///
/// # Errors
/// When `x` is neither f32 nor f64.
pub fn mean_all(session: &Session, x: &Var) -> Result<Var, AutogradError> {
    mean(session, x, &all_axes(x), false)
}

fn all_axes(x: &Var) -> Vec<usize> {
    (0..x.shape().len()).collect()
}

fn scaled_sum(
    session: &Session,
    info: OpInfo,
    x: &Var,
    axes: &[usize],
    keepdim: bool,
) -> Result<Var, AutogradError> {
    let (float, over) = (info.float(&[x])?, Over::new(info, x, axes)?);
    let scale = if info == MEAN {
        1.0 / over.len as f64
    } else {
        1.0
    };
    let y = with_float!(float, T => {
        let sums = sum_axes::<T>(session, x.tensor(), &over.axes)?;
        if info == MEAN {
            map::<T>(session, &sums, |sum| T::from_f64(sum.to_f64() * scale))?
        } else {
            sums
        }
    });
    let y = over.finish(y, keepdim)?;
    let Some(to) = x.target().filter(|_| session.records()) else {
        return Ok(Var::constant(y));
    };
    Ok(info.record(y, move |flow, dy| {
        let dy = dy.reshape(&over.kept)?;
        let dy = if info == MEAN {
            with_float!(float, T => map::<T>(flow.session(), &dy, |dy| dy * T::from_f64(scale))?)
        } else {
            dy
        };
        flow.add(&to.source, dy.broadcast_to(&to.shape)?)
    }))
}

/// The variance over `axes`: the squared distances from the mean, added up and divided by their number less
/// `correction` (0 for that of the values, 1 for Bessel's estimate of what they are a sample of).
///
/// # Errors
/// When an axis does not exist or is named twice, no more than `correction` values are reduced to one, or `x` is
/// neither f32 nor f64.
pub fn var(
    session: &Session,
    x: &Var,
    axes: &[usize],
    correction: usize,
    keepdim: bool,
) -> Result<Var, AutogradError> {
    let (float, over) = (VAR.float(&[x])?, Over::new(VAR, x, axes)?);
    if over.len <= correction {
        let expected = format!("more than {correction} values along axes {axes:?}");
        return Err(VAR.shape_error("the input", x.shape(), expected));
    }
    let (len, degrees) = (over.len as f64, (over.len - correction) as f64);
    let shape = x.shape().to_vec();
    let (centered, y) = with_float!(float, T => {
        let sums = sum_axes::<T>(session, x.tensor(), &over.axes)?;
        let centered = zip::<T>(session, &shape, x.tensor(), &sums, |x, sum| {
            T::from_f64(x.to_f64() - sum.to_f64() / len)
        })?;
        let squares = map::<T>(session, &centered, |x| x * x)?;
        let sums = sum_axes::<T>(session, &squares, &over.axes)?;
        let y = map::<T>(session, &sums, |sum| T::from_f64(sum.to_f64() / degrees))?;
        (centered, y)
    });
    let y = over.finish(y, keepdim)?;
    let Some(to) = x.target().filter(|_| session.records()) else {
        return Ok(Var::constant(y));
    };
    Ok(VAR.record(y, move |flow, dy| {
        let dy = dy.reshape(&over.kept)?;
        let dx = with_float!(float, T => {
            let scale = T::from_f64(2.0 / degrees);
            zip::<T>(flow.session(), &shape, &centered, &dy, |x, dy| scale * x * dy)?
        });
        flow.add(&to.source, dx)
    }))
}

/// The greatest value over `axes`; NaN where one is. The gradient goes to the first of equal values.
///
/// # Errors
/// When an axis does not exist or is named twice, no value is reduced to one, or `x` is neither f32 nor f64.
pub fn max(
    session: &Session,
    x: &Var,
    axes: &[usize],
    keepdim: bool,
) -> Result<Var, AutogradError> {
    let (float, over) = (MAX.float(&[x])?, Over::new(MAX, x, axes)?);
    over.refuse_empty(MAX, x)?;
    let (mut places, n) = (Vec::new(), over.len);
    let y = with_float!(float, T => over.rows::<T>(session, x.tensor(), |row| {
        let (mut place, mut greatest) = (0, row[0]);
        for (at, &value) in row.iter().enumerate() {
            if value > greatest || (value.is_nan() && !greatest.is_nan()) {
                (place, greatest) = (at, value);
            }
        }
        places.push(place);
        greatest
    })?);
    let y = over.finish(y, keepdim)?;
    let Some(to) = x.target().filter(|_| session.records()) else {
        return Ok(Var::constant(y));
    };
    Ok(MAX.record(y, move |flow, dy| {
        fn scatter<T: Real>(
            dx: &mut Tensor,
            dy: &Tensor,
            places: &[usize],
            n: usize,
        ) -> Result<(), AutogradError> {
            let dy = dy.contiguous();
            let rows = dx.as_mut_slice::<T>()?.chunks_exact_mut(n);
            for (row, (&place, &dy)) in rows.zip(places.iter().zip(dy.as_slice::<T>()?)) {
                row[place] = dy;
            }
            Ok(())
        }
        let mut dx =
            Tensor::zeros_in(flow.session().pool(), dy.dtype(), &over.permuted(&to.shape))?;
        with_float!(float, T => scatter::<T>(&mut dx, &dy, &places, n)?);
        flow.add(&to.source, dx.permute(&over.inverse())?)
    }))
}

/// `ln Σ eˣ` over `axes`, without overflow.
///
/// # Errors
/// When an axis does not exist or is named twice, no value is reduced to one, or `x` is neither f32 nor f64.
pub fn logsumexp(
    session: &Session,
    x: &Var,
    axes: &[usize],
    keepdim: bool,
) -> Result<Var, AutogradError> {
    let (float, over) = (LOGSUMEXP.float(&[x])?, Over::new(LOGSUMEXP, x, axes)?);
    over.refuse_empty(LOGSUMEXP, x)?;
    let y = with_float!(float, T => over.rows::<T>(session, x.tensor(), |row| {
        T::from_f64(log_sum_exp(row))
    })?);
    let kept = y.clone();
    let y = over.finish(y, keepdim)?;
    let Some(to) = x.target().filter(|_| session.records()) else {
        return Ok(Var::constant(y));
    };
    let x = x.tensor().clone();
    Ok(LOGSUMEXP.record(y, move |flow, dy| {
        let session = flow.session();
        let dy = dy.reshape(&over.kept)?;
        let dx = with_float!(float, T => {
            let p = zip::<T>(session, &to.shape, &x, &kept, |x, y| {
                if y == T::NEG_INFINITY { T::ZERO } else { (x - y).exp() }
            })?;
            zip::<T>(session, &to.shape, &p, &dy, |p, dy| p * dy)?
        });
        flow.add(&to.source, dx)
    }))
}

/// `ln Σ eˣ` of a row with a value or more.
pub(super) fn log_sum_exp<T: Real>(row: &[T]) -> f64 {
    let greatest = row.iter().fold(T::NEG_INFINITY, |a, &b| a.greater(b));
    if greatest.to_f64().is_infinite() {
        return greatest.to_f64();
    }
    let sum: f64 = row.iter().map(|&x| (x - greatest).exp().to_f64()).sum();
    greatest.to_f64() + sum.ln()
}

/// The axes of a reduction.
struct Over {
    /// In ascending order.
    axes: Vec<usize>,
    /// The input's axes that are kept, and then those that are reduced.
    order: Vec<usize>,
    /// The input's shape with the reduced axes at 1.
    kept: Vec<usize>,
    /// How many values each value of the output is of.
    len: usize,
}

impl Over {
    fn new(info: OpInfo, x: &Var, axes: &[usize]) -> Result<Self, AutogradError> {
        let shape = x.shape();
        let mut sorted = axes.to_vec();
        sorted.sort_unstable();
        let twice = sorted.windows(2).any(|pair| pair[0] == pair[1]);
        if twice || sorted.last().is_some_and(|&axis| axis >= shape.len()) {
            let expected = format!("a dimension for each of the axes {axes:?}, each named once");
            return Err(info.shape_error("the input", shape, expected));
        }
        let (mut order, mut kept, mut len) = (Vec::new(), shape.to_vec(), 1);
        order.extend((0..shape.len()).filter(|axis| !sorted.contains(axis)));
        order.extend(&sorted);
        for &axis in &sorted {
            len *= shape[axis];
            kept[axis] = 1;
        }
        Ok(Self {
            axes: sorted,
            order,
            kept,
            len,
        })
    }

    fn refuse_empty(&self, info: OpInfo, x: &Var) -> Result<(), AutogradError> {
        if self.len == 0 {
            let expected = format!("a value or more along axes {:?}", self.axes);
            return Err(info.shape_error("the input", x.shape(), expected));
        }
        Ok(())
    }

    /// The output of shape `self.kept` in the shape that the caller wants.
    fn finish(&self, y: Tensor, keepdim: bool) -> Result<Tensor, AutogradError> {
        if keepdim {
            return Ok(y);
        }
        let axes = self.kept.iter().enumerate();
        let shape: Vec<usize> = axes
            .filter(|(axis, _)| !self.axes.contains(axis))
            .map(|(_, &size)| size)
            .collect();
        Ok(y.reshape(&shape)?)
    }

    /// `f` of each run of values that become one, in an output of shape `self.kept`.
    fn rows<T: Real>(
        &self,
        session: &Session,
        x: &Tensor,
        f: impl FnMut(&[T]) -> T,
    ) -> Result<Tensor, AutogradError> {
        let x = x.permute(&self.order)?.contiguous();
        let mut y = Tensor::scratch_in(session.pool(), T::DTYPE, &self.kept)?;
        let rows = x.as_slice::<T>()?.chunks_exact(self.len);
        y.as_mut_slice::<T>()?
            .iter_mut()
            .zip(rows.map(f))
            .for_each(|(y, value)| *y = value);
        Ok(y)
    }

    /// The shape of an input whose axes are in `self.order`.
    fn permuted(&self, shape: &[usize]) -> Vec<usize> {
        self.order.iter().map(|&axis| shape[axis]).collect()
    }

    /// The permutation that takes `self.order` back.
    fn inverse(&self) -> Vec<usize> {
        inverse(&self.order)
    }
}

/// The permutation that undoes another.
pub(super) fn inverse(order: &[usize]) -> Vec<usize> {
    let mut inverse = vec![0; order.len()];
    for (place, &axis) in order.iter().enumerate() {
        inverse[axis] = place;
    }
    inverse
}

/// The sums over `axes`, ascending, which stay with size 1.
pub(super) fn sum_axes<T: Real>(
    session: &Session,
    x: &Tensor,
    axes: &[usize],
) -> Result<Tensor, AutogradError> {
    let (mut x, mut rest) = (x.clone(), axes);
    // Neighbouring axes at once, the last ones first.
    while let Some((&last, before)) = rest.split_last() {
        let mut first = last;
        rest = before;
        while let Some((&axis, before)) = rest.split_last()
            && axis + 1 == first
        {
            (first, rest) = (axis, before);
        }
        x = sum_run::<T>(session, &x, first, last + 1)?;
    }
    Ok(x)
}

fn sum_run<T: Real>(
    session: &Session,
    x: &Tensor,
    first: usize,
    end: usize,
) -> Result<Tensor, AutogradError> {
    let mut shape = x.shape().to_vec();
    let len: usize = shape[first..end].iter().product();
    let inner: usize = shape[end..].iter().product();
    shape[first..end].fill(1);
    if x.numel() == 0 {
        return Ok(Tensor::zeros_in(session.pool(), T::DTYPE, &shape)?);
    }
    let x = x.contiguous();
    let mut y = Tensor::scratch_in(session.pool(), T::DTYPE, &shape)?;
    let (values, sums) = (x.as_slice::<T>()?, y.as_mut_slice::<T>()?);
    if inner == 1 {
        for (to, row) in sums.iter_mut().zip(values.chunks_exact(len)) {
            *to = T::from_f64(sum_values(row));
        }
        return Ok(y);
    }
    let mut totals = vec![0.0; inner];
    let blocks = values.chunks_exact(len * inner);
    for (to, block) in sums.chunks_exact_mut(inner).zip(blocks) {
        totals.fill(0.0);
        for row in block.chunks_exact(inner) {
            for (total, value) in totals.iter_mut().zip(row) {
                *total += value.to_f64();
            }
        }
        for (to, &total) in to.iter_mut().zip(&totals) {
            *to = T::from_f64(total);
        }
    }
    Ok(y)
}

/// As [`sum_axes`] for a tensor of either dtype.
pub(super) fn sum_axes_of(
    session: &Session,
    x: &Tensor,
    axes: &[usize],
) -> Result<Tensor, AutogradError> {
    match x.dtype() {
        DType::F64 => sum_axes::<f64>(session, x, axes),
        _ => sum_axes::<f32>(session, x, axes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn x() -> Var {
        let values = (0..24).map(|i| f64::from(i * 7 % 24)).collect();
        Var::constant(Tensor::from_vec(values, &[2, 3, 4]).unwrap())
    }

    #[test]
    fn every_set_of_axes_agrees_with_the_definition() {
        let session = Session::new(Some(1)).unwrap();
        let x = x();
        for set in 0..8_usize {
            let axes: Vec<usize> = (0..3).filter(|axis| set >> axis & 1 == 1).collect();
            let y = sum(&session, &x, &axes, true).unwrap();
            let greatest = max(&session, &x, &axes, true).unwrap();
            let mut sums = vec![0.0; y.tensor().numel()];
            let mut maxima = vec![f64::NEG_INFINITY; sums.len()];
            for (index, &value) in x.tensor().view::<f64>().unwrap().indexed_iter() {
                let at = (0..3).fold(0, |at, axis| {
                    let i = if axes.contains(&axis) { 0 } else { index[axis] };
                    at * y.shape()[axis] + i
                });
                sums[at] += value;
                maxima[at] = maxima[at].max(value);
            }
            assert_eq!(y.tensor().to_vec::<f64>().unwrap(), sums, "axes {axes:?}");
            assert_eq!(greatest.tensor().to_vec::<f64>().unwrap(), maxima);
        }
    }

    #[test]
    fn logsumexp_does_not_overflow() {
        let session = Session::new(Some(1)).unwrap();
        let values = vec![1000.0_f32, 1000.0, -1000.0, f32::NEG_INFINITY];
        let x = Var::constant(Tensor::from_vec(values, &[2, 2]).unwrap());
        let y = logsumexp(&session, &x, &[1], false).unwrap();
        assert_eq!(y.as_slice().unwrap(), [1000.0 + 2_f32.ln(), -1000.0]);
    }

    #[test]
    fn bad_axes_are_refused_by_name() {
        let session = Session::new(Some(1)).unwrap();
        for axes in [&[3][..], &[1, 1]] {
            let error = mean(&session, &x(), axes, false).unwrap_err().to_string();
            assert!(error.contains("`mean`"), "{error}");
        }
        let nothing = Var::constant(Tensor::zeros(DType::F32, &[2, 0]).unwrap());
        assert!(max(&session, &nothing, &[1], false).is_err());
        assert_eq!(
            sum_all(&session, &nothing)
                .unwrap()
                .tensor()
                .item::<f32>()
                .unwrap(),
            0.0
        );
    }
}
