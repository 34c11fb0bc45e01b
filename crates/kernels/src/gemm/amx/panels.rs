//! Weights as tiles: panels of 32 columns of `Wᵀ`, step after step of K.

use crate::amx::{BLOCK, ROW_BYTES, TILE_BYTES, TILE_ROWS};
use crate::simd::{Kernel, Simd};

/// Values of k in a step of bf16.
const STEP: usize = 32;

/// Bytes of a panel of bf16, in halves where `parts` is 2.
pub(in crate::gemm) fn panel_bytes(k: usize, parts: usize) -> usize {
    k.div_ceil(STEP) * parts * 2 * TILE_BYTES
}

/// Rounds a panel `[k, 32]` and lays it in tiles: of the nearest bf16, or of that and what it leaves where `halves`. Gives the
/// largest magnitude; NaN where one is no number.
pub(in crate::gemm) struct PackTiles<'a> {
    pub(in crate::gemm) from: &'a [f32],
    pub(in crate::gemm) halves: bool,
    /// A [`panel_bytes`] of f32 words.
    pub(in crate::gemm) to: &'a mut [f32],
}

impl Kernel for PackTiles<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> f32 {
        const TILE: usize = TILE_BYTES / size_of::<f32>();
        const ROW: usize = ROW_BYTES / size_of::<f32>();
        let Self { from, halves, to } = self;
        let parts = 1 + usize::from(halves);
        let zeros = [0.0; BLOCK];
        let (mut most, mut unknown) = (simd.zero(), simd.zero());
        let steps = to.chunks_exact_mut(parts * 2 * TILE);
        for (rows, step) in from.chunks(STEP * BLOCK).zip(steps) {
            for pair in 0..TILE_ROWS {
                let row = |k: usize| rows.chunks_exact(BLOCK).nth(k).unwrap_or(&zeros);
                let (first, second) = (row(2 * pair), row(2 * pair + 1));
                for column in (0..BLOCK).step_by(S::LANES) {
                    let at = column / TILE_ROWS * TILE + pair * ROW + column % TILE_ROWS;
                    let values = [simd.load(&first[column..]), simd.load(&second[column..])];
                    for value in values {
                        most = simd.max(simd.abs(value), most);
                        unknown = simd.mul_add(value, simd.zero(), unknown);
                    }
                    simd.store(&mut step[at..], simd.pair_bf16(values[0], values[1]));
                    if halves {
                        let low = values.map(|value| simd.sub(value, simd.round_bf16(value)));
                        simd.store(&mut step[2 * TILE + at..], simd.pair_bf16(low[0], low[1]));
                    }
                }
            }
        }
        // Infinities and NaN times zero are NaN.
        simd.largest(most) + simd.sum(unknown)
    }
}
