//! Values that depend on a distance: a row for each place, a column for each distance (or bucket of distances), spread over
//! pairs of places, as disentangled attention needs them (He et al. 2020, <https://arxiv.org/abs/2006.03654>, section 3).

use crate::Exec;
use crate::exec::SharedMut;

/// A value for each pair of places of a sequence of `len`: `y[b][i][j] = x[b][i][columns[len − 1 + i − j]]`, of `x[B,len,width]`
/// to `y[B,len,len]`.
///
/// # Panics
/// When a shape does not fit, or a column is not below `width`.
pub fn by_distance<T: Copy + Send + Sync>(
    exec: &Exec,
    x: &[T],
    width: usize,
    columns: &[u32],
    y: &mut [T],
) {
    let len = check(x.len(), width, columns, y.len());
    if y.is_empty() {
        return;
    }
    let shared = SharedMut::new(y);
    let rows = x.len() / width;
    exec.parallel(rows.div_ceil(ROWS), |task| {
        for row in task * ROWS..rows.min((task + 1) * ROWS) {
            let from = &x[row * width..][..width];
            let columns = &columns[row % len..][..len];
            // SAFETY: tasks have different rows, and each is in one slice at a time.
            let to = unsafe { shared.slice(row * len..(row + 1) * len) };
            // The nearer to the end of a sequence a key is, the smaller is query − key.
            for (to, &column) in to.iter_mut().zip(columns.iter().rev()) {
                *to = from[column as usize];
            }
        }
    });
}

/// The gradient of `x` in [`by_distance`] from that of `y`, added to `dx`.
///
/// # Panics
/// As [`by_distance`].
pub fn by_distance_backward<T: Copy + Send + Sync + std::ops::AddAssign>(
    exec: &Exec,
    dy: &[T],
    width: usize,
    columns: &[u32],
    dx: &mut [T],
) {
    let len = check(dx.len(), width, columns, dy.len());
    if dy.is_empty() {
        return;
    }
    let rows = dx.len() / width;
    let shared = SharedMut::new(dx);
    exec.parallel(rows.div_ceil(ROWS), |task| {
        for row in task * ROWS..rows.min((task + 1) * ROWS) {
            let columns = &columns[row % len..][..len];
            // SAFETY: tasks have different rows, and each is in one slice at a time.
            let to = unsafe { shared.slice(row * width..(row + 1) * width) };
            for (&dy, &column) in dy[row * len..][..len].iter().zip(columns.iter().rev()) {
                to[column as usize] += dy;
            }
        }
    });
}

/// Rows in a task.
const ROWS: usize = 32;

/// The length of the sequences.
fn check(x: usize, width: usize, columns: &[u32], y: usize) -> usize {
    assert!(columns.len() % 2 == 1, "a column for each distance");
    let len = columns.len() / 2 + 1;
    assert!(
        columns.iter().all(|&column| (column as usize) < width),
        "columns of {width}"
    );
    assert_eq!(x % (len * width), 0, "sequences of {len} rows of {width}");
    assert_eq!(x / width * len, y, "a value for each pair of places");
    len
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_has_the_value_of_its_distance() {
        // Distances -2 to 2 of a sequence of 3, in four buckets.
        let columns = [0, 0, 1, 3, 2];
        let x: Vec<i32> = (0..2 * 3 * 4).collect();
        let mut y = vec![0; 2 * 3 * 3];
        let exec = Exec::new(Some(2)).unwrap();
        by_distance(&exec, &x, 4, &columns, &mut y);
        for b in 0..2 {
            for i in 0..3 {
                for j in 0..3 {
                    let column = columns[2 + i - j] as usize;
                    assert_eq!(y[(b * 3 + i) * 3 + j], x[(b * 3 + i) * 4 + column]);
                }
            }
        }
    }

    #[test]
    fn gradients_go_where_values_came_from() {
        let columns = [2, 0, 1, 1, 2];
        let (len, width) = (3, 3);
        let exec = Exec::new(Some(2)).unwrap();
        let dy: Vec<i64> = (1..=9).collect();
        let mut dx = vec![100i64; len * width];
        by_distance_backward(&exec, &dy, width, &columns, &mut dx);
        // <dy, f(e)> for every unit e.
        for place in 0..len * width {
            let mut unit = vec![0i64; len * width];
            unit[place] = 1;
            let mut y = vec![0i64; 9];
            by_distance(&exec, &unit, width, &columns, &mut y);
            let product: i64 = y.iter().zip(&dy).map(|(a, b)| a * b).sum();
            assert_eq!(dx[place], 100 + product);
        }
    }
}
