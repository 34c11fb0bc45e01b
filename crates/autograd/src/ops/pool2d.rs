//! Two-dimensional pooling: the greatest value, or the mean, of each window.

use bertha_tensor::Tensor;

use super::broadcast::with_float;
use super::real::Real;
use super::window::Axis;
use super::{Float, OpInfo, differentiable};
use crate::{AutogradError, Session, Var};

pub(super) const MAX_POOL2D: OpInfo = differentiable("max_pool2d");
pub(super) const AVG_POOL2D: OpInfo = differentiable("avg_pool2d");

/// A window that moves over an image: `[vertical, horizontal]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool2d {
    /// Size of the window.
    pub kernel: [usize; 2],
    /// Steps of the window.
    pub stride: [usize; 2],
    /// Places before and behind the image, at most half a window.
    pub padding: [usize; 2],
}

impl Pool2d {
    /// Square windows side by side, no padding.
    pub fn square(size: usize) -> Self {
        Self {
            kernel: [size, size],
            stride: [size, size],
            padding: [0, 0],
        }
    }
}

/// The greatest value of each window of `x[N,C,H,W]`, as `[N,C,H',W']` with `H' = (H + 2·padding − kernel)/stride + 1`, and
/// `W'` likewise; f32 or f64. Padding is never the greatest; NaN is, where there is one. The gradient goes to the first
/// of equal values.
///
/// # Errors
/// When `x` has not four dimensions, a window does not fit, or padding exceeds half of it.
pub fn max_pool2d(session: &Session, x: &Var, pool: Pool2d) -> Result<Var, AutogradError> {
    let (float, plan) = (MAX_POOL2D.float(&[x])?, Plan::new(MAX_POOL2D, x, pool)?);
    let mut y = Tensor::scratch_in(session.pool(), x.dtype(), &plan.output)?;
    // Where in its plane each output's value was.
    let mut chosen = Vec::with_capacity(y.numel());
    with_float!(float, T => {
        let x = x.tensor().contiguous();
        let values = y.as_mut_slice::<T>()?;
        let planes = x.as_slice::<T>()?.chunks_exact(plan.pixels().max(1));
        for (plane, y) in planes.zip(values.chunks_exact_mut(plan.places())) {
            for (place, y) in y.iter_mut().enumerate() {
                let mut best: Option<(usize, T)> = None;
                plan.window(place, |pixel| {
                    let value = plane[pixel];
                    let better = |(_, best): (usize, T)| value > best || (value.is_nan() && !best.is_nan());
                    if best.is_none_or(better) {
                        best = Some((pixel, value));
                    }
                });
                // A window that is padded by half at most has a value.
                let (pixel, value) = best.unwrap_or((0, T::NEG_INFINITY));
                chosen.push(pixel);
                *y = value;
            }
        }
    });
    let Some(to) = x.target().filter(|_| session.records()) else {
        return Ok(Var::constant(y));
    };
    Ok(MAX_POOL2D.record(y, move |flow, dy| {
        let mut dx = Tensor::zeros_in(flow.session().pool(), dy.dtype(), &to.shape)?;
        with_float!(float, T => {
            let dy = dy.contiguous();
            let gradients = dy.as_slice::<T>()?.chunks_exact(plan.places());
            let chosen = chosen.chunks_exact(plan.places());
            let planes = dx.as_mut_slice::<T>()?.chunks_exact_mut(plan.pixels().max(1));
            for (plane, (dy, chosen)) in planes.zip(gradients.zip(chosen)) {
                for (&dy, &pixel) in dy.iter().zip(chosen) {
                    plane[pixel] += dy;
                }
            }
        });
        flow.add(&to.source, dx)
    }))
}

/// The mean of each window of `x[N,C,H,W]`, padding counted as zeros, as `[N,C,H',W']` with
/// `H' = (H + 2·padding − kernel)/stride + 1`, and `W'` likewise; f32 or f64.
///
/// # Errors
/// When `x` has not four dimensions, a window does not fit, or padding exceeds half of it.
pub fn avg_pool2d(session: &Session, x: &Var, pool: Pool2d) -> Result<Var, AutogradError> {
    let (float, plan) = (AVG_POOL2D.float(&[x])?, Plan::new(AVG_POOL2D, x, pool)?);
    let mut y = Tensor::scratch_in(session.pool(), x.dtype(), &plan.output)?;
    let share = 1.0 / (plan.rows.kernel * plan.columns.kernel) as f64;
    with_float!(float, T => {
        let x = x.tensor().contiguous();
        let values = y.as_mut_slice::<T>()?;
        let planes = x.as_slice::<T>()?.chunks_exact(plan.pixels().max(1));
        for (plane, y) in planes.zip(values.chunks_exact_mut(plan.places())) {
            for (place, y) in y.iter_mut().enumerate() {
                let mut sum = 0.0;
                plan.window(place, |pixel| sum += plane[pixel].to_f64());
                *y = T::from_f64(sum * share);
            }
        }
    });
    let Some(to) = x.target().filter(|_| session.records()) else {
        return Ok(Var::constant(y));
    };
    Ok(AVG_POOL2D.record(y, move |flow, dy| {
        let mut dx = Tensor::zeros_in(flow.session().pool(), dy.dtype(), &to.shape)?;
        with_float!(float, T => {
            let dy = dy.contiguous();
            let gradients = dy.as_slice::<T>()?.chunks_exact(plan.places());
            let planes = dx.as_mut_slice::<T>()?.chunks_exact_mut(plan.pixels().max(1));
            for (plane, dy) in planes.zip(gradients) {
                for (place, &dy) in dy.iter().enumerate() {
                    let dy = dy * T::from_f64(share);
                    plan.window(place, |pixel| plane[pixel] += dy);
                }
            }
        });
        flow.add(&to.source, dx)
    }))
}

/// The sizes of a pooling.
#[derive(Clone, Copy)]
struct Plan {
    rows: Axis,
    columns: Axis,
    output: [usize; 4],
}

impl Plan {
    fn new(info: OpInfo, x: &Var, pool: Pool2d) -> Result<Self, AutogradError> {
        let &[n, c, h, w] = x.shape() else {
            return Err(info.shape_error("the input", x.shape(), "[N, C, H, W]".into()));
        };
        let Pool2d {
            kernel,
            stride,
            padding,
        } = pool;
        let axis = |axis: usize, size| {
            let half = padding[axis] <= kernel[axis] / 2;
            (half && size > 0)
                .then(|| Axis::new(size, kernel[axis], stride[axis], padding[axis], 1))?
        };
        let (Some(rows), Some(columns)) = (axis(0, h), axis(1, w)) else {
            let expected = format!("an image for {pool:?}, padded by half a window at most");
            return Err(info.shape_error("the input", x.shape(), expected));
        };
        let output = [n, c, rows.places, columns.places];
        Ok(Self {
            rows,
            columns,
            output,
        })
    }

    /// Values of a plane of the input.
    fn pixels(&self) -> usize {
        self.rows.size * self.columns.size
    }

    /// Values of a plane of the output.
    fn places(&self) -> usize {
        self.rows.places * self.columns.places
    }

    /// Visits the pixels of the window at `place` that lie inside the image.
    #[inline(always)]
    fn window(&self, place: usize, mut visit: impl FnMut(usize)) {
        let (row, column) = (place / self.columns.places, place % self.columns.places);
        for y in self.rows.covered(row) {
            for x in self.columns.covered(column) {
                visit(y * self.columns.size + x);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn x() -> Var {
        let values = (0..16).map(|i| (i * 7 % 16) as f32).collect();
        Var::constant(Tensor::from_vec(values, &[1, 1, 4, 4]).unwrap())
    }

    #[test]
    fn windows_are_reduced() {
        // 0 7 14 5 / 12 3 10 1 / 8 15 6 13 / 4 11 2 9
        let session = Session::new(Some(1)).unwrap();
        let y = max_pool2d(&session, &x(), Pool2d::square(2)).unwrap();
        assert_eq!(y.as_slice().unwrap(), [12.0, 14.0, 15.0, 13.0]);
        let y = avg_pool2d(&session, &x(), Pool2d::square(2)).unwrap();
        assert_eq!(y.as_slice().unwrap(), [5.5, 7.5, 9.5, 7.5]);
        let overlapping = Pool2d {
            kernel: [3, 3],
            stride: [2, 1],
            padding: [1, 0],
        };
        let y = max_pool2d(&session, &x(), overlapping).unwrap();
        assert_eq!(y.shape(), [1, 1, 2, 2]);
        assert_eq!(y.as_slice().unwrap(), [14.0, 14.0, 15.0, 15.0]);
        let y = avg_pool2d(&session, &x(), overlapping).unwrap();
        let sums = [46.0, 40.0, 71.0, 70.0].map(|sum: f32| (f64::from(sum) / 9.0) as f32);
        assert_eq!(y.as_slice().unwrap(), sums);
    }

    #[test]
    fn what_does_not_fit_is_refused_by_name() {
        let session = Session::new(Some(1)).unwrap();
        let padded = Pool2d {
            padding: [2, 0],
            ..Pool2d::square(3)
        };
        for pool in [Pool2d::square(5), Pool2d::square(0), padded] {
            let error = max_pool2d(&session, &x(), pool).unwrap_err().to_string();
            assert!(error.contains("`max_pool2d`"), "{error}");
        }
    }
}
