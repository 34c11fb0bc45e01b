//! Bytes multiplied by four, on the tiles and blocks of the f32 product.
//!
//! The instruction takes one operand without a sign. Inputs get 128 added (their sign bit turned), by which a product is
//! larger by 128 times the sum of its weights: that is known when they are packed, and taken off again.

use std::ops::Range;

use super::Int8Weights;
use super::quantize::quantize_rows;
use crate::Exec;
use crate::gemm::{Epilogue, driver, with_words};

/// What inputs are shifted by.
pub(super) const SHIFT: i32 = 128;

/// See [`gemm_int8`](super::gemm_int8).
pub(super) fn gemm(
    exec: &Exec,
    rows: usize,
    x: &[f32],
    weights: &Int8Weights,
    epilogue: Epilogue<'_>,
    y: &mut [f32],
) {
    let (k, words) = (weights.k, weights.words());
    with_words(rows * (words + 1), |room| {
        let (levels, scales) = room.split_at_mut(rows * words);
        // SAFETY: a word is four bytes, and any bytes are a word.
        let bytes = unsafe {
            std::slice::from_raw_parts_mut(levels.as_mut_ptr().cast::<u8>(), 4 * levels.len())
        };
        quantize_rows(exec, weights.isa, (x, k), (bytes, 4 * words), scales);
        let scaling = Scaling {
            rows: scales,
            columns: &weights.scales,
            excess: &weights.excess,
        };
        let panels = driver::Panels::Int8(weights, scaling);
        driver::gemm(
            exec,
            rows,
            levels,
            panels,
            epilogue,
            None,
            driver::Output::Values(y),
        );
    });
}

/// What turns sums into values.
#[derive(Clone, Copy)]
pub(crate) struct Scaling<'a> {
    rows: &'a [f32],
    columns: &'a [f32],
    excess: &'a [i32],
}

impl Scaling<'_> {
    /// Turns the sums of a tile, whose rows are `width` apart, into values.
    #[inline(always)]
    pub(in crate::gemm) fn apply(
        self,
        tile: &mut [f32],
        width: usize,
        rows: Range<usize>,
        columns: Range<usize>,
    ) {
        let scales = &self.columns[columns.clone()];
        let excess = &self.excess[columns];
        for (tile, &row_scale) in tile.chunks_exact_mut(width).zip(&self.rows[rows]) {
            for ((value, &scale), &excess) in tile.iter_mut().zip(scales).zip(excess) {
                let sum = value.to_bits().cast_signed().wrapping_sub(excess);
                *value = sum as f32 * (row_scale * scale);
            }
        }
    }
}
