//! Binarized rows and what they learn: the gradient of a row's signs goes to the row where it is near its mean.

use std::ops::Range;

use crate::Exec;
use crate::exec::SharedMut;
use crate::simd::{Kernel, Simd};

/// `out = α·sign(w − μ)` for each row of `w[N,K]`, with its mean `μ`, kept in `means[N]`, and its mean magnitude `α`.
///
/// # Panics
/// When a slice has another length, or `k` is 0.
pub fn binarize_rows(exec: &Exec, w: &[f32], k: usize, out: &mut [f32], means: &mut [f32]) {
    assert!(
        k > 0 && w.len() == means.len() * k && out.len() == w.len(),
        "[N, {k}]"
    );
    let means = SharedMut::new(means);
    exec.for_rows(out, k, 4 * k, |rows, out| {
        // SAFETY: the ranges of different pieces are disjoint.
        let means = unsafe { means.slice(rows.clone()) };
        exec.isa().run(Forward {
            w: of(w, &rows, k),
            k,
            out,
            means,
        });
    });
}

/// `dw = m·dy − mean(m·dy)` for each row, where `m` is 1 where `|w − μ| ≤ 1`, else 0 (Qin et al. 2022,
/// <https://arxiv.org/abs/2203.06390>, equation 5, through the mean).
///
/// # Panics
/// As [`binarize_rows`].
pub fn binarize_rows_backward(
    exec: &Exec,
    w: &[f32],
    means: &[f32],
    k: usize,
    dy: &[f32],
    dw: &mut [f32],
) {
    assert!(k > 0 && w.len() == means.len() * k, "[N, {k}]");
    assert!(dy.len() == w.len() && dw.len() == w.len(), "[N, {k}]");
    exec.for_rows(dw, k, 4 * k, |rows, dw| {
        exec.isa().run(Backward {
            w: of(w, &rows, k),
            means: &means[rows.clone()],
            k,
            dy: of(dy, &rows, k),
            dw,
        });
    });
}

fn of<'a>(values: &'a [f32], rows: &Range<usize>, k: usize) -> &'a [f32] {
    &values[rows.start * k..rows.end * k]
}

/// Eight sums at once, in one order.
#[inline(always)]
fn sum(values: impl Fn(usize) -> f32, len: usize) -> f32 {
    let mut sums = [0.0f32; 8];
    for start in (0..len / 8).map(|chunk| chunk * 8) {
        for (lane, sum) in sums.iter_mut().enumerate() {
            *sum += values(start + lane);
        }
    }
    let tail: f32 = (len / 8 * 8..len).map(values).sum();
    sums.iter().sum::<f32>() + tail
}

struct Forward<'a> {
    w: &'a [f32],
    k: usize,
    out: &'a mut [f32],
    means: &'a mut [f32],
}

impl Kernel for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _simd: S) {
        let rows = self
            .w
            .chunks_exact(self.k)
            .zip(self.out.chunks_exact_mut(self.k));
        for ((w, out), mean) in rows.zip(self.means) {
            *mean = sum(|i| w[i], w.len()) / self.k as f32;
            let scale = sum(|i| w[i].abs(), w.len()) / self.k as f32;
            for (out, &w) in out.iter_mut().zip(w) {
                *out = if w - *mean >= 0.0 { scale } else { -scale };
            }
        }
    }
}

struct Backward<'a> {
    w: &'a [f32],
    means: &'a [f32],
    k: usize,
    dy: &'a [f32],
    dw: &'a mut [f32],
}

impl Kernel for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _simd: S) {
        let rows = self
            .w
            .chunks_exact(self.k)
            .zip(self.dy.chunks_exact(self.k));
        let rows = rows.zip(self.dw.chunks_exact_mut(self.k));
        for (((w, dy), dw), mean) in rows.zip(self.means) {
            for ((dw, &dy), &w) in dw.iter_mut().zip(dy).zip(w) {
                *dw = if (w - mean).abs() <= 1.0 { dy } else { 0.0 };
            }
            let through_mean = sum(|i| dw[i], dw.len()) / self.k as f32;
            dw.iter_mut().for_each(|dw| *dw -= through_mean);
        }
    }
}
