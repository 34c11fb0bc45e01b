//! Rows of a head, laid out for the products of its queries, keys and values.
//!
//! A product reads words: an f32, or two bf16 where the machine multiplies those. Of queries and keys a word then holds neighbours
//! along D, of values neighbours along the keys, so that both products run on half as many words. What lies between, scores and
//! softmax, is f32.

use std::ops::Range;

use super::layout::DEAD;
use super::{Strided, row};
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

/// Lays out rows in strips of `width` rows, `[strip][words of D][width]`, zero where there is no row. `rounded` has room for a
/// strip of pairs.
#[inline(always)]
pub(super) fn pack_strips<S: Simd, D: Dot>(
    simd: S,
    (of, column): (Strided<'_>, usize),
    rows: Rows<'_>,
    (dim, width): (usize, usize),
    rounded: &mut [f32],
    strips: &mut [f32],
) {
    let words = dim.div_ceil(D::VALUES);
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
                    Some(t) => pair_row(simd, &row(of, column, t)[..dim], to),
                    None => to.fill(0.0),
                }
            }
            simd.vectorize(Pack::new((rounded, words), count, strip, width));
        } else if let Some(t) = together {
            let from = (row(of, column, t), of.stride);
            simd.vectorize(Pack::new(from, count, strip, width));
        } else {
            for r in 0..count {
                if let Some(t) = rows.at(first + r) {
                    pack_strip(simd, row(of, column, t), of.stride, 1, strip, width, r);
                }
            }
        }
    }
}

/// Copies rows, `[words of rows][D up to whole vectors]`, zero where there is no row.
#[inline(always)]
pub(super) fn copy_rows<S: Simd, D: Dot>(
    simd: S,
    (of, column): (Strided<'_>, usize),
    rows: Rows<'_>,
    dim: usize,
    to: &mut [f32],
) {
    let padded = dim.next_multiple_of(S::LANES);
    let to = to.chunks_exact_mut(padded);
    for (i, to) in (0..rows.len().div_ceil(D::VALUES)).zip(to) {
        let part = |i: usize| match rows.at(i) {
            Some(t) => &row(of, column, t)[..dim],
            None => &[],
        };
        if const { D::VALUES == 2 } {
            let (first, second) = (part(2 * i), part(2 * i + 1));
            for at in (0..padded).step_by(S::LANES) {
                let pair = simd.pair_bf16(lanes(simd, first, at), lanes(simd, second, at));
                simd.store(&mut to[at..], pair);
            }
        } else {
            let from = part(i);
            copy(simd, from, &mut to[..from.len()]);
            to[from.len()..].fill(0.0);
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
