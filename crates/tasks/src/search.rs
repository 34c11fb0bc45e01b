//! Nearest neighbours by cosine, exact and in memory.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use ndarray::{Array2, ArrayView1, ArrayView2, Axis};
use serde::Serialize;

use crate::scores::descending;

/// The cosine of every row of `a[M,N]` with every row of `b[B,N]`, as `[M,B]`; 0 where a row is zero.
///
/// ```
/// use bertha_tasks::cosine_similarity;
/// use ndarray::array;
///
/// let a = array![[1.0, 0.0], [3.0, 4.0]];
/// let similarity = cosine_similarity(a.view(), a.view());
/// assert!((similarity[[0, 1]] - 0.6f32).abs() < 1e-6);
/// ```
///
/// # Panics
/// When the rows differ in length.
pub fn cosine_similarity(a: ArrayView2<'_, f32>, b: ArrayView2<'_, f32>) -> Array2<f32> {
    assert_eq!(
        a.ncols(),
        b.ncols(),
        "cosine_similarity: the rows of a and b must be of one length"
    );
    normalized(a).dot(&normalized(b).t())
}

fn normalized(rows: ArrayView2<'_, f32>) -> Array2<f32> {
    let mut rows = rows.to_owned();
    for mut row in rows.rows_mut() {
        let norm = norm(row.view());
        if norm > 0.0 || norm.is_nan() {
            row.mapv_inplace(|value| (f64::from(value) / norm) as f32);
        }
    }
    rows
}

fn norm(row: ArrayView1<'_, f32>) -> f64 {
    let squares = row.iter().map(|&value| f64::from(value) * f64::from(value));
    squares.sum::<f64>().sqrt()
}

/// A row of a corpus that was found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Hit {
    /// The row.
    pub index: usize,
    /// Its cosine with the query.
    pub score: f32,
}

/// A hit ordered by rank: what ranks later is greater, so that a heap's top is the one to drop.
struct Ranked(Hit);

impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> Ordering {
        let (a, b) = (&self.0, &other.0);
        descending(a.score.into(), b.score.into()).then(a.index.cmp(&b.index))
    }
}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Ranked {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Ranked {}

/// The `k` rows of `corpus[M,N]` nearest to `query[N]` by cosine, best first; of equal ones the
/// earlier first, NaN last.
///
/// ```
/// use bertha_tasks::top_k;
/// use ndarray::array;
///
/// let corpus = array![[0.0, 1.0], [2.0, 0.1], [1.0, 1.0]];
/// let hits = top_k(array![1.0, 0.0].view(), corpus.view(), 2);
/// assert_eq!([hits[0].index, hits[1].index], [1, 2]);
/// ```
///
/// # Panics
/// When query and rows differ in length.
pub fn top_k(query: ArrayView1<'_, f32>, corpus: ArrayView2<'_, f32>, k: usize) -> Vec<Hit> {
    assert_eq!(
        query.len(),
        corpus.ncols(),
        "top_k: the query and the rows of the corpus must be of one length"
    );
    let query_norm = norm(query);
    let mut best = BinaryHeap::with_capacity(k.min(corpus.nrows()) + 1);
    for (index, row) in corpus.axis_iter(Axis(0)).enumerate() {
        let (mut product, mut squares) = (0.0f64, 0.0f64);
        for (&a, &b) in query.iter().zip(row) {
            product += f64::from(a) * f64::from(b);
            squares += f64::from(b) * f64::from(b);
        }
        let norms = query_norm * squares.sqrt();
        let score = if norms == 0.0 { 0.0 } else { product / norms } as f32;
        best.push(Ranked(Hit { index, score }));
        if best.len() > k {
            best.pop();
        }
    }
    best.into_sorted_vec()
        .into_iter()
        .map(|ranked| ranked.0)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    #[test]
    fn best_first_ties_by_index_nan_last() {
        let nan = f32::NAN;
        let corpus = array![
            [nan, 0.0],
            [1.0, 1.0],
            [5.0, 0.0],
            [2.0, 2.0],
            [-1.0, 0.0],
            [0.0, 0.0]
        ];
        let hits = top_k(array![2.0, 0.0].view(), corpus.view(), 10);
        let order: Vec<_> = hits.iter().map(|hit| hit.index).collect();
        assert_eq!(order, [2, 1, 3, 5, 4, 0]);
        assert_eq!(hits[0].score, 1.0);
        assert_eq!(hits[3].score, 0.0);
        assert_eq!(hits[4].score, -1.0);
        assert!(hits[5].score.is_nan());
        for k in 0..6 {
            let fewer = top_k(array![2.0, 0.0].view(), corpus.view(), k);
            assert_eq!(fewer, hits[..k]);
        }
    }

    #[test]
    fn agrees_with_the_matrix_of_cosines_and_a_full_sort() {
        let corpus =
            Array2::from_shape_fn((97, 33), |(i, j)| ((i * 31 + j * 17) % 23) as f32 - 11.0);
        let query = corpus.row(41).mapv(|v| v * 0.3 + 1.0);
        let all = cosine_similarity(query.view().insert_axis(Axis(0)), corpus.view());
        let mut order: Vec<usize> = (0..97).collect();
        order.sort_by(|&a, &b| all[[0, b]].total_cmp(&all[[0, a]]).then(a.cmp(&b)));
        let hits = top_k(query.view(), corpus.view(), 97);
        for (hit, &i) in hits.iter().zip(&order) {
            assert!((hit.score - all[[0, i]]).abs() < 1e-6);
        }
    }

    #[test]
    fn works_on_views_that_are_not_contiguous() {
        let corpus = array![[1.0, 0.0, 9.0], [0.0, 1.0, 9.0]];
        let (slice, _) = corpus.view().split_at(Axis(1), 2);
        let hits = top_k(array![0.0, 7.0].view(), slice, 1);
        assert_eq!(
            hits,
            [Hit {
                index: 1,
                score: 1.0
            }]
        );
        assert_eq!(cosine_similarity(slice, slice)[[0, 1]], 0.0);
    }

    #[test]
    fn nothing_to_search() {
        let corpus = Array2::<f32>::zeros((0, 4));
        assert!(top_k(array![1.0, 0.0, 0.0, 0.0].view(), corpus.view(), 3).is_empty());
        assert_eq!(
            cosine_similarity(corpus.view(), corpus.view()).dim(),
            (0, 0)
        );
    }
}
