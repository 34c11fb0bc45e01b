//! Embedding sum and LayerNorm over the SIMD trait.

use super::EmbeddingTables;
use crate::Exec;
use crate::norm::rows::{Added, Affine, Plain, normalize};
use crate::simd::reduce::{Terms, total};
use crate::simd::{Kernel, Simd};

/// About the operations a value takes, for sharing rows among threads: its rows are rarely in the cache.
const WORK: usize = 4;

/// `LayerNorm(word[id] + token_type[t] + position[p])` for each of `T` tokens, into `out[T,N]`.
///
/// `ids`, `positions` and `type_ids` have `T` indices; absent types are 0. `gamma` and `beta` have `N`
/// values. The sum is taken in the order written; the error of the LayerNorm is that of
/// [`layer_norm_in_place`](crate::layer_norm_in_place).
///
/// # Panics
/// When lengths disagree or an index is outside its table.
#[allow(clippy::too_many_arguments)]
pub fn embedding_layer_norm(
    exec: &Exec,
    tables: EmbeddingTables<'_>,
    ids: &[u32],
    positions: &[u32],
    type_ids: Option<&[u32]>,
    gamma: &[f32],
    beta: &[f32],
    eps: f32,
    out: &mut [f32],
) {
    let n = gamma.len();
    assert!(n > 0, "rows of at least one value");
    assert_eq!(beta.len(), n, "beta is as long as gamma");
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
        exec.isa().run(Tokens {
            tables,
            ids: &ids[tokens.clone()],
            positions: tables.position.map(|_| &positions[tokens.clone()]),
            type_ids: type_ids.map(|types| &types[tokens.clone()]),
            affine: Affine { gamma, beta, eps },
            out,
        });
    });
}

/// Some tokens and their rows of the result.
struct Tokens<'a> {
    tables: EmbeddingTables<'a>,
    ids: &'a [u32],
    positions: Option<&'a [u32]>,
    type_ids: Option<&'a [u32]>,
    affine: Affine<'a>,
    out: &'a mut [f32],
}

impl Kernel for Tokens<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let n = self.affine.gamma.len();
        for (t, out) in self.out.chunks_exact_mut(n).enumerate() {
            let word = row(self.tables.word, self.ids[t], n);
            let kind = match (self.tables.token_type, self.type_ids) {
                (Some(table), Some(types)) => Some(row(table, types[t], n)),
                (Some(table), None) => Some(row(table, 0, n)),
                (None, _) => None,
            };
            let position = match (self.tables.position, self.positions) {
                (Some(table), Some(positions)) => Some(row(table, positions[t], n)),
                _ => None,
            };
            let total = match (kind, position) {
                (Some(kind), Some(position)) => total(
                    simd,
                    Three {
                        out,
                        word,
                        kind,
                        position,
                    },
                ),
                (Some(y), None) | (None, Some(y)) => {
                    out.copy_from_slice(word);
                    total(simd, Added { x: out, y })
                }
                (None, None) => {
                    out.copy_from_slice(word);
                    total(simd, Plain(out))
                }
            };
            normalize(simd, out, total, self.affine);
        }
    }
}

/// A row of a table of rows of `n` values.
#[inline(always)]
fn row(table: &[f32], index: u32, n: usize) -> &[f32] {
    &table[index as usize * n..][..n]
}

/// `word + kind + position`, written to `out`.
struct Three<'a> {
    out: &'a mut [f32],
    word: &'a [f32],
    kind: &'a [f32],
    position: &'a [f32],
}

impl Terms for Three<'_> {
    #[inline(always)]
    fn len(&self) -> usize {
        self.out.len()
    }

    #[inline(always)]
    fn vector<S: Simd>(&mut self, simd: S, at: usize) -> S::F32 {
        let sum = simd.add(simd.load(&self.word[at..]), simd.load(&self.kind[at..]));
        let sum = simd.add(sum, simd.load(&self.position[at..]));
        simd.store(&mut self.out[at..], sum);
        sum
    }

    #[inline(always)]
    fn partial<S: Simd>(&mut self, simd: S, at: usize) -> S::F32 {
        let word = simd.load_partial(&self.word[at..]);
        let sum = simd.add(word, simd.load_partial(&self.kind[at..]));
        let sum = simd.add(sum, simd.load_partial(&self.position[at..]));
        simd.store_partial(&mut self.out[at..], sum);
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Isa, layer_norm_in_place};

    const VOCABULARY: usize = 23;

    /// Tables of rows of `n` values, and what a few tokens look up in them.
    struct Case {
        n: usize,
        word: Vec<f32>,
        position: Vec<f32>,
        token_type: Vec<f32>,
        ids: Vec<u32>,
        positions: Vec<u32>,
        types: Vec<u32>,
        gamma: Vec<f32>,
        beta: Vec<f32>,
    }

    impl Case {
        fn new(n: usize, tokens: usize) -> Self {
            let values = |len: usize, seed: usize| -> Vec<f32> {
                let noise = |i: usize| ((i * 7 + seed * 13) as f32 * 12.9898).sin() * 43_758.547;
                (0..len).map(|i| noise(i).fract() + 0.01).collect()
            };
            let indices =
                |step: usize, rows: usize| (0..tokens).map(|t| (t * step % rows) as u32).collect();
            Self {
                n,
                word: values(VOCABULARY * n, 1),
                position: values(12 * n, 2),
                token_type: values(2 * n, 3),
                ids: indices(5, VOCABULARY),
                positions: indices(1, 12),
                types: indices(3, 2),
                gamma: values(n, 4),
                beta: values(n, 5),
            }
        }

        fn run(&self, exec: &Exec, position: bool, token_type: bool, types: bool) -> Vec<f32> {
            let mut out = vec![f32::NAN; self.ids.len() * self.n];
            embedding_layer_norm(
                exec,
                EmbeddingTables {
                    word: &self.word,
                    position: position.then_some(&self.position),
                    token_type: token_type.then_some(&self.token_type),
                },
                &self.ids,
                &self.positions,
                types.then_some(&self.types),
                &self.gamma,
                &self.beta,
                1e-12,
                &mut out,
            );
            out
        }

        /// The sums in the stated order, then LayerNorm.
        fn expected(&self, exec: &Exec, position: bool, token_type: bool, types: bool) -> Vec<f32> {
            let mut out = Vec::new();
            for t in 0..self.ids.len() {
                let row = |table: &[f32], i: u32| table[i as usize * self.n..][..self.n].to_vec();
                let mut sum = row(&self.word, self.ids[t]);
                let mut add = |other: Vec<f32>| {
                    for (sum, other) in sum.iter_mut().zip(other) {
                        *sum += other;
                    }
                };
                if token_type {
                    add(row(&self.token_type, if types { self.types[t] } else { 0 }));
                }
                if position {
                    add(row(&self.position, self.positions[t]));
                }
                out.extend(sum);
            }
            layer_norm_in_place(exec, &mut out, &self.gamma, &self.beta, 1e-12);
            out
        }
    }

    #[test]
    fn it_is_the_sum_of_the_tables_normalised() {
        for isa in Isa::available() {
            let exec = Exec::with_isa(isa, 2);
            for n in [1, 7, 8, 16, 17, 31, 64, 100, 384] {
                let case = Case::new(n, 40);
                for (position, token_type, types) in [
                    (true, true, true),
                    (true, true, false),
                    (true, false, false),
                    (false, true, true),
                    (false, false, true),
                ] {
                    let found = case.run(&exec, position, token_type, types);
                    let expected = case.expected(&exec, position, token_type, types);
                    assert_eq!(found, expected, "n {n} on {isa}");
                }
            }
        }
    }

    #[test]
    fn it_agrees_with_the_reference() {
        for isa in Isa::available() {
            let case = Case::new(384, 9);
            let found = case.run(&Exec::with_isa(isa, 1), true, true, true);
            let mut expected = vec![0.0; found.len()];
            crate::reference::embedding_layer_norm(
                EmbeddingTables {
                    word: &case.word,
                    position: Some(&case.position),
                    token_type: Some(&case.token_type),
                },
                &case.ids,
                &case.positions,
                Some(&case.types),
                &case.gamma,
                &case.beta,
                1e-12,
                &mut expected,
            );
            let close = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-6;
            assert!(found.iter().zip(&expected).all(close), "{isa}");
        }
    }

    #[test]
    fn the_same_bits_for_any_threads_and_any_company() {
        for isa in Isa::available() {
            let mut case = Case::new(100, 3000);
            let all = case.run(&Exec::with_isa(isa, 1), true, true, true);
            let three = case.run(&Exec::with_isa(isa, 3), true, true, true);
            assert!(three == all, "{isa}");
            for indices in [&mut case.ids, &mut case.positions, &mut case.types] {
                *indices = vec![indices[1234]];
            }
            let one = case.run(&Exec::with_isa(isa, 1), true, true, true);
            assert!(one == all[123_400..123_500], "{isa}");
        }
    }

    #[test]
    fn nothing_of_no_tokens() {
        let case = Case::new(16, 0);
        let exec = Exec::with_isa(Isa::best(), 2);
        assert!(case.run(&exec, true, true, true).is_empty());
    }

    #[test]
    #[should_panic(expected = "out of range")]
    fn an_id_outside_the_table_is_refused() {
        let mut case = Case::new(16, 3);
        case.ids[1] = VOCABULARY as u32;
        case.run(&Exec::with_isa(Isa::best(), 1), true, true, true);
    }

    #[test]
    #[should_panic(expected = "a position for each token")]
    fn missing_positions_are_refused() {
        let mut case = Case::new(16, 3);
        case.positions.pop();
        case.run(&Exec::with_isa(Isa::best(), 1), true, true, true);
    }
}
