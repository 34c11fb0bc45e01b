//! LayerNorm over the SIMD trait.

use super::rows::{Added, Affine, Plain, normalize};
use crate::Exec;
use crate::simd::reduce::total;
use crate::simd::{Kernel, Simd};

/// About the operations a value takes, for sharing rows among threads.
const WORK: usize = 2;

/// `(x − mean)/√(var + eps)·gamma + beta` over each row of `x[T,N]`, in place; `gamma` and `beta` have
/// `N` values, the variance is the biased one.
///
/// With `y` the exact result, the error is at most `2⁻²¹·|y − beta| + 2⁻²³·(|y| + |gamma|)` for `N` up to
/// 1024, also where the mean is far larger than the deviations. Deviations must be below 2⁶³, or their
/// squares overflow.
///
/// # Panics
/// When `x` is no whole number of rows, or `beta` is not as long as `gamma`.
pub fn layer_norm_in_place(exec: &Exec, x: &mut [f32], gamma: &[f32], beta: &[f32], eps: f32) {
    check(x, gamma, beta);
    let n = gamma.len();
    exec.for_rows(x, n, WORK * n, |_, rows| {
        exec.isa().run(Rows {
            rows,
            residual: None,
            affine: Affine { gamma, beta, eps },
        });
    });
}

/// `LayerNorm(x + residual)` over each row of `x[T,N]` and `residual[T,N]`, in place of `x`.
///
/// # Panics
/// As [`layer_norm_in_place`], and when `residual` is not as long as `x`.
pub fn add_layer_norm(
    exec: &Exec,
    x: &mut [f32],
    residual: &[f32],
    gamma: &[f32],
    beta: &[f32],
    eps: f32,
) {
    assert_eq!(x.len(), residual.len(), "a residual for every value");
    check(x, gamma, beta);
    let n = gamma.len();
    exec.for_rows(x, n, WORK * n, |range, rows| {
        exec.isa().run(Rows {
            rows,
            residual: Some(&residual[range.start * n..range.end * n]),
            affine: Affine { gamma, beta, eps },
        });
    });
}

fn check(x: &[f32], gamma: &[f32], beta: &[f32]) {
    let n = gamma.len();
    assert_eq!(beta.len(), n, "beta is as long as gamma");
    assert!(
        n > 0 && x.len().is_multiple_of(n),
        "whole rows of {n} values"
    );
}

/// Rows to normalise, in place.
struct Rows<'a> {
    rows: &'a mut [f32],
    residual: Option<&'a [f32]>,
    affine: Affine<'a>,
}

impl Kernel for Rows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let n = self.affine.gamma.len();
        match self.residual {
            None => {
                for row in self.rows.chunks_exact_mut(n) {
                    let total = total(simd, Plain(row));
                    normalize(simd, row, total, self.affine);
                }
            }
            Some(residual) => {
                let rows = self.rows.chunks_exact_mut(n);
                for (x, y) in rows.zip(residual.chunks_exact(n)) {
                    let total = total(simd, Added { x, y });
                    normalize(simd, x, total, self.affine);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Isa, reference};

    /// Pseudo-random values about `mean`.
    fn values(len: usize, seed: usize, mean: f32, spread: f32) -> Vec<f32> {
        let noise = |i: usize| ((i * 7 + seed * 13) as f32 * 12.9898).sin() * 43_758.547;
        (0..len)
            .map(|i| mean + spread * (noise(i).fract() + 0.1 * noise(i + 3).fract()))
            .collect()
    }

    /// The reference, but unrounded, beside what it is made of: `y`, for each value.
    fn exact(x: &[f32], gamma: &[f32], beta: &[f32], eps: f32) -> Vec<f64> {
        let n = gamma.len() as f64;
        let mut y = Vec::new();
        for row in x.chunks_exact(gamma.len()) {
            let mean = row.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
            let squares = row.iter().map(|&x| (f64::from(x) - mean).powi(2));
            let scale = 1.0 / (squares.sum::<f64>() / n + f64::from(eps)).sqrt();
            y.extend(
                row.iter().zip(gamma).zip(beta).map(|((&x, &g), &b)| {
                    (f64::from(x) - mean) * scale * f64::from(g) + f64::from(b)
                }),
            );
        }
        y
    }

    #[test]
    fn errors_keep_the_stated_bound() {
        for isa in Isa::available() {
            let exec = Exec::with_isa(isa, 2);
            for n in [
                1, 2, 7, 8, 9, 15, 16, 17, 31, 64, 65, 100, 384, 768, 769, 1024,
            ] {
                for (mean, spread) in [(0.0, 1.0), (1e4, 1.0), (-3e6, 2.0), (0.1, 1e-5), (5.0, 1e9)]
                {
                    let x = values(5 * n, n, mean, spread);
                    let (gamma, beta) = (values(n, 1, 1.0, 0.5), values(n, 2, 0.0, 0.5));
                    let eps = 1e-12;
                    let mut found = x.clone();
                    layer_norm_in_place(&exec, &mut found, &gamma, &beta, eps);
                    let expected = exact(&x, &gamma, &beta, eps);
                    for (i, (&found, y)) in found.iter().zip(expected).enumerate() {
                        let (gamma, beta) = (f64::from(gamma[i % n]), f64::from(beta[i % n]));
                        let bound = 2f64.powi(-21) * (y - beta).abs()
                            + 2f64.powi(-23) * (y.abs() + gamma.abs());
                        let error = (f64::from(found) - y).abs();
                        assert!(
                            error <= bound,
                            "n {n}, mean {mean} on {isa}: {found} for {y}, {error:e} > {bound:e}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn a_residual_is_added_first() {
        for isa in Isa::available() {
            let exec = Exec::with_isa(isa, 3);
            for n in [1, 5, 16, 33, 384] {
                let (x, residual) = (values(7 * n, 1, 1.0, 2.0), values(7 * n, 2, -3.0, 1.0));
                let (gamma, beta) = (values(n, 3, 1.0, 0.5), values(n, 4, 0.0, 0.5));
                let mut expected: Vec<f32> = x.iter().zip(&residual).map(|(x, r)| x + r).collect();
                layer_norm_in_place(&exec, &mut expected, &gamma, &beta, 1e-5);
                let mut found = x.clone();
                add_layer_norm(&exec, &mut found, &residual, &gamma, &beta, 1e-5);
                assert_eq!(found, expected, "n {n} on {isa}");
            }
        }
    }

    #[test]
    fn the_same_bits_for_any_threads_and_any_company() {
        let n = 100;
        let (x, residual) = (values(2000 * n, 1, 1.0, 2.0), values(2000 * n, 2, 0.0, 1.0));
        let (gamma, beta) = (values(n, 3, 1.0, 0.5), values(n, 4, 0.0, 0.5));
        for isa in Isa::available() {
            let normed = |threads, rows: std::ops::Range<usize>| {
                let values = rows.start * n..rows.end * n;
                let mut x = x[values.clone()].to_vec();
                let exec = Exec::with_isa(isa, threads);
                add_layer_norm(&exec, &mut x, &residual[values], &gamma, &beta, 1e-5);
                x
            };
            let all = normed(1, 0..2000);
            assert!(normed(3, 0..2000) == all, "{isa}");
            assert!(normed(1, 1001..1002) == all[1001 * n..1002 * n], "{isa}");
        }
    }

    #[test]
    fn constant_rows_and_rows_with_nan() {
        for isa in Isa::available() {
            let exec = Exec::with_isa(isa, 1);
            for n in [1, 3, 16, 50] {
                let (gamma, beta) = (vec![2.0; n], vec![0.25; n]);
                let mut x = vec![1e7 / 3.0; n];
                layer_norm_in_place(&exec, &mut x, &gamma, &beta, 1e-12);
                assert_eq!(x, beta, "{isa}");
                let mut x = [vec![f32::NAN; n], vec![0.0; n]].concat();
                x[n..][n / 2] = 1.0;
                let mut expected = x.clone();
                reference::layer_norm(&mut expected, &gamma, &beta, 1e-5);
                layer_norm_in_place(&exec, &mut x, &gamma, &beta, 1e-5);
                assert!(x[..n].iter().all(|x| x.is_nan()), "{isa}");
                assert!(
                    x[n..]
                        .iter()
                        .zip(&expected[n..])
                        .all(|(a, b)| (a - b).abs() < 1e-5)
                );
            }
        }
    }

    #[test]
    #[should_panic(expected = "whole rows")]
    fn partial_rows_are_refused() {
        let exec = Exec::with_isa(Isa::portable(), 1);
        layer_norm_in_place(&exec, &mut [1.0; 7], &[1.0; 3], &[0.0; 3], 1e-5);
    }

    #[test]
    #[should_panic(expected = "beta is as long")]
    fn a_short_beta_is_refused() {
        let exec = Exec::with_isa(Isa::portable(), 1);
        layer_norm_in_place(&exec, &mut [1.0; 6], &[1.0; 3], &[0.0; 2], 1e-5);
    }

    #[test]
    #[should_panic(expected = "a residual for every value")]
    fn a_short_residual_is_refused() {
        let exec = Exec::with_isa(Isa::portable(), 1);
        add_layer_norm(&exec, &mut [1.0; 6], &[1.0; 5], &[1.0; 3], &[0.0; 3], 1e-5);
    }
}
