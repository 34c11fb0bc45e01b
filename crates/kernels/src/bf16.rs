//! bfloat16, the upper half of an f32: rounding to it and widening from it.
//!
//! To nearest, ties to even; beyond the largest value to infinity; NaN stays NaN. With integer operations alone, so that
//! every instruction set gives the same bits.

use std::ops::Range;

use half::bf16;

use crate::Exec;
use crate::exec::SharedMut;
use crate::simd::{Kernel, Simd};

/// The nearest value of bf16; without a branch, so that it is done in vectors.
#[inline(always)]
pub(crate) fn narrow(value: f32) -> bf16 {
    let bits = value.to_bits();
    let rounded = bits.wrapping_add(0x7FFF + ((bits >> 16) & 1)) >> 16;
    // A NaN must neither round up to infinity nor lose all bits of its payload.
    let quiet = (bits >> 16) | 0x40;
    let nan = bits & 0x7FFF_FFFF > 0x7F80_0000;
    bf16::from_bits(if nan { quiet } else { rounded } as u16)
}

/// The value of a bf16; without a branch too.
#[inline(always)]
pub(crate) fn widen(value: bf16) -> f32 {
    f32::from_bits(u32::from(value.to_bits()) << 16)
}

/// Two values, rounded, in one word: the first in the lower half.
#[inline(always)]
pub(crate) fn pair(first: f32, second: f32) -> f32 {
    let (low, high) = (narrow(first).to_bits(), narrow(second).to_bits());
    f32::from_bits(u32::from(low) | u32::from(high) << 16)
}

/// Rounds rows of `k` values into rows of `⌈k/2⌉` words of two, by the tier's instruction where it has one; of an odd `k` the
/// last has a zero.
pub(crate) struct PairRows<'a> {
    pub(crate) from: &'a [f32],
    pub(crate) k: usize,
    pub(crate) to: &'a mut [f32],
}

impl Kernel for PairRows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { from, k, to } = self;
        // Pairs of an even k are what lies side by side: rows need not be told apart.
        let k = if k.is_multiple_of(2) { from.len() } else { k };
        for (row, words) in from.chunks(k).zip(to.chunks_mut(k.div_ceil(2))) {
            pair_row(simd, row, words);
        }
    }
}

/// Rounds a row into words of two, by the tier's instruction where it has one; of an odd number of values the last has a zero.
///
/// # Panics
/// When there are fewer words.
#[inline(always)]
pub(crate) fn pair_row<S: Simd>(simd: S, row: &[f32], words: &mut [f32]) {
    assert!(
        words.len() >= row.len().div_ceil(2),
        "a word for every pair"
    );
    const { assert!(S::LANES.is_multiple_of(2)) };
    let whole = row.len() - row.len() % S::LANES;
    for i in (0..whole).step_by(S::LANES) {
        // SAFETY: a word has room for two values, so `words` has for the row's.
        unsafe {
            let to = words.as_mut_ptr().cast::<bf16>().add(i);
            simd.store_bf16(to, simd.load(&row[i..]));
        }
    }
    let rest = row[whole..].chunks(2);
    for (word, values) in words[whole / 2..].iter_mut().zip(rest) {
        *word = pair(values[0], values.get(1).copied().unwrap_or(0.0));
    }
}

/// Rounds f32 values to bf16.
///
/// # Panics
/// When the slices differ in length.
pub fn to_bf16(exec: &Exec, from: &[f32], to: &mut [bf16]) {
    assert_eq!(from.len(), to.len(), "a place for every value");
    let shared = SharedMut::new(to);
    exec.for_ranges(from.len(), 1, |range| {
        // SAFETY: ranges of different pieces are disjoint.
        let to = unsafe { shared.slice(range.clone()) };
        let from = &from[range];
        exec.isa().run(Narrow { from, to });
    });
}

/// Widens bf16 values to f32.
///
/// # Panics
/// When the slices differ in length.
pub fn from_bf16(exec: &Exec, from: &[bf16], to: &mut [f32]) {
    assert_eq!(from.len(), to.len(), "a place for every value");
    exec.for_rows(to, 1, 1, |range: Range<usize>, to| {
        let from = &from[range];
        exec.isa().run(Widen { from, to });
    });
}

/// Rounds f32 values to those that bf16 has, in place.
pub fn round_to_bf16(exec: &Exec, values: &mut [f32]) {
    exec.for_rows(values, 1, 1, |_, values| exec.isa().run(Round(values)));
}

/// Rounds values into a slice of as many.
pub(crate) struct Narrow<'a> {
    pub(crate) from: &'a [f32],
    pub(crate) to: &'a mut [bf16],
}

impl Kernel for Narrow<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _simd: S) {
        for (to, &from) in self.to.iter_mut().zip(self.from) {
            *to = narrow(from);
        }
    }
}

struct Widen<'a> {
    from: &'a [bf16],
    to: &'a mut [f32],
}

impl Kernel for Widen<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _simd: S) {
        for (to, &from) in self.to.iter_mut().zip(self.from) {
            *to = widen(from);
        }
    }
}

struct Round<'a>(&'a mut [f32]);

impl Kernel for Round<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _simd: S) {
        for value in self.0 {
            *value = widen(narrow(*value));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;

    #[test]
    fn every_upper_half_rounds_as_the_format_says() {
        // All upper halves, with lower halves around those at which rounding turns.
        for upper in 0..=u16::MAX {
            for lower in [0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF] {
                let value = f32::from_bits(u32::from(upper) << 16 | lower);
                let (found, expected) = (narrow(value), bf16::from_f32(value));
                assert_eq!(
                    found.to_bits(),
                    expected.to_bits(),
                    "{value} {upper:x} {lower:x}"
                );
            }
        }
    }

    #[test]
    fn slices_of_any_length_on_every_instruction_set() {
        for isa in Isa::available() {
            for (len, threads) in [(0, 1), (1, 1), (37, 1), (70_001, 2)] {
                let exec = Exec::with_isa(isa, threads);
                let values: Vec<f32> = (0..len).map(|i| (i as f32).sin() * 1e3).collect();
                let mut half = vec![bf16::ZERO; len];
                to_bf16(&exec, &values, &mut half);
                let expected: Vec<bf16> = values.iter().copied().map(bf16::from_f32).collect();
                assert_eq!(half, expected);
                let mut wide = vec![0.0; len];
                from_bf16(&exec, &half, &mut wide);
                let mut rounded = values;
                round_to_bf16(&exec, &mut rounded);
                assert!(wide == rounded && wide.iter().zip(&half).all(|(w, h)| *w == h.to_f32()));
            }
        }
    }
}
