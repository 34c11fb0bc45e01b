//! Sums over a row in a fixed order: four vectors of partial sums, then across them.

use super::Simd;

/// The terms of a sum, by place. The methods must be `#[inline(always)]`.
pub(crate) trait Terms {
    /// How many there are.
    fn len(&self) -> usize;
    /// The terms from place `at` on, a whole vector of them.
    fn vector<S: Simd>(&mut self, simd: S, at: usize) -> S::F32;
    /// The last terms, from place `at` on, fewer than a vector; zero in the other lanes.
    fn partial<S: Simd>(&mut self, simd: S, at: usize) -> S::F32;
}

/// The sum of all terms; each is asked for once, in order.
#[inline(always)]
pub(crate) fn total<S: Simd>(simd: S, mut terms: impl Terms) -> f32 {
    // Several sums side by side: one would wait for each addition.
    let mut sums = [simd.zero(); 4];
    let (len, mut at) = (terms.len(), 0);
    while len - at >= 4 * S::LANES {
        let mut i = 0;
        while i < 4 {
            sums[i] = simd.add(sums[i], terms.vector(simd, at + i * S::LANES));
            i += 1;
        }
        at += 4 * S::LANES;
    }
    while len - at >= S::LANES {
        sums[0] = simd.add(sums[0], terms.vector(simd, at));
        at += S::LANES;
    }
    if at < len {
        sums[1] = simd.add(sums[1], terms.partial(simd, at));
    }
    sum(simd, sums)
}

/// The sum of all lanes.
#[inline(always)]
pub(crate) fn sum<S: Simd>(simd: S, [a, b, c, d]: [S::F32; 4]) -> f32 {
    simd.sum(simd.add(simd.add(a, b), simd.add(c, d)))
}
