//! Inputs too large for bytes (Dettmers et al. 2022, LLM.int8(), <https://arxiv.org/abs/2208.07339>).
//!
//! A row of inputs has one scale, by its largest value: a single one far beyond the others leaves these few levels. Values of a
//! threshold's magnitude or more are therefore 0 in the product of bytes, and multiplied as floats with what the bytes of their
//! column of the weight stand for. The paper takes a column out for all rows where one row has such a value in it; here each row is
//! on its own, so that its result does not depend on its company.

use super::Int8Weights;
use crate::activation::activate;
use crate::exec::SharedMut;
use crate::simd::{Kernel, Simd};
use crate::{Activation, Epilogue, Exec};

/// A value of a row that is multiplied as a float.
#[derive(Clone, Copy)]
struct Outlier {
    /// Its column of the weight, among those that are needed.
    column: usize,
    value: f32,
}

/// [`gemm_int8`](super::gemm_int8) with `threshold`; nothing where no value reaches it.
pub(super) fn gemm(
    exec: &Exec,
    (rows, x): (usize, &[f32]),
    (weights, threshold): (&Int8Weights, f32),
    epilogue: Epilogue<'_>,
    y: &mut [f32],
) -> bool {
    let (n, k) = (weights.n, weights.k);
    // What is no number goes with the bytes, where it spoils its row.
    let reaches = |x: &f32| x.abs() >= threshold;
    let mut any = vec![0.0f32; rows];
    exec.for_rows(&mut any, 1, k, |range, any| {
        for (any, row) in any.iter_mut().zip(x[range.start * k..].chunks_exact(k)) {
            *any = f32::from(u8::from(row.iter().any(reaches)));
        }
    });
    if any.iter().all(|&any| any == 0.0) {
        return false;
    }
    let mut places = vec![usize::MAX; k];
    let mut columns = Vec::new();
    let mut outliers = Vec::with_capacity(rows);
    let mut small = x.to_vec();
    for row in small.chunks_exact_mut(k) {
        let mut of_row = Vec::new();
        for (at, value) in row.iter_mut().enumerate().filter(|(_, x)| reaches(x)) {
            if places[at] == usize::MAX {
                places[at] = columns.len();
                columns.push(at);
            }
            let column = places[at];
            of_row.push(Outlier {
                column,
                value: std::mem::take(value),
            });
        }
        outliers.push(of_row);
    }
    let mut values = vec![0.0f32; columns.len() * n];
    exec.for_rows(&mut values, n, 8 * n, |range, values| {
        for (&column, values) in columns[range].iter().zip(values.chunks_exact_mut(n)) {
            weights.column(column, values);
        }
    });
    let bias = Epilogue {
        activation: Activation::None,
        residual: None,
        ..epilogue
    };
    weights.product(exec, rows, &small, bias, y);
    {
        let y = SharedMut::new(y);
        exec.for_ranges(rows, 4 * n, |range| {
            // SAFETY: the ranges of different pieces are disjoint.
            let y = unsafe { y.slice(range.start * n..range.end * n) };
            exec.isa().run(Add {
                outliers: &outliers[range],
                columns: &values,
                n,
                y,
            });
        });
    }
    activate(exec, epilogue.activation, y);
    if let Some(residual) = epilogue.residual {
        for (y, residual) in y.iter_mut().zip(residual) {
            *y += residual;
        }
    }
    true
}

/// Adds to each row of `y` what its outliers give.
struct Add<'a> {
    outliers: &'a [Vec<Outlier>],
    columns: &'a [f32],
    n: usize,
    y: &'a mut [f32],
}

impl Kernel for Add<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _simd: S) {
        let rows = self.y.chunks_exact_mut(self.n).zip(self.outliers);
        for (y, outliers) in rows {
            for &Outlier { column, value } in outliers {
                let column = &self.columns[column * self.n..][..self.n];
                for (y, w) in y.iter_mut().zip(column) {
                    *y += value * w;
                }
            }
        }
    }
}
