//! Attention of bits: a kernel where nothing is learned, else operations whose gradients estimators give.

use bertha_autograd::{Session, Var, ops};
use bertha_kernels::{Attends, BinaryAttentionShape};
use bertha_tensor::Tensor;

use crate::estimators::{above_zero, sign};
use crate::{Binarization, NnError};

/// Attention of the signs of queries, keys and values over each sequence (Qin et al. 2022,
/// <https://arxiv.org/abs/2203.06390>, section 3.2).
pub(crate) struct BinaryAttention {
    pub(crate) binarization: Binarization,
    pub(crate) heads: usize,
    pub(crate) head_dim: usize,
    /// Probability that a score is dropped in training; what is dropped is 0, and not attended to.
    pub(crate) dropout: f32,
}

impl BinaryAttention {
    /// `qkv[T,3·H·D]` to `[T,H·D]`, whole numbers.
    pub(crate) fn forward(
        &self,
        session: &Session,
        qkv: &Var,
        cu_seqlens: &[u32],
    ) -> Result<Var, NnError> {
        let learns = session.is_training() || qkv.is_tracked();
        if !learns {
            let shape = BinaryAttentionShape {
                heads: self.heads,
                head_dim: self.head_dim,
                attends: match self.binarization {
                    Binarization::Naive => Attends::All,
                    Binarization::BiBert => Attends::Positive,
                },
            };
            return Ok(ops::binary_attention(session, qkv, cu_seqlens, shape)?);
        }
        let signs = sign(session, qkv)?;
        let lengths = cu_seqlens
            .windows(2)
            .map(|ends| (ends[1] - ends[0]) as usize);
        let lengths: Vec<usize> = lengths.collect();
        let rows = ops::split(session, &signs, 0, &lengths)?;
        let sequences = rows.iter().zip(&lengths);
        let sequences = sequences
            .map(|(rows, &len)| self.sequence(session, rows, len))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(ops::concat(
            session,
            &sequences.iter().collect::<Vec<_>>(),
            0,
        )?)
    }

    /// One sequence, `[S,3·H·D]` to `[S,H·D]`.
    fn sequence(&self, session: &Session, signs: &Var, len: usize) -> Result<Var, NnError> {
        let (heads, dim) = (self.heads, self.head_dim);
        let parts = ops::reshape(session, signs, &[len, 3, heads, dim])?;
        // [3, H, S, D]
        let parts = ops::permute(session, &parts, &[1, 2, 0, 3])?;
        let part = |i| ops::select(session, &parts, 0, i);
        let (q, k, v) = (part(0)?, part(1)?, part(2)?);
        let scores = ops::matmul(session, &q, &ops::transpose(session, &k, 1, 2)?)?;
        let scores = ops::mul_scalar(session, &scores, 1.0 / (dim as f64).sqrt())?;
        let weights = match self.binarization {
            Binarization::BiBert => {
                let rows = ops::reshape(session, &scores, &[heads * len, len])?;
                let kept = ops::dropout(session, rows, self.dropout)?;
                let weights = above_zero(session, &kept)?;
                ops::reshape(session, &weights, &[heads, len, len])?
            }
            Binarization::Naive => {
                let rows = ops::reshape(session, &scores, &[heads * len, len])?;
                let weights = ops::softmax(session, rows)?;
                let ones = Tensor::from_vec(vec![1.0f32; heads * len * len], weights.shape())?;
                let weights = ops::straight_through(session, &weights, ones)?;
                ops::reshape(session, &weights, &[heads, len, len])?
            }
        };
        let seen = ops::matmul(session, &weights, &v)?;
        let seen = ops::permute(session, &seen, &[1, 0, 2])?;
        Ok(ops::reshape(session, &seen, &[len, heads * dim])?)
    }
}
