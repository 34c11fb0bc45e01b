//! Norms of tensors, summed in one order, and a product with a number.

use crate::Exec;
use crate::exec::SharedMut;
use crate::simd::{Kernel, Simd};

/// Values whose squares are summed in f32 vectors before the sums go on in f64.
const BLOCK: usize = 1 << 12;

/// A term of a sum, from the values of two slices. `of` must be `#[inline(always)]`.
pub(super) trait Term: Copy + Sync {
    /// The terms of a vector of values.
    fn of<S: Simd>(self, simd: S, a: S::F32, b: S::F32) -> S::F32;
}

/// `Σ a²`, in f64 over blocks of f32 sums: the order is one, whatever the number of threads.
///
/// The relative error is at most some 2⁻¹⁶ at the very worst, and 2⁻²² for values of random signs and sizes.
pub fn squared_norm(exec: &Exec, values: &[f32]) -> f64 {
    squares(exec, Square, values, values)
}

/// `a ← a·factor`.
pub fn scale(exec: &Exec, values: &mut [f32], factor: f32) {
    exec.for_rows(values, 1, 1, |_, values| {
        exec.isa().run(Scale { values, factor });
    });
}

/// The sum of all terms of `a` and `b`, which are equally long.
pub(super) fn squares(exec: &Exec, term: impl Term, a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let mut sums = vec![0.0f64; a.len().div_ceil(BLOCK)];
    let shared = SharedMut::new(&mut sums);
    exec.for_ranges(a.len().div_ceil(BLOCK), BLOCK, |blocks| {
        // SAFETY: ranges are disjoint.
        let sums = unsafe { shared.slice(blocks.clone()) };
        let values = blocks.start * BLOCK..a.len().min(blocks.end * BLOCK);
        let (a, b) = (&a[values.clone()], &b[values]);
        exec.isa().run(Sums { term, a, b, sums });
    });
    tree(&sums)
}

/// The sum of halves.
fn tree(sums: &[f64]) -> f64 {
    match sums {
        [] => 0.0,
        [sum] => *sum,
        _ => {
            let (low, high) = sums.split_at(sums.len() / 2);
            tree(low) + tree(high)
        }
    }
}

#[derive(Clone, Copy)]
struct Square;

impl Term for Square {
    #[inline(always)]
    fn of<S: Simd>(self, simd: S, a: S::F32, _b: S::F32) -> S::F32 {
        simd.mul(a, a)
    }
}

/// The sum of each block.
struct Sums<'a, T> {
    term: T,
    a: &'a [f32],
    b: &'a [f32],
    sums: &'a mut [f64],
}

impl<T: Term> Kernel for Sums<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let blocks = self.a.chunks(BLOCK).zip(self.b.chunks(BLOCK));
        for (sum, (a, b)) in self.sums.iter_mut().zip(blocks) {
            let mut sums = [simd.zero(); 4];
            let (len, mut at) = (a.len(), 0);
            while len - at >= 4 * S::LANES {
                let mut i = 0;
                while i < 4 {
                    let place = at + i * S::LANES;
                    let terms = self
                        .term
                        .of(simd, simd.load(&a[place..]), simd.load(&b[place..]));
                    sums[i] = simd.add(sums[i], terms);
                    i += 1;
                }
                at += 4 * S::LANES;
            }
            while at < len {
                // Zeros beyond the end have terms of 0.
                let (a, b) = (super::load(simd, &a[at..]), super::load(simd, &b[at..]));
                sums[0] = simd.add(sums[0], self.term.of(simd, a, b));
                at += S::LANES;
            }
            let mut lanes = [0.0f32; 4 * 16];
            let mut i = 0;
            while i < 4 {
                simd.store(&mut lanes[i * S::LANES..], sums[i]);
                i += 1;
            }
            *sum = 0.0;
            for &lane in &lanes {
                *sum += f64::from(lane);
            }
        }
    }
}

struct Scale<'a> {
    values: &'a mut [f32],
    factor: f32,
}

impl Kernel for Scale<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _simd: S) {
        for value in self.values {
            *value *= self.factor;
        }
    }
}
