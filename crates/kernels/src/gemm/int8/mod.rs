//! The product with weights of 8 bits: `act((q(x)·Wqᵀ)·s_x·s_w + bias) + residual`.
//!
//! A weight's row has one scale, an input's row (a token) one that is found as it runs; both are symmetric, with values
//! from −127 to 127, so no zero points are anywhere. Sums are i32 and exact: the same on every instruction set, whatever
//! the order.
//!
//! - `quantize`: rows in 8 bits;
//! - on AMX in tiles: see `gemm::amx`;
//! - `quads`: where the machine multiplies bytes by four (AVX-512 VNNI), on the tiles of the f32 product;
//! - `pairs`: elsewhere bytes are widened to 16 bits and multiplied in pairs, whose sums cannot overflow;
//! - `outliers`: inputs that are too large for bytes, where weights say from which magnitude on.

mod outliers;
mod pairs;
mod quads;
mod quantize;
#[cfg(test)]
mod tests;

pub(crate) use quads::Scaling;
#[cfg(target_arch = "x86_64")]
pub(super) use quantize::{inverse, level, row_scale};
pub use quantize::{quantize_row_int8, quantize_rows_int8};

#[cfg(target_arch = "x86_64")]
use super::amx;
use super::tile::panel_width;
use super::{Epilogue, gemm_is_empty};
use crate::Exec;
#[cfg(target_arch = "x86_64")]
use crate::amx::{BLOCK, TILE_BYTES, TILE_ROWS};
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
    /// The magnitude from which on inputs are not rounded.
    outliers: Option<f32>,
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
    order: Order,
}

/// What lies side by side in a panel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// Two of consecutive k, then the next row's.
    Pairs,
    /// Four.
    Quads,
    /// Tiles of the matrix unit: 64 of k by 16 rows, four of consecutive k side by side.
    #[cfg(target_arch = "x86_64")]
    Tiles,
}

impl Layout {
    fn of(isa: Isa) -> Self {
        #[cfg(target_arch = "x86_64")]
        if isa.amx().is_some() {
            return Self {
                columns: BLOCK,
                order: Order::Tiles,
            };
        }
        match isa.multiplies_int8() {
            true => Self {
                columns: panel_width(isa),
                order: Order::Quads,
            },
            false => Self {
                columns: pairs::COLUMNS,
                order: Order::Pairs,
            },
        }
    }

    /// Values of k that are filled up to.
    fn step(self) -> usize {
        match self.order {
            Order::Pairs => 2,
            Order::Quads => 4,
            #[cfg(target_arch = "x86_64")]
            Order::Tiles => <crate::amx::Int8 as crate::amx::Operand>::STEP,
        }
    }

    fn panel_bytes(self, k: usize) -> usize {
        k.next_multiple_of(self.step()) * self.columns
    }

    /// Where in a panel the k-th value of a row is.
    #[inline(always)]
    fn at(self, row: usize, k: usize) -> usize {
        let side_by_side = |together| (k / together * self.columns + row) * together + k % together;
        match self.order {
            Order::Pairs => side_by_side(2),
            Order::Quads => side_by_side(4),
            #[cfg(target_arch = "x86_64")]
            Order::Tiles => {
                let step = self.step();
                let tile = k / step * (self.columns / TILE_ROWS) + row / TILE_ROWS;
                let (k, row) = (k % step, row % TILE_ROWS);
                tile * TILE_BYTES + (k / 4 * TILE_ROWS + row) * 4 + k % 4
            }
        }
    }
}

impl Int8Weights {
    /// Packs `W[rows,k]` of each part, one below the other, with the scales `[rows]` of their rows.
    ///
    /// # Panics
    /// When a part has not `rows·k` values for its `rows` scales, or `k` is beyond 2¹⁷.
    pub fn pack_stacked(exec: &Exec, parts: &[(&[i8], &[f32])], k: usize) -> Self {
        assert!(k <= MOST_K, "sums of more than {MOST_K} products overflow");
        let isa = exec.isa();
        let layout = Layout::of(isa);
        let n = parts.iter().map(|(_, scales)| scales.len()).sum::<usize>();
        let (columns, panel_len) = (layout.columns, layout.panel_bytes(k));
        let len = n.div_ceil(columns) * panel_len;
        let mut data = AlignedFloats::zeroed(len.div_ceil(size_of::<f32>()));
        let bytes = data.as_bytes_mut();
        let mut scales = Vec::with_capacity(n);
        let mut excess = Vec::new();
        for (values, part_scales) in parts {
            assert_eq!(values.len(), part_scales.len() * k, "weights are [rows, k]");
            for r in 0..part_scales.len() {
                let row = scales.len() + r;
                let panel = &mut bytes[row / columns * panel_len..][..panel_len];
                let values = &values[r * k..][..k];
                for (i, &value) in values.iter().enumerate() {
                    panel[layout.at(row % columns, i)] = value.cast_unsigned();
                }
                if layout.order == Order::Quads {
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
            outliers: None,
            layout,
            isa,
            n,
            k,
        }
    }

    /// The same for inputs that are not rounded from a magnitude on, which is above 0: they are multiplied as floats with what
    /// the bytes stand for (Dettmers et al. 2022, LLM.int8(), <https://arxiv.org/abs/2208.07339>).
    #[must_use]
    pub fn with_outliers(mut self, threshold: f32) -> Self {
        self.outliers = Some(threshold);
        self
    }

    /// What the bytes of column `k` stand for, `[N]`.
    fn column(&self, k: usize, values: &mut [f32]) {
        let (columns, panel_len) = (self.layout.columns, self.layout.panel_bytes(self.k));
        let bytes = self.data.as_bytes();
        for (row, (value, scale)) in values.iter_mut().zip(&self.scales).enumerate() {
            let at = row / columns * panel_len + self.layout.at(row % columns, k);
            *value = f32::from(bytes[at].cast_signed()) * scale;
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
        self.k.div_ceil(self.layout.step())
    }

    /// A panel of words of four bytes.
    #[inline(always)]
    pub(super) fn quads(&self, panel: usize) -> &[f32] {
        let len = self.words() * self.layout.columns;
        &self.data[panel * len..][..len]
    }

    /// The product of bytes.
    fn product(&self, exec: &Exec, rows: usize, x: &[f32], epilogue: Epilogue<'_>, y: &mut [f32]) {
        match self.layout.order {
            Order::Pairs => pairs::gemm(exec, rows, x, self, epilogue, y),
            Order::Quads => quads::gemm(exec, rows, x, self, epilogue, y),
            #[cfg(target_arch = "x86_64")]
            Order::Tiles => {
                let amx = self.isa.amx().expect("tiles are packed for AMX");
                let inputs = amx::Inputs { rows, x };
                let tiles = amx::Weights {
                    n: self.n,
                    k: self.k,
                    panels: self.data.as_bytes(),
                    scales: &self.scales,
                };
                amx::gemm::<crate::amx::Int8>(exec, amx, inputs, tiles, epilogue, None, y);
            }
        }
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

/// `y[T,N] = epilogue((q(x)·Wqᵀ)·s_x·s_w)` for `x[T,K]`: each row of `x` is quantized by its own largest value, of those that are
/// not [outliers](Int8Weights::with_outliers). Runs on the instruction set that the weights were packed for.
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
    if let Some(threshold) = weights.outliers
        && outliers::gemm(exec, (rows, x), (weights, threshold), epilogue, y)
    {
        return;
    }
    weights.product(exec, rows, x, epilogue, y);
}
