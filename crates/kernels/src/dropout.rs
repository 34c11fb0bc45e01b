//! Dropout whose mask is a function of the place, not of what ran before
//! (Srivastava et al. 2014, <https://jmlr.org/papers/v15/srivastava14a.html>).
//!
//! The mask of value `(row, column)` is a word of [`philox4x32`](crate::philox4x32) at the key (seed, stream) and the
//! counter (block of columns, row's name, site, step). No mask is stored: the backward pass asks again. Rows have
//! names (by default their numbers), so that a token's mask need not depend on the batch it is packed in.

use crate::Exec;
use crate::exec::SharedMut;
use crate::random::{LANES, philox_lanes, uniform};
use crate::simd::{Kernel, Simd};

/// Values that one block of counters serves.
const BLOCK: usize = 4 * LANES;

/// What is dropped, and where in the stream of random numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dropout {
    /// The share of values that become 0, from 0 to below 1; the others are multiplied by `1/(1 − p)`. Taken up to a
    /// multiple of 2⁻²⁴.
    pub probability: f32,
    /// The run's seed.
    pub seed: u32,
    /// Which of the seed's streams.
    pub stream: u32,
    /// The place in the model: no two dropouts of a pass share it.
    pub site: u32,
    /// The pass: no two share it.
    pub step: u32,
}

impl Dropout {
    /// What a value that is kept is multiplied by.
    pub(crate) fn scale(&self) -> f32 {
        1.0 / (1.0 - self.probability)
    }

    pub(crate) fn key(&self) -> [u32; 2] {
        [self.seed, self.stream]
    }

    /// # Panics
    /// When the probability is out of range.
    pub(crate) fn check(&self) {
        assert!(
            (0.0..1.0).contains(&self.probability),
            "a probability from 0 to below 1, not {}",
            self.probability
        );
    }
}

/// `y = x·mask/(1 − p)` for each value of `x[T,N]`, rows of `n`, in place. `rows` are the names of the T rows, by default
/// their numbers.
///
/// The backward pass is the same call on the gradient.
///
/// # Panics
/// When `x` is no whole number of rows, `rows` has another length, or the probability is out of range.
pub fn dropout(exec: &Exec, x: &mut [f32], n: usize, rows: Option<&[u32]>, dropout: &Dropout) {
    run(exec, x, None, n, rows, dropout);
}

/// `y = x·mask/(1 − p) + residual`, in place of `x`; otherwise as [`dropout()`].
///
/// # Panics
/// As [`dropout()`], and when `residual` is not as long as `x`.
pub fn dropout_add(
    exec: &Exec,
    x: &mut [f32],
    residual: &[f32],
    n: usize,
    rows: Option<&[u32]>,
    dropout: &Dropout,
) {
    assert_eq!(x.len(), residual.len(), "a residual for every value");
    run(exec, x, Some(residual), n, rows, dropout);
}

fn run(
    exec: &Exec,
    x: &mut [f32],
    residual: Option<&[f32]>,
    n: usize,
    names: Option<&[u32]>,
    dropout: &Dropout,
) {
    dropout.check();
    assert!(
        n > 0 && x.len().is_multiple_of(n),
        "whole rows of {n} values"
    );
    let count = x.len() / n;
    if let Some(names) = names {
        assert_eq!(names.len(), count, "a name for each row");
    }
    let shared = SharedMut::new(x);
    exec.for_ranges(count, 8 * n, |rows| {
        // SAFETY: ranges are disjoint.
        let x = unsafe { shared.slice(rows.start * n..rows.end * n) };
        exec.isa().run(Rows {
            x,
            residual: residual.map(|all| &all[rows.start * n..rows.end * n]),
            n,
            first: rows.start,
            names: names.map(|names| &names[rows]),
            dropout,
        });
    });
}

/// Rows of `n` values, of which the first has number `first`.
struct Rows<'a> {
    x: &'a mut [f32],
    residual: Option<&'a [f32]>,
    n: usize,
    first: usize,
    names: Option<&'a [u32]>,
    dropout: &'a Dropout,
}

impl Kernel for Rows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _simd: S) {
        for (i, row) in self.x.chunks_exact_mut(self.n).enumerate() {
            let name = match self.names {
                Some(names) => names[i],
                None => (self.first + i) as u32,
            };
            for (block, x) in row.chunks_mut(BLOCK).enumerate() {
                let factors = factors(self.dropout, block, name);
                match self.residual {
                    Some(residual) => {
                        let residual = &residual[i * self.n + block * BLOCK..][..x.len()];
                        for ((x, factor), residual) in x.iter_mut().zip(&factors).zip(residual) {
                            *x = *x * factor + residual;
                        }
                    }
                    None => {
                        for (x, factor) in x.iter_mut().zip(&factors) {
                            *x *= factor;
                        }
                    }
                }
            }
        }
    }
}

/// What the values of a block of columns are multiplied by: column `c` of the block takes word `c / LANES` of the counter
/// `c % LANES`.
#[inline(always)]
fn factors(dropout: &Dropout, block: usize, name: u32) -> [f32; BLOCK] {
    let mut counter = [
        [0; LANES],
        [name; LANES],
        [dropout.site; LANES],
        [dropout.step; LANES],
    ];
    for (lane, counter) in counter[0].iter_mut().enumerate() {
        *counter = (block * LANES + lane) as u32;
    }
    let words = philox_lanes(counter, dropout.key());
    let (probability, scale) = (dropout.probability, dropout.scale());
    let mut factors = [0.0; BLOCK];
    for (word, words) in words.iter().enumerate() {
        for (lane, &bits) in words.iter().enumerate() {
            let kept = uniform(bits) >= probability;
            factors[word * LANES + lane] = if kept { scale } else { 0.0 };
        }
    }
    factors
}

/// The scalar form of dropout, as readers would write it.
pub(crate) mod reference {
    use super::{BLOCK, Dropout, LANES};
    use crate::{Float, philox4x32};

    /// What value `column` of the row named `row` is multiplied by: 0 or `1/(1 − p)`.
    pub fn dropout_factor(dropout: &Dropout, row: u32, column: usize) -> f64 {
        let counter = (column / BLOCK * LANES + column % LANES) as u32;
        let words = philox4x32(
            [counter, row, dropout.site, dropout.step],
            [dropout.seed, dropout.stream],
        );
        let uniform = f64::from(words[column % BLOCK / LANES] >> 8) / f64::from(1 << 24);
        if uniform >= f64::from(dropout.probability) {
            1.0 / (1.0 - f64::from(dropout.probability))
        } else {
            0.0
        }
    }

    /// `y = x·mask/(1 − p)` over rows of `n` values, in place; see [`dropout`](crate::dropout()).
    pub fn dropout<F: Float>(x: &mut [F], n: usize, rows: Option<&[u32]>, dropout: &Dropout) {
        for (i, row) in x.chunks_exact_mut(n).enumerate() {
            let name = rows.map_or(i as u32, |rows| rows[i]);
            for (column, x) in row.iter_mut().enumerate() {
                *x = F::from_f64(x.to_f64() * dropout_factor(dropout, name, column));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;

    const DROPOUT: Dropout = Dropout {
        probability: 0.1,
        seed: 42,
        stream: 3,
        site: 7,
        step: 1000,
    };

    fn values(len: usize) -> Vec<f32> {
        (0..len).map(|i| (i as f32 * 0.37).sin() + 2.0).collect()
    }

    #[test]
    fn it_is_the_reference_for_any_threads() {
        for isa in Isa::available() {
            for n in [1, 3, 31, 32, 33, 100, 768] {
                let x = values(301 * n);
                let mut expected = x.clone();
                reference::dropout(&mut expected, n, None, &DROPOUT);
                for threads in [1, 2, 3, 8] {
                    let exec = Exec::with_isa(isa, threads);
                    let mut found = x.clone();
                    dropout(&exec, &mut found, n, None, &DROPOUT);
                    let close = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-6 * b.abs();
                    assert!(found.iter().zip(&expected).all(close), "n {n} on {isa}");
                    let mut added = x.clone();
                    dropout_add(&exec, &mut added, &x, n, None, &DROPOUT);
                    let sum = |((a, x), f): ((&f32, &f32), &f32)| (a - (x + f)).abs() <= 1e-6 * a;
                    assert!(added.iter().zip(&x).zip(&found).all(sum), "n {n} on {isa}");
                }
            }
        }
    }

    #[test]
    fn a_named_row_has_its_mask_in_any_batch() {
        let n = 50;
        let exec = Exec::with_isa(Isa::best(), 2);
        let names = [900, 17, 4];
        let mut together = vec![1.0; 3 * n];
        dropout(&exec, &mut together, n, Some(&names), &DROPOUT);
        for (i, name) in names.into_iter().enumerate() {
            let mut alone = vec![1.0; n];
            dropout(&exec, &mut alone, n, Some(&[name]), &DROPOUT);
            assert_eq!(alone, together[i * n..(i + 1) * n]);
        }
    }

    #[test]
    fn as_many_are_dropped_as_asked_and_places_differ() {
        let exec = Exec::with_isa(Isa::best(), 1);
        let mask = |dropout: Dropout| {
            let mut x = vec![1.0; 1000 * 100];
            super::dropout(&exec, &mut x, 100, None, &dropout);
            x
        };
        let base = mask(DROPOUT);
        let dropped = base.iter().filter(|&&x| x == 0.0).count() as f64;
        // Five standard deviations of a binomial count.
        assert!((dropped - 10_000.0).abs() < 5.0 * 95.0, "{dropped}");
        for other in [
            Dropout {
                seed: 43,
                ..DROPOUT
            },
            Dropout {
                stream: 4,
                ..DROPOUT
            },
            Dropout { site: 8, ..DROPOUT },
            Dropout {
                step: 1001,
                ..DROPOUT
            },
        ] {
            let both = mask(other)
                .iter()
                .zip(&base)
                .filter(|(a, b)| **a == 0.0 && **b == 0.0)
                .count();
            assert!(
                (both as f64 - 1000.0).abs() < 5.0 * 32.0,
                "{other:?}: {both}"
            );
        }
        let none = mask(Dropout {
            probability: 0.0,
            ..DROPOUT
        });
        assert!(none.iter().all(|&x| x == 1.0));
    }

    #[test]
    #[should_panic(expected = "a probability")]
    fn all_cannot_be_dropped() {
        let dropout = Dropout {
            probability: 1.0,
            ..DROPOUT
        };
        super::dropout(
            &Exec::with_isa(Isa::best(), 1),
            &mut [1.0],
            1,
            None,
            &dropout,
        );
    }
}
