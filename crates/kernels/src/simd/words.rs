//! Products of several narrow numbers in a lane of 32 bits, one by one: for tiers without an instruction, and for tests.

use super::Simd;

/// The most lanes of any tier.
const MOST_LANES: usize = 16;

/// See [`Simd::dot_bf16`].
#[inline(always)]
pub(super) fn dot_bf16<S: Simd>(simd: S, a: S::F32, b: S::F32, sums: S::F32) -> S::F32 {
    by_lane(simd, [a, b, sums], |[a, b, sum]| {
        let half = |word: f32, high: bool| {
            let bits = word.to_bits();
            f32::from_bits(if high { bits & 0xFFFF_0000 } else { bits << 16 })
        };
        let sum = half(a, true).mul_add(half(b, true), sum);
        half(a, false).mul_add(half(b, false), sum)
    })
}

/// See [`Simd::dot_int8`].
#[inline(always)]
pub(super) fn dot_int8<S: Simd>(simd: S, a: S::F32, b: S::F32, sums: S::F32) -> S::F32 {
    by_lane(simd, [a, b, sums], |[a, b, sum]| {
        let (a, b) = (a.to_bits().to_le_bytes(), b.to_bits().to_le_bytes());
        let mut sum = sum.to_bits();
        for (a, b) in a.into_iter().zip(b) {
            let product = i32::from(a) * i32::from(b.cast_signed());
            sum = sum.wrapping_add(product.cast_unsigned());
        }
        f32::from_bits(sum)
    })
}

/// See [`Simd::pair_bf16`].
#[inline(always)]
pub(super) fn pair_bf16<S: Simd>(simd: S, first: S::F32, second: S::F32) -> S::F32 {
    by_lane(simd, [first, second, second], |[first, second, _]| {
        crate::bf16::pair(first, second)
    })
}

/// See [`Simd::round_bf16`].
#[inline(always)]
pub(super) fn round_bf16<S: Simd>(simd: S, v: S::F32) -> S::F32 {
    by_lane(simd, [v, v, v], |[value, ..]| {
        crate::bf16::widen(crate::bf16::narrow(value))
    })
}

/// See [`Simd::store_bf16`].
///
/// # Safety
/// As there.
#[inline(always)]
pub(super) unsafe fn store_bf16<S: Simd>(simd: S, p: *mut half::bf16, v: S::F32) {
    let mut lanes = [0.0; MOST_LANES];
    simd.store(&mut lanes, v);
    for (i, &lane) in lanes[..S::LANES].iter().enumerate() {
        // SAFETY: the caller's promise.
        unsafe { *p.add(i) = crate::bf16::narrow(lane) }
    }
}

/// See [`Simd::count_differing`].
#[inline(always)]
pub(super) fn count_differing<S: Simd>(simd: S, a: S::F32, b: S::F32, sums: S::F32) -> S::F32 {
    by_lane(simd, [a, b, sums], |[a, b, sum]| {
        let count = (a.to_bits() ^ b.to_bits()).count_ones();
        f32::from_bits(sum.to_bits().wrapping_add(count))
    })
}

#[inline(always)]
fn by_lane<S: Simd>(simd: S, vectors: [S::F32; 3], of: impl Fn([f32; 3]) -> f32) -> S::F32 {
    let lanes = vectors.map(|vector| {
        let mut lanes = [0.0; MOST_LANES];
        simd.store(&mut lanes, vector);
        lanes
    });
    let values: [f32; MOST_LANES] =
        std::array::from_fn(|i| of([lanes[0][i], lanes[1][i], lanes[2][i]]));
    simd.load(&values)
}
