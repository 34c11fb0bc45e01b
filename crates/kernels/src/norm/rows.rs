//! The passes of LayerNorm over a row, which the embedding layer shares.
//!
//! Corrected two-pass sums (Chan, Golub & LeVeque 1983, "Algorithms for computing the sample variance"):
//! after a first mean `m` the second pass sums both `x − m` and its square, and what the first sum says
//! the mean lacked is made good. So a mean far larger than the deviations costs no accuracy.

use crate::simd::Simd;
use crate::simd::reduce::{Terms, sum};

/// Values as they are.
pub(crate) struct Plain<'a>(pub(crate) &'a [f32]);

impl Terms for Plain<'_> {
    #[inline(always)]
    fn len(&self) -> usize {
        self.0.len()
    }

    #[inline(always)]
    fn vector<S: Simd>(&mut self, simd: S, at: usize) -> S::F32 {
        simd.load(&self.0[at..])
    }

    #[inline(always)]
    fn partial<S: Simd>(&mut self, simd: S, at: usize) -> S::F32 {
        simd.load_partial(&self.0[at..])
    }
}

/// `x + y`, which replaces x.
pub(crate) struct Added<'a> {
    pub(crate) x: &'a mut [f32],
    pub(crate) y: &'a [f32],
}

impl Terms for Added<'_> {
    #[inline(always)]
    fn len(&self) -> usize {
        self.x.len()
    }

    #[inline(always)]
    fn vector<S: Simd>(&mut self, simd: S, at: usize) -> S::F32 {
        let x = &mut self.x[at..];
        let v = simd.add(simd.load(x), simd.load(&self.y[at..]));
        simd.store(x, v);
        v
    }

    #[inline(always)]
    fn partial<S: Simd>(&mut self, simd: S, at: usize) -> S::F32 {
        let x = &mut self.x[at..];
        let v = simd.add(simd.load_partial(x), simd.load_partial(&self.y[at..]));
        simd.store_partial(x, v);
        v
    }
}

/// What a row's normalisation needs beside the row, `gamma` and `beta` as long as it.
#[derive(Clone, Copy)]
pub(crate) struct Affine<'a> {
    pub(crate) gamma: &'a [f32],
    pub(crate) beta: &'a [f32],
    pub(crate) eps: f32,
}

/// Normalises a row whose values sum to about `total`; gives its mean and what deviations were multiplied by.
#[inline(always)]
pub(crate) fn normalize<S: Simd>(
    simd: S,
    row: &mut [f32],
    total: f32,
    affine: Affine<'_>,
) -> (f32, f32) {
    let n = row.len() as f64;
    let mean = (f64::from(total) / n) as f32;
    let (deviation, squares) = deviations(simd, row, mean);
    // What the mean lacks, and the variance about the corrected mean.
    let lacking = f64::from(deviation) / n;
    let variance = f64::from(squares) / n - lacking * lacking;
    // Rounding may leave a constant row a variance below 0; NaN stays.
    let variance = if variance < 0.0 { 0.0 } else { variance };
    let scale = 1.0 / (variance + f64::from(affine.eps)).sqrt();
    let kept = ((f64::from(mean) + lacking) as f32, scale as f32);
    let shift = simd.splat((-lacking * scale) as f32);
    let (mean, scale) = (simd.splat(mean), simd.splat(scale as f32));

    let len = row.len();
    let (gamma, beta) = (&affine.gamma[..len], &affine.beta[..len]);
    let mut at = 0;
    while len - at >= S::LANES {
        let t = simd.mul_add(simd.sub(simd.load(&row[at..]), mean), scale, shift);
        let y = simd.mul_add(t, simd.load(&gamma[at..]), simd.load(&beta[at..]));
        simd.store(&mut row[at..], y);
        at += S::LANES;
    }
    if at < len {
        let (row, gamma, beta) = (&mut row[at..], &gamma[at..], &beta[at..]);
        let t = simd.mul_add(simd.sub(simd.load_partial(row), mean), scale, shift);
        let y = simd.mul_add(t, simd.load_partial(gamma), simd.load_partial(beta));
        simd.store_partial(row, y);
    }
    kept
}

/// The sums of `x − mean` and of its square.
#[inline(always)]
fn deviations<S: Simd>(simd: S, row: &[f32], mean: f32) -> (f32, f32) {
    let mean = simd.splat(mean);
    // Several sums side by side: one would wait for each addition.
    let mut sums = [simd.zero(); 4];
    let mut squares = [simd.zero(); 4];
    let (len, mut at) = (row.len(), 0);
    while len - at >= 4 * S::LANES {
        let four = &row[at..][..4 * S::LANES];
        let mut i = 0;
        while i < 4 {
            let d = simd.sub(simd.load(&four[i * S::LANES..]), mean);
            sums[i] = simd.add(sums[i], d);
            squares[i] = simd.mul_add(d, d, squares[i]);
            i += 1;
        }
        at += 4 * S::LANES;
    }
    while at < len {
        let rest = &row[at..];
        let x = if rest.len() >= S::LANES {
            simd.load(rest)
        } else {
            simd.load_partial_or(rest, mean)
        };
        let d = simd.sub(x, mean);
        sums[0] = simd.add(sums[0], d);
        squares[0] = simd.mul_add(d, d, squares[0]);
        at += S::LANES;
    }
    (sum(simd, sums), sum(simd, squares))
}
