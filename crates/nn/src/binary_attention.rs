//! Attention of bits: a kernel where nothing is learned, else operations whose gradients estimators give.

use bertha_autograd::{Session, Var, ops};
use bertha_kernels::{Attends, BinaryAttentionShape};
use bertha_tensor::Tensor;

use crate::elastic::{Elastic, Range};
use crate::estimators::{above_zero, sign};
use crate::{Binarization, NnError, Weights};

/// Attention of the signs of queries, keys and values over each sequence (Qin et al. 2022,
/// <https://arxiv.org/abs/2203.06390>, section 3.2).
pub(crate) struct BinaryAttention {
    binarization: Binarization,
    /// BiT's.
    levels: Option<Levels>,
}

/// The heads of a layer.
#[derive(Clone, Copy)]
pub(crate) struct BinaryHeads {
    pub(crate) heads: usize,
    pub(crate) head_dim: usize,
    /// Probability that a score is dropped in training; what is dropped is 0, and not attended to.
    pub(crate) dropout: f32,
}

/// The levels that queries, keys, values and attention weights have (Liu et al. 2022, <https://arxiv.org/abs/2205.13016>). They
/// have no shifts: those of the projections' biases do the same.
struct Levels {
    query: Elastic,
    key: Elastic,
    value: Elastic,
    weight: Elastic,
}

impl Levels {
    /// `query_level`, `key_level`, `value_level` and `weight_ceiling`, `[1]` each.
    fn load(weights: &Weights<'_>, bits: u32) -> Result<Self, NnError> {
        Ok(Self {
            query: Elastic::plain(weights, "query", Range::Signed, bits)?,
            key: Elastic::plain(weights, "key", Range::Signed, bits)?,
            value: Elastic::plain(weights, "value", Range::Signed, bits)?,
            weight: Elastic::plain(weights, "weight", Range::Unsigned, bits)?,
        })
    }
}

impl BinaryAttention {
    /// That of a layer, where it is binarized.
    pub(crate) fn load(weights: &Weights<'_>) -> Result<Option<Self>, NnError> {
        let Some(binarization) = weights.binarization() else {
            return Ok(None);
        };
        let levels = match binarization {
            Binarization::Bit { bits } => Some(Levels::load(&weights.at("attention"), bits)?),
            Binarization::Naive | Binarization::BiBert => None,
        };
        Ok(Some(Self {
            binarization,
            levels,
        }))
    }

    /// `qkv[T,3·H·D]` to `[T,H·D]`; but for BiT, whose values are on levels, whole numbers.
    pub(crate) fn forward(
        &self,
        session: &Session,
        qkv: &Var,
        cu_seqlens: &[u32],
        of: BinaryHeads,
    ) -> Result<Var, NnError> {
        let learns = session.is_training() || qkv.is_tracked();
        if !learns && self.binarization.activation_bits() == 1 {
            return self.of_bits(session, qkv, cu_seqlens, of);
        }
        let lengths = cu_seqlens
            .windows(2)
            .map(|ends| (ends[1] - ends[0]) as usize);
        let lengths: Vec<usize> = lengths.collect();
        let read = match &self.levels {
            None => sign(session, qkv)?,
            Some(levels) => {
                let parts = ops::split(session, qkv, 1, &[of.heads * of.head_dim; 3])?;
                let levels = [&levels.query, &levels.key, &levels.value];
                let parts = levels.iter().zip(&parts);
                let parts = parts.map(|(level, part)| level.forward(session, part));
                let parts = parts.collect::<Result<Vec<_>, _>>()?;
                ops::concat(session, &parts.iter().collect::<Vec<_>>(), 1)?
            }
        };
        let mut sequences = Vec::with_capacity(lengths.len());
        for rows in ops::split(session, &read, 0, &lengths)? {
            sequences.push(scores(session, &rows, of)?);
        }
        let weights = match &self.levels {
            None => {
                let scores = sequences.iter();
                let weights = scores.map(|(scores, _)| self.weights(session, scores, of.dropout));
                weights.collect::<Result<Vec<_>, _>>()?
            }
            Some(levels) => {
                // All at once: a level begins with what the whole batch has.
                let mut sizes = Vec::with_capacity(sequences.len());
                let mut rows = Vec::with_capacity(sequences.len());
                for (scores, _) in &sequences {
                    let size: usize = scores.shape().iter().product();
                    let weights = ops::softmax(session, scores.clone())?;
                    let weights = ops::dropout(session, weights, of.dropout)?;
                    rows.push(ops::reshape(session, &weights, &[size, 1])?);
                    sizes.push(size);
                }
                let all = ops::concat(session, &rows.iter().collect::<Vec<_>>(), 0)?;
                let all = levels.weight.forward(session, &all)?;
                ops::split(session, &all, 0, &sizes)?
            }
        };
        let mut seen = Vec::with_capacity(lengths.len());
        for ((weights, (_, values)), &len) in weights.iter().zip(&sequences).zip(&lengths) {
            let weights = ops::reshape(session, weights, &[of.heads, len, len])?;
            let mixed = ops::matmul(session, &weights, values)?;
            let mixed = ops::permute(session, &mixed, &[1, 0, 2])?;
            let width = of.heads * of.head_dim;
            seen.push(ops::reshape(session, &mixed, &[len, width])?);
        }
        Ok(ops::concat(session, &seen.iter().collect::<Vec<_>>(), 0)?)
    }

    /// By the kernel.
    fn of_bits(
        &self,
        session: &Session,
        qkv: &Var,
        cu_seqlens: &[u32],
        of: BinaryHeads,
    ) -> Result<Var, NnError> {
        let mut shape = BinaryAttentionShape {
            heads: of.heads,
            head_dim: of.head_dim,
            attends: match self.binarization {
                Binarization::Naive => Attends::All,
                Binarization::BiBert | Binarization::Bit { .. } => Attends::Positive,
            },
        };
        let Some(levels) = &self.levels else {
            return Ok(ops::binary_attention(session, qkv, cu_seqlens, shape)?);
        };
        let step = |level: &Elastic| level.step(None);
        let scores = step(&levels.query)? * step(&levels.key)?;
        let weight = step(&levels.weight)?;
        shape.attends = Attends::Softmax {
            scale: scores / (of.head_dim as f32).sqrt(),
            threshold: weight / 2.0,
        };
        let whole = ops::binary_attention(session, qkv, cu_seqlens, shape)?;
        let times = weight * step(&levels.value)?;
        Ok(ops::mul_scalar(session, &whole, f64::from(times))?)
    }

    /// What comes of scores without levels, of their shape: 0 and 1.
    fn weights(&self, session: &Session, scores: &Var, dropout: f32) -> Result<Var, NnError> {
        match self.binarization {
            Binarization::Naive => {
                let weights = ops::softmax(session, scores.clone())?;
                let ones = vec![1.0f32; weights.shape().iter().product()];
                let ones = Tensor::from_vec(ones, weights.shape())?;
                Ok(ops::straight_through(session, &weights, ones)?)
            }
            Binarization::BiBert | Binarization::Bit { .. } => {
                let kept = ops::dropout(session, scores.clone(), dropout)?;
                Ok(above_zero(session, &kept)?)
            }
        }
    }
}

/// The scores of one sequence of `[S,3·H·D]`, `[H·S,S]`, and its values `[H,S,D]`.
fn scores(session: &Session, read: &Var, of: BinaryHeads) -> Result<(Var, Var), NnError> {
    let (heads, dim) = (of.heads, of.head_dim);
    let len = read.shape()[0];
    let parts = ops::reshape(session, read, &[len, 3, heads, dim])?;
    // [3, H, S, D]
    let parts = ops::permute(session, &parts, &[1, 2, 0, 3])?;
    let part = |i| ops::select(session, &parts, 0, i);
    let (q, k, v) = (part(0)?, part(1)?, part(2)?);
    let scores = ops::matmul(session, &q, &ops::transpose(session, &k, 1, 2)?)?;
    let scores = ops::mul_scalar(session, &scores, 1.0 / (dim as f64).sqrt())?;
    let scores = ops::reshape(session, &scores, &[heads * len, len])?;
    Ok((scores, v))
}
