//! How many bits differ between rows of words and a panel of eight: the sums of a tile.
//!
//! AVX2 has no count of bits. A table in a register gives the count of half a byte, 32 at a time; counts of bytes are added
//! up over 31 words, the most that a byte holds, and only then across the bytes of a word (Muła et al. 2016,
//! <https://arxiv.org/abs/1611.07612>).

use super::{COLUMNS, ROWS};
use crate::isa::{Isa, Tier};

/// `sums[r·width + c]`: bits that differ between row `r` of up to four rows of `words` words, and column `c` of a panel.
pub(super) fn differing(
    isa: Isa,
    x: &[u64],
    words: usize,
    panel: &[u64],
    (sums, width): (&mut [u32], usize),
) {
    assert!(words > 0 && panel.len() == words * COLUMNS && x.len() <= ROWS * words);
    assert!(sums.len() >= (x.len() / words).max(1) * width - (width - COLUMNS));
    match isa.0 {
        Tier::Portable(_) => portable(x, words, panel, (sums, width)),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the token proves AVX2; the assertion the lengths.
        Tier::Avx2(_) => unsafe { avx2::differing(x, words, panel, (sums, width)) },
        #[cfg(target_arch = "x86_64")]
        Tier::Avx512(_) | Tier::Amx(_) => {
            match std::arch::is_x86_feature_detected!("avx512vpopcntdq") {
                // SAFETY: both were detected; the assertion proves the lengths.
                true => unsafe { avx512::differing(x, words, panel, (sums, width)) },
                // SAFETY: AVX-512 comes with AVX2; the assertion proves the lengths.
                false => unsafe { avx2::differing(x, words, panel, (sums, width)) },
            }
        }
    }
}

fn portable(x: &[u64], words: usize, panel: &[u64], (sums, width): (&mut [u32], usize)) {
    for (row, sums) in x.chunks_exact(words).zip(sums.chunks_mut(width)) {
        let sums = &mut sums[..COLUMNS];
        sums.fill(0);
        for (&x, columns) in row.iter().zip(panel.chunks_exact(COLUMNS)) {
            for (sum, &w) in sums.iter_mut().zip(columns) {
                *sum += (x ^ w).count_ones();
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::*;

    use super::super::COLUMNS;

    /// The most words whose counts of bytes fit a byte.
    const MOST: usize = 31;

    /// # Safety
    /// AVX2; `x` has whole rows of `words` words, at most four, and the panel `words·8`.
    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn differing(
        x: &[u64],
        words: usize,
        panel: &[u64],
        (sums, width): (&mut [u32], usize),
    ) {
        // SAFETY: as the caller promises.
        unsafe {
            match x.len() / words {
                1 => rows::<1>(x, words, panel, (sums, width)),
                2 => rows::<2>(x, words, panel, (sums, width)),
                3 => rows::<3>(x, words, panel, (sums, width)),
                4 => rows::<4>(x, words, panel, (sums, width)),
                _ => {}
            }
        }
    }

    /// # Safety
    /// As [`differing`], with `R` rows.
    #[target_feature(enable = "avx2")]
    unsafe fn rows<const R: usize>(
        x: &[u64],
        words: usize,
        panel: &[u64],
        (sums, width): (&mut [u32], usize),
    ) {
        let halves = _mm256_set1_epi8(15);
        let counts = _mm256_setr_epi8(
            0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4, 0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2,
            3, 3, 4,
        );
        let zero = _mm256_setzero_si256();
        let mut totals = [[zero; 2]; R];
        let mut start = 0;
        while start < words {
            let end = words.min(start + MOST);
            let mut bytes = [[zero; 2]; R];
            for word in start..end {
                for v in 0..2 {
                    // SAFETY: the panel has eight words for each word of a row.
                    let w = unsafe {
                        _mm256_loadu_si256(panel.as_ptr().add(word * COLUMNS + 4 * v).cast())
                    };
                    for (r, bytes) in bytes.iter_mut().enumerate() {
                        // SAFETY: `x` has R rows of `words` words.
                        let x = unsafe { *x.as_ptr().add(r * words + word) };
                        let bits = _mm256_xor_si256(w, _mm256_set1_epi64x(x.cast_signed()));
                        let low = _mm256_and_si256(bits, halves);
                        let high = _mm256_and_si256(_mm256_srli_epi16::<4>(bits), halves);
                        let both = _mm256_add_epi8(
                            _mm256_shuffle_epi8(counts, low),
                            _mm256_shuffle_epi8(counts, high),
                        );
                        bytes[v] = _mm256_add_epi8(bytes[v], both);
                    }
                }
            }
            for (totals, bytes) in totals.iter_mut().zip(&bytes) {
                for (total, &bytes) in totals.iter_mut().zip(bytes) {
                    *total = _mm256_add_epi64(*total, _mm256_sad_epu8(bytes, zero));
                }
            }
            start = end;
        }
        for (r, [low, high]) in totals.iter().enumerate() {
            // The low halves of eight words, in order.
            let (low, high) = (_mm256_castsi256_ps(*low), _mm256_castsi256_ps(*high));
            let mixed = _mm256_castps_pd(_mm256_shuffle_ps::<0x88>(low, high));
            let counts = _mm256_castpd_si256(_mm256_permute4x64_pd::<0xD8>(mixed));
            let to = &mut sums[r * width..][..COLUMNS];
            // SAFETY: eight counts.
            unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), counts) };
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::*;

    use super::super::{COLUMNS, ROWS};

    /// # Safety
    /// AVX-512F and VPOPCNTDQ; `x` has whole rows of `words` words, at most four, and the panel `words·8`.
    #[target_feature(enable = "avx512f,avx512vpopcntdq")]
    pub(super) unsafe fn differing(
        x: &[u64],
        words: usize,
        panel: &[u64],
        (sums, width): (&mut [u32], usize),
    ) {
        let count = x.len() / words;
        let mut totals = [_mm512_setzero_si512(); ROWS];
        for word in 0..words {
            // SAFETY: the panel has eight words for each word of a row.
            let w = unsafe { _mm512_loadu_si512(panel.as_ptr().add(word * COLUMNS).cast()) };
            for (r, total) in totals.iter_mut().enumerate().take(count) {
                // SAFETY: `x` has `count` rows of `words` words.
                let x = unsafe { *x.as_ptr().add(r * words + word) };
                let bits = _mm512_xor_si512(w, _mm512_set1_epi64(x.cast_signed()));
                *total = _mm512_add_epi64(*total, _mm512_popcnt_epi64(bits));
            }
        }
        for (r, &total) in totals.iter().enumerate().take(count) {
            let mut lanes = [0u64; COLUMNS];
            // SAFETY: eight words.
            unsafe { _mm512_storeu_si512(lanes.as_mut_ptr().cast(), total) };
            for (lane, &count) in lanes.iter().enumerate() {
                sums[r * width + lane] = count as u32;
            }
        }
    }
}
