//! Tasks of a product on AMX.
//!
//! A task is some strips of 32 rows by some panels of 32 columns: panel after panel is multiplied with all strips, which are
//! packed before and stay in L2. The matrix unit and the vectors are different parts of a core: while one block's products
//! run, the block before it gets its last pass, a few rows with each step of K.

use std::marker::PhantomData;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use super::rows::{PackStrip, Rows};
use crate::Exec;
use crate::amx::{
    Amx, BLOCK, Bf16, BlockSums, Halves, Int8, Operand, ROW_BYTES, TILE_BYTES, TILE_ROWS,
    TileKernel, Tiles,
};
use crate::exec::SharedMut;
use crate::gemm::epilogue::{Epilogue, Exactness, Finish, Place, put_sums};
use crate::gemm::with_words;
use crate::simd::{Kernel, Simd};

/// Bytes of packed rows in a block of K of a task: with a panel's part and what is written they stay in L2.
const STRIPS_BYTES: usize = 1 << 20;

/// Strips of a task, at the least where there are more: each task reads its panels once. K is cut for their sake.
const LEAST_STRIPS: usize = 8;

/// The most strips of a task.
const MOST_STRIPS: usize = 16;

/// Steps of blocks below which a task is not worth a thread's while.
const LEAST_STEPS: usize = 256;

/// Bytes of a cache line.
const LINE: usize = 64;

/// Rows of inputs, f32.
#[derive(Clone, Copy)]
pub(in crate::gemm) struct Inputs<'a> {
    pub(in crate::gemm) rows: usize,
    pub(in crate::gemm) x: &'a [f32],
}

/// Weights in panels of tiles.
#[derive(Clone, Copy)]
pub(in crate::gemm) struct Weights<'a> {
    pub(in crate::gemm) n: usize,
    pub(in crate::gemm) k: usize,
    pub(in crate::gemm) panels: &'a [u8],
    /// Of bytes, what each column's sums are multiplied by.
    pub(in crate::gemm) scales: &'a [f32],
}

/// `y = act(x·Wᵀ + bias) + residual`, with `before = x·Wᵀ + bias`; see [`gemm`](crate::gemm()).
pub(in crate::gemm) fn gemm<O: Rows + Sums>(
    exec: &Exec,
    amx: Amx,
    Inputs { rows, x }: Inputs<'_>,
    weights: Weights<'_>,
    epilogue: Epilogue<'_>,
    before: Option<&mut [f32]>,
    y: &mut [f32],
) {
    let words = strips_words::<O>(rows, weights.k);
    with_words(words + rows, |room| {
        let (packed, notes) = room.split_at_mut(words);
        pack::<O>(exec, amx, x, weights.k, packed, notes);
        let (y, before) = (SharedMut::new(y), before.map(SharedMut::new));
        let packed = Packed { x, packed, notes };
        let to = To::Rows(Finish {
            epilogue,
            exactness: O::EXACTNESS,
            earlier: false,
            before: before.as_ref(),
            y: &y,
        });
        multiply::<O>(exec, amx, packed, weights, to);
    });
}

/// f32 words of packed rows of `k` values.
pub(super) fn strips_words<O: Operand>(rows: usize, k: usize) -> usize {
    rows.div_ceil(BLOCK) * k.div_ceil(O::STEP) * O::STEP_BYTES / size_of::<f32>()
}

/// Steps of a block of K.
pub(super) fn depth<O: Sums>(steps: usize) -> usize {
    let most = match O::SUMS_ARE_F32 {
        true => STRIPS_BYTES / (LEAST_STRIPS * O::STEP_BYTES),
        // Sums of whole numbers cannot be taken up again where they were f32.
        false => usize::MAX,
    };
    steps.div_ceil(steps.div_ceil(most).max(1))
}

/// Inputs that are packed, a note on each, and as they were where notes may send for that.
#[derive(Clone, Copy)]
pub(super) struct Packed<'a> {
    pub(super) x: &'a [f32],
    pub(super) packed: &'a [f32],
    pub(super) notes: &'a [f32],
}

/// Where a product goes.
#[derive(Clone, Copy)]
pub(super) enum To<'a> {
    /// Rows of f32.
    Rows(Finish<'a>),
    /// Strips, inputs of another product.
    Strips(Strips<'a>),
}

/// Strips of `act(x·Wᵀ + bias)`.
#[derive(Clone, Copy)]
pub(super) struct Strips<'a> {
    pub(super) epilogue: Epilogue<'a>,
    /// Words of strips of as many steps as there are panels.
    pub(super) packed: &'a SharedMut<'a>,
    pub(super) panels: usize,
    /// Set where a value does not fit the operand.
    pub(super) beyond: &'a AtomicBool,
}

/// Multiplies packed inputs with weights.
pub(super) fn multiply<O: Rows + Sums>(
    exec: &Exec,
    amx: Amx,
    inputs: Packed<'_>,
    weights: Weights<'_>,
    mut to: To<'_>,
) {
    let rows = inputs.notes.len();
    let steps = weights.k.div_ceil(O::STEP);
    let depth = depth::<O>(steps);
    let panels = weights.n.div_ceil(BLOCK);
    let plan = Plan::new(
        exec.threads(),
        rows.div_ceil(BLOCK),
        panels,
        (steps, depth * O::PARTS),
    );
    match &mut to {
        To::Rows(finish) => finish.earlier = steps > depth,
        To::Strips(_) => debug_assert_eq!(steps, depth, "strips take whole sums"),
    }
    exec.parallel(plan.row_blocks * plan.groups, |task| {
        amx.run(Task::<O> {
            rows,
            strips: plan.strips_of(task / plan.groups),
            panels: plan.panels_of(task % plan.groups),
            steps,
            depth,
            inputs,
            weights,
            to,
            operand: PhantomData,
        });
    });
}

/// Packs all rows, a note on each into `notes`.
pub(super) fn pack<O: Rows>(
    exec: &Exec,
    amx: Amx,
    x: &[f32],
    k: usize,
    packed: &mut [f32],
    notes: &mut [f32],
) {
    if k == 0 {
        return;
    }
    let rows = notes.len();
    let words = strips_words::<O>(BLOCK, k);
    let (packed, notes) = (SharedMut::new(packed), SharedMut::new(notes));
    exec.for_ranges(rows.div_ceil(BLOCK), 2 * BLOCK * k, |strips| {
        for strip in strips {
            let of = strip * BLOCK..rows.min((strip + 1) * BLOCK);
            // SAFETY: each strip is packed once.
            let (to, notes) = unsafe {
                let to = packed.slice(strip * words..(strip + 1) * words);
                (to, notes.slice(of.clone()))
            };
            amx.vectors().vectorize(PackStrip::<O> {
                x: &x[of.start * k..of.end * k],
                k,
                // SAFETY: any bytes of f32 words are bytes.
                strip: unsafe {
                    std::slice::from_raw_parts_mut(to.as_mut_ptr().cast(), size_of_val(to))
                },
                notes,
                operand: PhantomData,
            });
        }
    });
}

/// How a product is cut into tasks.
struct Plan {
    strips: usize,
    strips_each: usize,
    row_blocks: usize,
    panels: usize,
    panels_each: usize,
    groups: usize,
}

impl Plan {
    /// For steps of K, of which a block has `depth` tiles.
    fn new(threads: usize, strips: usize, panels: usize, (steps, depth): (usize, usize)) -> Self {
        let wanted = match threads {
            1 => 1,
            // Several tasks a thread: one that the system holds up does not hold up the rest.
            _ => (4 * threads)
                .min(strips * panels * steps / LEAST_STEPS)
                .max(1),
        };
        let strip_bytes = depth.max(1) * 2 * TILE_BYTES;
        let most = (STRIPS_BYTES / strip_bytes).clamp(LEAST_STRIPS, MOST_STRIPS);
        let strips_each = strips.div_ceil(strips.div_ceil(most));
        let row_blocks = strips.div_ceil(strips_each);
        let groups = wanted.div_ceil(row_blocks).clamp(1, panels);
        let panels_each = panels.div_ceil(groups);
        Self {
            strips,
            strips_each,
            row_blocks,
            panels,
            panels_each,
            groups: panels.div_ceil(panels_each),
        }
    }

    fn strips_of(&self, block: usize) -> Range<usize> {
        block * self.strips_each..self.strips.min((block + 1) * self.strips_each)
    }

    fn panels_of(&self, group: usize) -> Range<usize> {
        group * self.panels_each..self.panels.min((group + 1) * self.panels_each)
    }
}

/// A task.
pub(in crate::gemm) struct Task<'a, O> {
    /// Rows of the product.
    rows: usize,
    strips: Range<usize>,
    panels: Range<usize>,
    /// Steps of K, and of a block of it.
    steps: usize,
    depth: usize,
    inputs: Packed<'a>,
    weights: Weights<'a>,
    to: To<'a>,
    operand: PhantomData<O>,
}

/// Sums that wait to be put into the product: rows from `next` on, of the steps of a block of K.
pub(in crate::gemm) struct Waiting {
    next: usize,
    rows: Range<usize>,
    columns: Range<usize>,
    steps: Range<usize>,
}

impl<O: Rows + Sums> TileKernel for Task<'_, O> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, tiles: &Tiles, simd: S) {
        let mut sums = [BlockSums::new(), BlockSums::new()];
        let [before, current] = &mut sums;
        let (mut before, mut current) = (before, current);
        let mut waiting = Waiting {
            next: 0,
            rows: 0..0,
            columns: 0..0,
            steps: 0..0,
        };
        let mut start = 0;
        // Once where there are no steps at all, for what the last pass adds.
        while start < self.steps.max(1) {
            let steps = start..self.steps.min(start + self.depth.max(1));
            start += self.depth.max(1);
            for panel in self.panels.clone() {
                for strip in self.strips.clone() {
                    let rows = strip * BLOCK..self.rows.min((strip + 1) * BLOCK);
                    let columns = panel * BLOCK..self.weights.n.min((panel + 1) * BLOCK);
                    if let To::Rows(finish) = &self.to {
                        for row in rows.clone() {
                            let at = finish.y.address(row * self.weights.n + columns.start);
                            simd.prefetch(at);
                            simd.prefetch(at.wrapping_add(TILE_ROWS));
                        }
                    }
                    let place = (strip, panel);
                    self.multiply(tiles, simd, place, &steps, before, &mut waiting);
                    if steps.is_empty() {
                        self.finish_all(simd, before, &mut waiting);
                    }
                    tiles.store(current);
                    std::mem::swap(&mut before, &mut current);
                    waiting = Waiting {
                        next: rows.start,
                        rows,
                        columns,
                        steps: steps.clone(),
                    };
                }
            }
        }
        self.finish_all(simd, before, &mut waiting);
    }
}

/// All rows that wait: a function of its own, for the last pass in it is large.
struct FinishAll<'a, 'b, O> {
    task: &'a Task<'b, O>,
    sums: &'a mut BlockSums,
    waiting: &'a mut Waiting,
}

impl<O: Rows + Sums> Kernel for FinishAll<'_, '_, O> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        self.task.finish(simd, self.sums, self.waiting, BLOCK);
    }
}

impl<O: Rows + Sums> Task<'_, O> {
    #[inline(always)]
    fn finish_all<S: Simd>(&self, simd: S, sums: &mut BlockSums, waiting: &mut Waiting) {
        simd.vectorize(FinishAll {
            task: self,
            sums,
            waiting,
        });
    }

    /// Multiplies a strip with a panel in a block of K, and puts the sums that wait into the product meanwhile, all of them
    /// where there is a step.
    #[inline(always)]
    fn multiply<S: Simd>(
        &self,
        tiles: &Tiles,
        simd: S,
        (strip, panel): (usize, usize),
        steps: &Range<usize>,
        sums: &mut BlockSums,
        waiting: &mut Waiting,
    ) {
        let (bytes, skipped) = (self.steps * O::STEP_BYTES, steps.start * O::STEP_BYTES);
        let packed =
            &self.inputs.packed[strip * bytes / size_of::<f32>()..][..bytes / size_of::<f32>()];
        let columns = &self.weights.panels[panel * bytes..][..bytes];
        let mut a = packed.as_ptr().cast::<u8>().wrapping_add(skipped);
        let mut b = columns.as_ptr().wrapping_add(skipped);
        // The next panel's part is read from afar after the last strip: each strip asks for its share.
        let each = (O::STEP_BYTES / LINE).div_ceil(self.strips.len());
        let share = (strip - self.strips.start) * steps.len() * each * LINE;
        let mut ahead = b.wrapping_add(bytes + share);
        let rows = waiting.rows.len().div_ceil(steps.len().max(1));
        let half = self.rows - strip * BLOCK <= TILE_ROWS;
        tiles.clear();
        for _ in steps.clone() {
            // SAFETY: the slices above have all steps.
            unsafe { O::multiply_rows(tiles, half, a, b) }
            a = a.wrapping_add(O::STEP_BYTES);
            b = b.wrapping_add(O::STEP_BYTES);
            for _ in 0..each {
                simd.prefetch_l2(ahead.cast());
                ahead = ahead.wrapping_add(LINE);
            }
            self.finish(simd, sums, waiting, rows);
        }
    }

    /// Puts at most `count` rows of sums that wait into the product, of the last block of K with the last pass.
    #[inline(always)]
    fn finish<S: Simd>(&self, simd: S, sums: &mut BlockSums, waiting: &mut Waiting, count: usize) {
        let end = waiting.rows.end.min(waiting.next + count);
        while waiting.next < end {
            let row = waiting.next;
            let at = (row - waiting.rows.start) * BLOCK;
            let sums = &mut sums.0[at..at + BLOCK];
            O::values(self, row, waiting, sums);
            match &self.to {
                To::Rows(finish) => {
                    let place = Place {
                        rows: row..row + 1,
                        columns: waiting.columns.clone(),
                        n: self.weights.n,
                    };
                    let sums = (&*sums, BLOCK);
                    // SAFETY: tasks cover different rows or columns of the product, and no slice outlives a call.
                    unsafe {
                        if waiting.steps.end == self.steps {
                            finish.tile(simd, sums, &place);
                        } else {
                            put_sums(simd, sums, &place, waiting.steps.start > 0, finish.y);
                        }
                    }
                }
                To::Strips(strips) => {
                    // SAFETY: tasks cover different rows or panels.
                    unsafe { strips.put::<S, O>(simd, row, &waiting.columns, sums) }
                }
            }
            waiting.next += 1;
        }
    }
}

impl Strips<'_> {
    /// Puts a row's columns of one panel, a step of the strips, into its place.
    ///
    /// # Safety
    /// Nobody else may use that place.
    #[inline(always)]
    unsafe fn put<S: Simd, O: Rows + Sums>(
        &self,
        simd: S,
        row: usize,
        columns: &Range<usize>,
        sums: &mut [f32],
    ) {
        self.epilogue
            .activate(simd, O::EXACTNESS, sums, columns.start);
        sums[columns.len()..].fill(0.0);
        let (strip, r) = (row / BLOCK, row % BLOCK);
        let step = strip * self.panels + columns.start / BLOCK;
        let at = step * O::STEP_BYTES + r / TILE_ROWS * TILE_BYTES + r % TILE_ROWS * ROW_BYTES;
        let to = self.packed.address(at / size_of::<f32>()).cast_mut().cast();
        // SAFETY: a step has room for 32 rows; the caller vouches for nobody else using this one's.
        let note = unsafe { O::pack(simd, sums, to) };
        if O::PARTS > 1 && note != 0.0 {
            self.beyond.store(true, Ordering::Relaxed);
        }
    }
}

/// What becomes of the sums of a row.
pub(in crate::gemm) trait Sums: Operand {
    /// Whether sums of a part of K are f32, to which those of the next can be added.
    const SUMS_ARE_F32: bool = true;
    /// How exact what is made of the sums need be.
    const EXACTNESS: Exactness = Exactness::Coarse;

    /// Turns the sums of a row's columns into values.
    #[inline(always)]
    fn values<O>(_task: &Task<'_, O>, _row: usize, _of: &Waiting, _sums: &mut [f32]) {}
}

impl Sums for Bf16 {}

impl Sums for Int8 {
    const SUMS_ARE_F32: bool = false;

    #[inline(always)]
    fn values<O>(task: &Task<'_, O>, row: usize, of: &Waiting, sums: &mut [f32]) {
        let scales = &task.weights.scales[of.columns.clone()];
        let scale_of_row = task.inputs.notes[row];
        for (sum, &scale) in sums.iter_mut().zip(scales) {
            let whole = sum.to_bits().cast_signed();
            *sum = whole as f32 * (scale_of_row * scale);
        }
    }
}

impl Sums for Halves {
    const EXACTNESS: Exactness = Exactness::Full;

    /// Rows beyond what halves hold are multiplied with the weights one by one.
    #[inline(always)]
    fn values<O>(task: &Task<'_, O>, row: usize, of: &Waiting, sums: &mut [f32]) {
        if task.inputs.notes[row] != 0.0 {
            task.one_by_one(row, of, sums);
        }
    }
}

impl<O> Task<'_, O> {
    /// The sums of a row by f32 multiply-adds, of weights in halves.
    #[cold]
    fn one_by_one(&self, row: usize, of: &Waiting, sums: &mut [f32]) {
        let k = self.weights.k;
        let x = &self.inputs.x[row * k..][..k];
        let bytes = self.steps * Halves::STEP_BYTES;
        let panel = &self.weights.panels[of.columns.start / BLOCK * bytes..][..bytes];
        let ks = of.steps.start * Halves::STEP..k.min(of.steps.end * Halves::STEP);
        for (column, sum) in sums[..of.columns.len()].iter_mut().enumerate() {
            *sum = ks.clone().fold(0.0, |sum, k| {
                let step = &panel[k / Halves::STEP * Halves::STEP_BYTES..];
                let pair = k % Halves::STEP / 2;
                let at = column / TILE_ROWS * TILE_BYTES
                    + pair * ROW_BYTES
                    + column % TILE_ROWS * size_of::<f32>()
                    + k % 2 * size_of::<u16>();
                let half = |at: usize| half::bf16::from_le_bytes([step[at], step[at + 1]]).to_f32();
                x[k].mul_add(half(at) + half(2 * TILE_BYTES + at), sum)
            });
        }
    }
}
