//! Functions of one vector, over all values of a slice.

use super::{Kernel, Simd};
use crate::Isa;

/// A function of one vector. `of` must be `#[inline(always)]`.
pub(crate) trait Unary: Copy + Sync {
    /// Its value.
    fn of<S: Simd>(self, simd: S, x: S::F32) -> S::F32;
}

/// A function over the values of a slice, in place.
struct Map<'a, F>(F, &'a mut [f32]);

impl<F: Unary> Kernel for Map<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Map(function, values) = self;
        // Two at a time: their chains of dependent operations overlap.
        let mut chunks = values.chunks_exact_mut(2 * S::LANES);
        for chunk in &mut chunks {
            let (low, high) = chunk.split_at_mut(S::LANES);
            let (x, y) = (simd.load(low), simd.load(high));
            let (x, y) = (function.of(simd, x), function.of(simd, y));
            simd.store(low, x);
            simd.store(high, y);
        }
        let mut rest = chunks.into_remainder();
        if rest.len() >= S::LANES {
            let (low, high) = rest.split_at_mut(S::LANES);
            let x = simd.load(low);
            simd.store(low, function.of(simd, x));
            rest = high;
        }
        if !rest.is_empty() {
            let x = simd.load_partial(rest);
            simd.store_partial(rest, function.of(simd, x));
        }
    }
}

/// Applies a function to values, in place. A value's result does not depend on its place.
pub(crate) fn map(isa: Isa, function: impl Unary, values: &mut [f32]) {
    isa.run(Map(function, values));
}
