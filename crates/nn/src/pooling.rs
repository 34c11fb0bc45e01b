//! From a sequence's token vectors to one vector, as sentence-transformers does it.

use crate::{Batch, NnError};

/// How the token vectors of a sequence become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Pooling {
    /// The first token's vector.
    Cls,
    /// The largest value of each dimension.
    Max,
    /// The mean.
    Mean,
    /// The sum divided by the square root of the length.
    MeanSqrtLen,
    /// The mean weighted by position: 1, 2, 3, …
    WeightedMean,
    /// The last token's vector.
    LastToken,
}

impl Pooling {
    /// All modes, in the order in which sentence-transformers concatenates them.
    pub const ALL: [Self; 6] = [
        Self::Cls,
        Self::Max,
        Self::Mean,
        Self::MeanSqrtLen,
        Self::WeightedMean,
        Self::LastToken,
    ];

    /// The mode's name in sentence-transformers (`pooling_mode`).
    pub fn name(self) -> &'static str {
        match self {
            Self::Cls => "cls",
            Self::Max => "max",
            Self::Mean => "mean",
            Self::MeanSqrtLen => "mean_sqrt_len",
            Self::WeightedMean => "weightedmean",
            Self::LastToken => "lasttoken",
        }
    }
}

impl std::str::FromStr for Pooling {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let modes = Self::ALL.into_iter();
        modes
            .clone()
            .find(|mode| mode.name() == name)
            .ok_or_else(|| {
                let known: Vec<_> = modes.map(Self::name).collect();
                format!(
                    "`{name}` is no pooling mode; known are {}",
                    known.join(", ")
                )
            })
    }
}

impl std::fmt::Display for Pooling {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Pools the tokens `hidden[T,N]` of each sequence into `[B, modes·N]`, the modes side by side.
///
/// The first `skip` tokens of every sequence are left out (a prompt that is not to be pooled).
/// Sums run in f64, in token order.
///
/// # Errors
/// When `hidden` has not one row a token, or nothing is left of a sequence after `skip` tokens.
pub fn pool(
    hidden: &[f32],
    batch: &Batch,
    modes: &[Pooling],
    skip: usize,
) -> Result<Vec<f32>, NnError> {
    let tokens = batch.tokens();
    if tokens == 0 {
        return Ok(Vec::new());
    }
    if !hidden.len().is_multiple_of(tokens) {
        return Err(NnError::Batch(format!(
            "{} hidden values do not divide into {tokens} tokens",
            hidden.len()
        )));
    }
    let n = hidden.len() / tokens;
    let mut pooled = Vec::with_capacity(batch.len() * modes.len() * n);
    let mut sums = vec![0.0f64; n];
    for i in 0..batch.len() {
        let range = batch.range(i);
        let start = range.start + skip;
        if start >= range.end {
            return Err(NnError::Batch(format!(
                "sequence {i} has {} tokens, and all belong to the prompt: nothing is left to pool",
                range.len()
            )));
        }
        let rows = &hidden[start * n..range.end * n];
        for &mode in modes {
            match mode {
                // The first token is the model's own, prompt or not.
                Pooling::Cls => pooled.extend_from_slice(&hidden[range.start * n..][..n]),
                Pooling::LastToken => pooled.extend_from_slice(&rows[rows.len() - n..]),
                Pooling::Max => {
                    let at = pooled.len();
                    pooled.extend_from_slice(&rows[..n]);
                    for row in rows[n..].chunks_exact(n) {
                        for (max, &value) in pooled[at..].iter_mut().zip(row) {
                            // A NaN must stay visible, which f32::max would hide.
                            *max = if value > *max || value.is_nan() {
                                value
                            } else {
                                *max
                            };
                        }
                    }
                }
                Pooling::Mean | Pooling::MeanSqrtLen | Pooling::WeightedMean => {
                    let weighted = mode == Pooling::WeightedMean;
                    sums.fill(0.0);
                    let mut total = 0.0f64;
                    for (t, row) in rows.chunks_exact(n).enumerate() {
                        let weight = if weighted { (skip + t + 1) as f64 } else { 1.0 };
                        total += weight;
                        for (sum, &value) in sums.iter_mut().zip(row) {
                            *sum += weight * f64::from(value);
                        }
                    }
                    let divisor = match mode {
                        Pooling::MeanSqrtLen => total.sqrt(),
                        _ => total,
                    };
                    pooled.extend(sums.iter().map(|sum| (sum / divisor) as f32));
                }
            }
        }
    }
    Ok(pooled)
}

/// Divides each row of `x[B,N]` by its Euclidean length (at least 1e-12), the sum taken in f64.
pub fn l2_normalize(x: &mut [f32], n: usize) {
    for row in x.chunks_exact_mut(n.max(1)) {
        let squares: f64 = row.iter().map(|&v| f64::from(v) * f64::from(v)).sum();
        let norm = squares.sqrt().max(1e-12);
        for value in row {
            *value = (f64::from(*value) / norm) as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_mode_on_a_known_sequence() {
        let batch = Batch::from_sequences(&[vec![7, 8, 9], vec![5]]).unwrap();
        let hidden = [1.0, -4.0, 2.0, 6.0, 6.0, 1.0, -3.0, 5.0];
        let one = |mode| pool(&hidden, &batch, &[mode], 0).unwrap();
        assert_eq!(one(Pooling::Cls), [1.0, -4.0, -3.0, 5.0]);
        assert_eq!(one(Pooling::LastToken), [6.0, 1.0, -3.0, 5.0]);
        assert_eq!(one(Pooling::Max), [6.0, 6.0, -3.0, 5.0]);
        assert_eq!(one(Pooling::Mean), [3.0, 1.0, -3.0, 5.0]);
        let root = 3f64.sqrt();
        let sqrt_len = one(Pooling::MeanSqrtLen);
        assert_eq!(
            sqrt_len,
            [(9.0 / root) as f32, (3.0 / root) as f32, -3.0, 5.0]
        );
        let weighted = one(Pooling::WeightedMean);
        assert_eq!(
            weighted,
            [(23.0f64 / 6.0) as f32, (11.0f64 / 6.0) as f32, -3.0, 5.0]
        );
        let both = pool(&hidden, &batch, &[Pooling::Cls, Pooling::Mean], 0).unwrap();
        assert_eq!(both, [1.0, -4.0, 3.0, 1.0, -3.0, 5.0, -3.0, 5.0]);
    }

    #[test]
    fn a_prompt_is_left_out_and_must_not_be_all() {
        let batch = Batch::from_sequences(&[vec![7, 8, 9]]).unwrap();
        let hidden = [1.0, 2.0, 6.0];
        assert_eq!(pool(&hidden, &batch, &[Pooling::Mean], 1).unwrap(), [4.0]);
        let error = pool(&hidden, &batch, &[Pooling::Mean], 3).unwrap_err();
        assert!(error.to_string().contains("nothing is left to pool"));
    }

    #[test]
    fn a_nan_stays_visible() {
        let batch = Batch::from_sequences(&[vec![7, 8]]).unwrap();
        for mode in [Pooling::Max, Pooling::Mean] {
            let pooled = pool(&[1.0, f32::NAN], &batch, &[mode], 0).unwrap();
            assert!(pooled[0].is_nan(), "{mode}");
        }
    }

    #[test]
    fn normalised_rows_have_length_one_and_zero_stays_zero() {
        let mut x = [3.0, 4.0, 0.0, 0.0];
        l2_normalize(&mut x, 2);
        assert_eq!(x, [0.6, 0.8, 0.0, 0.0]);
    }
}
