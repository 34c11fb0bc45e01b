//! Weights as tiles: panels of 32 columns of `Wᵀ`, step after step of K.

use super::rows::Range;
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
pub(crate) struct PackTiles<'a> {
    pub(crate) from: &'a [f32],
    pub(crate) halves: bool,
    /// A [`panel_bytes`] of f32 words.
    pub(crate) to: &'a mut [f32],
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
        let mut range = Range::new(simd);
        let steps = to.chunks_exact_mut(parts * 2 * TILE);
        for (rows, step) in from.chunks(STEP * BLOCK).zip(steps) {
            for pair in 0..TILE_ROWS {
                let first = row(rows, 2 * pair).unwrap_or(&zeros);
                let second = row(rows, 2 * pair + 1).unwrap_or(&zeros);
                for column in (0..BLOCK).step_by(S::LANES) {
                    let at = column / TILE_ROWS * TILE + pair * ROW + column % TILE_ROWS;
                    let values = [simd.load(&first[column..]), simd.load(&second[column..])];
                    range.take(simd, values[0]);
                    range.take(simd, values[1]);
                    simd.store(&mut step[at..], simd.pair_bf16(values[0], values[1]));
                    if halves {
                        let first = simd.sub(values[0], simd.round_bf16(values[0]));
                        let second = simd.sub(values[1], simd.round_bf16(values[1]));
                        simd.store(&mut step[2 * TILE + at..], simd.pair_bf16(first, second));
                    }
                }
            }
        }
        range.largest(simd)
    }
}

/// Row `k` of a panel, if it has it.
#[inline(always)]
fn row(panel: &[f32], k: usize) -> Option<&[f32]> {
    panel.get(k * BLOCK..(k + 1) * BLOCK)
}
