//! Products of two matrices of any strides, packed as they run.
//!
//! Beside the prepacked product this serves the gradient of a weight, `dW = dYᵀ·X`, and products that users
//! write. A task is a block of rows of C by a group of its columns. For each block of K it packs its
//! rows of A once (they then stay in L2); then panel after panel of B is packed into L1 and multiplied with
//! all of them. K is cut at fixed places and never among threads: each value has one order of summation.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::ops::Range;

use super::epilogue::{Place, put_sums};
use super::pack::pack_strip;
use super::tile::{
    Bf16Pair, Dot, F32Word, TileBuffer, UNROLL, multiply_vectors, multiply_whole, tile_columns,
    tile_rows, tile_vectors,
};
use super::{PackedFormat, portable};
use crate::Exec;
#[cfg(target_arch = "x86_64")]
use crate::amx::{Bf16, Halves};
use crate::bf16;
use crate::buffer::AlignedFloats;
use crate::exec::SharedMut;
use crate::isa::Tier;
use crate::simd::{Kernel, Simd};

/// The most words of K in a block: a panel of 16 columns takes 24 KiB, one of 48 72 KiB.
const BLOCK_K: usize = 384;

/// Values of K that a transposed A is packed by at a time: as many lines as a set of L1 holds.
const PIECE: usize = 8;

/// The most rows of C in a task: packing a panel of B is shared by this many rows.
const BLOCK_ROWS: usize = 192;

/// Columns below which a task is not cut for the sake of more tasks: each packs its rows of A again.
const LEAST_COLUMNS: usize = 96;

/// Rows and columns from which on an f32 product is one of halves.
#[cfg(target_arch = "x86_64")]
const LEAST_HALVES: usize = 16;

/// Multiply-adds below which a task is not worth a thread's while.
const LEAST_WORK: usize = 1 << 17;

/// A matrix inside a slice: value `(i, j)` is at `i·row_stride + j·column_stride`.
///
/// Strides may be 0 (a row or column that repeats), and swapping them transposes.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    /// The buffer, from the first value on.
    pub data: &'a [f32],
    /// Values from one row to the next.
    pub row_stride: usize,
    /// Values from one column to the next.
    pub column_stride: usize,
}

impl<'a> Matrix<'a> {
    /// A matrix whose rows of `columns` values lie end to end.
    pub fn row_major(data: &'a [f32], columns: usize) -> Self {
        Self {
            data,
            row_stride: columns,
            column_stride: 1,
        }
    }

    /// The transposed matrix of the same values.
    pub fn transposed(self) -> Self {
        Self {
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }

    /// Whether the buffer has all values of the given shape.
    pub(super) fn holds(&self, rows: usize, columns: usize) -> bool {
        if rows == 0 || columns == 0 {
            return true;
        }
        let last = (rows - 1).checked_mul(self.row_stride).and_then(|down| {
            let across = (columns - 1).checked_mul(self.column_stride)?;
            down.checked_add(across)
        });
        last.is_some_and(|last| last < self.data.len())
    }

    /// The matrix from row `i` and column `j` on.
    #[inline(always)]
    pub(super) fn from(self, i: usize, j: usize) -> Self {
        let at = i * self.row_stride + j * self.column_stride;
        Self {
            data: self.data.get(at..).unwrap_or(&[]),
            ..self
        }
    }

    /// Writes `strip[k][r] = self[r, k]` for `r < count` and all `k` of the strip, which holds `width` values for
    /// each `k`. Other places are left as they are.
    #[inline(always)]
    pub(super) fn pack<S: Simd>(self, simd: S, count: usize, strip: &mut [f32], width: usize) {
        let Self {
            data,
            row_stride,
            column_stride,
        } = self;
        if column_stride == 1 {
            pack_strip(simd, data, row_stride, count, strip, width, 0);
        } else if row_stride == 1 {
            for (k, to) in strip.chunks_exact_mut(width).enumerate() {
                let from = &data[k * column_stride..][..count];
                let to = &mut to[..count];
                // In pieces of fixed size: a copy of unknown length would be a call.
                let mut at = 0;
                while at + 8 <= count {
                    to[at..at + 8].copy_from_slice(&from[at..at + 8]);
                    at += 8;
                }
                if at + 4 <= count {
                    to[at..at + 4].copy_from_slice(&from[at..at + 4]);
                    at += 4;
                }
                while at < count {
                    to[at] = from[at];
                    at += 1;
                }
            }
        } else {
            for (k, to) in strip.chunks_exact_mut(width).enumerate() {
                for (r, to) in to[..count].iter_mut().enumerate() {
                    *to = data[r * row_stride + k * column_stride];
                }
            }
        }
    }
}

/// `c[m,n] (+)= a[m,k] · b[k,n]`, with `c` row-major: added to when `accumulate`, else overwritten.
///
/// The sums of a value have one order, whatever the number of threads.
///
/// # Panics
/// When an operand lacks values of its shape, or `c` has another length than `m·n`.
pub fn matmul(
    exec: &Exec,
    shape: (usize, usize, usize),
    a: Matrix<'_>,
    b: Matrix<'_>,
    accumulate: bool,
    c: &mut [f32],
) {
    batched_matmul(exec, shape, a, b, &[(0, 0)], accumulate, c);
}

/// [`matmul`] of a precision: f32 within its contract for values of magnitudes from 2⁻⁶⁰ to 2¹²⁶ or zero, by which it may run in a
/// matrix unit (what is not finite then gives NaN); or of values that bf16 has, or that may be rounded to it, which they are where
/// the machine multiplies bf16.
///
/// # Panics
/// As [`matmul`].
pub fn matmul_in(
    exec: &Exec,
    precision: PackedFormat,
    shape: (usize, usize, usize),
    a: Matrix<'_>,
    b: Matrix<'_>,
    accumulate: bool,
    c: &mut [f32],
) {
    products(exec, shape, (a, b), &[(0, 0)], (accumulate, precision), c);
}

/// `c[N,K] (+)= a[T,N]ᵀ · b[T,K]`, all row-major; for `Y = X·Wᵀ` the weight's gradient `dW (+)= dYᵀ·X`.
///
/// # Panics
/// When a slice has another length than `(T, N, K)` say.
pub fn gemm_tn(
    exec: &Exec,
    (t, n, k): (usize, usize, usize),
    a: &[f32],
    b: &[f32],
    accumulate: bool,
    c: &mut [f32],
) {
    assert_eq!(a.len(), t * n, "a is [{t}, {n}]");
    assert_eq!(b.len(), t * k, "b is [{t}, {k}]");
    let a = Matrix::row_major(a, n).transposed();
    matmul(exec, (n, k, t), a, Matrix::row_major(b, k), accumulate, c);
}

/// [`matmul`] for each of `batches`: pairs of offsets into the operands' buffers, from which on the matrices of
/// a batch lie. `c` is `[batches, m, n]`. Equal offsets share an operand among batches.
///
/// # Panics
/// As [`matmul`].
pub fn batched_matmul(
    exec: &Exec,
    (m, n, k): (usize, usize, usize),
    a: Matrix<'_>,
    b: Matrix<'_>,
    batches: &[(usize, usize)],
    accumulate: bool,
    c: &mut [f32],
) {
    let form = (accumulate, PackedFormat::F32Strict);
    products(exec, (m, n, k), (a, b), batches, form, c);
}

/// [`batched_matmul`] of a precision, which more than one batch has none but `F32Strict`.
fn products(
    exec: &Exec,
    (m, n, k): (usize, usize, usize),
    (a, b): (Matrix<'_>, Matrix<'_>),
    batches: &[(usize, usize)],
    (accumulate, precision): (bool, PackedFormat),
    c: &mut [f32],
) {
    assert_eq!(c.len(), batches.len() * m * n, "c is [batches, {m}, {n}]");
    let at = |of: Matrix<'_>, offset: usize| of.data.get(offset..).map_or(0, <[f32]>::len);
    let most = batches.iter().fold((0, 0), |most, offsets| {
        (most.0.max(offsets.0), most.1.max(offsets.1))
    });
    let within = |of: Matrix<'_>, offset, rows, columns| {
        let data = &of.data[of.data.len() - at(of, offset)..];
        Matrix { data, ..of }.holds(rows, columns)
    };
    assert!(within(a, most.0, m, k), "a has [{m}, {k}] in every batch");
    assert!(within(b, most.1, k, n), "b has [{k}, {n}] in every batch");
    if c.is_empty() {
        return;
    }
    let plan = Plan::new(exec, batches.len(), (m, n, k));
    let c = SharedMut::new(c);
    #[cfg(target_arch = "x86_64")]
    if let (Some(amx), 1) = (exec.isa().amx(), batches.len()) {
        let (of, operands) = ((m, n, k), (offset(a, most.0), offset(b, most.1)));
        match precision {
            PackedFormat::Bf16 => {
                return super::amx::matmul::<Bf16>(exec, amx, of, operands, accumulate, &c);
            }
            // Of fewer values errors would not average out.
            PackedFormat::F32 if m.min(n) >= LEAST_HALVES => {
                return super::amx::matmul::<Halves>(exec, amx, of, operands, accumulate, &c);
            }
            PackedFormat::F32 | PackedFormat::F32Strict => {}
        }
    }
    let pairs = precision == PackedFormat::Bf16 && exec.isa().multiplies_bf16();
    let each = plan.row_blocks * plan.groups;
    exec.parallel(batches.len() * each, |task| {
        let (batch, block) = (task / each, task % each);
        let (a_offset, b_offset) = batches[batch];
        let task = Block {
            rows: plan.rows_of(block / plan.groups),
            columns: plan.columns_of(block % plan.groups),
            n,
            k,
            a: offset(a, a_offset),
            b: offset(b, b_offset),
            accumulate,
            batch,
            m,
            c: &c,
        };
        SCRATCH.with_borrow_mut(|scratch| match exec.isa().0 {
            Tier::Portable(_) => task.portable(scratch),
            #[cfg(target_arch = "x86_64")]
            _ if pairs => exec.isa().run_bf16(Native::<Bf16Pair>::new(task, scratch)),
            #[cfg(target_arch = "x86_64")]
            _ => exec.isa().run_native(Native::<F32Word>::new(task, scratch)),
        });
    });
}

fn offset(of: Matrix<'_>, offset: usize) -> Matrix<'_> {
    Matrix {
        data: of.data.get(offset..).unwrap_or(&[]),
        ..of
    }
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch {
        rows: AlignedFloats::zeroed(0),
        panel: AlignedFloats::zeroed(0),
    });
}

/// Packed operands.
struct Scratch {
    /// Rows of A in strips, or a block of C on the portable tier.
    rows: AlignedFloats,
    /// A panel of B.
    panel: AlignedFloats,
}

/// How a product is cut into tasks.
struct Plan {
    m: usize,
    n: usize,
    rows_each: usize,
    row_blocks: usize,
    columns_each: usize,
    groups: usize,
}

impl Plan {
    fn new(exec: &Exec, batches: usize, (m, n, k): (usize, usize, usize)) -> Self {
        /// A multiple of every tier's tile rows, and of its tile columns.
        const ROWS: usize = 24;
        const COLUMNS: usize = 48;
        let wanted = match exec.threads() {
            1 => 1,
            threads => {
                let worth = m.saturating_mul(n).saturating_mul(k) / LEAST_WORK;
                (4 * threads).div_ceil(batches).min(worth).max(1)
            }
        };
        let row_blocks = m.div_ceil(BLOCK_ROWS);
        // Whole blocks of rows share a panel's packing, so columns are cut next; rows only of narrow products.
        let groups = wanted
            .div_ceil(row_blocks)
            .min(n.div_ceil(LEAST_COLUMNS))
            .max(1);
        let row_blocks = row_blocks.max(wanted.div_ceil(groups).min(m.div_ceil(ROWS)));
        let rows_each = m.div_ceil(row_blocks).next_multiple_of(ROWS);
        let columns_each = n.div_ceil(groups).next_multiple_of(COLUMNS);
        Self {
            m,
            n,
            rows_each,
            row_blocks: m.div_ceil(rows_each),
            columns_each,
            groups: n.div_ceil(columns_each),
        }
    }

    fn rows_of(&self, block: usize) -> Range<usize> {
        block * self.rows_each..self.m.min((block + 1) * self.rows_each)
    }

    fn columns_of(&self, group: usize) -> Range<usize> {
        group * self.columns_each..self.n.min((group + 1) * self.columns_each)
    }
}

/// A task.
struct Block<'a> {
    rows: Range<usize>,
    columns: Range<usize>,
    /// Columns of C.
    n: usize,
    k: usize,
    a: Matrix<'a>,
    b: Matrix<'a>,
    accumulate: bool,
    /// Which product of the batch this is.
    batch: usize,
    /// Rows of each product.
    m: usize,
    c: &'a SharedMut<'a>,
}

impl Block<'_> {
    /// By `matrixmultiply`, into a buffer of the block's own: other tasks write other columns of its rows.
    fn portable(&self, scratch: &mut Scratch) {
        let (rows, columns) = (self.rows.len(), self.columns.len());
        let block = scratch.rows.at_least(rows * columns);
        let a = self.a.from(self.rows.start, 0);
        let b = self.b.from(0, self.columns.start);
        portable::block(a, b, (rows, columns, self.k), block);
        for (row, sums) in self.rows.clone().zip(block.chunks_exact(columns)) {
            let at = (self.batch * self.m + row) * self.n + self.columns.start;
            // SAFETY: tasks have different rows, columns or batches.
            let c = unsafe { self.c.slice(at..at + columns) };
            add(c, sums, self.accumulate);
        }
    }
}

/// Adds sums to `c`, or overwrites it.
#[inline(always)]
fn add(c: &mut [f32], sums: &[f32], accumulate: bool) {
    if accumulate {
        for (c, sum) in c.iter_mut().zip(sums) {
            *c += sum;
        }
    } else {
        for (c, sum) in c.iter_mut().zip(sums) {
            *c = *sum;
        }
    }
}

/// A word that strips are made of as a product runs.
trait Packed: Dot {
    /// [`Matrix::pack`] into a strip of words.
    fn pack<S: Simd>(
        simd: S,
        of: Matrix<'_>,
        count: usize,
        depth: usize,
        strip: &mut [f32],
        width: usize,
    );
}

impl Packed for F32Word {
    #[inline(always)]
    fn pack<S: Simd>(
        simd: S,
        of: Matrix<'_>,
        count: usize,
        _depth: usize,
        strip: &mut [f32],
        width: usize,
    ) {
        of.pack(simd, count, strip, width);
    }
}

impl Packed for Bf16Pair {
    #[inline(always)]
    fn pack<S: Simd>(
        simd: S,
        of: Matrix<'_>,
        count: usize,
        depth: usize,
        strip: &mut [f32],
        width: usize,
    ) {
        let Matrix {
            data,
            row_stride,
            column_stride,
        } = of;
        for (i, words) in strip.chunks_exact_mut(width).enumerate() {
            let (first, second) = (2 * i * column_stride, (2 * i + 1) * column_stride);
            let odd = 2 * i + 1 == depth;
            if row_stride != 1 {
                for (r, word) in words[..count].iter_mut().enumerate() {
                    let value = |at: usize| data[at + r * row_stride];
                    let other = if odd { 0.0 } else { value(second) };
                    *word = bf16::pair(value(first), other);
                }
                continue;
            }
            let first = &data[first..][..count];
            let second = if odd { first } else { &data[second..][..count] };
            let keep = simd.splat(if odd { 0.0 } else { 1.0 });
            let mut r = 0;
            while r + S::LANES <= count {
                let b = simd.mul(simd.load(&second[r..]), keep);
                simd.store(&mut words[r..], simd.pair_bf16(simd.load(&first[r..]), b));
                r += S::LANES;
            }
            if r < count {
                let b = simd.mul(simd.load_partial(&second[r..]), keep);
                let pairs = simd.pair_bf16(simd.load_partial(&first[r..]), b);
                simd.store_partial(&mut words[r..count], pairs);
            }
        }
    }
}

/// A task on register tiles.
struct Native<'a, D> {
    task: Block<'a>,
    scratch: &'a mut Scratch,
    word: PhantomData<D>,
}

impl<'a, D> Native<'a, D> {
    fn new(task: Block<'a>, scratch: &'a mut Scratch) -> Self {
        Self {
            task,
            scratch,
            word: PhantomData,
        }
    }
}

impl<D: Packed> Kernel for Native<'_, D> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { task, scratch, .. } = self;
        let blocks = task.k.div_ceil(BLOCK_K * D::VALUES).max(1);
        let depth = task.k.div_ceil(blocks).next_multiple_of(D::VALUES);
        for block in 0..blocks {
            let ks = block * depth..task.k.min((block + 1) * depth);
            multiply_block::<S, D>(simd, &task, ks, scratch);
        }
    }
}

/// Adds the products of a block of K.
#[inline(always)]
fn multiply_block<S: Simd, D: Packed>(
    simd: S,
    task: &Block<'_>,
    ks: Range<usize>,
    scratch: &mut Scratch,
) {
    let (height, width) = (tile_rows::<S>(), tile_columns::<S>());
    let depth = ks.len().div_ceil(D::VALUES);
    let accumulate = task.accumulate || ks.start > 0;
    let strips = task.rows.len().div_ceil(height);
    let packed = scratch.rows.at_least(strips * height * depth);
    // A transposed A is read a few rows of its buffer at a time: strip by strip its lines would be fetched again for each
    // strip that has a part of them, and where rows are a multiple of 4 KiB apart they even displace each other.
    let piece = if task.a.row_stride == 1 {
        PIECE
    } else {
        ks.len()
    };
    for start in (0..ks.len()).step_by(piece.max(1)) {
        let end = ks.len().min(start + piece);
        let words = start / D::VALUES..end.div_ceil(D::VALUES);
        for strip in 0..strips {
            let first = task.rows.start + strip * height;
            let count = height.min(task.rows.end - first);
            let to =
                &mut packed[strip * height * depth..][words.start * height..words.end * height];
            let from = task.a.from(first, ks.start + start);
            D::pack(simd, from, count, end - start, to, height);
        }
    }
    let panel = scratch.panel.at_least(width * depth);
    // Of so many strips one suffices to ask for its share of the next panel.
    let every = (strips / UNROLL).max(1);
    let mut tile = TileBuffer::new();
    for column in task.columns.clone().step_by(width) {
        let columns = column..task.columns.end.min(column + width);
        if columns.len() < width {
            panel.fill(0.0);
        }
        let b = task.b.from(ks.start, column);
        D::pack(simd, b.transposed(), columns.len(), ks.len(), panel, width);
        let panel = &*panel;
        let vectors = columns.len().div_ceil(S::LANES).min(tile_vectors::<S>());
        let mut next = b.data.as_ptr().wrapping_add(width * b.column_stride);
        for strip in 0..strips {
            let first = task.rows.start + strip * height;
            let rows = first..task.rows.end.min(first + height);
            let a = &packed[strip * height * depth..][..height * depth];
            let place = Place {
                rows: task.batch * task.m + rows.start..task.batch * task.m + rows.end,
                columns: columns.clone(),
                n: task.n,
            };
            if rows.len() == height && vectors == tile_vectors::<S>() {
                for row in place.rows.clone() {
                    simd.prefetch(task.c.address(row * task.n + column));
                }
                // Where rows of B lie apart, no hardware foresees the way down its columns.
                let step = if strip % every == 0 { b.row_stride } else { 0 };
                multiply_whole::<S, D>(simd, a, panel, depth, (next, step), &mut tile);
                next = next.wrapping_add(depth / UNROLL * step);
            } else {
                let (a, b) = ((a, height), (panel, width));
                multiply_vectors::<S, D>(simd, vectors, rows.len(), a, b, depth, &mut tile.0);
            }
            // SAFETY: tasks have different rows, columns or batches, and no slice outlives the call.
            unsafe {
                let sums = (&tile.0[..], vectors * S::LANES);
                put_sums(simd, sums, &place, accumulate, task.c);
            }
        }
    }
}
