//! The embedding layer for training: the sum of the tables without its LayerNorm, and the gradients of a table.

use super::EmbeddingTables;
use crate::Exec;
use crate::exec::SharedMut;
use crate::simd::{Kernel, Simd};

/// About the operations a value takes: its rows are rarely in the cache.
const WORK: usize = 4;

/// Rows of one index that are summed before they are added to the table's.
const BLOCK: usize = 128;

/// Rows of one index from which on their columns are shared among threads.
const LONG: usize = 1024;

/// Columns of a task, when columns are shared.
const COLUMNS: usize = 64;

/// `word[id] + token_type[t] + position[p]` for each of `T` tokens, into `out[T,N]`: what
/// [`embedding_layer_norm`](crate::embedding_layer_norm) normalises, in the same order of additions.
///
/// # Panics
/// When lengths disagree or an index is outside its table.
pub fn embedding_sum(
    exec: &Exec,
    tables: EmbeddingTables<'_>,
    ids: &[u32],
    positions: &[u32],
    type_ids: Option<&[u32]>,
    n: usize,
    out: &mut [f32],
) {
    assert!(n > 0, "rows of at least one value");
    assert_eq!(
        out.len(),
        ids.len() * n,
        "a row of {n} values for each token"
    );
    if tables.position.is_some() {
        assert_eq!(positions.len(), ids.len(), "a position for each token");
    }
    if let Some(type_ids) = type_ids {
        assert_eq!(type_ids.len(), ids.len(), "a type for each token");
    }
    exec.for_rows(out, n, WORK * n, |tokens, out| {
        for (t, out) in tokens.zip(out.chunks_exact_mut(n)) {
            out.copy_from_slice(row(tables.word, ids[t], n));
            if let Some(table) = tables.token_type {
                add(
                    exec,
                    row(table, type_ids.map_or(0, |types| types[t]), n),
                    out,
                );
            }
            if let Some(table) = tables.position {
                add(exec, row(table, positions[t], n), out);
            }
        }
    });
}

/// Adds each row of `dy[T,N]` to the row of `dtable[V,N]` that its token's index names, and gives the indices that occur,
/// ascending: no other row of the table is touched.
///
/// Rows of an index are summed in the tokens' order, whatever the number of threads.
///
/// # Panics
/// When lengths disagree or an index is outside the table.
pub fn embedding_backward(
    exec: &Exec,
    indices: &[u32],
    dy: &[f32],
    n: usize,
    dtable: &mut [f32],
) -> Vec<u32> {
    assert!(n > 0, "rows of at least one value");
    assert_eq!(
        dy.len(),
        indices.len() * n,
        "a gradient of {n} values for each token"
    );
    assert!(dtable.len().is_multiple_of(n), "whole rows of {n} values");
    let rows = dtable.len() / n;
    let mut order: Vec<(u32, u32)> = indices.iter().copied().zip(0..).collect();
    order.sort_unstable();
    if let Some(&(last, _)) = order.last() {
        assert!(
            (last as usize) < rows,
            "index {last} is out of range of {rows} rows"
        );
    }
    let segments: Vec<&[(u32, u32)]> = order.chunk_by(|a, b| a.0 == b.0).collect();
    let shared = SharedMut::new(dtable);
    let add_segment = |segment: &[(u32, u32)], columns: std::ops::Range<usize>| {
        let at = segment[0].0 as usize * n;
        // SAFETY: tasks have different indices or columns.
        let to = unsafe { shared.slice(at + columns.start..at + columns.end) };
        for (i, to) in to.chunks_mut(8 * COLUMNS).enumerate() {
            let first = columns.start + i * 8 * COLUMNS;
            exec.isa().run(Segment {
                segment,
                dy,
                n,
                first,
                to,
            });
        }
    };
    let average = (indices.len() / segments.len().max(1)).max(1);
    exec.for_ranges(segments.len(), WORK * n * average, |range| {
        for segment in &segments[range] {
            if segment.len() < LONG {
                add_segment(segment, 0..n);
            }
        }
    });
    // A table of few rows has long segments: of token types, or of the first positions.
    for segment in segments.iter().filter(|segment| segment.len() >= LONG) {
        exec.for_ranges(
            n.div_ceil(COLUMNS),
            WORK * COLUMNS * segment.len(),
            |groups| {
                add_segment(segment, groups.start * COLUMNS..n.min(groups.end * COLUMNS));
            },
        );
    }
    segments.iter().map(|segment| segment[0].0).collect()
}

/// A row of a table of rows of `n` values.
fn row(table: &[f32], index: u32, n: usize) -> &[f32] {
    &table[index as usize * n..][..n]
}

fn add(exec: &Exec, from: &[f32], to: &mut [f32]) {
    exec.isa().run(Add { from, to });
}

/// `to += from`.
struct Add<'a> {
    from: &'a [f32],
    to: &'a mut [f32],
}

impl Kernel for Add<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _simd: S) {
        for (to, from) in self.to.iter_mut().zip(self.from) {
            *to += from;
        }
    }
}

/// The sum of the gradients of one index, from column `first` on.
struct Segment<'a> {
    segment: &'a [(u32, u32)],
    dy: &'a [f32],
    n: usize,
    first: usize,
    to: &'a mut [f32],
}

impl Kernel for Segment<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _simd: S) {
        let width = self.to.len();
        let mut sums = [0.0; 8 * COLUMNS];
        let sums = &mut sums[..width];
        for tokens in self.segment.chunks(BLOCK) {
            sums.fill(0.0);
            for &(_, t) in tokens {
                let dy = &self.dy[t as usize * self.n + self.first..][..width];
                for (sum, dy) in sums.iter_mut().zip(dy) {
                    *sum += dy;
                }
            }
            for (to, sum) in self.to.iter_mut().zip(&*sums) {
                *to += sum;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Isa, embedding_layer_norm, layer_norm_in_place, reference};

    fn values(len: usize, seed: usize) -> Vec<f32> {
        let noise = |i: usize| ((i * 7 + seed * 13) as f32 * 12.9898).sin() * 43_758.547;
        (0..len).map(|i| noise(i).fract()).collect()
    }

    #[test]
    fn the_sum_is_what_the_layer_normalises() {
        let (n, tokens) = (100, 500);
        let (word, position, kind) = (values(23 * n, 1), values(12 * n, 2), values(2 * n, 3));
        let index = |step: usize, rows: usize| -> Vec<u32> {
            (0..tokens).map(|t| (t * step % rows) as u32).collect()
        };
        let (ids, positions, types) = (index(5, 23), index(1, 12), index(3, 2));
        let (gamma, beta) = (values(n, 4), values(n, 5));
        for isa in Isa::available() {
            let exec = Exec::with_isa(isa, 3);
            for (with_position, with_kind, type_ids) in [
                (true, true, Some(&types[..])),
                (true, true, None),
                (false, true, None),
                (true, false, None),
                (false, false, None),
            ] {
                let tables = EmbeddingTables {
                    word: &word,
                    position: with_position.then_some(&position[..]),
                    token_type: with_kind.then_some(&kind[..]),
                };
                let mut found = vec![f32::NAN; tokens * n];
                embedding_sum(&exec, tables, &ids, &positions, type_ids, n, &mut found);
                layer_norm_in_place(&exec, &mut found, &gamma, &beta, 1e-12);
                let mut expected = vec![f32::NAN; tokens * n];
                embedding_layer_norm(
                    &exec,
                    tables,
                    &ids,
                    &positions,
                    type_ids,
                    &gamma,
                    &beta,
                    1e-12,
                    &mut expected,
                );
                assert!(found == expected, "{isa}");
            }
        }
    }

    #[test]
    fn gradients_reach_the_rows_that_were_looked_up() {
        for (tokens, rows, n) in [
            (0, 3, 4),
            (1, 1, 1),
            (50, 7, 33),
            (3000, 2, 100),
            (700, 500, 768),
        ] {
            let indices: Vec<u32> = (0..tokens).map(|t| (t * t * 7 % rows) as u32).collect();
            let (dy, old) = (values(tokens * n, 1), values(rows * n, 2));
            let mut expected = old.clone();
            reference::embedding_backward(&indices, &dy, n, &mut expected);
            for isa in Isa::available() {
                let run = |threads| {
                    let mut dtable = old.clone();
                    let exec = Exec::with_isa(isa, threads);
                    let touched = embedding_backward(&exec, &indices, &dy, n, &mut dtable);
                    (dtable, touched)
                };
                let found = run(1);
                for threads in [2, 3, 8] {
                    assert!(
                        run(threads) == found,
                        "[{tokens}, {n}] on {isa}, {threads} threads"
                    );
                }
                for (a, b) in found.0.iter().zip(&expected) {
                    assert!(
                        (a - b).abs() <= 1e-5 * b.abs().max(1.0),
                        "[{tokens}, {n}] on {isa}: {a} for {b}"
                    );
                }
                let mut touched = indices.clone();
                touched.sort_unstable();
                touched.dedup();
                assert_eq!(found.1, touched);
            }
        }
    }

    #[test]
    #[should_panic(expected = "index 3 is out of range")]
    fn an_index_outside_the_table_is_refused() {
        let exec = Exec::with_isa(Isa::best(), 1);
        embedding_backward(&exec, &[1, 3], &[0.0; 4], 2, &mut [0.0; 6]);
    }
}
