//! Weights in codes of 1 to 4 bits, which stay so in memory: a panel's part becomes f32 just before it is multiplied, in a
//! buffer that fits L1, and serves all rows of a task.
//!
//! Eight columns of one k take as many bytes as a code has bits: they are spread over eight lanes (on AVX-512 sixteen) by a
//! shift for each, looked up in a register, and scaled. Where the machine multiplies bf16 and that is asked for, two of
//! consecutive k become a pair of bf16.

mod expand;
#[cfg(test)]
mod tests;

use std::ops::Range;

use expand::Part;

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
                    Tier::Avx512(_) | Tier::Amx(_) => part.sixteens(codes, width),
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
