//! Rows of a head, laid out for the products of its queries, keys and values.
//!
//! A product reads words: an f32, or two bf16 where the machine multiplies those. Of queries and keys a word then holds neighbours
//! along D, of values neighbours along the keys, so that both products run on half as many words. What lies between, scores and
//! softmax, is f32.

use std::ops::Range;

use super::layout::DEAD;
use super::{Strided, row};
use crate::RotaryTable;
use crate::bf16::pair_row;
use crate::gemm::pack::pack_strip;
use crate::gemm::tile::Dot;
use crate::simd::{Kernel, Simd, copy};

/// Which rows of a matrix.
#[derive(Clone, Copy)]
pub(super) enum Rows<'a> {
    /// Successive ones: the first, and how many.
    Successive(usize, usize),
    /// Those of slots, and the row of the sequence's first key.
    Slots(usize, &'a [u32]),
}

impl Rows<'_> {
    /// All of a range.
    #[inline(always)]
    pub(super) fn of(range: &Range<usize>) -> Self {
        Self::Successive(range.start, range.len())
    }

    #[inline(always)]
    fn len(self) -> usize {
        match self {
            Self::Successive(_, count) => count,
            Self::Slots(_, slots) => slots.len(),
        }
    }

    /// The matrix's row, if there is one.
    #[inline(always)]
    fn at(self, i: usize) -> Option<usize> {
        match self {
            Self::Successive(first, count) => (i < count).then_some(first + i),
            Self::Slots(first, slots) => match slots.get(i) {
                Some(&slot) if slot != DEAD => Some(first + slot as usize),
                _ => None,
            },
        }
    }

    /// The matrix's row of the first of `count`, if the others follow it there.
    #[inline(always)]
    fn together(self, i: usize, count: usize) -> Option<usize> {
        let first = self.at(i)?;
        let follows = |next: usize| self.at(i + next) == Some(first + next);
        match self {
            Self::Slots(..) if !(1..count).all(follows) => None,
            _ => Some(first),
        }
    }
}

/// A head's rows of a matrix.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) of: Strided<'a>,
    /// The head's first column.
    pub(super) column: usize,
    /// By what rows are turned for their places, and the row of the sequence's first token.
    pub(super) turns: Option<(&'a RotaryTable, usize)>,
}

impl<'a> Source<'a> {
    /// Rows as they are.
    pub(super) fn plain(of: Strided<'a>, column: usize) -> Self {
        Self {
            of,
            column,
            turns: None,
        }
    }

    /// Row `t`, not turned, and all that follows.
    #[inline(always)]
    fn row(&self, t: usize) -> &'a [f32] {
        row(self.of, self.column, t)
    }

    /// Row `t` of `dim` values, with room for one that is turned.
    #[inline(always)]
    pub(super) fn read<'b>(&self, t: usize, dim: usize, room: &'b mut [f32]) -> &'b [f32]
    where
        'a: 'b,
    {
        let values = &self.row(t)[..dim];
        match self.turns {
            None => values,
            Some((table, start)) => {
                table.turn(t - start, values, room);
                &room[..dim]
            }
        }
    }
}

/// Room that [`pack_strips`] and [`copy_rows`] need.
pub(super) const fn room(dim: usize, width: usize) -> usize {
    // Rows that are turned, at least two, and pairs.
    width * dim + width * dim.div_ceil(2)
}

/// Lays out rows in strips of `width` rows, `[strip][words of D][width]`, zero where there is no row.
#[inline(always)]
pub(super) fn pack_strips<S: Simd, D: Dot>(
    simd: S,
    of: Source<'_>,
    rows: Rows<'_>,
    (dim, width): (usize, usize),
    room: &mut [f32],
    strips: &mut [f32],
) {
    let words = dim.div_ceil(D::VALUES);
    let (turned, rounded) = room.split_at_mut(width * dim);
    let firsts = (0..rows.len()).step_by(width);
    for (first, strip) in firsts.zip(strips.chunks_exact_mut(words * width)) {
        let count = width.min(rows.len() - first);
        let together = rows.together(first, count);
        if count < width || together.is_none() {
            strip.fill(0.0);
        }
        if const { D::VALUES == 2 } {
            for (r, to) in rounded.chunks_exact_mut(words).take(count).enumerate() {
                match rows.at(first + r) {
                    Some(t) => pair_row(simd, of.read(t, dim, turned), to),
                    None => to.fill(0.0),
                }
            }
            simd.vectorize(Pack::new((rounded, words), count, strip, width));
        } else if let (Some(t), None) = (together, of.turns) {
            simd.vectorize(Pack::new((of.row(t), of.of.stride), count, strip, width));
        } else if of.turns.is_some() {
            for (r, to) in turned.chunks_exact_mut(dim).take(count).enumerate() {
                match rows.at(first + r) {
                    Some(t) => _ = of.read(t, dim, to),
                    None => to.fill(0.0),
                }
            }
            simd.vectorize(Pack::new((turned, dim), count, strip, width));
        } else {
            for r in 0..count {
                if let Some(t) = rows.at(first + r) {
                    pack_strip(simd, of.row(t), of.of.stride, 1, strip, width, r);
                }
            }
        }
    }
}

/// Copies rows, `[words of rows][D up to whole vectors]`, zero where there is no row.
#[inline(always)]
pub(super) fn copy_rows<S: Simd, D: Dot>(
    simd: S,
    of: Source<'_>,
    rows: Rows<'_>,
    dim: usize,
    room: &mut [f32],
    to: &mut [f32],
) {
    let padded = dim.next_multiple_of(S::LANES);
    let (one, other) = room.split_at_mut(dim);
    let to = to.chunks_exact_mut(padded);
    for (i, to) in (0..rows.len().div_ceil(D::VALUES)).zip(to) {
        let first = match rows.at(D::VALUES * i) {
            Some(t) => of.read(t, dim, one),
            None => &[],
        };
        if const { D::VALUES == 2 } {
            let second = match rows.at(2 * i + 1) {
                Some(t) => of.read(t, dim, other),
                None => &[],
            };
            for at in (0..padded).step_by(S::LANES) {
                let pair = simd.pair_bf16(lanes(simd, first, at), lanes(simd, second, at));
                simd.store(&mut to[at..], pair);
            }
        } else {
            copy(simd, first, &mut to[..first.len()]);
            to[first.len()..].fill(0.0);
        }
    }
}

/// A vector of a row from `at` on, zero beyond its end.
#[inline(always)]
fn lanes<S: Simd>(simd: S, row: &[f32], at: usize) -> S::F32 {
    match row.len().saturating_sub(at) {
        0 => simd.zero(),
        left if left < S::LANES => simd.load_partial(&row[at..]),
        _ => simd.load(&row[at..]),
    }
}

/// The arguments of [`pack_strip`], to be a function of its own.
pub(super) struct Pack<'a> {
    from: &'a [f32],
    stride: usize,
    count: usize,
    to: &'a mut [f32],
    width: usize,
}

impl<'a> Pack<'a> {
    /// Rows, of which `count` are packed, and the values from one to the next.
    #[inline(always)]
    pub(super) fn new(
        (from, stride): (&'a [f32], usize),
        count: usize,
        to: &'a mut [f32],
        width: usize,
    ) -> Self {
        Self {
            from,
            stride,
            count,
            to,
            width,
        }
    }
}

impl Kernel for Pack<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        pack_strip(
            simd,
            self.from,
            self.stride,
            self.count,
            self.to,
            self.width,
            0,
        );
    }
}
