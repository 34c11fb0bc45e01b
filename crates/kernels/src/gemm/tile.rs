//! The register tile: a few rows by two or three vectors of columns, along K.
//!
//! Per k: a load for each vector of the weight panel, a broadcast load for each row, rows · vectors
//! multiply-adds. With 32 registers 8 rows by 3 vectors (24 accumulators), with 16 registers 6 by 2 (12)
//! keep enough independent multiply-adds in flight to hide their latency of 4 cycles at 2 a cycle,
//! and load less often than they multiply: the multiply-adders are the bound. (4 by 3 would load less
//! still, but needs all 16 registers, and compilers then spill one.)
//!
//! Operands are words of 32 bits: an f32, two bf16, four bytes or 32 signs of consecutive k ([`Dot`]). Where the machine
//! multiplies the narrow ones in an instruction or two, these take the place of the multiply-add, and all else is the same.
//!
//! 48 and 16 columns divide the widths of BERT models (384, 768, 1024 · 3, …) without remainder.

use std::marker::PhantomData;

use super::epilogue::Exactness;
use crate::isa::{Isa, Tier};
use crate::simd::{Kernel, Simd};

/// The most rows that a tile has on any tier.
pub(crate) const MOST_ROWS: usize = 8;

/// The most columns that a tile has on any tier.
pub(crate) const MOST_COLUMNS: usize = 3 * 16;

/// Values of k in a turn of the tile's loop.
pub(crate) const UNROLL: usize = 4;

/// f32 values in a cache line.
pub(crate) const LINE: usize = 16;

/// How many values of k ahead the lines of a strip are asked for: the time that L2 takes, and some.
const STRIP_AHEAD: usize = 32;

/// Rows of a tile.
pub(crate) const fn tile_rows<S: Simd>() -> usize {
    if S::REGISTERS >= 32 { 8 } else { 6 }
}

/// Vectors of columns in a tile.
pub(crate) const fn tile_vectors<S: Simd>() -> usize {
    if S::REGISTERS >= 32 { 3 } else { 2 }
}

/// Columns of a tile.
pub(crate) const fn tile_columns<S: Simd>() -> usize {
    tile_vectors::<S>() * S::LANES
}

/// Columns of a weight panel: a tile's, or 1 (plain rows of `W`) where `matrixmultiply` runs.
pub(crate) fn panel_width(isa: Isa) -> usize {
    match isa.0 {
        Tier::Portable(_) => 1,
        #[cfg(target_arch = "x86_64")]
        Tier::Avx2(_) => tile_columns::<crate::simd::Avx2>(),
        #[cfg(target_arch = "x86_64")]
        Tier::Avx512(_) | Tier::Amx(_) => tile_columns::<crate::simd::Avx512>(),
    }
}

/// What the words of 32 bits are that a tile multiplies, and how a word of a row and one of each column are.
pub(crate) trait Dot: Copy + Send + Sync + 'static {
    /// Numbers of consecutive k in a word.
    const VALUES: usize;
    /// How exact what is made of sums need be.
    const EXACTNESS: Exactness = Exactness::Full;

    /// Lane by lane, `sums` and the products of the numbers in two words.
    fn dot<S: Simd>(simd: S, a: S::F32, b: S::F32, sums: S::F32) -> S::F32;
}

/// An f32.
#[derive(Clone, Copy)]
pub(crate) struct F32Word;

impl Dot for F32Word {
    const VALUES: usize = 1;

    #[inline(always)]
    fn dot<S: Simd>(simd: S, a: S::F32, b: S::F32, sums: S::F32) -> S::F32 {
        simd.mul_add(a, b, sums)
    }
}

/// Two bf16 of consecutive k; sums are f32.
#[derive(Clone, Copy)]
pub(crate) struct Bf16Pair;

impl Dot for Bf16Pair {
    const VALUES: usize = 2;
    const EXACTNESS: Exactness = Exactness::Coarse;

    #[inline(always)]
    fn dot<S: Simd>(simd: S, a: S::F32, b: S::F32, sums: S::F32) -> S::F32 {
        simd.dot_bf16(a, b, sums)
    }
}

/// Four bytes of consecutive k, without a sign in rows and with one in columns; sums are i32.
#[derive(Clone, Copy)]
pub(crate) struct Int8Quad;

impl Dot for Int8Quad {
    const VALUES: usize = 4;
    const EXACTNESS: Exactness = Exactness::Coarse;

    #[inline(always)]
    fn dot<S: Simd>(simd: S, a: S::F32, b: S::F32, sums: S::F32) -> S::F32 {
        simd.dot_int8(a, b, sums)
    }
}

/// 32 signs of consecutive k as bits; sums are i32 and count those that differ.
#[derive(Clone, Copy)]
pub(crate) struct Signs;

impl Dot for Signs {
    const VALUES: usize = 32;

    #[inline(always)]
    fn dot<S: Simd>(simd: S, a: S::F32, b: S::F32, sums: S::F32) -> S::F32 {
        simd.count_differing(a, b, sums)
    }
}

/// A tile's values, row by row.
#[repr(C, align(64))]
pub(crate) struct TileBuffer(pub(crate) [f32; MOST_ROWS * MOST_COLUMNS]);

impl TileBuffer {
    #[inline(always)]
    pub(crate) fn new() -> Self {
        Self([0.0; MOST_ROWS * MOST_COLUMNS])
    }
}

/// `tile[rows, V·LANES] = aᵀ·b` over `depth` values of k, where `a` is a strip `[depth][a_width]` whose
/// first `rows` columns count, and `b` a panel `[depth][b_width]` whose first `V·LANES` do. The rows of
/// the tile are `V·LANES` apart.
///
/// # Panics
/// When `rows` is 0 or more than a tile has, or a slice is too short.
#[inline(always)]
pub(crate) fn multiply<S: Simd, D: Dot, const V: usize>(
    simd: S,
    rows: usize,
    (a, a_width): (&[f32], usize),
    (b, b_width): (&[f32], usize),
    depth: usize,
    tile: &mut [f32],
) {
    simd.vectorize(Multiply::<'_, D, V> {
        rows,
        a: (a, a_width),
        b: (b, b_width),
        depth,
        tile,
        word: PhantomData,
    });
}

/// [`multiply`] for a number of vectors that is known at run time only, at most a tile's.
///
/// # Panics
/// As [`multiply`].
#[inline(always)]
pub(crate) fn multiply_vectors<S: Simd, D: Dot>(
    simd: S,
    vectors: usize,
    rows: usize,
    a: (&[f32], usize),
    b: (&[f32], usize),
    depth: usize,
    tile: &mut [f32],
) {
    match vectors {
        1 => multiply::<S, D, 1>(simd, rows, a, b, depth, tile),
        2 => multiply::<S, D, 2>(simd, rows, a, b, depth, tile),
        _ => {
            if const { tile_vectors::<S>() >= 3 } {
                multiply::<S, D, 3>(simd, rows, a, b, depth, tile);
            } else {
                panic!("a tile has no {vectors} vectors");
            }
        }
    }
}

/// [`multiply`] for as many rows and vectors as a tile has, compiled into its caller, with the operands' widths
/// those of the tile. Lines that will be needed are asked for meanwhile: those of `a` and the strips behind it in
/// memory, and every [`UNROLL`] values of k a line of `ahead`, an address and the values from one line to the next.
///
/// # Panics
/// When a slice is too short.
#[inline(always)]
pub(crate) fn multiply_whole<S: Simd, D: Dot>(
    simd: S,
    a: &[f32],
    b: &[f32],
    depth: usize,
    ahead: (*const f32, usize),
    tile: &mut TileBuffer,
) {
    let (rows, columns) = (tile_rows::<S>(), tile_columns::<S>());
    assert!(a.len() >= depth * rows && b.len() >= depth * columns);
    let (a, b) = ((a.as_ptr(), rows), (b.as_ptr(), columns));
    let to = tile.0.as_mut_ptr();
    // SAFETY: by the assertions; a tile's buffer has room for any tier's tile.
    unsafe {
        if const { S::REGISTERS >= 32 } {
            fixed::<S, D, 8, 3, true>(simd, a, b, depth, ahead, to);
        } else {
            fixed::<S, D, 6, 2, true>(simd, a, b, depth, ahead, to);
        }
    }
}

/// The arguments of [`multiply`]: a function of its own, compiled once for all kernels that use it.
struct Multiply<'a, D, const V: usize> {
    rows: usize,
    a: (&'a [f32], usize),
    b: (&'a [f32], usize),
    depth: usize,
    tile: &'a mut [f32],
    word: PhantomData<D>,
}

impl<D: Dot, const V: usize> Kernel for Multiply<'_, D, V> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self {
            rows,
            a: (a, a_width),
            b: (b, b_width),
            depth,
            tile,
            word: _,
        } = self;
        let columns = V * S::LANES;
        assert!(rows <= a_width && columns <= b_width && tile.len() >= rows * columns);
        // The last row of each needs no more than what counts.
        assert!(a.len() + a_width >= depth * a_width + rows);
        assert!(b.len() + b_width >= depth * b_width + columns);
        let (a, b) = ((a.as_ptr(), a_width), (b.as_ptr(), b_width));
        let to = tile.as_mut_ptr();
        // SAFETY: by the assertions every row of the strip has `rows` values, every row of the panel
        // `V·LANES`, and the tile has room for `rows` rows.
        unsafe {
            match rows {
                1 => fixed::<S, D, 1, V, false>(simd, a, b, depth, (b.0, 0), to),
                2 => fixed::<S, D, 2, V, false>(simd, a, b, depth, (b.0, 0), to),
                3 => fixed::<S, D, 3, V, false>(simd, a, b, depth, (b.0, 0), to),
                4 => fixed::<S, D, 4, V, false>(simd, a, b, depth, (b.0, 0), to),
                5 => fixed::<S, D, 5, V, false>(simd, a, b, depth, (b.0, 0), to),
                6 => fixed::<S, D, 6, V, false>(simd, a, b, depth, (b.0, 0), to),
                // With 16 registers these would spill, and are not asked for.
                _ => {
                    if const { S::REGISTERS >= 32 } {
                        match rows {
                            7 => {
                                return fixed::<S, D, 7, V, false>(simd, a, b, depth, (b.0, 0), to);
                            }
                            8 => {
                                return fixed::<S, D, 8, V, false>(simd, a, b, depth, (b.0, 0), to);
                            }
                            _ => {}
                        }
                    }
                    panic!("a tile has no {rows} rows")
                }
            }
        }
    }
}

/// [`multiply`] for a fixed number of rows, so that all accumulators have their registers. With
/// `AHEAD`, lines are asked for as [`multiply_whole`] says.
///
/// # Safety
/// `a` must have `depth` rows of `a_width ≥ R` values, `b` `depth` rows of `b_width ≥ V·LANES`, and `to`
/// room for `R·V·LANES`.
#[inline(always)]
unsafe fn fixed<S: Simd, D: Dot, const R: usize, const V: usize, const AHEAD: bool>(
    simd: S,
    (mut a, a_width): (*const f32, usize),
    (mut b, b_width): (*const f32, usize),
    depth: usize,
    (mut next, apart): (*const f32, usize),
    to: *mut f32,
) {
    let mut sums = [[simd.zero(); V]; R];
    let mut left = depth;
    // Unrolled: the compiler then keeps each accumulator in its register.
    while left >= UNROLL {
        if AHEAD {
            simd.prefetch_l2(next);
            next = next.wrapping_add(apart);
            for line in 0..(UNROLL * R).div_ceil(LINE) {
                simd.prefetch(a.wrapping_add(STRIP_AHEAD * a_width + line * LINE));
            }
        }
        for i in 0..UNROLL {
            // SAFETY: within the k-th rows of `a` and `b`, which the caller vouches for.
            unsafe { step::<S, D, R, V>(simd, a.add(i * a_width), b.add(i * b_width), &mut sums) }
        }
        a = a.wrapping_add(UNROLL * a_width);
        b = b.wrapping_add(UNROLL * b_width);
        left -= UNROLL;
    }
    for _ in 0..left {
        // SAFETY: as above.
        unsafe { step::<S, D, R, V>(simd, a, b, &mut sums) }
        a = a.wrapping_add(a_width);
        b = b.wrapping_add(b_width);
    }
    for (r, sums) in sums.iter().enumerate() {
        for (v, &sum) in sums.iter().enumerate() {
            // SAFETY: the caller vouches for room for R rows of V vectors.
            unsafe { simd.store_ptr(to.add((r * V + v) * S::LANES), sum) }
        }
    }
}

/// Adds the products of one k.
///
/// # Safety
/// `a` must have `R` values, `b` `V·LANES`.
#[inline(always)]
unsafe fn step<S: Simd, D: Dot, const R: usize, const V: usize>(
    simd: S,
    a: *const f32,
    b: *const f32,
    sums: &mut [[S::F32; V]; R],
) {
    let mut columns = [simd.zero(); V];
    for (v, column) in columns.iter_mut().enumerate() {
        // SAFETY: the caller vouches for V vectors.
        *column = unsafe { simd.load_ptr(b.add(v * S::LANES)) };
    }
    for (r, sums) in sums.iter_mut().enumerate() {
        // SAFETY: the caller vouches for R values.
        let value = simd.splat(unsafe { *a.add(r) });
        for (sum, &column) in sums.iter_mut().zip(&columns) {
            *sum = D::dot(simd, value, column, *sum);
        }
    }
}
