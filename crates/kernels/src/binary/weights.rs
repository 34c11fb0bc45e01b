//! The bits of a weight.

use super::{COLUMNS, WORD};

/// The signs of `W[N,K]`, with a scale for each row.
///
/// Panels of eight rows; in a panel, for each 64 values of k, the word of each row. Rows and k are filled up with zeros.
pub struct BinaryWeights {
    words: Vec<u64>,
    scales: Vec<f32>,
    n: usize,
    k: usize,
}

impl BinaryWeights {
    /// Packs matrices of `k` columns, one below the other: bits as [`pack_codes`](crate::pack_codes) packs them, each row
    /// from a byte on, with the scales of the rows.
    ///
    /// # Panics
    /// When a part has other lengths than its rows and `k` say.
    pub fn pack_stacked(parts: &[(&[u8], &[f32])], k: usize) -> Self {
        let n = parts.iter().map(|(_, scales)| scales.len()).sum::<usize>();
        let words = k.div_ceil(WORD);
        let mut data = vec![0u64; n.div_ceil(COLUMNS) * COLUMNS * words];
        let mut scales = Vec::with_capacity(n);
        let len = k.div_ceil(8);
        for (bits, part) in parts {
            assert_eq!(bits.len(), part.len() * len, "bits of [rows, {k}]");
            for r in 0..part.len() {
                let row = scales.len() + r;
                let panel = row / COLUMNS * words * COLUMNS;
                for (i, &byte) in bits[r * len..][..len].iter().enumerate() {
                    let word = panel + i / 8 * COLUMNS + row % COLUMNS;
                    // The first value is the highest bit of a byte there, the lowest of a word here.
                    data[word] |= u64::from(byte.reverse_bits()) << (i % 8 * 8);
                }
            }
            scales.extend_from_slice(part);
        }
        Self {
            words: data,
            scales,
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
        size_of_val(&*self.words) + size_of_val(&*self.scales)
    }

    /// A scale for each row.
    pub(super) fn scales(&self) -> &[f32] {
        &self.scales
    }

    /// The words of eight rows.
    pub(super) fn panel(&self, panel: usize) -> &[u64] {
        let len = self.k.div_ceil(WORD) * COLUMNS;
        &self.words[panel * len..][..len]
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
