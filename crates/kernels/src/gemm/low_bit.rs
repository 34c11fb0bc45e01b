//! Weights in codes of 1 to 4 bits, which stay so in memory: a panel's part becomes f32 just before it is multiplied, in a
//! buffer that fits L1, and serves all rows of a task.
//!
//! Eight columns of one k take as many bytes as a code has bits: they are spread over eight lanes (on AVX-512 sixteen) by a
//! shift for each, looked up in a register, and scaled. Where the machine multiplies bf16 and that is asked for, two of
//! consecutive k become a pair of bf16.

use std::ops::Range;

use super::PackedFormat;
use super::tile::panel_width;
use crate::Exec;
use crate::buffer::{AlignedBytes, AlignedFloats};
use crate::isa::{Isa, Tier};
use crate::quant::{CodeBook, packed_len, unpack_codes};

/// Columns whose codes lie side by side.
const OCTET: usize = 8;
/// The most bits of a code.
const MOST_BITS: usize = 4;

/// A matrix `W[rows,K]` as codes.
#[derive(Clone, Copy, Debug)]
pub struct LowBitSource<'a> {
    /// Codes as [`pack_codes`](crate::pack_codes) packs them, row by row: each row begins with a byte.
    pub codes: &'a [u8],
    /// `[rows, ⌈K/group⌉]`.
    pub scales: &'a [f32],
    /// `[rows, ⌈K/group⌉]`, where the book has zero points.
    pub zeros: Option<&'a [u8]>,
    /// Rows.
    pub rows: usize,
}

/// The weight `W[N,K]` of a product, in codes of 1 to 4 bits with a scale for each group of a row.
pub struct LowBitWeights {
    /// By panel, k and eight columns; plain rows where panels have one column.
    codes: AlignedBytes,
    /// By panel, group and column.
    scales: AlignedFloats,
    /// As the scales; empty where the book has none.
    zeros: AlignedFloats,
    book: CodeBook,
    group: usize,
    /// Whether values are expanded to pairs of bf16.
    pairs: bool,
    isa: Isa,
    n: usize,
    k: usize,
}

impl LowBitWeights {
    /// Packs matrices of `k` columns, one below the other, with one scale for each `group` values of a row. With the format
    /// bf16 what codes stand for, and inputs, are rounded to bf16 where the machine multiplies that; elsewhere both are f32.
    ///
    /// # Panics
    /// When codes have more than 4 bits, `group` is 0, or a source has other lengths than its rows and `k` say.
    pub fn pack_stacked(
        exec: &Exec,
        sources: &[LowBitSource<'_>],
        book: CodeBook,
        (group, k): (usize, usize),
        format: PackedFormat,
    ) -> Self {
        let (isa, bits) = (exec.isa(), book.bits());
        // A group of odd size would have a pair on both sides of its end.
        let pairs =
            format == PackedFormat::Bf16 && isa.multiplies_bf16() && group.is_multiple_of(2);
        assert!(
            bits <= MOST_BITS && group > 0,
            "codes of 1 to 4 bits, groups of some"
        );
        let n = sources.iter().map(|source| source.rows).sum::<usize>();
        let groups = k.div_ceil(group);
        for source in sources {
            assert_eq!(source.codes.len(), source.rows * packed_len(bits, k));
            assert_eq!(source.scales.len(), source.rows * groups);
            assert_eq!(source.zeros.is_some(), book.has_zero_points());
            assert!(
                source
                    .zeros
                    .is_none_or(|zeros| zeros.len() == source.rows * groups)
            );
        }
        let width = panel_width(isa);
        let columns = n.next_multiple_of(width);
        let len = match width {
            1 => n * packed_len(bits, k),
            // Codes are read four bytes at a time.
            _ => columns / OCTET * k * bits + size_of::<u32>(),
        };
        let mut codes = AlignedBytes::zeroed(len);
        let mut scales = AlignedFloats::zeroed(columns * groups);
        let zeros = book.has_zero_points();
        let mut zeros = AlignedFloats::zeroed(if zeros { columns * groups } else { 0 });
        let mut row_codes = vec![0; k];
        let mut n_done = 0;
        let all = codes.as_bytes_mut();
        for source in sources {
            let len = packed_len(bits, k);
            for r in 0..source.rows {
                let row = n_done + r;
                let (panel, column) = (row / width, row % width);
                let packed = &source.codes[r * len..][..len];
                if width == 1 {
                    all[row * len..][..len].copy_from_slice(packed);
                } else {
                    unpack_codes(bits, packed, &mut row_codes);
                    let first = (panel * k * width / OCTET + column / OCTET) * bits;
                    let shift = column % OCTET * bits;
                    for (i, &code) in row_codes.iter().enumerate() {
                        let at = first + i * width / OCTET * bits;
                        let spread = (u32::from(code) << shift).to_le_bytes();
                        for (byte, part) in all[at..at + bits].iter_mut().zip(spread) {
                            *byte |= part;
                        }
                    }
                }
                for g in 0..groups {
                    let at = (panel * groups + g) * width + column;
                    scales[at] = source.scales[r * groups + g];
                    if let Some(values) = source.zeros {
                        zeros[at] = f32::from(values[r * groups + g]);
                    }
                }
            }
            n_done += source.rows;
        }
        Self {
            codes,
            scales,
            zeros,
            book,
            group,
            pairs,
            isa,
            n,
            k,
        }
    }

    /// Columns of the product (N).
    pub fn n(&self) -> usize {
        self.n
    }

    /// Columns of the input (K).
    pub fn k(&self) -> usize {
        self.k
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        self.codes.len() + size_of_val(&*self.scales) + size_of_val(&*self.zeros)
    }

    /// The instruction set they were packed for.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// What is multiplied.
    pub fn format(&self) -> PackedFormat {
        match self.pairs {
            true => PackedFormat::Bf16,
            false => PackedFormat::F32,
        }
    }

    /// Words of a row of inputs, as the product takes them.
    #[inline(always)]
    pub(super) fn words(&self) -> usize {
        if self.pairs {
            self.k.div_ceil(2)
        } else {
            self.k
        }
    }

    /// The words of panel `panel` for a range of words of k, as [`PackedWeights`](super::PackedWeights) stores them.
    pub(super) fn expand(&self, panel: usize, words: Range<usize>, out: &mut [f32]) {
        let ks = match self.pairs {
            true => 2 * words.start..self.k.min(2 * words.end),
            false => words,
        };
        let width = panel_width(self.isa);
        let groups = self.k.div_ceil(self.group);
        let part = Part {
            table: self.book.table(),
            bits: self.book.bits(),
            group: self.group,
            scales: &self.scales[panel * groups * width..][..groups * width],
            zeros: match self.zeros.is_empty() {
                true => None,
                false => Some(&self.zeros[panel * groups * width..][..groups * width]),
            },
            ks,
            pairs: self.pairs,
            out,
        };
        let bits = self.book.bits();
        match self.isa.0 {
            Tier::Portable(_) => {
                let len = packed_len(bits, self.k);
                part.row(&self.codes.as_bytes()[panel * len..][..len], self.k);
            }
            #[cfg(target_arch = "x86_64")]
            tier => {
                let len = self.k * width / OCTET * bits;
                let codes = &self.codes.as_bytes()[panel * len..][..len + size_of::<u32>()];
                match tier {
                    Tier::Avx512(_) => part.sixteens(codes, width),
                    _ => part.octets(codes, width),
                }
            }
        }
    }
}

impl std::fmt::Debug for LowBitWeights {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LowBitWeights")
            .field("book", &self.book)
            .field("group", &self.group)
            .field("n", &self.n)
            .field("k", &self.k)
            .finish_non_exhaustive()
    }
}

/// A part of a panel.
struct Part<'a> {
    table: [f32; 16],
    bits: usize,
    group: usize,
    /// `[groups][width]`.
    scales: &'a [f32],
    zeros: Option<&'a [f32]>,
    ks: Range<usize>,
    pairs: bool,
    /// `[ks][width]`, or of pairs `[⌈ks/2⌉][width]`.
    out: &'a mut [f32],
}

impl Part<'_> {
    /// A panel of one column: a row of `W`, of `k` codes.
    fn row(self, packed: &[u8], k: usize) {
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
    fn sixteens(self, codes: &[u8], width: usize) {
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
    fn octets(self, codes: &[u8], width: usize) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quant::{Range as GroupRange, decode_group, encode_group, fit_group, pack_codes};
    use crate::{Activation, Epilogue, gemm_low_bit, reference};

    fn values(len: usize, seed: u64) -> Vec<f32> {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..len).map(|_| next()).collect()
    }

    /// A quantized matrix, and what it stands for.
    struct Made {
        codes: Vec<u8>,
        scales: Vec<f32>,
        zeros: Vec<u8>,
        values: Vec<f32>,
        rows: usize,
    }

    fn made(book: CodeBook, size: usize, rows: usize, k: usize, seed: u64) -> Made {
        let w = values(rows * k, seed);
        let len = packed_len(book.bits(), k);
        let mut made = Made {
            codes: vec![0; rows * len],
            scales: Vec::new(),
            zeros: Vec::new(),
            values: vec![0.0; rows * k],
            rows,
        };
        for r in 0..rows {
            let mut codes = vec![0; k];
            let (row, out) = (&w[r * k..][..k], &mut made.values[r * k..][..k]);
            let pieces = row.chunks(size).zip(codes.chunks_mut(size));
            for ((x, codes), out) in pieces.zip(out.chunks_mut(size)) {
                let group = fit_group(book, x, GroupRange::MinMax, None);
                encode_group(book, x, group, codes);
                decode_group(book, codes, group, out);
                made.scales.push(group.scale);
                made.zeros.push(group.zero);
            }
            pack_codes(book.bits(), &codes, &mut made.codes[r * len..][..len]);
        }
        made
    }

    impl Made {
        fn source(&self, book: CodeBook) -> LowBitSource<'_> {
            LowBitSource {
                codes: &self.codes,
                scales: &self.scales,
                zeros: book.has_zero_points().then_some(&self.zeros),
                rows: self.rows,
            }
        }
    }

    #[test]
    fn every_tier_multiplies_what_codes_stand_for() {
        let books = [
            CodeBook::Symmetric(4),
            CodeBook::Asymmetric(4),
            CodeBook::Symmetric(3),
            CodeBook::Asymmetric(3),
            CodeBook::Asymmetric(2),
            CodeBook::Nf4,
            CodeBook::Fp4,
            CodeBook::E2m1,
            CodeBook::Sign,
        ];
        for book in books {
            for (rows, n, k, size) in [
                (1, 1, 1, 64),
                (3, 17, 70, 32),
                (9, 50, 129, 64),
                (140, 40, 600, 128),
            ] {
                let x = values(rows * k, 1);
                let (bias, residual) = (values(n + 3, 2), values(rows * (n + 3), 3));
                let (first, second) = (made(book, size, n, k, 4), made(book, size, 3, k, 5));
                let w = [&first.values[..], &second.values].concat();
                let epilogue = Epilogue {
                    bias: Some(&bias),
                    activation: Activation::GeluErf,
                    residual: Some(&residual),
                };
                let mut expected = vec![0.0; rows * (n + 3)];
                reference::gemm(rows, &x, &w, (n + 3, k), epilogue, &mut expected);
                for isa in Isa::available() {
                    let run = |threads, format| {
                        let exec = Exec::with_isa(isa, threads);
                        let sources = [first.source(book), second.source(book)];
                        let sizes = (size, k);
                        let weights =
                            LowBitWeights::pack_stacked(&exec, &sources, book, sizes, format);
                        let mut y = vec![f32::NAN; rows * (n + 3)];
                        gemm_low_bit(&exec, rows, &x, &weights, epilogue, &mut y);
                        y
                    };
                    for (format, most) in [(PackedFormat::F32, 2e-4), (PackedFormat::Bf16, 5e-2)] {
                        let one = run(1, format);
                        let again = run(3, format);
                        assert_eq!(one, again, "{isa} {book:?}: threads change nothing");
                        for (found, expected) in one.iter().zip(&expected) {
                            assert!(
                                (found - expected).abs() < most * (1.0 + expected.abs()),
                                "{isa} {book:?} {format:?} {rows} {n} {k}: {found} {expected}"
                            );
                        }
                    }
                }
            }
        }
    }
}
