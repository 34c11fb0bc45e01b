//! Gated linear units (Shazeer 2020, <https://arxiv.org/abs/2002.05202>): half of a row, activated, times the other half.

use super::Activation;
use super::backward::{
    GeluErfSlope, GeluTanhSlope, IdentitySlope, ReluSlope, SigmoidSlope, SiluSlope, TanhSlope,
};
use super::forward::{GeluErf, GeluTanh, Identity, Relu, Sigmoid, Silu, Tanh};
use crate::Exec;
use crate::exec::SharedMut;
use crate::simd::unary::Unary;
use crate::simd::{Kernel, Simd};

/// Calls a macro with the function and the slope of an activation.
macro_rules! with_function {
    ($activation:expr, $call:ident) => {
        match $activation {
            Activation::None => $call!(Identity, IdentitySlope),
            Activation::GeluErf => $call!(GeluErf, GeluErfSlope),
            Activation::GeluTanh => $call!(GeluTanh, GeluTanhSlope),
            Activation::Relu => $call!(Relu, ReluSlope),
            Activation::Silu => $call!(Silu, SiluSlope),
            Activation::Tanh => $call!(Tanh, TanhSlope),
            Activation::Sigmoid => $call!(Sigmoid, SigmoidSlope),
        }
    };
}

/// `y[T,I] = act(a)·b` of rows `[a|b]` of `x[T, 2·I]`.
///
/// # Panics
/// When `x` has not twice the values of `y`, or `width` (I) does not divide them.
pub fn gate(exec: &Exec, activation: Activation, x: &[f32], width: usize, y: &mut [f32]) {
    check(x, width, y);
    if y.is_empty() {
        return;
    }
    exec.for_rows(y, width, width.div_ceil(2), |rows, y| {
        let x = &x[rows.start * 2 * width..rows.end * 2 * width];
        for (x, y) in x.chunks_exact(2 * width).zip(y.chunks_exact_mut(width)) {
            macro_rules! run {
                ($function:expr, $slope:expr) => {
                    exec.isa().run(Forward($function, x, y))
                };
            }
            with_function!(activation, run);
        }
    });
}

/// The gradient of [`gate`]: `dx[T, 2·I]` holds `dy·act′(a)·b` and `dy·act(a)`.
///
/// # Panics
/// As [`gate`], and when `dx` is not as long as `x`.
pub fn gate_backward(
    exec: &Exec,
    activation: Activation,
    x: &[f32],
    width: usize,
    dy: &[f32],
    dx: &mut [f32],
) {
    check(x, width, dy);
    assert_eq!(x.len(), dx.len(), "a gradient for every value");
    if dy.is_empty() {
        return;
    }
    let shared = SharedMut::new(dx);
    exec.for_ranges(dy.len() / width, width, |rows| {
        for row in rows {
            let x = &x[row * 2 * width..][..2 * width];
            let dy = &dy[row * width..][..width];
            // SAFETY: each row is in one range.
            let dx = unsafe { shared.slice(row * 2 * width..(row + 1) * 2 * width) };
            macro_rules! run {
                ($function:expr, $slope:expr) => {
                    exec.isa().run(Backward($function, $slope, x, dy, dx))
                };
            }
            with_function!(activation, run);
        }
    });
}

fn check(x: &[f32], width: usize, y: &[f32]) {
    assert!(
        x.len() == 2 * y.len() && (y.is_empty() || width > 0 && y.len().is_multiple_of(width)),
        "rows of twice {width} values"
    );
}

/// `f(a)·b` of a row.
struct Forward<'a, F>(F, &'a [f32], &'a mut [f32]);

impl<F: Unary> Kernel for Forward<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self(function, x, y) = self;
        let (a, b) = x.split_at(y.len());
        let b = &b[..a.len()];
        let mut at = 0;
        while at + S::LANES <= y.len() {
            let v = function.of(simd, simd.load(&a[at..]));
            simd.store(&mut y[at..], simd.mul(v, simd.load(&b[at..])));
            at += S::LANES;
        }
        if at < y.len() {
            let v = function.of(simd, simd.load_partial(&a[at..]));
            simd.store_partial(&mut y[at..], simd.mul(v, simd.load_partial(&b[at..])));
        }
    }
}

/// `dy·f′(a)·b` and `dy·f(a)` of a row.
struct Backward<'a, F, G>(F, G, &'a [f32], &'a [f32], &'a mut [f32]);

impl<F: Unary, G: Unary> Kernel for Backward<'_, F, G> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self(function, slope, x, dy, dx) = self;
        let n = dy.len();
        let (a, b) = x.split_at(n);
        let (da, db) = dx.split_at_mut(n);
        let mut at = 0;
        while at + S::LANES <= n {
            let (va, vy) = (simd.load(&a[at..]), simd.load(&dy[at..]));
            let through = simd.mul(vy, simd.load(&b[at..]));
            simd.store(&mut da[at..], simd.mul(slope.of(simd, va), through));
            simd.store(&mut db[at..], simd.mul(function.of(simd, va), vy));
            at += S::LANES;
        }
        if at < n {
            let (va, vy) = (simd.load_partial(&a[at..]), simd.load_partial(&dy[at..]));
            let through = simd.mul(vy, simd.load_partial(&b[at..]));
            simd.store_partial(&mut da[at..], simd.mul(slope.of(simd, va), through));
            simd.store_partial(&mut db[at..], simd.mul(function.of(simd, va), vy));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Isa, reference};

    #[test]
    fn agrees_with_the_reference_on_any_threads() {
        for width in [1, 7, 8, 23, 40] {
            for rows in [0, 1, 5, 301] {
                let x: Vec<f32> = (0..rows * 2 * width)
                    .map(|i| (i as f32 * 0.37).sin() * 4.0)
                    .collect();
                let dy: Vec<f32> = (0..rows * width).map(|i| (i as f32 * 0.11).cos()).collect();
                for activation in Activation::ALL {
                    let mut expected = (vec![0.0; dy.len()], vec![0.0; x.len()]);
                    reference::gate(activation, &x, width, &mut expected.0);
                    reference::gate_backward(activation, &x, width, &dy, &mut expected.1);
                    for isa in Isa::available() {
                        let run = |threads| {
                            let exec = Exec::with_isa(isa, threads);
                            let (mut y, mut dx) = (vec![0.0; dy.len()], vec![0.0; x.len()]);
                            gate(&exec, activation, &x, width, &mut y);
                            gate_backward(&exec, activation, &x, width, &dy, &mut dx);
                            (y, dx)
                        };
                        let found = run(1);
                        assert!(run(3) == found, "{activation:?} on {isa}");
                        let pairs = |a: &[f32], b: &[f32]| {
                            a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 1e-5)
                        };
                        assert!(
                            pairs(&found.0, &expected.0) && pairs(&found.1, &expected.1),
                            "{activation:?}, {rows} rows of {width} on {isa}"
                        );
                    }
                }
            }
        }
    }
}
