//! LayerNorm for training: a forward pass that keeps each row's mean and scale, and the backward pass.
//!
//! With `x̂ = (x − mean)·r`, `r = 1/√(var + eps)` and `g = dy·gamma`:
//!
//! ```text
//! dx = r·(g − mean(g) − x̂·mean(g·x̂))    dgamma = Σ_t dy·x̂    dbeta = Σ_t dy
//! ```
//!
//! Sums over rows are taken in blocks of a fixed size and added in their order.

use std::cell::RefCell;

use super::rows::{Added, Affine, Plain, normalize};
use crate::Exec;
use crate::buffer::AlignedFloats;
use crate::exec::SharedMut;
use crate::gemm::column_sums;
use crate::simd::reduce::total;
use crate::simd::{Kernel, Simd};

/// About the operations a value takes, for sharing rows among threads.
const WORK: usize = 4;

/// Rows whose parts of `dgamma` and `dbeta` are summed together.
const BLOCK: usize = 32;

/// `y = (x − mean)·r·gamma + beta` over each row of `x[T,N]`, where `mean[T]` and `r[T] = 1/√(var + eps)` are kept for
/// [`layer_norm_backward`]. Errors are those of [`layer_norm_in_place`](crate::layer_norm_in_place).
///
/// # Panics
/// When `x` is no whole number of rows, or another slice does not fit it.
#[allow(clippy::too_many_arguments)]
pub fn layer_norm_keeping(
    exec: &Exec,
    x: &[f32],
    gamma: &[f32],
    beta: &[f32],
    eps: f32,
    y: &mut [f32],
    mean: &mut [f32],
    r: &mut [f32],
) {
    let n = gamma.len();
    check(x, n, beta.len(), mean.len(), r.len());
    assert_eq!(x.len(), y.len(), "room for every value");
    let (y, mean, r) = (SharedMut::new(y), SharedMut::new(mean), SharedMut::new(r));
    exec.for_ranges(x.len() / n, WORK * n, |rows| {
        let values = rows.start * n..rows.end * n;
        // SAFETY: ranges of rows are disjoint.
        let y = unsafe { y.slice(values.clone()) };
        y.copy_from_slice(&x[values]);
        exec.isa().run(Forward {
            y,
            from: None,
            affine: Affine { gamma, beta, eps },
            // SAFETY: as above.
            mean: unsafe { mean.slice(rows.clone()) },
            // SAFETY: as above.
            r: unsafe { r.slice(rows) },
        });
    });
}

/// [`layer_norm_keeping`] of `x + residual`, which replaces `x` (the backward pass needs it).
///
/// # Panics
/// As [`layer_norm_keeping`], and when `residual` is not as long as `x`.
#[allow(clippy::too_many_arguments)]
pub fn add_layer_norm_keeping(
    exec: &Exec,
    x: &mut [f32],
    residual: &[f32],
    gamma: &[f32],
    beta: &[f32],
    eps: f32,
    y: &mut [f32],
    mean: &mut [f32],
    r: &mut [f32],
) {
    let n = gamma.len();
    check(x, n, beta.len(), mean.len(), r.len());
    assert_eq!(x.len(), y.len(), "room for every value");
    assert_eq!(x.len(), residual.len(), "a residual for every value");
    let rows = x.len() / n;
    let x = SharedMut::new(x);
    let (y, mean, r) = (SharedMut::new(y), SharedMut::new(mean), SharedMut::new(r));
    exec.for_ranges(rows, WORK * n, |rows| {
        let values = rows.start * n..rows.end * n;
        exec.isa().run(Forward {
            // SAFETY: ranges of rows are disjoint.
            y: unsafe { y.slice(values.clone()) },
            // SAFETY: as above.
            from: Some((unsafe { x.slice(values.clone()) }, &residual[values])),
            affine: Affine { gamma, beta, eps },
            // SAFETY: as above.
            mean: unsafe { mean.slice(rows.clone()) },
            // SAFETY: as above.
            r: unsafe { r.slice(rows) },
        });
    });
}

fn check(x: &[f32], n: usize, beta: usize, mean: usize, r: usize) {
    assert_eq!(beta, n, "beta is as long as gamma");
    assert!(
        n > 0 && x.len().is_multiple_of(n),
        "whole rows of {n} values"
    );
    assert_eq!(
        (mean, r),
        (x.len() / n, x.len() / n),
        "a value for each row"
    );
}

/// Rows to normalise in place of `y`, which are `x + residual` where there is a `from`.
struct Forward<'a> {
    y: &'a mut [f32],
    from: Option<(&'a mut [f32], &'a [f32])>,
    affine: Affine<'a>,
    mean: &'a mut [f32],
    r: &'a mut [f32],
}

impl Kernel for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        let n = self.affine.gamma.len();
        for (i, row) in self.y.chunks_exact_mut(n).enumerate() {
            let total = match &mut self.from {
                None => total(simd, Plain(row)),
                Some((x, residual)) => {
                    let x = &mut x[i * n..(i + 1) * n];
                    let y = &residual[i * n..(i + 1) * n];
                    let total = total(simd, Added { x: &mut *x, y });
                    row.copy_from_slice(x);
                    total
                }
            };
            (self.mean[i], self.r[i]) = normalize(simd, row, total, self.affine);
        }
    }
}

/// The gradients of [`layer_norm_keeping`]: `dx[T,N]` in place of `dy[T,N]`, `dgamma[N]` and `dbeta[N]`, which are added
/// to when `accumulate`, else overwritten. `x` is what was normalised, with its rows' `mean` and `r`.
///
/// The bits do not depend on the number of threads.
///
/// # Panics
/// When `x` is no whole number of rows, or another slice does not fit it.
#[allow(clippy::too_many_arguments)]
pub fn layer_norm_backward(
    exec: &Exec,
    x: &[f32],
    mean: &[f32],
    r: &[f32],
    gamma: &[f32],
    dy: &mut [f32],
    accumulate: bool,
    dgamma: &mut [f32],
    dbeta: &mut [f32],
) {
    let n = gamma.len();
    check(x, n, dbeta.len(), mean.len(), r.len());
    assert_eq!(x.len(), dy.len(), "a gradient for every value");
    assert_eq!(dgamma.len(), n, "a gradient for each of gamma");
    let rows = x.len() / n;
    let blocks = rows.div_ceil(BLOCK);
    let dy = SharedMut::new(dy);
    PARTS.with_borrow_mut(|parts| {
        // The last row is for the sums of all.
        let parts = parts.at_least((blocks + 1) * 2 * n);
        let (parts, sums) = parts.split_at_mut(blocks * 2 * n);
        let shared = SharedMut::new(parts);
        exec.for_ranges(blocks, BLOCK * WORK * n, |blocks| {
            for block in blocks {
                let rows = block * BLOCK..rows.min((block + 1) * BLOCK);
                let values = rows.start * n..rows.end * n;
                // SAFETY: blocks are disjoint.
                let part = unsafe { shared.slice(block * 2 * n..(block + 1) * 2 * n) };
                let (dgamma, dbeta) = part.split_at_mut(n);
                exec.isa().run(Backward {
                    x: &x[values.clone()],
                    mean: &mean[rows.clone()],
                    r: &r[rows],
                    gamma,
                    // SAFETY: as above.
                    dy: unsafe { dy.slice(values) },
                    dgamma,
                    dbeta,
                });
            }
        });
        column_sums(exec, parts, false, sums);
        for (to, sums) in [dgamma, dbeta].into_iter().zip(sums.chunks_exact(n)) {
            for (to, sum) in to.iter_mut().zip(sums) {
                *to = if accumulate { *to + sum } else { *sum };
            }
        }
    });
}

thread_local! {
    /// The blocks' parts of `dgamma` and `dbeta`, side by side.
    static PARTS: RefCell<AlignedFloats> = RefCell::new(AlignedFloats::zeroed(0));
}

/// A block of rows.
struct Backward<'a> {
    x: &'a [f32],
    mean: &'a [f32],
    r: &'a [f32],
    gamma: &'a [f32],
    dy: &'a mut [f32],
    dgamma: &'a mut [f32],
    dbeta: &'a mut [f32],
}

impl Kernel for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let n = self.gamma.len();
        self.dgamma.fill(0.0);
        self.dbeta.fill(0.0);
        let rows = self.x.chunks_exact(n).zip(self.dy.chunks_exact_mut(n));
        for (i, (x, dy)) in rows.enumerate() {
            let (mean, r) = (simd.splat(self.mean[i]), simd.splat(self.r[i]));
            // One sum each: what else a vector takes is as long as an addition.
            let (mut g_sum, mut products) = (simd.zero(), simd.zero());
            let mut at = 0;
            while at + S::LANES <= n {
                let gradient = simd.load(&dy[at..]);
                let normal = simd.mul(simd.sub(simd.load(&x[at..]), mean), r);
                let (to, beta) = (&mut self.dgamma[at..], &mut self.dbeta[at..]);
                simd.store(to, simd.mul_add(gradient, normal, simd.load(to)));
                simd.store(beta, simd.add(gradient, simd.load(beta)));
                let g = simd.mul(gradient, simd.load(&self.gamma[at..]));
                g_sum = simd.add(g_sum, g);
                products = simd.mul_add(g, normal, products);
                at += S::LANES;
            }
            if at < n {
                let gradient = simd.load_partial(&dy[at..]);
                // A lane beyond the row has dy = 0.
                let normal = simd.mul(simd.sub(simd.load_partial(&x[at..]), mean), r);
                let (to, beta) = (&mut self.dgamma[at..], &mut self.dbeta[at..]);
                let gamma_sum = simd.mul_add(gradient, normal, simd.load_partial(to));
                simd.store_partial(to, gamma_sum);
                let beta_sum = simd.add(gradient, simd.load_partial(beta));
                simd.store_partial(beta, beta_sum);
                let g = simd.mul(gradient, simd.load_partial(&self.gamma[at..]));
                g_sum = simd.add(g_sum, g);
                products = simd.mul_add(g, normal, products);
            }
            let g_mean = simd.splat(simd.sum(g_sum) / n as f32);
            let product = simd.splat(simd.sum(products) / n as f32);
            let mut at = 0;
            while at < n {
                let whole = n - at >= S::LANES;
                let g = simd.mul(load(simd, &dy[at..]), load(simd, &self.gamma[at..]));
                let normal = simd.mul(simd.sub(load(simd, &x[at..]), mean), r);
                let inner = simd.neg_mul_add(normal, product, simd.sub(g, g_mean));
                let dx = simd.mul(r, inner);
                if whole {
                    simd.store(&mut dy[at..], dx);
                } else {
                    simd.store_partial(&mut dy[at..], dx);
                }
                at += S::LANES;
            }
        }
    }
}

/// A vector, or what is left where there is less.
#[inline(always)]
fn load<S: Simd>(simd: S, from: &[f32]) -> S::F32 {
    if from.len() >= S::LANES {
        simd.load(from)
    } else {
        simd.load_partial(from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Isa, layer_norm_in_place, reference};

    fn values(len: usize, seed: usize, mean: f32) -> Vec<f32> {
        let noise = |i: usize| ((i * 7 + seed * 13) as f32 * 12.9898).sin() * 43_758.547;
        (0..len).map(|i| mean + 2.0 * noise(i).fract()).collect()
    }

    #[test]
    fn forward_is_the_layer_norm_with_what_it_was_made_of() {
        for isa in Isa::available() {
            let exec = Exec::with_isa(isa, 3);
            for n in [1, 5, 16, 33, 384] {
                let rows = 101;
                let (x, residual) = (values(rows * n, 1, 1.0), values(rows * n, 2, -1.0));
                let (gamma, beta) = (values(n, 3, 1.0), values(n, 4, 0.0));
                let (mut y, mut mean, mut r) =
                    (vec![0.0; rows * n], vec![0.0; rows], vec![0.0; rows]);
                let mut sums = x.clone();
                add_layer_norm_keeping(
                    &exec, &mut sums, &residual, &gamma, &beta, 1e-5, &mut y, &mut mean, &mut r,
                );
                let added: Vec<f32> = x.iter().zip(&residual).map(|(a, b)| a + b).collect();
                assert_eq!(sums, added);
                let mut expected = added.clone();
                layer_norm_in_place(&exec, &mut expected, &gamma, &beta, 1e-5);
                assert_eq!(y, expected, "n {n} on {isa}");
                for (t, row) in added.chunks_exact(n).enumerate() {
                    let exact = row.iter().map(|&x| f64::from(x)).sum::<f64>() / n as f64;
                    let squares = row.iter().map(|&x| (f64::from(x) - exact).powi(2));
                    let scale = 1.0 / (squares.sum::<f64>() / n as f64 + 1e-5).sqrt();
                    assert!((f64::from(mean[t]) - exact).abs() < 1e-6, "n {n} on {isa}");
                    assert!(
                        (f64::from(r[t]) / scale - 1.0).abs() < 1e-5,
                        "n {n} on {isa}"
                    );
                }
                let (mut y, mut again) = (vec![0.0; rows * n], vec![0.0; rows]);
                layer_norm_keeping(
                    &exec, &added, &gamma, &beta, 1e-5, &mut y, &mut mean, &mut again,
                );
                assert_eq!((y, again), (expected, r), "n {n} on {isa}");
            }
        }
    }

    #[test]
    fn gradients_agree_with_the_reference_for_any_threads() {
        for isa in Isa::available() {
            for (rows, n) in [
                (1, 1),
                (3, 2),
                (40, 7),
                (33, 16),
                (100, 100),
                (65, 384),
                (0, 4),
            ] {
                let (x, dy) = (values(rows * n, 1, 3.0), values(rows * n, 2, 0.1));
                let (gamma, old) = (values(n, 3, 1.0), values(n, 4, 0.0));
                let (mut y, mut mean, mut r) =
                    (vec![0.0; rows * n], vec![0.0; rows], vec![0.0; rows]);
                let run = |threads: usize, mean: &[f32], r: &[f32]| {
                    let (mut dx, mut dgamma, mut dbeta) = (dy.clone(), old.clone(), old.clone());
                    let exec = Exec::with_isa(isa, threads);
                    layer_norm_backward(
                        &exec,
                        &x,
                        mean,
                        r,
                        &gamma,
                        &mut dx,
                        true,
                        &mut dgamma,
                        &mut dbeta,
                    );
                    [dx, dgamma, dbeta]
                };
                let exec = Exec::with_isa(isa, 1);
                layer_norm_keeping(&exec, &x, &gamma, &old, 1e-5, &mut y, &mut mean, &mut r);
                let found = run(1, &mean, &r);
                for threads in [2, 3, 8] {
                    assert!(
                        run(threads, &mean, &r) == found,
                        "{threads} threads, n {n} on {isa}"
                    );
                }
                let mut expected = [dy.clone(), old.clone(), old.clone()];
                let [dx, dgamma, dbeta] = &mut expected;
                reference::layer_norm_backward(&x, &gamma, 1e-5, dx, dgamma, dbeta);
                for (found, expected) in found.iter().zip(&expected) {
                    let size = expected.iter().fold(1.0f32, |most, x| most.max(x.abs()));
                    for (a, b) in found.iter().zip(expected) {
                        assert!((a - b).abs() <= 2e-5 * size, "n {n} on {isa}: {a} for {b}");
                    }
                }
            }
        }
    }

    #[test]
    fn the_reference_is_what_differences_tell() {
        let (rows, n, eps) = (3, 5, 1e-5f32);
        let wide = |v: Vec<f32>| v.into_iter().map(f64::from).collect::<Vec<f64>>();
        let (x, gamma, beta) = (
            wide(values(15, 1, 0.5)),
            wide(values(5, 2, 1.0)),
            wide(values(5, 3, 0.0)),
        );
        let dy = wide(values(rows * n, 4, 0.0));
        let loss = |x: &[f64], gamma: &[f64], beta: &[f64]| -> f64 {
            let mut y = x.to_vec();
            reference::layer_norm(&mut y, gamma, beta, eps);
            y.iter().zip(&dy).map(|(y, dy)| y * dy).sum()
        };
        let (mut dx, mut dgamma, mut dbeta) = (dy.clone(), vec![0.0; n], vec![0.0; n]);
        reference::layer_norm_backward(&x, &gamma, eps, &mut dx, &mut dgamma, &mut dbeta);
        let h = 1e-6;
        let difference = |i: usize, which: usize| {
            let at = |h: f64| {
                let mut operands = [x.clone(), gamma.clone(), beta.clone()];
                operands[which][i] += h;
                loss(&operands[0], &operands[1], &operands[2])
            };
            (at(h) - at(-h)) / (2.0 * h)
        };
        for (which, gradient) in [dx, dgamma, dbeta].iter().enumerate() {
            for (i, found) in gradient.iter().enumerate() {
                let expected = difference(i, which);
                assert!(
                    (found - expected).abs() < 1e-6,
                    "{which}, {i}: {found}, {expected}"
                );
            }
        }
    }
}
