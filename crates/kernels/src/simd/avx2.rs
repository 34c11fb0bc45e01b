//! AVX2 with FMA: 8 lanes.

use std::arch::x86_64::*;

use super::{Kernel, Simd};

/// The proof that this machine has AVX2, FMA and F16C.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Avx2(());

impl Avx2 {
    /// The token, where the machine has the instructions.
    pub(crate) fn detect() -> Option<Self> {
        let has = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        has.then_some(Self(()))
    }
}

const LANES: usize = 8;

/// 2⁶⁴.
const TWO_64: f32 = (1u128 << 64) as f32;

/// All-ones for the first `n` lanes, from a window that slides over ones and zeros.
#[inline(always)]
fn first(n: usize) -> __m256i {
    static WINDOW: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];
    let from = &WINDOW[LANES - n.min(LANES)..][..LANES];
    // SAFETY: 8 values follow; the token that callers hold proves AVX.
    unsafe { _mm256_loadu_si256(from.as_ptr().cast()) }
}

// SAFETY of every block below: a value of `Avx2` is the proof that the machine has the instructions.
impl Simd for Avx2 {
    type F32 = __m256;
    type Mask = __m256;
    const LANES: usize = LANES;
    const REGISTERS: usize = 16;

    #[inline(always)]
    fn vectorize<K: Kernel>(self, kernel: K) -> K::Output {
        // Compiled once, in one codegen unit: callers without the instructions cannot inline it anyway.
        #[inline(never)]
        #[target_feature(enable = "avx2,fma,f16c")]
        fn run<K: Kernel>(simd: Avx2, kernel: K) -> K::Output {
            kernel.run(simd)
        }
        // SAFETY: the token proves the instructions.
        unsafe { run(self, kernel) }
    }

    #[inline(always)]
    fn splat(self, x: f32) -> __m256 {
        // SAFETY: the token proves the instructions.
        unsafe { _mm256_set1_ps(x) }
    }

    #[inline(always)]
    unsafe fn load_ptr(self, p: *const f32) -> __m256 {
        // SAFETY: the token, and the caller's promise on `p`.
        unsafe { _mm256_loadu_ps(p) }
    }

    #[inline(always)]
    unsafe fn store_ptr(self, p: *mut f32, v: __m256) {
        // SAFETY: the token, and the caller's promise on `p`.
        unsafe { _mm256_storeu_ps(p, v) }
    }

    #[inline(always)]
    fn prefetch(self, p: *const f32) {
        // SAFETY: a hint that any address may be given to.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
    }

    #[inline(always)]
    fn prefetch_l2(self, p: *const f32) {
        // SAFETY: a hint that any address may be given to.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(p.cast()) }
    }

    #[inline(always)]
    fn load_partial(self, from: &[f32]) -> __m256 {
        // SAFETY: the token; lanes beyond the slice are masked and not read.
        unsafe { _mm256_maskload_ps(from.as_ptr(), first(from.len())) }
    }

    #[inline(always)]
    fn load_partial_or(self, from: &[f32], fill: __m256) -> __m256 {
        // SAFETY: the token; lanes beyond the slice are masked and not read.
        unsafe {
            let mask = first(from.len());
            let v = _mm256_maskload_ps(from.as_ptr(), mask);
            _mm256_blendv_ps(fill, v, _mm256_castsi256_ps(mask))
        }
    }

    #[inline(always)]
    fn store_partial(self, to: &mut [f32], v: __m256) {
        // SAFETY: the token; lanes beyond the slice are masked and not written.
        unsafe { _mm256_maskstore_ps(to.as_mut_ptr(), first(to.len()), v) }
    }

    #[inline(always)]
    fn add(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: the token proves the instructions.
        unsafe { _mm256_add_ps(a, b) }
    }

    #[inline(always)]
    fn sub(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: the token proves the instructions.
        unsafe { _mm256_sub_ps(a, b) }
    }

    #[inline(always)]
    fn mul(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: the token proves the instructions.
        unsafe { _mm256_mul_ps(a, b) }
    }

    #[inline(always)]
    fn div(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: the token proves the instructions.
        unsafe { _mm256_div_ps(a, b) }
    }

    #[inline(always)]
    fn mul_add(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        // SAFETY: the token proves the instructions.
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn neg_mul_add(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        // SAFETY: the token proves the instructions.
        unsafe { _mm256_fnmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn mul_sub_exact(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        // SAFETY: the token proves the instructions.
        unsafe { _mm256_fmsub_ps(a, b, c) }
    }

    #[inline(always)]
    fn max(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: the token proves the instructions.
        unsafe { _mm256_max_ps(a, b) }
    }

    #[inline(always)]
    fn min(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: the token proves the instructions.
        unsafe { _mm256_min_ps(a, b) }
    }

    #[inline(always)]
    fn sqrt(self, x: __m256) -> __m256 {
        // SAFETY: the token proves the instructions.
        unsafe { _mm256_sqrt_ps(x) }
    }

    #[inline(always)]
    fn abs(self, x: __m256) -> __m256 {
        // SAFETY: the token proves the instructions.
        unsafe { _mm256_andnot_ps(_mm256_set1_ps(-0.0), x) }
    }

    #[inline(always)]
    fn copysign(self, magnitude: __m256, sign: __m256) -> __m256 {
        // SAFETY: the token proves the instructions.
        unsafe {
            let bit = _mm256_set1_ps(-0.0);
            _mm256_or_ps(_mm256_andnot_ps(bit, magnitude), _mm256_and_ps(bit, sign))
        }
    }

    #[inline(always)]
    fn scale_pow2(self, x: __m256, n: __m256) -> __m256 {
        // SAFETY: the token proves the instructions.
        unsafe {
            let n = _mm256_cvtps_epi32(n);
            let half = _mm256_srai_epi32::<1>(n);
            let bias = _mm256_set1_epi32(127);
            let low = _mm256_slli_epi32::<23>(_mm256_add_epi32(half, bias));
            let rest = _mm256_sub_epi32(n, half);
            let high = _mm256_slli_epi32::<23>(_mm256_add_epi32(rest, bias));
            let x = _mm256_mul_ps(x, _mm256_castsi256_ps(low));
            _mm256_mul_ps(x, _mm256_castsi256_ps(high))
        }
    }

    #[inline(always)]
    fn scale_down(self, x: __m256, n: __m256) -> __m256 {
        // SAFETY: the token proves the instructions.
        unsafe {
            let n = _mm256_slli_epi32::<23>(_mm256_cvtps_epi32(n));
            let power = _mm256_add_epi32(n, _mm256_castps_si256(_mm256_set1_ps(TWO_64)));
            let x = _mm256_mul_ps(x, _mm256_castsi256_ps(power));
            _mm256_mul_ps(x, _mm256_set1_ps(1.0 / TWO_64))
        }
    }

    #[inline(always)]
    fn lt(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: the token proves the instructions.
        unsafe { _mm256_cmp_ps::<_CMP_LT_OQ>(a, b) }
    }

    #[inline(always)]
    fn select(self, mask: __m256, a: __m256, b: __m256) -> __m256 {
        // SAFETY: the token proves the instructions.
        unsafe { _mm256_blendv_ps(b, a, mask) }
    }

    #[inline(always)]
    fn sum(self, v: __m256) -> f32 {
        // SAFETY: the token proves the instructions.
        unsafe {
            let v = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let v = _mm_add_ps(v, _mm_movehl_ps(v, v));
            _mm_cvtss_f32(_mm_add_ss(v, _mm_shuffle_ps::<1>(v, v)))
        }
    }

    #[inline(always)]
    fn largest(self, v: __m256) -> f32 {
        // SAFETY: the token proves the instructions.
        unsafe {
            let v = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let v = _mm_max_ps(v, _mm_movehl_ps(v, v));
            _mm_cvtss_f32(_mm_max_ss(v, _mm_shuffle_ps::<1>(v, v)))
        }
    }

    #[inline(always)]
    unsafe fn turn_8x8(self, rows: *const f32, stride: usize, to: *mut f32, width: usize) {
        // SAFETY: the token, and the caller's promise.
        unsafe { turn_8x8(rows, stride, to, width) }
    }
}

/// See [`Simd::turn_8x8`].
///
/// # Safety
/// As there; AVX.
#[inline(always)]
pub(super) unsafe fn turn_8x8(rows: *const f32, stride: usize, to: *mut f32, width: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        // Halves of rows r and r + 4 in one register: what follows need not cross its middle again.
        let half = |r: usize, at: usize| {
            let low = _mm256_castps128_ps256(_mm_loadu_ps(rows.add(r * stride + at)));
            _mm256_insertf128_ps::<1>(low, _mm_loadu_ps(rows.add((r + 4) * stride + at)))
        };
        for at in [0, 4] {
            let [a, b, c, d] = [half(0, at), half(1, at), half(2, at), half(3, at)];
            let (ab, cd) = (_mm256_unpacklo_ps(a, b), _mm256_unpacklo_ps(c, d));
            let (ab_high, cd_high) = (_mm256_unpackhi_ps(a, b), _mm256_unpackhi_ps(c, d));
            let columns = [
                _mm256_shuffle_ps::<0x44>(ab, cd),
                _mm256_shuffle_ps::<0xEE>(ab, cd),
                _mm256_shuffle_ps::<0x44>(ab_high, cd_high),
                _mm256_shuffle_ps::<0xEE>(ab_high, cd_high),
            ];
            for (i, column) in columns.into_iter().enumerate() {
                _mm256_storeu_ps(to.add((at + i) * width), column);
            }
        }
    }
}
