//! The blocks of a product and their division among threads.
//!
//! A task is a block of rows by a group of panels. Within it, for each block of K: the rows' values
//! are packed once (they then stay in L2), and each panel's part (in L2 too) is multiplied with all
//! of them. Sums of one block of K are added to those of the blocks before, so every value of the
//! product is summed in one order, whatever task computes it.
//!
//! K here is counted in words of 32 bits, of which a row of `x` and of the weights is made: f32 values, pairs of bf16, four
//! bytes or 32 signs.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::ops::Range;

use super::epilogue::{Finish, Place, put_sums};
use super::int8::{Int8Weights, Scaling};
use super::pack::{Rounded, pack_strip};
use super::tile::{
    Bf16Pair, Dot, F32Word, Int8Quad, LINE, Signs, TileBuffer, UNROLL, multiply_vectors,
    multiply_whole, tile_columns, tile_rows, tile_vectors,
};
use super::weights::Layout;
use super::{Epilogue, LowBitWeights, PackedFormat, PackedWeights};
use crate::Exec;
use crate::binary::BinaryWeights;
use crate::buffer::AlignedFloats;
use crate::exec::SharedMut;
use crate::isa::Isa;
use crate::simd::{Kernel, Simd};

/// The most words of K in a block: a panel's part of 512 · 48 words takes 96 KiB.
const BLOCK_K: usize = 512;

/// The most rows in a block: 128 · 512 words take 256 KiB.
const BLOCK_ROWS: usize = 128;

/// Rows below which a block is not cut for the sake of more tasks: each block reads all weights.
const LEAST_ROWS: usize = 32;

/// Multiply-adds of words below which a task is not worth a thread's while.
const LEAST_WORK: usize = 1 << 18;

thread_local! {
    /// A block of rows, packed, and a panel's part, expanded.
    static BUFFERS: RefCell<[AlignedFloats; 2]> =
        RefCell::new([AlignedFloats::zeroed(0), AlignedFloats::zeroed(0)]);
}

/// Where panels come from.
#[derive(Clone, Copy)]
pub(crate) enum Panels<'a> {
    Stored(&'a PackedWeights),
    /// Made as they are read.
    LowBit(&'a LowBitWeights),
    /// Bytes by four, with what turns sums into values.
    Int8(&'a Int8Weights, Scaling<'a>),
    /// Signs by 32.
    Binary(&'a BinaryWeights),
}

impl<'a> Panels<'a> {
    #[inline(always)]
    fn n(self) -> usize {
        match self {
            Self::Stored(weights) => weights.n(),
            Self::LowBit(weights) => weights.n(),
            Self::Int8(weights, _) => weights.n(),
            Self::Binary(weights) => weights.n(),
        }
    }

    /// Words of a row.
    #[inline(always)]
    fn words(self) -> usize {
        match self {
            Self::Stored(weights) => weights.words(),
            Self::LowBit(weights) => weights.words(),
            Self::Int8(weights, _) => weights.words(),
            Self::Binary(weights) => weights.words(),
        }
    }

    pub(super) fn isa(self) -> Isa {
        match self {
            Self::Stored(weights) => weights.isa(),
            Self::LowBit(weights) => weights.isa(),
            Self::Int8(weights, _) => weights.isa(),
            Self::Binary(weights) => weights.isa(),
        }
    }

    /// Whether words are pairs of bf16.
    pub(super) fn are_pairs(self) -> bool {
        match self {
            Self::Stored(weights) => weights.layout() == Layout::Bf16Pairs,
            Self::LowBit(weights) => weights.format() == PackedFormat::Bf16,
            Self::Int8(..) | Self::Binary(_) => false,
        }
    }

    /// Whether inputs, which are f32, are rounded to bf16.
    #[inline(always)]
    fn rounds(self) -> bool {
        match self {
            Self::Stored(weights) => weights.layout() == Layout::Bf16,
            Self::LowBit(_) | Self::Int8(..) | Self::Binary(_) => false,
        }
    }

    /// The most words in a block of K. Sums of whole numbers cannot be taken up again where they were f32: K is not cut.
    #[inline(always)]
    fn block(self) -> usize {
        match self {
            Self::Stored(_) | Self::LowBit(_) => BLOCK_K,
            Self::Int8(..) | Self::Binary(_) => self.words(),
        }
    }

    /// Panel `panel` (of `width` columns) for the given range of k, perhaps in `room`.
    #[inline(always)]
    fn panel<'b>(
        self,
        panel: usize,
        width: usize,
        ks: Range<usize>,
        room: &'b mut AlignedFloats,
    ) -> &'b [f32]
    where
        'a: 'b,
    {
        match self {
            Self::Stored(weights) => weights.panels(panel..panel + 1, width, ks, room),
            Self::LowBit(weights) => {
                let room = &mut room.at_least(ks.len() * width)[..ks.len() * width];
                weights.expand(panel, ks, room);
                room
            }
            Self::Int8(weights, _) => weights.quads(panel),
            Self::Binary(weights) => weights.tile_panel(panel),
        }
    }
}

/// What a product is written as.
pub(crate) enum Output<'a> {
    /// `[rows, N]`.
    Values(&'a mut [f32]),
    /// Two bf16 in a word, `[rows, N/2]`, as another product takes them: of pairs, where N is even, K no longer than a block, and
    /// the epilogue has no residual.
    Pairs(&'a mut [f32]),
}

/// Whether a product of these weights can be written as pairs.
pub(super) fn gives_pairs(weights: Panels<'_>) -> bool {
    weights.are_pairs() && weights.words() <= weights.block() && weights.n().is_multiple_of(2)
}

/// See [`gemm`](super::gemm); `x` is `[rows, words]`.
pub(crate) fn gemm(
    exec: &Exec,
    rows: usize,
    x: &[f32],
    weights: Panels<'_>,
    epilogue: Epilogue<'_>,
    before: Option<&mut [f32]>,
    y: Output<'_>,
) {
    let isa = weights.isa();
    let plan = isa.run_native(MakePlan {
        threads: exec.threads(),
        rows,
        n: weights.n(),
        words: weights.words(),
    });
    let (y, pairs) = match y {
        Output::Values(y) => (y, false),
        Output::Pairs(y) => (y, true),
    };
    assert!(!pairs || (gives_pairs(weights) && epilogue.residual.is_none() && before.is_none()));
    let y = SharedMut::new(y);
    let before = before.map(SharedMut::new);
    exec.parallel(plan.row_blocks * plan.groups, |task| {
        // Outside of `run`: a closure in there would not be compiled with the tier's instructions.
        BUFFERS.with_borrow_mut(|[packed, expanded]| {
            let task = Task {
                rows: plan.rows_of(task / plan.groups),
                panels: plan.panels_of(task % plan.groups),
                x,
                weights,
                epilogue,
                packed,
                expanded,
                before: before.as_ref(),
                y: &y,
                pairs,
            };
            match weights {
                _ if weights.are_pairs() => {
                    isa.run_bf16(Block::<Bf16Pair>(task, PhantomData));
                }
                Panels::Int8(..) => isa.run_int8(Block::<Int8Quad>(task, PhantomData)),
                Panels::Binary(_) => isa.run_bits(Block::<Signs>(task, PhantomData)),
                _ => isa.run_native(Block::<F32Word>(task, PhantomData)),
            }
        });
    });
}

/// How a product is cut into tasks.
#[derive(Debug)]
struct Plan {
    rows: usize,
    rows_each: usize,
    row_blocks: usize,
    panels: usize,
    panels_each: usize,
    groups: usize,
}

struct MakePlan {
    threads: usize,
    rows: usize,
    n: usize,
    words: usize,
}

impl Kernel for MakePlan {
    type Output = Plan;

    #[inline(always)]
    fn run<S: Simd>(self, _simd: S) -> Plan {
        let Self {
            threads,
            rows,
            n,
            words,
        } = self;
        let wanted = match threads {
            1 => 1,
            // Several tasks a thread: one that the system holds up does not hold up the rest.
            _ => (4 * threads).min(rows * n * words / LEAST_WORK),
        };
        // Rows are cut before columns: blocks of columns would each pack the same rows again.
        let row_blocks = wanted.min(rows / LEAST_ROWS);
        let row_blocks = row_blocks.max(rows.div_ceil(BLOCK_ROWS));
        let rows_each = rows.div_ceil(row_blocks).next_multiple_of(tile_rows::<S>());
        let row_blocks = rows.div_ceil(rows_each);
        let panels = n.div_ceil(tile_columns::<S>());
        let groups = wanted.div_ceil(row_blocks).clamp(1, panels);
        let panels_each = panels.div_ceil(groups);
        Plan {
            rows,
            rows_each,
            row_blocks,
            panels,
            panels_each,
            groups: panels.div_ceil(panels_each),
        }
    }
}

impl Plan {
    fn rows_of(&self, block: usize) -> Range<usize> {
        block * self.rows_each..self.rows.min((block + 1) * self.rows_each)
    }

    fn panels_of(&self, group: usize) -> Range<usize> {
        group * self.panels_each..self.panels.min((group + 1) * self.panels_each)
    }
}

/// A task.
struct Task<'a> {
    rows: Range<usize>,
    panels: Range<usize>,
    x: &'a [f32],
    weights: Panels<'a>,
    epilogue: Epilogue<'a>,
    packed: &'a mut AlignedFloats,
    expanded: &'a mut AlignedFloats,
    before: Option<&'a SharedMut<'a>>,
    y: &'a SharedMut<'a>,
    /// Whether `y` is of pairs.
    pairs: bool,
}

/// A task on words of a kind.
struct Block<'a, D>(Task<'a>, PhantomData<D>);

impl<D: Dot> Kernel for Block<'_, D> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        let words = self.0.weights.words();
        let blocks = words.div_ceil(self.0.weights.block().max(1)).max(1);
        let depth = words.div_ceil(blocks);
        for block in 0..blocks {
            let ks = block * depth..words.min((block + 1) * depth);
            self.0.multiply::<S, D>(simd, ks);
        }
    }
}

impl Task<'_> {
    /// Adds the products of a block of K to `y`, and finishes `y` with the last.
    #[inline(always)]
    fn multiply<S: Simd, D: Dot>(&mut self, simd: S, ks: Range<usize>) {
        let (n, k, depth) = (self.weights.n(), self.weights.words(), ks.len());
        let (tile_rows, tile_columns) = (tile_rows::<S>(), tile_columns::<S>());
        let strips = self.rows.len().div_ceil(tile_rows);
        let strip_len = tile_rows * depth;
        let packed = self.packed.at_least(strips * strip_len);
        for strip in 0..strips {
            let first = self.rows.start + strip * tile_rows;
            let count = tile_rows.min(self.rows.end - first);
            let rows = &self.x[first * k + ks.start..];
            let strip = &mut packed[strip * strip_len..][..strip_len];
            match self.weights.rounds() {
                false => pack_strip(simd, rows, k, count, strip, tile_rows, 0),
                true => pack_strip(simd, Rounded::of(rows), k, count, strip, tile_rows, 0),
            }
        }
        let finish = Finish {
            epilogue: self.epilogue,
            exactness: D::EXACTNESS,
            earlier: ks.start > 0,
            before: self.before,
            y: self.y,
        };
        let mut tile = TileBuffer::new();
        for panel in self.panels.clone() {
            let column = panel * tile_columns;
            let columns = column..n.min(column + tile_columns);
            let room = &mut *self.expanded;
            let values = self.weights.panel(panel, tile_columns, ks.clone(), room);
            // The next panel's part, which is read after the last strip.
            let mut next = values.as_ptr().wrapping_add(k * tile_columns);
            // Of so many strips one suffices to ask for its share.
            let every = (strips * LINE / (UNROLL * tile_columns)).max(1);
            for strip in 0..strips {
                let first = self.rows.start + strip * tile_rows;
                let rows = first..self.rows.end.min(first + tile_rows);
                let packed = &packed[strip * strip_len..][..strip_len];
                if rows.len() == tile_rows {
                    for row in rows.clone() {
                        let at = row * n + column;
                        simd.prefetch(self.y.address(if self.pairs { at / 2 } else { at }));
                    }
                    let step = if strip % every == 0 { LINE } else { 0 };
                    multiply_whole::<S, D>(simd, packed, values, depth, (next, step), &mut tile);
                    next = next.wrapping_add(depth / UNROLL * step);
                } else {
                    let (a, b) = ((packed, tile_rows), (values, tile_columns));
                    let vectors = tile_vectors::<S>();
                    multiply_vectors::<S, D>(simd, vectors, rows.len(), a, b, depth, &mut tile.0);
                }
                let sums = &mut tile.0;
                match self.weights {
                    Panels::Stored(_) | Panels::LowBit(_) => {}
                    Panels::Int8(_, scaling) => {
                        scaling.apply(sums, tile_columns, rows.clone(), columns.clone());
                    }
                    Panels::Binary(weights) => {
                        weights.scale(
                            &mut sums[..rows.len() * tile_columns],
                            tile_columns,
                            columns.clone(),
                        );
                    }
                }
                let place = Place {
                    rows,
                    columns: columns.clone(),
                    n,
                };
                let sums = (&tile.0[..], tile_columns);
                // SAFETY: tasks cover different rows or columns of `y`, and no slice outlives a call.
                unsafe {
                    if const { D::VALUES == 2 } && self.pairs {
                        finish.tile_as_pairs(simd, sums, &place);
                    } else if ks.end == k {
                        finish.tile(simd, sums, &place);
                    } else {
                        put_sums(simd, sums, &place, ks.start > 0, self.y);
                    }
                }
            }
        }
    }
}
