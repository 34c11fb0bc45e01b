//! Log-softmax, and the gradients of softmax and log-softmax, over the SIMD trait.

use super::forward::max;
use crate::Exec;
use crate::exec::SharedMut;
use crate::simd::math::exp;
use crate::simd::reduce::{Terms, total};
use crate::simd::{Kernel, Simd};

/// About the operations a value takes, for sharing rows among threads.
const WORK: usize = 4;

/// `x − ln Σ eˣ` over each row of `n` values, in place.
///
/// # Panics
/// When `values` is no whole number of rows.
pub fn log_softmax(exec: &Exec, values: &mut [f32], n: usize) {
    check(values.len(), n);
    exec.for_rows(values, n, 2 * WORK * n, |_, rows| {
        exec.isa().run(LogRows { rows, n });
    });
}

/// `dx = y·(dy − Σ dy·y)` over each row of `n` values, in place of `dy`, for `y` that [`softmax`](crate::softmax()) gave.
///
/// # Panics
/// When `y` is no whole number of rows, or `dy` has another length.
pub fn softmax_backward(exec: &Exec, y: &[f32], dy: &mut [f32], n: usize) {
    backward(exec, y, dy, n, false);
}

/// `dx = dy − eʸ·Σ dy` over each row of `n` values, in place of `dy`, for `y` that [`log_softmax`] gave.
///
/// # Panics
/// When `y` is no whole number of rows, or `dy` has another length.
pub fn log_softmax_backward(exec: &Exec, y: &[f32], dy: &mut [f32], n: usize) {
    backward(exec, y, dy, n, true);
}

fn check(len: usize, n: usize) {
    assert!(n > 0 && len.is_multiple_of(n), "whole rows of {n} values");
}

fn backward(exec: &Exec, y: &[f32], dy: &mut [f32], n: usize, log: bool) {
    check(y.len(), n);
    assert_eq!(y.len(), dy.len(), "a gradient for every value");
    let shared = SharedMut::new(dy);
    exec.for_ranges(y.len() / n, WORK * n, |rows| {
        let values = rows.start * n..rows.end * n;
        exec.isa().run(Backward {
            y: &y[values.clone()],
            // SAFETY: ranges are disjoint.
            dy: unsafe { shared.slice(values) },
            n,
            log,
        });
    });
}

struct LogRows<'a> {
    rows: &'a mut [f32],
    n: usize,
}

impl Kernel for LogRows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        for row in self.rows.chunks_exact_mut(self.n) {
            let max = max(simd, row);
            let sum = total(simd, Exponentials { row, max });
            let log = sum.ln();
            for x in row {
                *x = (*x - max) - log;
            }
        }
    }
}

/// `e^(x − max)`, and x is left as it is.
struct Exponentials<'a> {
    row: &'a [f32],
    max: f32,
}

impl Terms for Exponentials<'_> {
    #[inline(always)]
    fn len(&self) -> usize {
        self.row.len()
    }

    #[inline(always)]
    fn vector<S: Simd>(&mut self, simd: S, at: usize) -> S::F32 {
        exp(
            simd,
            simd.sub(simd.load(&self.row[at..]), simd.splat(self.max)),
        )
    }

    #[inline(always)]
    fn partial<S: Simd>(&mut self, simd: S, at: usize) -> S::F32 {
        let least = simd.splat(f32::NEG_INFINITY);
        let x = simd.load_partial_or(&self.row[at..], least);
        exp(simd, simd.sub(x, simd.splat(self.max)))
    }
}

struct Backward<'a> {
    y: &'a [f32],
    dy: &'a mut [f32],
    n: usize,
    log: bool,
}

impl Kernel for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let rows = self
            .y
            .chunks_exact(self.n)
            .zip(self.dy.chunks_exact_mut(self.n));
        for (y, dy) in rows {
            let Self { n, log, .. } = self;
            let sum = simd.splat(total(simd, Weighted { y, dy, log }));
            let mut at = 0;
            while at < n {
                let (y, to) = (&y[at..], &mut dy[at..]);
                let whole = y.len() >= S::LANES;
                let (y, d) = if whole {
                    (simd.load(y), simd.load(to))
                } else {
                    (simd.load_partial(y), simd.load_partial(to))
                };
                let dx = if log {
                    simd.neg_mul_add(exp(simd, y), sum, d)
                } else {
                    simd.mul(y, simd.sub(d, sum))
                };
                if whole {
                    simd.store(to, dx);
                } else {
                    simd.store_partial(to, dx);
                }
                at += S::LANES;
            }
        }
    }
}

/// `dy·y`, or for a logarithm `dy`.
struct Weighted<'a> {
    y: &'a [f32],
    dy: &'a [f32],
    log: bool,
}

impl Terms for Weighted<'_> {
    #[inline(always)]
    fn len(&self) -> usize {
        self.y.len()
    }

    #[inline(always)]
    fn vector<S: Simd>(&mut self, simd: S, at: usize) -> S::F32 {
        let dy = simd.load(&self.dy[at..]);
        if self.log {
            dy
        } else {
            simd.mul(dy, simd.load(&self.y[at..]))
        }
    }

    #[inline(always)]
    fn partial<S: Simd>(&mut self, simd: S, at: usize) -> S::F32 {
        let dy = simd.load_partial(&self.dy[at..]);
        if self.log {
            dy
        } else {
            simd.mul(dy, simd.load_partial(&self.y[at..]))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Isa, reference};

    fn values(len: usize, seed: usize, range: f32) -> Vec<f32> {
        let noise = |i: usize| ((i * 7 + seed * 13) as f32 * 12.9898).sin() * 43_758.547;
        (0..len).map(|i| range * noise(i).fract()).collect()
    }

    #[test]
    fn they_agree_with_the_reference_for_any_threads() {
        for n in [1, 5, 16, 33, 500] {
            let rows = 60;
            let (x, dy) = (values(rows * n, 1, 10.0), values(rows * n, 2, 1.0));
            let (mut y, mut log) = (x.clone(), x.clone());
            reference::softmax(&mut y, n);
            reference::log_softmax(&mut log, n);
            let mut expected = [log.clone(), dy.clone(), dy.clone()];
            reference::softmax_backward(&y, &mut expected[1], n);
            reference::log_softmax_backward(&log, &mut expected[2], n);
            for isa in Isa::available() {
                let run = |threads| {
                    let exec = Exec::with_isa(isa, threads);
                    let mut found = [x.clone(), dy.clone(), dy.clone()];
                    log_softmax(&exec, &mut found[0], n);
                    softmax_backward(&exec, &y, &mut found[1], n);
                    log_softmax_backward(&exec, &log, &mut found[2], n);
                    found
                };
                let found = run(1);
                for threads in [2, 3, 8] {
                    assert!(run(threads) == found, "n {n} on {isa}, {threads} threads");
                }
                for (found, expected) in found.iter().zip(&expected) {
                    for (a, b) in found.iter().zip(expected) {
                        assert!(
                            (a - b).abs() <= 4e-6 * b.abs().max(1.0),
                            "n {n} on {isa}: {a} for {b}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn the_reference_is_what_differences_tell() {
        let (n, rows) = (4, 2);
        let wide = |v: Vec<f32>| v.into_iter().map(f64::from).collect::<Vec<f64>>();
        let (x, dy) = (
            wide(values(n * rows, 1, 2.0)),
            wide(values(n * rows, 2, 1.0)),
        );
        for log in [false, true] {
            let forward = |x: &[f64]| {
                let mut y = x.to_vec();
                if log {
                    reference::log_softmax(&mut y, n)
                } else {
                    reference::softmax(&mut y, n)
                }
                y
            };
            let mut dx = dy.clone();
            let y = forward(&x);
            if log {
                reference::log_softmax_backward(&y, &mut dx, n);
            } else {
                reference::softmax_backward(&y, &mut dx, n);
            }
            for (i, found) in dx.iter().enumerate() {
                let at = |h: f64| {
                    let mut x = x.clone();
                    x[i] += h;
                    forward(&x)
                        .iter()
                        .zip(&dy)
                        .map(|(y, dy)| y * dy)
                        .sum::<f64>()
                };
                let expected = (at(1e-6) - at(-1e-6)) / 2e-6;
                assert!((found - expected).abs() < 1e-7, "{i}: {found}, {expected}");
            }
        }
    }
}
