//! The product with weights of 8 bits: `act((q(x)·Wqᵀ)·s_x·s_w + bias) + residual`.
//!
//! A weight's row has one scale, an input's row (a token) one that is found as it runs; both are symmetric, with values
//! from −127 to 127, so no zero points are anywhere. Sums are i32 and exact: the same on every instruction set, whatever
//! the order.
//!
//! - `quantize`: rows in 8 bits;
//! - `quads`: where the machine multiplies bytes by four (AVX-512 VNNI), on the tiles of the f32 product;
//! - `pairs`: elsewhere bytes are widened to 16 bits and multiplied in pairs, whose sums cannot overflow.

mod pairs;
mod quads;
mod quantize;
#[cfg(test)]
mod tests;

pub(crate) use quads::Scaling;
pub use quantize::{quantize_row_int8, quantize_rows_int8};

use super::tile::panel_width;
use super::{Epilogue, gemm_is_empty};
use crate::Exec;
use crate::buffer::AlignedFloats;
use crate::isa::Isa;

/// The largest K: `2¹⁷·127²` stays below `2³¹`.
const MOST_K: usize = 1 << 17;

/// The weight `W[N,K]` of a product in 8 bits with an f32 scale for each row, in the layout that one instruction set
/// wants.
///
/// Panels of some rows of `W`; in a panel, for each pair or each four of k, the bytes of each row. Rows and k are filled up
/// with zeros.
pub struct Int8Weights {
    data: AlignedFloats,
    scales: Vec<f32>,
    /// Where inputs go without a sign: 128 times the sum of each row, by which products are too large.
    excess: Vec<i32>,
    layout: Layout,
    isa: Isa,
    n: usize,
    k: usize,
}

/// How bytes lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Layout {
    /// Rows of `W` in a panel.
    columns: usize,
    /// Values of consecutive k that lie side by side.
    together: usize,
}

impl Int8Weights {
    /// Packs `W[rows,k]` of each part, one below the other, with the scales `[rows]` of their rows.
    ///
    /// # Panics
    /// When a part has not `rows·k` values for its `rows` scales, or `k` is beyond 2¹⁷.
    pub fn pack_stacked(exec: &Exec, parts: &[(&[i8], &[f32])], k: usize) -> Self {
        assert!(k <= MOST_K, "sums of more than {MOST_K} products overflow");
        let isa = exec.isa();
        let quads = isa.multiplies_int8();
        let layout = match quads {
            true => Layout {
                columns: panel_width(isa),
                together: 4,
            },
            false => Layout {
                columns: pairs::COLUMNS,
                together: 2,
            },
        };
        let Layout { columns, together } = layout;
        let n = parts.iter().map(|(_, scales)| scales.len()).sum::<usize>();
        let panel_len = k.next_multiple_of(together) * columns;
        let len = n.div_ceil(columns) * panel_len;
        let mut data = AlignedFloats::zeroed(len.div_ceil(size_of::<f32>()));
        let bytes = data.as_bytes_mut();
        let mut scales = Vec::with_capacity(n);
        let mut excess = Vec::new();
        for (values, part_scales) in parts {
            assert_eq!(values.len(), part_scales.len() * k, "weights are [rows, k]");
            for r in 0..part_scales.len() {
                let row = scales.len() + r;
                let panel = row / columns * panel_len + row % columns * together;
                let values = &values[r * k..][..k];
                for (i, &value) in values.iter().enumerate() {
                    let at = i / together * columns * together + i % together;
                    bytes[panel + at] = value.cast_unsigned();
                }
                if quads {
                    let sum: i32 = values.iter().map(|&value| i32::from(value)).sum();
                    excess.push(sum.wrapping_mul(quads::SHIFT));
                }
            }
            scales.extend_from_slice(part_scales);
        }
        Self {
            data,
            scales,
            excess,
            layout,
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
        size_of_val(&*self.data) + size_of_val(&*self.scales) + size_of_val(&*self.excess)
    }

    /// The instruction set they were packed for.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Words of four bytes that a row of inputs has, where they are multiplied by four.
    #[inline(always)]
    pub(super) fn words(&self) -> usize {
        self.k.div_ceil(self.layout.together)
    }

    /// A panel of words of four bytes.
    #[inline(always)]
    pub(super) fn quads(&self, panel: usize) -> &[f32] {
        let len = self.words() * self.layout.columns;
        &self.data[panel * len..][..len]
    }

    /// A panel of pairs.
    fn pairs(&self, panel: usize) -> &[u8] {
        let len = self.words() * 2 * self.layout.columns;
        &self.data.as_bytes()[panel * len..][..len]
    }
}

impl std::fmt::Debug for Int8Weights {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Int8Weights")
            .field("isa", &self.isa)
            .field("n", &self.n)
            .field("k", &self.k)
            .finish_non_exhaustive()
    }
}

/// `y[T,N] = epilogue((q(x)·Wqᵀ)·s_x·s_w)` for `x[T,K]`: each row of `x` is quantized by its own largest value. Runs on
/// the instruction set that the weights were packed for.
///
/// # Panics
/// When a slice has another length.
pub fn gemm_int8(
    exec: &Exec,
    rows: usize,
    x: &[f32],
    weights: &Int8Weights,
    epilogue: Epilogue<'_>,
    y: &mut [f32],
) {
    if gemm_is_empty((rows, weights.n, weights.k), x, epilogue, y) {
        return;
    }
    match weights.layout.together {
        4 => quads::gemm(exec, rows, x, weights, epilogue, y),
        _ => pairs::gemm(exec, rows, x, weights, epilogue, y),
    }
}
