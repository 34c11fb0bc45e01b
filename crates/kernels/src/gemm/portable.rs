//! The product on any CPU, by `matrixmultiply`.

use super::epilogue::{Exactness, Finish, Place};
use super::pack::{Rounded, Stored};
use super::{Epilogue, LowBitWeights, Matrix, PackedFormat, PackedWeights};
use crate::Exec;
use crate::buffer::AlignedFloats;
use crate::exec::SharedMut;
use crate::simd::{Kernel, Simd};

/// The most rows or columns of a task: a few of these fit any L2 cache.
const BLOCK: usize = 192;

/// See [`gemm`](super::gemm).
pub(super) fn gemm(
    exec: &Exec,
    rows: usize,
    x: &[f32],
    weights: &PackedWeights,
    epilogue: Epilogue<'_>,
    before: Option<&mut [f32]>,
    y: &mut [f32],
) {
    let (n, k) = (weights.n(), weights.k());
    let rounded: Vec<f32>;
    let x = match weights.format() {
        PackedFormat::F32 | PackedFormat::F32Strict => x,
        PackedFormat::Bf16 => {
            rounded = Rounded::of(x).iter().map(|value| value.to_f32()).collect();
            &rounded
        }
    };
    let (row_blocks, column_blocks) = (rows.div_ceil(BLOCK), n.div_ceil(BLOCK));
    let shared = SharedMut::new(y);
    let before = before.map(SharedMut::new);
    exec.parallel(row_blocks * column_blocks, |task| {
        let (row, column) = (task / column_blocks * BLOCK, task % column_blocks * BLOCK);
        let (count, columns) = (BLOCK.min(rows - row), BLOCK.min(n - column));
        let x = &x[row * k..(row + count) * k];
        let mut room = AlignedFloats::default();
        let w = weights.panels(column..column + columns, 1, 0..k, &mut room);
        // The block's own buffer: other tasks write other columns of the same rows.
        let mut block = vec![0.0; count * columns];
        let c = block.as_mut_ptr();
        let (n_stride, k_stride) = (columns as isize, k as isize);
        // SAFETY: `x` is [count, k] with rows k apart, `w` read as [k, columns] with columns k apart,
        // `block` is [count, columns]; their slices above have exactly these sizes.
        unsafe {
            matrixmultiply::sgemm(
                count,
                k,
                columns,
                1.0,
                x.as_ptr(),
                k_stride,
                1,
                w.as_ptr(),
                1,
                k_stride,
                0.0,
                c,
                n_stride,
                1,
            );
        }
        weights.isa().run(Apply {
            finish: Finish {
                epilogue,
                exactness: Exactness::Full,
                earlier: false,
                before: before.as_ref(),
                y: &shared,
            },
            sums: &block,
            place: Place {
                rows: row..row + count,
                columns: column..column + columns,
                n,
            },
        });
    });
}

/// See [`gemm_low_bit`](super::gemm_low_bit): the rows of `W` that a task needs become f32 for it.
pub(super) fn gemm_low_bit(
    exec: &Exec,
    rows: usize,
    x: &[f32],
    weights: &LowBitWeights,
    epilogue: Epilogue<'_>,
    y: &mut [f32],
) {
    let (n, k) = (weights.n(), weights.k());
    let shared = SharedMut::new(y);
    exec.parallel(n.div_ceil(BLOCK), |task| {
        let columns = task * BLOCK..n.min((task + 1) * BLOCK);
        let mut w = vec![0.0; columns.len() * k];
        for (row, out) in columns.clone().zip(w.chunks_exact_mut(k.max(1))) {
            weights.expand(row, 0..k, out);
        }
        let w = Matrix {
            data: &w,
            row_stride: 1,
            column_stride: k,
        };
        for row in (0..rows).step_by(BLOCK) {
            let count = BLOCK.min(rows - row);
            let mut sums = vec![0.0; count * columns.len()];
            let x = Matrix::row_major(&x[row * k..(row + count) * k], k);
            block(x, w, (count, columns.len(), k), &mut sums);
            weights.isa().run(Apply {
                finish: Finish {
                    epilogue,
                    exactness: Exactness::Full,
                    earlier: false,
                    before: None,
                    y: &shared,
                },
                sums: &sums,
                place: Place {
                    rows: row..row + count,
                    columns: columns.clone(),
                    n,
                },
            });
        }
    });
}

/// See [`batched_matmul`](super::batched_matmul): a block of a product.
pub(super) fn block(a: Matrix<'_>, b: Matrix<'_>, (m, n, k): (usize, usize, usize), c: &mut [f32]) {
    assert!(a.holds(m, k) && b.holds(k, n) && c.len() == m * n);
    let stride = |stride: usize| stride as isize;
    // SAFETY: the assertion holds the operands to their shapes and strides, and `c` to `[m, n]`.
    unsafe {
        matrixmultiply::sgemm(
            m,
            k,
            n,
            1.0,
            a.data.as_ptr(),
            stride(a.row_stride),
            stride(a.column_stride),
            b.data.as_ptr(),
            stride(b.row_stride),
            stride(b.column_stride),
            0.0,
            c.as_mut_ptr(),
            stride(n),
            1,
        );
    }
}

/// The last pass over a block.
struct Apply<'a> {
    finish: Finish<'a>,
    sums: &'a [f32],
    place: Place,
}

impl Kernel for Apply<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let sums = (self.sums, self.place.columns.len());
        // SAFETY: tasks cover different rows or columns of `y`, and no slice outlives the call.
        unsafe { self.finish.tile(simd, sums, &self.place) }
    }
}
