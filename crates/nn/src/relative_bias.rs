//! A learned bias of attention scores by the distance of key and query, in buckets (Raffel et al. 2020,
//! <https://arxiv.org/abs/1910.10683>, section 2.1), as MPNet has it.

use bertha_autograd::{Parameter, Session, Var, ops};

use crate::initializer::Initial;
use crate::{NnError, Weights};

/// Distances from this on share the last bucket.
const MAX_DISTANCE: usize = 128;

/// Buckets that distances fall into, whatever the table has: half for keys before the query or at it, half for keys after it.
const BUCKETS: usize = 32;

/// A table with a row for each bucket and a column for each head.
pub struct RelativePositionBias {
    table: Parameter,
}

impl RelativePositionBias {
    /// Loads `weight` `[rows, heads]`.
    ///
    /// # Errors
    /// When the tensor is missing or has another shape.
    pub fn load(weights: &Weights<'_>, rows: usize, heads: usize) -> Result<Self, NnError> {
        Ok(Self {
            table: weights.parameter(&["weight"], &[rows, heads], Initial::Normal)?,
        })
    }

    /// The biases of sequences of up to `longest` tokens, `[H, 2·reach + 1]` by the distance of the key from the query, cut
    /// to ±reach.
    ///
    /// # Errors
    /// When the table has fewer rows than the 32 buckets.
    pub fn by_distance(&self, session: &Session, longest: usize) -> Result<Var, NnError> {
        let reach = longest.saturating_sub(1).min(MAX_DISTANCE) as i64;
        let buckets: Vec<u32> = (-reach..=reach).map(bucket).collect();
        let rows = ops::gather_rows(session, &self.table.var(), &buckets)?;
        Ok(ops::transpose(session, &rows, 0, 1)?)
    }

    /// Number of parameters.
    pub fn parameters(&self) -> usize {
        self.table.numel()
    }
}

/// The bucket of a key `distance` tokens after the query: one each for short distances, then wider ones, by logarithm.
/// In f32, as `transformers` computes it: which bucket a distance at an edge falls into depends on that.
fn bucket(distance: i64) -> u32 {
    let half = BUCKETS / 2;
    let exact = half / 2;
    let side = if distance > 0 { half } else { 0 };
    let away = distance.unsigned_abs() as usize;
    let within = if away < exact {
        away
    } else {
        let ratio = (away as f32 / exact as f32).ln();
        let all = (MAX_DISTANCE as f64 / exact as f64).ln() as f32;
        let wide = ratio / all * (half - exact) as f32;
        (exact + wide as usize).min(half - 1)
    };
    (side + within) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_exact_near_and_wide_far() {
        let near: Vec<u32> = (-8..=8).map(bucket).collect();
        assert_eq!(
            near,
            [8, 7, 6, 5, 4, 3, 2, 1, 0, 17, 18, 19, 20, 21, 22, 23, 24]
        );
        let far = [15, 16, 31, 32, 63, 64, 90, 91, 128, 5000];
        let found = far.map(|away| bucket(-away));
        assert_eq!(found, [9, 10, 11, 12, 13, 14, 14, 15, 15, 15]);
        assert_eq!(bucket(5000), 31);
    }
}
