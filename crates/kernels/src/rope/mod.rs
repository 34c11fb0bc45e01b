//! Rotary position embedding (Su et al. 2021, <https://arxiv.org/abs/2104.09864>), by halves: value t of a head turns with
//! value t + D/2, as in GPT-NeoX and ModernBERT.

pub(crate) mod reference;

use crate::Exec;
use crate::Segments;

/// Sines and cosines of the angles `p·theta^(−2t/D)` for places p and t < D/2.
#[derive(Clone, Debug, PartialEq)]
pub struct RotaryTable {
    /// Width of a head (D).
    pub(crate) head_dim: usize,
    pub(crate) theta: f64,
    /// `[place]`: D/2 cosines, then D/2 sines.
    turns: Vec<f32>,
}

impl RotaryTable {
    /// A table for `places` places of heads of an even width.
    ///
    /// # Panics
    /// When the width is odd.
    pub fn new(places: usize, head_dim: usize, theta: f64) -> Self {
        assert!(head_dim.is_multiple_of(2), "halves of {head_dim} values");
        let angles = |place| (0..head_dim / 2).map(move |t| angle(place, t, head_dim, theta));
        let turns = (0..places)
            .flat_map(|place| {
                let cosines = angles(place).map(f64::cos);
                cosines.chain(angles(place).map(f64::sin))
            })
            .map(|value| value as f32)
            .collect();
        Self {
            head_dim,
            theta,
            turns,
        }
    }

    /// Width of a head (D).
    pub fn head_dim(&self) -> usize {
        self.head_dim
    }

    /// Number of places.
    pub fn places(&self) -> usize {
        self.turns.len() / self.head_dim.max(1)
    }

    /// The cosines and sines of a place.
    #[inline(always)]
    fn at(&self, place: usize) -> (&[f32], &[f32]) {
        let turns = &self.turns[place * self.head_dim..][..self.head_dim];
        turns.split_at(self.head_dim / 2)
    }

    /// Writes a head's values at a place, turned.
    #[inline(always)]
    pub(crate) fn turn(&self, place: usize, from: &[f32], to: &mut [f32]) {
        let (cos, sin) = self.at(place);
        let half = cos.len();
        let (low, high) = (&from[..half], &from[half..2 * half]);
        let (to_low, to_high) = to[..2 * half].split_at_mut(half);
        for t in 0..half {
            to_low[t] = low[t] * cos[t] - high[t] * sin[t];
            to_high[t] = high[t] * cos[t] + low[t] * sin[t];
        }
    }

    /// Turns a head's values, or gradients, at a place back.
    #[inline(always)]
    pub(crate) fn turn_back(&self, place: usize, values: &mut [f32]) {
        let (cos, sin) = self.at(place);
        let half = cos.len();
        let (low, high) = values[..2 * half].split_at_mut(half);
        for t in 0..half {
            let (x, y) = (low[t], high[t]);
            low[t] = x * cos[t] + y * sin[t];
            high[t] = y * cos[t] - x * sin[t];
        }
    }
}

fn angle(place: usize, t: usize, head_dim: usize, theta: f64) -> f64 {
    place as f64 * theta.powf(-2.0 * t as f64 / head_dim as f64)
}

/// Turns `heads` heads from the first column on of rows of `stride` values by their places in their sequences, in
/// place; backwards when `back`, which is also the gradient's way.
///
/// # Panics
/// When a row is shorter than its heads, a row is missing, or a sequence is longer than the table.
pub fn rope(
    exec: &Exec,
    data: &mut [f32],
    stride: usize,
    segments: Segments<'_>,
    heads: usize,
    table: &RotaryTable,
    back: bool,
) {
    let dim = table.head_dim;
    assert!(
        heads * dim <= stride,
        "{heads} heads of {dim} in a row of {stride}"
    );
    let tokens = segments.tokens();
    assert_eq!(data.len(), tokens * stride, "{tokens} rows");
    let mut places = Vec::with_capacity(tokens);
    for range in segments.ranges() {
        assert!(range.len() <= table.places(), "a place for each token");
        places.extend(0..range.len());
    }
    if data.is_empty() || dim == 0 {
        return;
    }
    let shared = crate::exec::SharedMut::new(data);
    exec.parallel(tokens.div_ceil(ROWS), |task| {
        let first = task * ROWS;
        let mut from = vec![0.0; dim];
        for (t, &place) in (first..).zip(&places[first..tokens.min(first + ROWS)]) {
            // SAFETY: tasks have different rows, and each is in one slice at a time.
            let row = unsafe { shared.slice(t * stride..t * stride + heads * dim) };
            for head in row.chunks_exact_mut(dim) {
                if !back {
                    from.copy_from_slice(head);
                    table.turn(place, &from, head);
                } else {
                    table.turn_back(place, head);
                }
            }
        }
    });
}

/// Rows in a task.
const ROWS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_the_reference_and_turns_back() {
        let table = RotaryTable::new(9, 6, 100.0);
        let segments = Segments {
            cu_seqlens: &[0, 9, 9, 11],
        };
        let x: Vec<f32> = (0..11 * 14).map(|i| (i as f32 * 0.7).sin()).collect();
        let exec = Exec::new(Some(2)).unwrap();
        let mut found = x.clone();
        rope(&exec, &mut found, 14, segments, 2, &table, false);
        let mut expected = x.clone();
        reference::rope(&mut expected, 14, segments, 2, &table, false);
        for (a, b) in found.iter().zip(&expected) {
            assert!((a - b).abs() < 1e-6, "{a} for {b}");
        }
        assert_ne!(found, x);
        rope(&exec, &mut found, 14, segments, 2, &table, true);
        for (a, b) in found.iter().zip(&x) {
            assert!((a - b).abs() < 1e-6, "{a} for {b}");
        }
    }

    #[test]
    fn frequencies_are_those_of_modern_bert() {
        for (theta, expected) in [
            (160_000.0, [1.0, 0.687_656_02, 0.003_635_54]),
            (10_000.0, [1.0, 0.749_894_21, 0.013_335_21]),
        ] {
            for (t, expected) in [0, 1, 15].into_iter().zip(expected) {
                assert!((angle(1, t, 64, theta) - expected).abs() < 1e-8);
            }
        }
    }
}
