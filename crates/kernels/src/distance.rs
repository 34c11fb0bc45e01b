//! Scores of contents and distances, as disentangled attention has them (He et al. 2020, <https://arxiv.org/abs/2006.03654>,
//! section 3): to the product of query and key comes what the query has for their distance, and what the key has for it.

use std::ops::{Add, AddAssign, Mul};

use crate::Exec;
use crate::exec::SharedMut;

/// What places have for distances, of sequences of one length S.
#[derive(Clone, Copy, Debug)]
pub struct DistanceTerms<'a, T> {
    /// `[B,S,R]`: what each query has for each number of a distance.
    pub queries: Option<&'a [T]>,
    /// `[B,S,R]`: what each key has.
    pub keys: Option<&'a [T]>,
    /// Numbers of distances (R).
    pub width: usize,
    /// The number of query − key, for the 2·S − 1 distances from −(S − 1) on.
    pub columns: &'a [u32],
}

/// The gradients of [`DistanceTerms`]' values, to be added to.
#[derive(Debug)]
pub struct DistanceGradients<'a, T> {
    /// `[B,S,R]`.
    pub queries: Option<&'a mut [T]>,
    /// `[B,S,R]`.
    pub keys: Option<&'a mut [T]>,
}

/// `x[b][i][j] = scale·(x[b][i][j] + queries[b][i][c] + keys[b][j][c])`, `c = columns[S − 1 + i − j]`, of `x[B,S,S]`.
///
/// # Panics
/// When a shape does not fit, or a column is not below R.
pub fn distance_scores<T>(exec: &Exec, x: &mut [T], terms: DistanceTerms<'_, T>, scale: T)
where
    T: Copy + Send + Sync + Add<Output = T> + AddAssign + Mul<Output = T>,
{
    let DistanceTerms {
        queries,
        keys,
        width,
        columns,
    } = terms;
    let len = check(x.len(), width, columns);
    for part in [queries, keys].into_iter().flatten() {
        assert_eq!(part.len(), x.len() / len * width, "a row for each place");
    }
    if x.is_empty() {
        return;
    }
    let blocks = len.div_ceil(ROWS);
    let tasks = x.len() / (len * len) * blocks;
    let shared = SharedMut::new(x);
    exec.parallel(tasks, |task| {
        let (b, first) = (task / blocks, task % blocks * ROWS);
        let rows = first..len.min(first + ROWS);
        let begin = b * len;
        // SAFETY: tasks have different rows, and each is in one slice at a time.
        let x = unsafe { shared.slice((begin + rows.start) * len..(begin + rows.end) * len) };
        if let Some(queries) = queries {
            for (i, x) in rows.clone().zip(x.chunks_exact_mut(len)) {
                let own = &queries[(begin + i) * width..][..width];
                // The nearer to the end of a sequence a key is, the smaller is query − key.
                let columns = columns[i..][..len].iter().rev();
                for (x, &column) in x.iter_mut().zip(columns) {
                    *x += own[column as usize];
                }
            }
        }
        if let Some(keys) = keys {
            // Key by key: what it has for distances that follow each other is in one place.
            for j in 0..len {
                let own = &keys[(begin + j) * width..][..width];
                let columns = &columns[len - 1 - j..];
                for (i, x) in rows.clone().zip(x[j..].iter_mut().step_by(len)) {
                    *x += own[columns[i] as usize];
                }
            }
        }
        x.iter_mut().for_each(|x| *x = *x * scale);
    });
}

/// The gradients of queries and keys in [`distance_scores`] from `dx[B,S,S]`, that of the scores before they were scaled.
///
/// # Panics
/// As [`distance_scores`].
pub fn distance_scores_backward<T>(
    exec: &Exec,
    dx: &[T],
    width: usize,
    columns: &[u32],
    gradients: DistanceGradients<'_, T>,
) where
    T: Copy + Send + Sync + AddAssign,
{
    let len = check(dx.len(), width, columns);
    let rows = dx.len() / len;
    let each = |to: Option<&mut [T]>, add: &(dyn Fn(usize, &mut [T]) + Sync)| {
        let Some(to) = to else { return };
        assert_eq!(to.len(), rows * width, "a row for each place");
        let shared = SharedMut::new(to);
        exec.parallel(rows.div_ceil(ROWS), |task| {
            for row in task * ROWS..rows.min((task + 1) * ROWS) {
                // SAFETY: tasks have different rows, and each is in one slice at a time.
                add(row, unsafe { shared.slice(row * width..(row + 1) * width) });
            }
        });
    };
    each(gradients.queries, &|row, to| {
        let columns = columns[row % len..][..len].iter().rev();
        for (&dx, &column) in dx[row * len..][..len].iter().zip(columns) {
            to[column as usize] += dx;
        }
    });
    each(gradients.keys, &|row, to| {
        let j = row % len;
        let dx = dx[(row - j) * len + j..].iter().step_by(len);
        for (&dx, &column) in dx.zip(&columns[len - 1 - j..][..len]) {
            to[column as usize] += dx;
        }
    });
}

/// Rows in a task.
const ROWS: usize = 16;

/// The length of the sequences.
fn check(x: usize, width: usize, columns: &[u32]) -> usize {
    assert!(columns.len() % 2 == 1, "a column for each distance");
    let len = columns.len() / 2 + 1;
    assert!(
        columns.iter().all(|&column| (column as usize) < width),
        "columns of {width}"
    );
    assert_eq!(x % (len * len), 0, "a score for each pair of {len} places");
    len
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEN: usize = 19;
    const WIDTH: usize = 5;

    fn columns() -> Vec<u32> {
        (0..2 * LEN as u32 - 1).map(|i| i * i % 5).collect()
    }

    /// Whole numbers, so that sums are exact.
    fn numbers(count: usize, seed: usize) -> Vec<f32> {
        (0..count)
            .map(|i| ((i * 7 + seed) % 23) as f32 - 11.0)
            .collect()
    }

    #[test]
    fn scores_are_the_sums_of_their_terms() {
        let (x, queries, keys) = (
            numbers(2 * LEN * LEN, 1),
            numbers(2 * LEN * WIDTH, 2),
            numbers(2 * LEN * WIDTH, 3),
        );
        let columns = columns();
        for (queries, keys) in [
            (Some(&*queries), Some(&*keys)),
            (None, Some(&*keys)),
            (Some(&*queries), None),
        ] {
            let mut found = x.clone();
            let terms = DistanceTerms {
                queries,
                keys,
                width: WIDTH,
                columns: &columns,
            };
            distance_scores(&Exec::new(Some(2)).unwrap(), &mut found, terms, 0.5);
            for (place, &found) in found.iter().enumerate() {
                let (b, i, j) = (place / LEN / LEN, place / LEN % LEN, place % LEN);
                let column = columns[LEN - 1 + i - j] as usize;
                let of = |part: Option<&[f32]>, row: usize| {
                    part.map_or(0.0, |part| part[(b * LEN + row) * WIDTH + column])
                };
                assert_eq!(found, 0.5 * (x[place] + of(queries, i) + of(keys, j)));
            }
        }
    }

    #[test]
    fn gradients_go_where_terms_came_from() {
        let columns = columns();
        let exec = Exec::new(Some(2)).unwrap();
        let dx = numbers(2 * LEN * LEN, 4);
        let mut dqueries = vec![100.0f32; 2 * LEN * WIDTH];
        let mut dkeys = dqueries.clone();
        let gradients = DistanceGradients {
            queries: Some(&mut dqueries),
            keys: Some(&mut dkeys),
        };
        distance_scores_backward(&exec, &dx, WIDTH, &columns, gradients);
        // <dx, f(e)> for every unit e.
        for place in 0..2 * LEN * WIDTH {
            let mut unit = vec![0.0f32; 2 * LEN * WIDTH];
            unit[place] = 1.0;
            for (queries, keys, found) in [
                (Some(&*unit), None, dqueries[place]),
                (None, Some(&*unit), dkeys[place]),
            ] {
                let mut x = vec![0.0f32; dx.len()];
                let terms = DistanceTerms {
                    queries,
                    keys,
                    width: WIDTH,
                    columns: &columns,
                };
                distance_scores(&exec, &mut x, terms, 1.0);
                let product: f32 = x.iter().zip(&dx).map(|(a, b)| a * b).sum();
                assert_eq!(found, 100.0 + product);
            }
        }
    }
}
