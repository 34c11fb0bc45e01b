//! Disentangled attention (He et al. 2020, <https://arxiv.org/abs/2006.03654>; its buckets and shared projections are of
//! version 2): what a token is and how far away it is have vectors of their own, and a score is the sum of contents,
//! of content and distance, and of distance and content.

use std::sync::OnceLock;

use bertha_autograd::{Parameter, Session, Var, ops};

use crate::initializer::Initial;
use crate::{LayerNorm, Linear, NnError, Weights};

/// How distances are numbered: exactly while they are short, then by their logarithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DistanceBuckets {
    /// Numbers to either side; `None`: every distance has its own.
    buckets: Option<usize>,
    /// Longer ones share the last number.
    max_distance: usize,
}

impl DistanceBuckets {
    /// `buckets` numbers to either side of 0 for distances of up to `max_distance`; `None`: `max_distance` numbers.
    pub fn new(buckets: Option<usize>, max_distance: usize) -> Self {
        Self {
            buckets,
            max_distance,
        }
    }

    /// Rows of a table that has a vector for each number.
    pub fn rows(&self) -> usize {
        2 * self.buckets.unwrap_or(self.max_distance)
    }

    /// The row of a key `distance` tokens before its query.
    fn row(&self, distance: i64) -> usize {
        let rows = self.rows() as i64;
        (self.bucket(distance) + rows / 2).clamp(0, rows - 1) as usize
    }

    /// In f32, as `transformers` computes it: which number a distance at an edge gets depends on that.
    fn bucket(&self, distance: i64) -> i64 {
        let Some(buckets) = self.buckets else {
            return distance;
        };
        let exact = (buckets / 2) as i64;
        let away = distance.abs();
        if away <= exact {
            return distance;
        }
        let all = ((self.max_distance as f64 - 1.0) / exact as f64) as f32;
        let part = (away as f32 / exact as f32).ln() / all.ln();
        let beyond = (part * (exact - 1) as f32).ceil() as i64;
        distance.signum() * (beyond + exact)
    }
}

/// A vector for each number of a distance, `[2·span, N]`.
pub struct DistanceTable {
    table: Parameter,
    norm: Option<LayerNorm>,
}

impl DistanceTable {
    /// Loads `weight` `[rows, width]`; `norm` is applied to its rows.
    ///
    /// # Errors
    /// When the tensor is missing or has another shape.
    pub fn load(
        weights: &Weights<'_>,
        rows: usize,
        width: usize,
        norm: Option<LayerNorm>,
    ) -> Result<Self, NnError> {
        let table = weights.parameter(&["weight"], &[rows, width], Initial::Normal)?;
        Ok(Self { table, norm })
    }

    /// The vectors, `[2·span, N]`.
    ///
    /// # Errors
    /// When the norm has another width.
    pub fn forward(&self, session: &Session) -> Result<Var, NnError> {
        let rows = self.table.var();
        match &self.norm {
            Some(norm) => norm.forward(session, rows),
            None => Ok(rows),
        }
    }

    /// Number of parameters.
    pub fn parameters(&self) -> usize {
        self.table.numel() + self.norm.as_ref().map_or(0, LayerNorm::parameters)
    }
}

/// What makes a layer's attention disentangled.
pub struct Disentangled {
    /// How distances are numbered.
    pub buckets: DistanceBuckets,
    /// The keys of distances, which queries of tokens are compared with.
    pub keys: DistanceProjection,
    /// The queries of distances, which keys of tokens are compared with.
    pub queries: DistanceProjection,
    /// Probability that a value of the distances' vectors is dropped in training.
    pub dropout: f32,
    /// Projections of a table that does not change.
    fixed: OnceLock<OfDistances>,
}

/// What makes queries or keys of distances' vectors.
pub enum DistanceProjection {
    /// Nothing: this part of the score is not there.
    Absent,
    /// The layer that does it for tokens.
    Shared,
    /// A layer of its own, `[R,N]` to `[R,H·D]`.
    Own(Box<Linear>),
}

/// `[H,R,D]` each.
struct OfDistances {
    keys: Option<Var>,
    queries: Option<Var>,
}

/// Heads, and what is dropped.
pub(crate) struct Heads<'a> {
    /// The layer of queries, keys and values.
    pub(crate) qkv: &'a Linear,
    pub(crate) heads: usize,
    pub(crate) head_dim: usize,
    pub(crate) dropout: f32,
}

impl Disentangled {
    /// From its parts.
    pub fn new(
        buckets: DistanceBuckets,
        keys: DistanceProjection,
        queries: DistanceProjection,
        dropout: f32,
    ) -> Self {
        Self {
            buckets,
            keys,
            queries,
            dropout,
            fixed: OnceLock::new(),
        }
    }

    /// The layers that only distances have.
    pub(crate) fn linears(&self) -> impl Iterator<Item = &Linear> {
        [&self.keys, &self.queries]
            .into_iter()
            .filter_map(|projection| match projection {
                DistanceProjection::Own(linear) => Some(&**linear),
                DistanceProjection::Absent | DistanceProjection::Shared => None,
            })
    }

    /// `qkv[T,3·H·D]` to `[T,H·D]`, with `table[2·span,N]`.
    pub(crate) fn forward(
        &self,
        session: &Session,
        qkv: &Var,
        table: &Var,
        cu_seqlens: &[u32],
        of: &Heads<'_>,
    ) -> Result<Var, NnError> {
        let rows = self.buckets.rows();
        if table.shape() != [rows, of.qkv.inputs()] {
            return Err(NnError::Batch(format!(
                "vectors of distances have shape {:?}, expected [{rows}, {}]",
                table.shape(),
                of.qkv.inputs()
            )));
        }
        let fixed = !table.is_tracked()
            && !of.qkv.is_trained()
            && !self.linears().any(Linear::is_trained)
            && !session.is_training();
        let found;
        let distances = match self.fixed.get() {
            Some(fixed_before) if fixed => fixed_before,
            _ => {
                found = self.project(session, table, of)?;
                match fixed {
                    true => self.fixed.get_or_init(|| found),
                    false => &found,
                }
            }
        };
        let lengths = cu_seqlens.windows(2);
        let lengths: Vec<usize> = lengths.map(|ends| (ends[1] - ends[0]) as usize).collect();
        let rows = ops::split(session, qkv, 0, &lengths)?;
        let sequences = rows.iter().zip(&lengths).filter(|(_, len)| **len > 0);
        let sequences = sequences
            .map(|(rows, &len)| self.sequence(session, rows, distances, len, of))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(ops::concat(
            session,
            &sequences.iter().collect::<Vec<_>>(),
            0,
        )?)
    }

    /// Queries and keys of distances.
    fn project(
        &self,
        session: &Session,
        table: &Var,
        of: &Heads<'_>,
    ) -> Result<OfDistances, NnError> {
        let (heads, dim) = (of.heads, of.head_dim);
        let rows = table.shape()[0];
        let table = ops::dropout(session, table.clone(), self.dropout)?;
        let shared = |projection: &_| matches!(projection, DistanceProjection::Shared);
        let together = match shared(&self.keys) || shared(&self.queries) {
            true => Some(of.qkv.forward(session, &table)?),
            false => None,
        };
        let part = |projection: &DistanceProjection, part: usize| -> Result<_, NnError> {
            let vectors = match (projection, &together) {
                (DistanceProjection::Own(linear), _) => linear.forward(session, &table)?,
                (DistanceProjection::Shared, Some(together)) => {
                    ops::narrow(session, together, 1, part * heads * dim, heads * dim)?
                }
                _ => return Ok(None),
            };
            let vectors = ops::reshape(session, &vectors, &[rows, heads, dim])?;
            Ok(Some(ops::permute(session, &vectors, &[1, 0, 2])?))
        };
        Ok(OfDistances {
            queries: part(&self.queries, 0)?,
            keys: part(&self.keys, 1)?,
        })
    }

    /// One sequence, `[S,3·H·D]` to `[S,H·D]`.
    fn sequence(
        &self,
        session: &Session,
        qkv: &Var,
        distances: &OfDistances,
        len: usize,
        of: &Heads<'_>,
    ) -> Result<Var, NnError> {
        let (heads, dim) = (of.heads, of.head_dim);
        let parts = ops::reshape(session, qkv, &[len, 3, heads, dim])?;
        // [3, H, S, D]
        let parts = ops::permute(session, &parts, &[1, 2, 0, 3])?;
        let part = |i| ops::select(session, &parts, 0, i);
        let (q, k, v) = (part(0)?, part(1)?, part(2)?);
        let turned = |x: &Var| ops::transpose(session, x, 1, 2);
        let scores = ops::matmul(session, &q, &turned(&k)?)?;
        // Only the rows that distances of this sequence have, as columns for query − key from −(S − 1) on.
        let reach = len as i64 - 1;
        let columns: Vec<usize> = (-reach..=reach).map(|d| self.buckets.row(d)).collect();
        let (first, last) = (columns[0], columns[columns.len() - 1]);
        let columns: Vec<u32> = columns.iter().map(|&c| (c - first) as u32).collect();
        let compared = |x: &Var, with: &Option<Var>| -> Result<Option<Var>, NnError> {
            let Some(with) = with else { return Ok(None) };
            let with = ops::narrow(session, with, 1, first, last + 1 - first)?;
            Ok(Some(ops::matmul(session, x, &turned(&with)?)?))
        };
        let of_queries = compared(&q, &distances.keys)?;
        let of_keys = compared(&k, &distances.queries)?;
        let terms = 1 + usize::from(of_queries.is_some()) + usize::from(of_keys.is_some());
        let scale = 1.0 / ((dim * terms) as f64).sqrt();
        let (queries, keys) = (of_queries.as_ref(), of_keys.as_ref());
        let scores = ops::distance_scores(session, scores, queries, keys, &columns, scale)?;
        let scores = ops::reshape(session, &scores, &[heads * len, len])?;
        let weights = ops::softmax(session, scores)?;
        let weights = ops::dropout(session, weights, of.dropout)?;
        let weights = ops::reshape(session, &weights, &[heads, len, len])?;
        let seen = ops::matmul(session, &weights, &v)?;
        let seen = ops::permute(session, &seen, &[1, 0, 2])?;
        Ok(ops::reshape(session, &seen, &[len, heads * dim])?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_exact_near_and_shared_far() {
        // DeBERTa-v3's: 256 to either side, of up to 512 tokens.
        let buckets = DistanceBuckets::new(Some(256), 512);
        assert_eq!(buckets.rows(), 512);
        let near = [-128, -127, -1, 0, 1, 128].map(|d| buckets.row(d));
        assert_eq!(near, [128, 129, 255, 256, 257, 384]);
        // Of `make_log_bucket_position` in `transformers`.
        let far = [129, 130, 131, 200, 256, 400, 510, 511].map(|d| buckets.bucket(d));
        assert_eq!(far, FAR);
        assert_eq!(buckets.bucket(-200), -far[3]);
        assert_eq!(buckets.row(5000), 511);
        assert_eq!(buckets.row(-5000), 0);
    }

    const FAR: [i64; 8] = [129, 130, 131, 169, 192, 233, 255, 255];

    #[test]
    fn without_buckets_every_distance_has_a_row() {
        let buckets = DistanceBuckets::new(None, 4);
        let rows: Vec<usize> = (-5..=5).map(|d| buckets.row(d)).collect();
        assert_eq!(rows, [0, 0, 1, 2, 3, 4, 5, 6, 7, 7, 7]);
    }
}
