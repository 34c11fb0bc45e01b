//! Products of two matrices of any strides in tiles, packed as they run: the gradient of a weight.
//!
//! As in [`matmul`](crate::gemm::matmul()): a task is a block of rows of C by a group of its columns; for each block of K it
//! packs its rows once, then panel after panel of columns, and multiplies all strips of rows with each.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::ops::Range;

use super::panels::PackTiles;
use super::rows::Rows;
use crate::Exec;
use crate::amx::{Amx, BLOCK, BlockSums, TILE_BYTES, TILE_ROWS, TileKernel, Tiles};
use crate::buffer::AlignedFloats;
use crate::exec::SharedMut;
use crate::gemm::Matrix;
use crate::gemm::epilogue::{Place, put_sums};
use crate::simd::{Kernel, Simd};

/// f32 words of a tile.
const TILE: usize = TILE_BYTES / size_of::<f32>();

/// Bytes of a strip of rows, and of a panel of columns, in a block of K.
const STRIP_BYTES: usize = 64 << 10;

/// The most strips in a task: packing a panel is shared by as many, and all stay in L2.
const MOST_STRIPS: usize = 12;

/// Panels below which a task is not cut for the sake of more tasks: each packs its rows again.
const LEAST_PANELS: usize = 6;

/// Steps of blocks below which a task is not worth a thread's while.
const LEAST_STEPS: usize = 256;

/// `c[m,n] (+)= a[m,k] · b[k,n]`; see [`matmul`](crate::gemm::matmul()), which has checked the operands.
pub(in crate::gemm) fn matmul<O: Rows>(
    exec: &Exec,
    amx: Amx,
    (m, n, k): (usize, usize, usize),
    (a, b): (Matrix<'_>, Matrix<'_>),
    accumulate: bool,
    c: &SharedMut<'_>,
) {
    let (strips, panels, steps) = (m.div_ceil(BLOCK), n.div_ceil(BLOCK), k.div_ceil(O::STEP));
    let wanted = match exec.threads() {
        1 => 1,
        // Several tasks a thread: one that the system holds up does not hold up the rest.
        threads => (4 * threads)
            .min(strips * panels * steps / LEAST_STEPS)
            .max(1),
    };
    let row_blocks = strips.div_ceil(MOST_STRIPS);
    let groups = wanted
        .div_ceil(row_blocks)
        .clamp(1, panels.div_ceil(LEAST_PANELS));
    let strips_each = strips.div_ceil(row_blocks);
    let panels_each = panels.div_ceil(groups);
    let (row_blocks, groups) = (strips.div_ceil(strips_each), panels.div_ceil(panels_each));
    exec.parallel(row_blocks * groups, |task| {
        let (row, column) = (task / groups * strips_each, task % groups * panels_each);
        SCRATCH.with_borrow_mut(|scratch| {
            amx.run(Task::<O> {
                rows: row * BLOCK..m.min((row + strips_each) * BLOCK),
                columns: column * BLOCK..n.min((column + panels_each) * BLOCK),
                n,
                k,
                a,
                b,
                accumulate,
                c,
                scratch,
                operand: PhantomData,
            });
        });
    });
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch {
        rows: AlignedFloats::zeroed(0),
        panel: AlignedFloats::zeroed(0),
        step: [AlignedFloats::zeroed(0), AlignedFloats::zeroed(0)],
    });
}

/// Packed operands.
struct Scratch {
    /// Strips of rows, a block of K each.
    rows: AlignedFloats,
    /// A panel's part.
    panel: AlignedFloats,
    /// A step as f32, and as tiles before they are turned.
    step: [AlignedFloats; 2],
}

/// A task.
struct Task<'a, O> {
    rows: Range<usize>,
    columns: Range<usize>,
    /// Columns of C.
    n: usize,
    k: usize,
    a: Matrix<'a>,
    b: Matrix<'a>,
    accumulate: bool,
    c: &'a SharedMut<'a>,
    scratch: &'a mut Scratch,
    operand: PhantomData<O>,
}

impl<O: Rows> TileKernel for Task<'_, O> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, tiles: &Tiles, simd: S) {
        let step_words = O::STEP_BYTES / size_of::<f32>();
        let steps = self.k.div_ceil(O::STEP).max(1);
        let depth = steps.div_ceil(steps.div_ceil(STRIP_BYTES / O::STEP_BYTES));
        let strips = self.rows.len().div_ceil(BLOCK);
        let Scratch { rows, panel, step } = self.scratch;
        let rows = rows.at_least(strips * depth * step_words);
        let panel = panel.at_least(depth * step_words);
        let [values, upright] = step;
        let values = values.at_least(O::STEP * BLOCK);
        let upright = upright.at_least(step_words);
        let mut sums = BlockSums::new();
        for start in (0..steps).step_by(depth) {
            let steps = start..steps.min(start + depth);
            for (strip, to) in rows.chunks_exact_mut(depth * step_words).enumerate() {
                let first = self.rows.start + strip * BLOCK;
                let count = BLOCK.min(self.rows.end - first);
                for (step, to) in steps.clone().zip(to.chunks_exact_mut(step_words)) {
                    let from = self.a.from(first, step * O::STEP);
                    let ks = O::STEP.min(self.k.saturating_sub(step * O::STEP));
                    pack_columns::<S, O>(simd, from, (count, ks), values, upright);
                    let tiles = upright.chunks_exact(TILE).zip(to.chunks_exact_mut(TILE));
                    for (from, to) in tiles {
                        turn(simd, from, to);
                    }
                }
            }
            for column in self.columns.clone().step_by(BLOCK) {
                let columns = column..self.columns.end.min(column + BLOCK);
                for (step, to) in steps.clone().zip(panel.chunks_exact_mut(step_words)) {
                    let from = self.b.from(step * O::STEP, column).transposed();
                    let ks = O::STEP.min(self.k.saturating_sub(step * O::STEP));
                    pack_columns::<S, O>(simd, from, (columns.len(), ks), values, to);
                }
                for (strip, packed) in rows.chunks_exact(depth * step_words).enumerate() {
                    let first = self.rows.start + strip * BLOCK;
                    let place = Place {
                        rows: first..self.rows.end.min(first + BLOCK),
                        columns: columns.clone(),
                        n: self.n,
                    };
                    for row in place.rows.clone() {
                        let at = self.c.address(row * self.n + column);
                        simd.prefetch(at);
                        simd.prefetch(at.wrapping_add(TILE_ROWS));
                    }
                    let half = place.rows.len() <= TILE_ROWS;
                    tiles.clear();
                    let (mut a, mut b) =
                        (packed.as_ptr().cast::<u8>(), panel.as_ptr().cast::<u8>());
                    for _ in steps.clone() {
                        // SAFETY: both have room for as many steps.
                        unsafe { O::multiply_rows(tiles, half, a, b) }
                        a = a.wrapping_add(O::STEP_BYTES);
                        b = b.wrapping_add(O::STEP_BYTES);
                    }
                    tiles.store(&mut sums);
                    let add = self.accumulate || start > 0;
                    // SAFETY: tasks have different rows or columns, and no slice outlives the call.
                    unsafe { put_sums(simd, (&sums.0, BLOCK), &place, add, self.c) }
                }
            }
        }
    }
}

/// Packs rows of `from`, `count` of them and `ks` values of each, as columns of a step.
#[inline(always)]
fn pack_columns<S: Simd, O: Rows>(
    simd: S,
    from: Matrix<'_>,
    (count, ks): (usize, usize),
    values: &mut [f32],
    to: &mut [f32],
) {
    let values = &mut values[..ks * BLOCK];
    if count < BLOCK {
        values.fill(0.0);
    }
    from.pack(simd, count, values, BLOCK);
    if ks == 0 {
        // A step of nothing, where K is 0.
        to.fill(0.0);
    }
    let _ = PackTiles {
        from: values,
        halves: O::PARTS > 1,
        to,
    }
    .run(simd);
}

/// Turns a tile of 16 rows by 16 words.
#[inline(always)]
pub(crate) fn turn<S: Simd>(simd: S, from: &[f32], to: &mut [f32]) {
    assert!(from.len() == TILE && to.len() == TILE);
    for (row, word) in [(0, 0), (0, 8), (8, 0), (8, 8)] {
        // SAFETY: a tile has 16 rows of 16 words.
        unsafe {
            let from = from.as_ptr().add(row * TILE_ROWS + word);
            let to = to.as_mut_ptr().add(word * TILE_ROWS + row);
            simd.turn_8x8(from, TILE_ROWS, to, TILE_ROWS);
        }
    }
}
