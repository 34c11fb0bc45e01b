//! AVX-512: 16 lanes; and its extensions that multiply bf16 and bytes, and count bits.

use std::arch::x86_64::*;

use super::{Kernel, Simd};

/// No extension.
const PLAIN: u8 = 0;
/// AVX-512 BF16: pairs of bf16.
const BF16: u8 = 1;
/// AVX-512 VNNI: bytes by four.
const VNNI: u8 = 2;
/// AVX-512 VPOPCNTDQ: counts bits.
const POPCNT: u8 = 3;

/// The proof that this machine has AVX-512 F, BW, DQ and VL (and all that [`Avx2`](super::Avx2) has), and the extension
/// that it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Avx512<const EXTENSION: u8 = PLAIN>(());

/// The proof that this machine multiplies bf16 (AMD Zen 4, Intel Cooper Lake, Sapphire Rapids and later).
pub(crate) type Avx512Bf16 = Avx512<BF16>;
/// The proof that this machine multiplies bytes (AMD Zen 4, Intel Cascade Lake and later).
pub(crate) type Avx512Vnni = Avx512<VNNI>;
/// The proof that this machine counts bits (AMD Zen 4, Intel Ice Lake and later).
pub(crate) type Avx512Popcnt = Avx512<POPCNT>;

impl<const EXTENSION: u8> Avx512<EXTENSION> {
    /// The token, where the machine has the instructions.
    pub(crate) fn detect() -> Option<Self> {
        let has = super::Avx2::detect().is_some()
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && match EXTENSION {
                BF16 => is_x86_feature_detected!("avx512bf16"),
                VNNI => is_x86_feature_detected!("avx512vnni"),
                POPCNT => is_x86_feature_detected!("avx512vpopcntdq"),
                _ => true,
            };
        has.then_some(Self(()))
    }

    /// The proof without the extension.
    #[inline(always)]
    pub(crate) fn plain(self) -> Avx512 {
        Avx512(())
    }
}

const LANES: usize = 16;

/// The mask of the first `n` lanes.
#[inline(always)]
fn first(n: usize) -> __mmask16 {
    ((1u32 << n.min(LANES)) - 1) as __mmask16
}

// SAFETY of every block below: a value of `Avx512` is the proof that the machine has the instructions.
impl<const EXTENSION: u8> Simd for Avx512<EXTENSION> {
    type F32 = __m512;
    type Mask = __mmask16;
    const LANES: usize = LANES;
    const REGISTERS: usize = 32;

    #[inline(always)]
    fn vectorize<K: Kernel>(self, kernel: K) -> K::Output {
        // Compiled once, in one codegen unit: callers without the instructions cannot inline it anyway.
        #[inline(never)]
        #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
        fn plain<K: Kernel, S: Simd>(simd: S, kernel: K) -> K::Output {
            kernel.run(simd)
        }
        #[inline(never)]
        #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
        fn bf16<K: Kernel, S: Simd>(simd: S, kernel: K) -> K::Output {
            kernel.run(simd)
        }
        #[inline(never)]
        #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
        fn vnni<K: Kernel, S: Simd>(simd: S, kernel: K) -> K::Output {
            kernel.run(simd)
        }
        #[inline(never)]
        #[target_feature(
            enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vpopcntdq"
        )]
        fn popcnt<K: Kernel, S: Simd>(simd: S, kernel: K) -> K::Output {
            kernel.run(simd)
        }
        // SAFETY: the token proves the instructions.
        unsafe {
            if const { EXTENSION == BF16 } {
                bf16(self, kernel)
            } else if const { EXTENSION == VNNI } {
                vnni(self, kernel)
            } else if const { EXTENSION == POPCNT } {
                popcnt(self, kernel)
            } else {
                plain(self, kernel)
            }
        }
    }

    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        // SAFETY: the token proves the instructions.
        unsafe { _mm512_set1_ps(x) }
    }

    #[inline(always)]
    unsafe fn load_ptr(self, p: *const f32) -> __m512 {
        // SAFETY: the token, and the caller's promise on `p`.
        unsafe { _mm512_loadu_ps(p) }
    }

    #[inline(always)]
    unsafe fn store_ptr(self, p: *mut f32, v: __m512) {
        // SAFETY: the token, and the caller's promise on `p`.
        unsafe { _mm512_storeu_ps(p, v) }
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
    fn load_partial(self, from: &[f32]) -> __m512 {
        // SAFETY: the token; lanes beyond the slice are masked and not read.
        unsafe { _mm512_maskz_loadu_ps(first(from.len()), from.as_ptr()) }
    }

    #[inline(always)]
    fn load_partial_or(self, from: &[f32], fill: __m512) -> __m512 {
        // SAFETY: the token; lanes beyond the slice are masked and not read.
        unsafe { _mm512_mask_loadu_ps(fill, first(from.len()), from.as_ptr()) }
    }

    #[inline(always)]
    fn store_partial(self, to: &mut [f32], v: __m512) {
        // SAFETY: the token; lanes beyond the slice are masked and not written.
        unsafe { _mm512_mask_storeu_ps(to.as_mut_ptr(), first(to.len()), v) }
    }

    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the token proves the instructions.
        unsafe { _mm512_add_ps(a, b) }
    }

    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the token proves the instructions.
        unsafe { _mm512_sub_ps(a, b) }
    }

    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the token proves the instructions.
        unsafe { _mm512_mul_ps(a, b) }
    }

    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the token proves the instructions.
        unsafe { _mm512_div_ps(a, b) }
    }

    #[inline(always)]
    fn mul_add(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: the token proves the instructions.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn neg_mul_add(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: the token proves the instructions.
        unsafe { _mm512_fnmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn mul_sub_exact(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: the token proves the instructions.
        unsafe { _mm512_fmsub_ps(a, b, c) }
    }

    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the token proves the instructions.
        unsafe { _mm512_max_ps(a, b) }
    }

    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the token proves the instructions.
        unsafe { _mm512_min_ps(a, b) }
    }

    #[inline(always)]
    fn sqrt(self, x: __m512) -> __m512 {
        // SAFETY: the token proves the instructions.
        unsafe { _mm512_sqrt_ps(x) }
    }

    #[inline(always)]
    fn abs(self, x: __m512) -> __m512 {
        // SAFETY: the token proves the instructions.
        unsafe { _mm512_abs_ps(x) }
    }

    #[inline(always)]
    fn copysign(self, magnitude: __m512, sign: __m512) -> __m512 {
        // SAFETY: the token proves the instructions.
        unsafe {
            let bit = _mm512_set1_ps(-0.0);
            _mm512_or_ps(_mm512_andnot_ps(bit, magnitude), _mm512_and_ps(bit, sign))
        }
    }

    #[inline(always)]
    fn scale_pow2(self, x: __m512, n: __m512) -> __m512 {
        // SAFETY: the token proves the instructions.
        unsafe { _mm512_scalef_ps(x, n) }
    }

    #[inline(always)]
    fn scale_down(self, x: __m512, n: __m512) -> __m512 {
        self.scale_pow2(x, n)
    }

    #[inline(always)]
    fn lt(self, a: __m512, b: __m512) -> __mmask16 {
        // SAFETY: the token proves the instructions.
        unsafe { _mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b) }
    }

    #[inline(always)]
    fn select(self, mask: __mmask16, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the token proves the instructions.
        unsafe { _mm512_mask_blend_ps(mask, b, a) }
    }

    #[inline(always)]
    fn sum(self, v: __m512) -> f32 {
        // SAFETY: the token proves the instructions.
        unsafe { _mm512_reduce_add_ps(v) }
    }

    #[inline(always)]
    fn largest(self, v: __m512) -> f32 {
        // SAFETY: the token proves the instructions.
        unsafe { _mm512_reduce_max_ps(v) }
    }

    #[inline(always)]
    fn dot_bf16(self, a: __m512, b: __m512, sums: __m512) -> __m512 {
        if const { EXTENSION == BF16 } {
            // SAFETY: the token proves the instructions; both types are 64 bytes without meaning of their own.
            unsafe {
                let (a, b) = (
                    std::mem::transmute::<__m512, __m512bh>(a),
                    std::mem::transmute::<__m512, __m512bh>(b),
                );
                _mm512_dpbf16_ps(sums, a, b)
            }
        } else {
            super::words::dot_bf16(self, a, b, sums)
        }
    }

    #[inline(always)]
    fn dot_int8(self, a: __m512, b: __m512, sums: __m512) -> __m512 {
        if const { EXTENSION == VNNI } {
            // SAFETY: the token proves the instructions.
            unsafe {
                let sums = _mm512_castps_si512(sums);
                let (a, b) = (_mm512_castps_si512(a), _mm512_castps_si512(b));
                _mm512_castsi512_ps(_mm512_dpbusd_epi32(sums, a, b))
            }
        } else {
            super::words::dot_int8(self, a, b, sums)
        }
    }

    #[inline(always)]
    fn count_differing(self, a: __m512, b: __m512, sums: __m512) -> __m512 {
        if const { EXTENSION == POPCNT } {
            // SAFETY: the token proves the instructions.
            unsafe {
                let (a, b) = (_mm512_castps_si512(a), _mm512_castps_si512(b));
                let counts = _mm512_popcnt_epi32(_mm512_xor_si512(a, b));
                _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(sums), counts))
            }
        } else {
            super::words::count_differing(self, a, b, sums)
        }
    }

    #[inline(always)]
    unsafe fn turn_8x8(self, rows: *const f32, stride: usize, to: *mut f32, width: usize) {
        // SAFETY: the token, and the caller's promise.
        unsafe { super::avx2::turn_8x8(rows, stride, to, width) }
    }

    #[inline(always)]
    unsafe fn store_bf16(self, p: *mut half::bf16, v: __m512) {
        // SAFETY: the token, and the caller's promise.
        unsafe {
            if const { EXTENSION == BF16 } {
                let half = std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(v));
                _mm256_storeu_si256(p.cast(), half);
            } else {
                super::words::store_bf16(self, p, v);
            }
        }
    }

    #[inline(always)]
    fn round_bf16(self, v: __m512) -> __m512 {
        if const { EXTENSION == BF16 } {
            // SAFETY: the token proves the instructions.
            unsafe {
                let half = std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(v));
                _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(half)))
            }
        } else {
            super::words::round_bf16(self, v)
        }
    }

    #[inline(always)]
    fn pair_bf16(self, first: __m512, second: __m512) -> __m512 {
        if const { EXTENSION == BF16 } {
            // SAFETY: the token proves the instructions.
            unsafe {
                let [first, second] = [_mm512_cvtneps_pbh(first), _mm512_cvtneps_pbh(second)];
                let low = _mm512_cvtepu16_epi32(std::mem::transmute::<__m256bh, __m256i>(first));
                let high = _mm512_cvtepu16_epi32(std::mem::transmute::<__m256bh, __m256i>(second));
                _mm512_castsi512_ps(_mm512_or_si512(low, _mm512_slli_epi32::<16>(high)))
            }
        } else {
            super::words::pair_bf16(self, first, second)
        }
    }
}
