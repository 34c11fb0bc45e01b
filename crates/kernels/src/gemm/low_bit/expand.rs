//! Codes to values, on each instruction set.

use std::ops::Range;

use super::OCTET;
use crate::quant::unpack_codes;

/// A part of a panel.
pub(super) struct Part<'a> {
    pub(super) table: [f32; 16],
    pub(super) bits: usize,
    pub(super) group: usize,
    /// `[groups][width]`.
    pub(super) scales: &'a [f32],
    pub(super) zeros: Option<&'a [f32]>,
    pub(super) ks: Range<usize>,
    pub(super) pairs: bool,
    /// `[ks][width]`, or of pairs `[⌈ks/2⌉][width]`.
    pub(super) out: &'a mut [f32],
}

impl Part<'_> {
    /// A panel of one column: a row of `W`, of `k` codes.
    pub(super) fn row(self, packed: &[u8], k: usize) {
        let mut codes = vec![0; k];
        unpack_codes(self.bits, packed, &mut codes);
        for (i, out) in self.ks.zip(self.out) {
            let group = i / self.group;
            let zero = self.zeros.map_or(0.0, |zeros| zeros[group]);
            *out = (self.table[usize::from(codes[i])] - zero) * self.scales[group];
        }
    }

    /// Sixteen columns at a time, by AVX-512 (and its BF16 where pairs are wanted).
    #[cfg(target_arch = "x86_64")]
    pub(super) fn sixteens(self, codes: &[u8], width: usize) {
        let Self {
            bits, group, ks, ..
        } = self;
        let octets = width / OCTET;
        assert!(codes.len() >= ks.end * octets * bits + size_of::<u32>());
        let rows = if self.pairs {
            ks.len().div_ceil(2)
        } else {
            ks.len()
        };
        assert!(self.out.len() >= rows * width && width.is_multiple_of(2 * OCTET));
        // A group of odd size would have a pair on both sides of its end.
        assert!(!self.pairs || (ks.start.is_multiple_of(2) && group.is_multiple_of(2)));
        let mut start = ks.start;
        while start < ks.end {
            let index = start / group;
            let end = ks.end.min((index + 1) * group);
            for columns in (0..width).step_by(2 * OCTET) {
                let at = index * width + columns;
                let scales = &self.scales[at..at + 2 * OCTET];
                let zeros = self.zeros.map(|zeros| &zeros[at..at + 2 * OCTET]);
                let row = (start - ks.start) >> usize::from(self.pairs);
                // SAFETY: the tier has AVX-512, and pairs are made where it has BF16; `codes` has four bytes from every octet
                // of the range on and `out` sixteen values, by the assertions.
                unsafe {
                    let from = codes
                        .as_ptr()
                        .add((start * octets + columns / OCTET) * bits);
                    let to = self.out.as_mut_ptr().add(row * width + columns);
                    let steps = (end - start, octets * bits, width);
                    let levels = (&self.table, scales, zeros);
                    match (bits, self.pairs) {
                        (4, false) => avx512::expand::<4>(from, steps, levels, to),
                        (3, false) => avx512::expand::<3>(from, steps, levels, to),
                        (2, false) => avx512::expand::<2>(from, steps, levels, to),
                        (_, false) => avx512::expand::<1>(from, steps, levels, to),
                        (4, true) => avx512::expand_pairs::<4>(from, steps, levels, to),
                        (3, true) => avx512::expand_pairs::<3>(from, steps, levels, to),
                        (2, true) => avx512::expand_pairs::<2>(from, steps, levels, to),
                        (_, true) => avx512::expand_pairs::<1>(from, steps, levels, to),
                    }
                }
            }
            start = end;
        }
    }

    #[cfg(target_arch = "x86_64")]
    pub(super) fn octets(self, codes: &[u8], width: usize) {
        let Self {
            bits, group, ks, ..
        } = self;
        let octets = width / OCTET;
        assert!(codes.len() >= ks.end * octets * bits + size_of::<u32>());
        assert!(self.out.len() >= ks.len() * width && width.is_multiple_of(OCTET));
        let mut start = ks.start;
        while start < ks.end {
            let index = start / group;
            let end = ks.end.min((index + 1) * group);
            let row = |of: &'_ [f32]| of[index * width..][..width].as_ptr();
            let scales = row(self.scales);
            let zeros = self.zeros.map(row);
            for octet in 0..octets {
                let columns = octet * OCTET;
                // SAFETY: the tier has AVX2; `codes` has four bytes from every octet of the range on and `out` eight
                // values, by the assertions; the rows of scales and zeros have `width` values.
                unsafe {
                    let from = codes.as_ptr().add((start * octets + octet) * bits);
                    let to = self
                        .out
                        .as_mut_ptr()
                        .add((start - ks.start) * width + columns);
                    let scales = scales.add(columns);
                    let zeros = zeros.map(|zeros| zeros.add(columns));
                    let steps = (end - start, octets * bits, width);
                    match bits {
                        4 => avx2::expand::<4>(from, steps, &self.table, scales, zeros, to),
                        3 => avx2::expand::<3>(from, steps, &self.table, scales, zeros, to),
                        2 => avx2::expand::<2>(from, steps, &self.table, scales, zeros, to),
                        _ => avx2::expand::<1>(from, steps, &self.table, scales, zeros, to),
                    }
                }
            }
            start = end;
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::*;

    /// The values of eight columns for `count` k, whose codes are `apart` bytes apart, to rows of `width` values.
    ///
    /// # Safety
    /// AVX2. Four bytes can be read at each k, eight values written; there are eight scales and zeros.
    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn expand<const BITS: i32>(
        codes: *const u8,
        (count, apart, width): (usize, usize, usize),
        table: &[f32; 16],
        scales: *const f32,
        zeros: Option<*const f32>,
        out: *mut f32,
    ) {
        // SAFETY: as the caller promises; the table has 16 values.
        unsafe {
            let low = _mm256_loadu_ps(table.as_ptr());
            let high = _mm256_loadu_ps(table.as_ptr().add(8));
            let scale = _mm256_loadu_ps(scales);
            let zero = zeros.map_or(_mm256_setzero_ps(), |zeros| _mm256_loadu_ps(zeros));
            let lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
            let shifts = _mm256_mullo_epi32(lanes, _mm256_set1_epi32(BITS));
            let mask = _mm256_set1_epi32((1 << BITS) - 1);
            for i in 0..count {
                let word = codes.add(i * apart).cast::<i32>().read_unaligned();
                let code = _mm256_srlv_epi32(_mm256_set1_epi32(word), shifts);
                // A permutation reads the lowest three bits of an index.
                let level = if BITS == 4 {
                    let fourth = _mm256_castsi256_ps(_mm256_slli_epi32::<28>(code));
                    let (a, b) = (
                        _mm256_permutevar8x32_ps(low, code),
                        _mm256_permutevar8x32_ps(high, code),
                    );
                    _mm256_blendv_ps(a, b, fourth)
                } else {
                    _mm256_permutevar8x32_ps(low, _mm256_and_si256(code, mask))
                };
                let value = _mm256_mul_ps(_mm256_sub_ps(level, zero), scale);
                _mm256_storeu_ps(out.add(i * width), value);
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::*;

    /// A table of levels, sixteen scales, and as many zeros.
    type Levels<'a> = (&'a [f32; 16], &'a [f32], Option<&'a [f32]>);

    /// What turns codes into values.
    #[derive(Clone, Copy)]
    struct Decode {
        table: __m512,
        scale: __m512,
        zero: __m512,
        shifts: __m512i,
        mask: __m512i,
    }

    impl Decode {
        /// # Safety
        /// AVX-512F; there are sixteen scales and zeros.
        #[inline]
        #[target_feature(enable = "avx512f")]
        unsafe fn new<const BITS: i32>((table, scales, zeros): Levels<'_>) -> Self {
            debug_assert!(scales.len() >= 16 && zeros.is_none_or(|zeros| zeros.len() >= 16));
            let lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3, 4, 5, 6, 7);
            // SAFETY: sixteen values each.
            unsafe {
                Self {
                    table: _mm512_loadu_ps(table.as_ptr()),
                    scale: _mm512_loadu_ps(scales.as_ptr()),
                    zero: zeros
                        .map_or(_mm512_setzero_ps(), |zeros| _mm512_loadu_ps(zeros.as_ptr())),
                    shifts: _mm512_mullo_epi32(lanes, _mm512_set1_epi32(BITS)),
                    mask: _mm512_set1_epi32((1 << BITS) - 1),
                }
            }
        }

        /// The values of two octets.
        ///
        /// # Safety
        /// AVX-512F; four bytes can be read at both.
        #[inline]
        #[target_feature(enable = "avx512f")]
        unsafe fn values<const BITS: i32>(self, codes: *const u8) -> __m512 {
            // SAFETY: as the caller promises.
            let (low, high) = unsafe {
                let second = codes.add(BITS as usize);
                (
                    codes.cast::<i32>().read_unaligned(),
                    second.cast::<i32>().read_unaligned(),
                )
            };
            let low = _mm512_castsi256_si512(_mm256_set1_epi32(low));
            let words = _mm512_inserti64x4::<1>(low, _mm256_set1_epi32(high));
            let mut code = _mm512_srlv_epi32(words, self.shifts);
            // A permutation reads the lowest four bits of an index.
            if BITS != 4 {
                code = _mm512_and_si512(code, self.mask);
            }
            let level = _mm512_permutexvar_ps(code, self.table);
            _mm512_mul_ps(_mm512_sub_ps(level, self.zero), self.scale)
        }
    }

    /// The values of sixteen columns for `count` k, whose codes are `apart` bytes apart, to rows of `width` values.
    ///
    /// # Safety
    /// AVX-512F. Four bytes can be read at each octet of each k, sixteen values written; there are sixteen scales and zeros.
    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn expand<const BITS: i32>(
        codes: *const u8,
        (count, apart, width): (usize, usize, usize),
        levels: Levels<'_>,
        out: *mut f32,
    ) {
        // SAFETY: as the caller promises.
        unsafe {
            let decode = Decode::new::<BITS>(levels);
            for i in 0..count {
                let values = decode.values::<BITS>(codes.add(i * apart));
                _mm512_storeu_ps(out.add(i * width), values);
            }
        }
    }

    /// [`expand`], of which two of consecutive k become a pair of bf16; the last of an odd number has a zero.
    ///
    /// # Safety
    /// As [`expand`] for half as many rows of `out`; AVX-512 BW and BF16.
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    pub(super) unsafe fn expand_pairs<const BITS: i32>(
        codes: *const u8,
        (count, apart, width): (usize, usize, usize),
        levels: Levels<'_>,
        out: *mut f32,
    ) {
        // SAFETY: as the caller promises.
        unsafe {
            let decode = Decode::new::<BITS>(levels);
            let pair = |first: __m512, second: __m512| {
                let [first, second] = [_mm512_cvtneps_pbh(first), _mm512_cvtneps_pbh(second)];
                let low = _mm512_cvtepu16_epi32(std::mem::transmute::<__m256bh, __m256i>(first));
                let high = _mm512_cvtepu16_epi32(std::mem::transmute::<__m256bh, __m256i>(second));
                _mm512_or_si512(low, _mm512_slli_epi32::<16>(high))
            };
            let mut i = 0;
            while i < count {
                let first = decode.values::<BITS>(codes.add(i * apart));
                let second = match i + 1 < count {
                    true => decode.values::<BITS>(codes.add((i + 1) * apart)),
                    false => _mm512_setzero_ps(),
                };
                _mm512_storeu_si512(out.add(i / 2 * width).cast(), pair(first, second));
                i += 2;
            }
        }
    }
}
