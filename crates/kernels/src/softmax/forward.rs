//! Softmax over the SIMD trait.

use crate::Exec;
use crate::simd::math::exp_nonpositive;
use crate::simd::reduce::{Terms, total};
use crate::simd::{Kernel, Simd};

/// About the operations a value takes, for sharing rows among threads.
const WORK: usize = 4;

/// `e^(x−max)/Σ e^(x−max)` over each row of `n` values, in place.
///
/// −∞ gives 0; a row of nothing else, or one with NaN or +∞, gives NaN throughout, as in PyTorch. With
/// `d = max − x` the relative error is at most `(4 + d/2)·2⁻²³ + e`, where `e` is that of the sum, `(n/32 + 8)·2⁻²⁴`
/// at the very worst.
///
/// # Panics
/// When `values` is no whole number of rows.
pub fn softmax(exec: &Exec, values: &mut [f32], n: usize) {
    assert!(
        n > 0 && values.len().is_multiple_of(n),
        "whole rows of {n} values"
    );
    exec.for_rows(values, n, WORK * n, |_, rows| {
        exec.isa().run(Rows { rows, n });
    });
}

/// Rows of `n` values.
struct Rows<'a> {
    rows: &'a mut [f32],
    n: usize,
}

impl Kernel for Rows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        for row in self.rows.chunks_exact_mut(self.n) {
            let max = max(simd, row);
            let sum = total(simd, Powers { row, max });
            scale(simd, row, 1.0 / sum);
        }
    }
}

/// The largest value; any value where one is NaN, for then all powers' sum is NaN.
#[inline(always)]
pub(crate) fn max<S: Simd>(simd: S, row: &[f32]) -> f32 {
    let least = simd.splat(f32::NEG_INFINITY);
    let mut tops = [least; 4];
    let (len, mut at) = (row.len(), 0);
    while len - at >= 4 * S::LANES {
        let four = &row[at..][..4 * S::LANES];
        let mut i = 0;
        while i < 4 {
            tops[i] = simd.max(tops[i], simd.load(&four[i * S::LANES..]));
            i += 1;
        }
        at += 4 * S::LANES;
    }
    while at < len {
        let rest = &row[at..];
        let x = if rest.len() >= S::LANES {
            simd.load(rest)
        } else {
            simd.load_partial_or(rest, least)
        };
        tops[0] = simd.max(tops[0], x);
        at += S::LANES;
    }
    let [a, b, c, d] = tops;
    simd.largest(simd.max(simd.max(a, b), simd.max(c, d)))
}

/// `e^(x − max)`, which replaces x.
pub(crate) struct Powers<'a> {
    pub(crate) row: &'a mut [f32],
    pub(crate) max: f32,
}

impl Terms for Powers<'_> {
    #[inline(always)]
    fn len(&self) -> usize {
        self.row.len()
    }

    #[inline(always)]
    fn vector<S: Simd>(&mut self, simd: S, at: usize) -> S::F32 {
        let to = &mut self.row[at..];
        let power = exp_nonpositive(simd, simd.sub(simd.load(to), simd.splat(self.max)));
        simd.store(to, power);
        power
    }

    #[inline(always)]
    fn partial<S: Simd>(&mut self, simd: S, at: usize) -> S::F32 {
        let to = &mut self.row[at..];
        let x = simd.load_partial_or(to, simd.splat(f32::NEG_INFINITY));
        let power = exp_nonpositive(simd, simd.sub(x, simd.splat(self.max)));
        simd.store_partial(to, power);
        power
    }
}

/// `x·factor`, in place.
#[inline(always)]
fn scale<S: Simd>(simd: S, row: &mut [f32], factor: f32) {
    let factor = simd.splat(factor);
    let mut chunks = row.chunks_exact_mut(S::LANES);
    for chunk in &mut chunks {
        let x = simd.load(chunk);
        simd.store(chunk, simd.mul(x, factor));
    }
    let rest = chunks.into_remainder();
    if !rest.is_empty() {
        let x = simd.load_partial(rest);
        simd.store_partial(rest, simd.mul(x, factor));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Isa, reference};

    const LENGTHS: [usize; 14] = [1, 2, 7, 8, 9, 15, 16, 17, 33, 63, 64, 65, 500, 3001];

    fn scores(len: usize, spread: f32) -> Vec<f32> {
        let noise = |i: usize| ((i * 7 + len) as f32 * 12.9898).sin() * 43_758.547;
        (0..len).map(|i| spread * noise(i).fract()).collect()
    }

    fn softmaxed(isa: Isa, threads: usize, values: &[f32], n: usize) -> Vec<f32> {
        let mut values = values.to_vec();
        softmax(&Exec::with_isa(isa, threads), &mut values, n);
        values
    }

    #[test]
    fn errors_keep_the_stated_bound() {
        for isa in Isa::available() {
            for n in LENGTHS {
                for spread in [0.0, 1.0, 20.0, 60.0, 3e4] {
                    let x = scores(3 * n, spread);
                    let found = softmaxed(isa, 2, &x, n);
                    for (x, found) in x.chunks(n).zip(found.chunks(n)) {
                        let max = f64::from(x.iter().fold(f32::MIN, |a, &b| a.max(b)));
                        let sum: f64 = x.iter().map(|&x| (f64::from(x) - max).exp()).sum();
                        for (&x, &found) in x.iter().zip(found) {
                            let d = max - f64::from(x);
                            let exact = (-d).exp() / sum;
                            let sum_error = (n as f64 / 32.0 + 8.0) * 2f64.powi(-24);
                            // Beside the relative error one unit of what is subnormal, for each rounding.
                            let bound = ((4.0 + d / 2.0) * 2f64.powi(-23) + sum_error) * exact
                                + 2.0 * f64::from(f32::from_bits(1));
                            let error = (f64::from(found) - exact).abs();
                            assert!(error <= bound, "n {n} on {isa}: {found:e} for {exact:e}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn infinities_and_nan_give_what_pytorch_gives() {
        let (inf, nan) = (f32::INFINITY, f32::NAN);
        for isa in Isa::available() {
            for n in LENGTHS {
                let row = |value: f32, place: usize| {
                    let mut row = scores(n, 3.0);
                    row[place] = value;
                    softmaxed(isa, 1, &row, n)
                };
                for place in [0, n / 2, n - 1] {
                    for value in [inf, nan] {
                        let found = row(value, place);
                        assert!(found.iter().all(|p| p.is_nan()), "{value}, n {n} on {isa}");
                    }
                    if n > 1 {
                        let found = row(-inf, place);
                        assert_eq!(found[place].to_bits(), 0, "n {n} on {isa}");
                        let sum: f64 = found.iter().map(|&p| f64::from(p)).sum();
                        assert!((sum - 1.0).abs() < 1e-5, "n {n} on {isa}: {sum}");
                    }
                }
                let found = softmaxed(isa, 1, &vec![-inf; n], n);
                assert!(found.iter().all(|p| p.is_nan()), "n {n} on {isa}");
                let found = softmaxed(isa, 1, &vec![f32::MIN; n], n);
                let mut expected = vec![f32::MIN; n];
                reference::softmax(&mut expected, n);
                let close = |(a, b): (&f32, &f32)| (a - b).abs() <= 2e-6 * b;
                assert!(found.iter().zip(&expected).all(close), "n {n} on {isa}");
            }
        }
    }

    #[test]
    fn the_same_bits_for_any_threads_and_any_company() {
        let n = 100;
        let x = scores(2000 * n, 10.0);
        for isa in Isa::available() {
            let all = softmaxed(isa, 1, &x, n);
            assert!(softmaxed(isa, 3, &x, n) == all, "{isa}");
            let one = softmaxed(isa, 1, &x[700 * n..701 * n], n);
            assert!(one == all[700 * n..701 * n], "{isa}");
        }
    }

    #[test]
    #[should_panic(expected = "whole rows")]
    fn partial_rows_are_refused() {
        softmax(&Exec::with_isa(Isa::portable(), 1), &mut [1.0; 7], 3);
    }

    #[test]
    #[should_panic(expected = "whole rows")]
    fn rows_of_nothing_are_refused() {
        softmax(&Exec::with_isa(Isa::portable(), 1), &mut [], 0);
    }
}
