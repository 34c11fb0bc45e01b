//! The product of signs and its last pass.

use super::popcount::differing;
use super::{BinaryWeights, COLUMNS, ROWS, WORD};
use crate::Exec;
use crate::exec::SharedMut;
use crate::gemm::{Epilogue, Finish, Place, gemm_is_empty};
use crate::simd::{Kernel, Simd};

/// Rows of a task, at most.
const BLOCK_ROWS: usize = 64;
/// Bits multiplied below which a task is not worth a thread's while.
const LEAST_WORK: usize = 1 << 21;

/// The signs of rows of `k` values as bits, `⌈k/64⌉` words a row, the first value in the lowest bit.
///
/// # Panics
/// When the slices have other lengths.
pub fn pack_signs(x: &[f32], k: usize, words: &mut [u64]) {
    let each = k.div_ceil(WORD);
    if k == 0 {
        return;
    }
    assert_eq!(x.len() / k * each, words.len(), "{each} words a row");
    assert!(x.len().is_multiple_of(k), "rows of {k} values");
    for (row, words) in x.chunks_exact(k).zip(words.chunks_exact_mut(each)) {
        for (values, word) in row.chunks(WORD).zip(words) {
            let mut bits = 0;
            // Bytes first: the compiler turns eight comparisons into a mask.
            for (i, values) in values.chunks(8).enumerate() {
                let mut byte = 0u8;
                for (bit, &value) in values.iter().enumerate() {
                    byte |= u8::from(value >= 0.0) << bit;
                }
                bits |= u64::from(byte) << (8 * i);
            }
            *word = bits;
        }
    }
}

/// `y[T,N] = epilogue(α·(sign(x)·sign(W)ᵀ))` for `x[T,K]`, with a scale `α` for each row of `W`.
///
/// # Panics
/// When a slice has another length.
pub fn gemm_binary(
    exec: &Exec,
    rows: usize,
    x: &[f32],
    weights: &BinaryWeights,
    epilogue: Epilogue<'_>,
    y: &mut [f32],
) {
    let (n, k) = (weights.n(), weights.k());
    if gemm_is_empty((rows, n, k), x, epilogue, y) {
        return;
    }
    let words = k.div_ceil(WORD).max(1);
    let mut bits = vec![0u64; rows * words];
    {
        let bits = SharedMut::new(&mut bits);
        exec.for_ranges(rows, 2 * k, |range| {
            // SAFETY: the ranges of different pieces are disjoint.
            let bits = unsafe { bits.slice(range.start * words..range.end * words) };
            exec.isa().run(Signs {
                x: &x[range.start * k..range.end * k],
                k,
                bits,
            });
        });
    }
    let panels = n.div_ceil(COLUMNS);
    let row_blocks = rows.div_ceil(BLOCK_ROWS);
    let groups = match exec.threads() {
        1 => 1,
        threads => {
            let worth = (rows * n * k / LEAST_WORK).min(4 * threads);
            worth.div_ceil(row_blocks).clamp(1, panels)
        }
    };
    let each = panels.div_ceil(groups);
    let groups = panels.div_ceil(each);
    let y = SharedMut::new(y);
    exec.parallel(row_blocks * groups, |task| {
        let (block, group) = (task / groups, task % groups);
        let end = rows.min((block + 1) * BLOCK_ROWS);
        for panel in group * each..panels.min((group + 1) * each) {
            let mut row = block * BLOCK_ROWS;
            while row < end {
                let count = ROWS.min(end - row);
                let mut sums = [0u32; ROWS * COLUMNS];
                if k > 0 {
                    let x = &bits[row * words..(row + count) * words];
                    differing(exec.isa(), x, words, weights.panel(panel), &mut sums);
                }
                exec.isa().run(Put {
                    sums: &sums,
                    k,
                    scales: weights.scales(),
                    finish: Finish {
                        epilogue,
                        earlier: false,
                        before: None,
                        y: &y,
                    },
                    place: Place {
                        rows: row..row + count,
                        columns: panel * COLUMNS..n.min((panel + 1) * COLUMNS),
                        n,
                    },
                });
                row += count;
            }
        }
    });
}

struct Signs<'a> {
    x: &'a [f32],
    k: usize,
    bits: &'a mut [u64],
}

impl Kernel for Signs<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _simd: S) {
        pack_signs(self.x, self.k, self.bits);
    }
}

/// Turns counts into products, scales and finishes them.
struct Put<'a> {
    sums: &'a [u32; ROWS * COLUMNS],
    k: usize,
    scales: &'a [f32],
    finish: Finish<'a>,
    place: Place,
}

impl Kernel for Put<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let mut tile = [0.0f32; ROWS * COLUMNS];
        let scales = &self.scales[self.place.columns.clone()];
        for r in 0..self.place.rows.len() {
            for (c, &scale) in scales.iter().enumerate() {
                let product = self.k as i32 - 2 * self.sums[r * COLUMNS + c] as i32;
                tile[r * COLUMNS + c] = product as f32 * scale;
            }
        }
        // SAFETY: tasks cover different rows or columns of `y`, and no slice outlives a call.
        unsafe { self.finish.tile(simd, (&tile, COLUMNS), &self.place) };
    }
}
