//! The bits of a weight.

use std::ops::Range;

use super::{COLUMNS, WORD};
use crate::Exec;
use crate::buffer::AlignedFloats;
use crate::gemm::tile::panel_width;
use crate::isa::Isa;

/// The signs of `W[N,K]`, with a scale for each row, in the layout that one instruction set wants.
///
/// Panels of some rows; in a panel, for each 64 values of k, the word of each row, or for each 32 where the machine counts
/// bits and the product runs on the tiles of that of f32. Rows and k are filled up with zeros.
pub struct BinaryWeights {
    data: Data,
    scales: Vec<f32>,
    /// What inputs are compared with, where that is not 0.
    thresholds: Option<Vec<f32>>,
    isa: Isa,
    n: usize,
    k: usize,
}

enum Data {
    /// Panels of eight rows.
    Words(Vec<u64>),
    /// Panels of as many rows as a tile has columns, in words of 32 bits.
    Tiles(AlignedFloats),
}

/// Words of 32 bits in one of 64.
const HALVES: usize = 2;

impl BinaryWeights {
    /// Packs matrices of `k` columns, one below the other: bits as [`pack_codes`](crate::pack_codes) packs them, each row
    /// from a byte on, with the scales of the rows.
    ///
    /// # Panics
    /// When a part has other lengths than its rows and `k` say.
    pub fn pack_stacked(exec: &Exec, parts: &[(&[u8], &[f32])], k: usize) -> Self {
        let isa = exec.isa();
        let n = parts.iter().map(|(_, scales)| scales.len()).sum::<usize>();
        // Bytes of a word, and rows whose words lie side by side.
        let (bytes, columns) = match isa.counts_bits() {
            true => (WORD / HALVES / 8, panel_width(isa)),
            false => (WORD / 8, COLUMNS),
        };
        let row_bytes = k.div_ceil(WORD) * WORD / 8;
        let panel_bytes = row_bytes * columns;
        let mut data = AlignedFloats::zeroed(n.div_ceil(columns) * panel_bytes / size_of::<f32>());
        let mut scales = Vec::with_capacity(n);
        let len = k.div_ceil(8);
        for (bits, part) in parts {
            assert_eq!(bits.len(), part.len() * len, "bits of [rows, {k}]");
            for r in 0..part.len() {
                let row = scales.len() + r;
                let panel = row / columns * panel_bytes;
                for (i, &byte) in bits[r * len..][..len].iter().enumerate() {
                    let at = (i / bytes * columns + row % columns) * bytes + i % bytes;
                    // The first value is the highest bit of a byte there, the lowest of a word here.
                    data.as_bytes_mut()[panel + at] = byte.reverse_bits();
                }
            }
            scales.extend_from_slice(part);
        }
        let data = match isa.counts_bits() {
            true => Data::Tiles(data),
            false => {
                let words = data.as_bytes().as_chunks::<8>().0.iter();
                Data::Words(words.map(|&bytes| u64::from_le_bytes(bytes)).collect())
            }
        };
        Self {
            data,
            scales,
            thresholds: None,
            isa,
            n,
            k,
        }
    }

    /// The same for inputs whose bits are 1 where they are not below a threshold of their column, in place of 0.
    ///
    /// # Panics
    /// When there is not a threshold for each column.
    #[must_use]
    pub fn with_thresholds(mut self, thresholds: Vec<f32>) -> Self {
        assert_eq!(thresholds.len(), self.k, "thresholds of {} columns", self.k);
        self.thresholds = Some(thresholds);
        self
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
        let data = match &self.data {
            Data::Words(words) => size_of_val(&**words),
            Data::Tiles(words) => size_of_val(&**words),
        };
        let thresholds = self.thresholds.as_deref().map_or(0, size_of_val);
        data + size_of_val(&*self.scales) + thresholds
    }

    /// The instruction set they were packed for.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Whether the product runs on the tiles of that of f32.
    pub(super) fn for_tiles(&self) -> bool {
        matches!(self.data, Data::Tiles(_))
    }

    /// Words of 32 bits of a row.
    #[inline(always)]
    pub(crate) fn words(&self) -> usize {
        self.k.div_ceil(WORD) * HALVES
    }

    /// A panel for a tile; nothing where there are none.
    #[inline(always)]
    pub(crate) fn tile_panel(&self, panel: usize) -> &[f32] {
        match &self.data {
            Data::Tiles(words) => {
                let len = self.words() * panel_width(self.isa);
                &words[panel * len..][..len]
            }
            Data::Words(_) => &[],
        }
    }

    /// Turns counts of signs that differ, as the bits of rows that are `width` apart, into products.
    #[inline(always)]
    pub(crate) fn scale(&self, tile: &mut [f32], width: usize, columns: Range<usize>) {
        let k = self.k as i32;
        let scales = &self.scales[columns];
        for row in tile.chunks_exact_mut(width) {
            for (value, &scale) in row.iter_mut().zip(scales) {
                *value = (k - 2 * value.to_bits().cast_signed()) as f32 * scale;
            }
        }
    }

    /// What inputs are compared with; nothing stands for 0.
    pub(super) fn thresholds(&self) -> Option<&[f32]> {
        self.thresholds.as_deref()
    }

    /// A scale for each row.
    pub(super) fn scales(&self) -> &[f32] {
        &self.scales
    }

    /// The words of eight rows; nothing where panels are those of tiles.
    pub(super) fn panel(&self, panel: usize) -> &[u64] {
        let len = self.k.div_ceil(WORD) * COLUMNS;
        match &self.data {
            Data::Words(words) => &words[panel * len..][..len],
            Data::Tiles(_) => &[],
        }
    }
}

impl std::fmt::Debug for BinaryWeights {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BinaryWeights")
            .field("n", &self.n)
            .field("k", &self.k)
            .finish_non_exhaustive()
    }
}
