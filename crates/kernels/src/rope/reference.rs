//! Rotary position embedding one value at a time, in f64.

use super::{RotaryTable, angle};
use crate::{Float, Segments};

/// See [`rope`](crate::rope()).
pub fn rope<F: Float>(
    data: &mut [F],
    stride: usize,
    segments: Segments<'_>,
    heads: usize,
    table: &RotaryTable,
    back: bool,
) {
    let dim = table.head_dim;
    for range in segments.ranges() {
        for (place, row) in range.enumerate() {
            for head in 0..heads {
                for t in 0..dim / 2 {
                    let (sin, cos) = angle(place, t, dim, table.theta).sin_cos();
                    let sin = if back { -sin } else { sin };
                    let low = row * stride + head * dim + t;
                    let high = low + dim / 2;
                    let (x, y) = (data[low].to_f64(), data[high].to_f64());
                    data[low] = F::from_f64(x * cos - y * sin);
                    data[high] = F::from_f64(y * cos + x * sin);
                }
            }
        }
    }
}
