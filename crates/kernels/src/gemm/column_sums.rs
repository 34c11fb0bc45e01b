//! Sums of a matrix's columns: the gradient of a bias.

use crate::Exec;
use crate::exec::SharedMut;
use crate::simd::{Kernel, Simd};

/// Rows that are summed before they are added to the total: rounding errors then grow with the number of
/// blocks, and with that of rows in one.
const BLOCK: usize = 128;

/// Columns of a task at least: rows are read in pieces of this many values.
const LEAST_COLUMNS: usize = 64;

/// `sums[N] (+)= Σ_t x[t,N]` for row-major `x[T,N]`: added to when `accumulate`, else overwritten.
///
/// Sums have one order, whatever the number of threads.
///
/// # Panics
/// When `x` is no whole number of rows as long as `sums`.
pub fn column_sums(exec: &Exec, x: &[f32], accumulate: bool, sums: &mut [f32]) {
    let n = sums.len();
    assert!(
        if n == 0 {
            x.is_empty()
        } else {
            x.len().is_multiple_of(n)
        },
        "whole rows of {n} values"
    );
    if !accumulate {
        sums.fill(0.0);
    }
    if x.is_empty() {
        return;
    }
    let shared = SharedMut::new(sums);
    let groups = n.div_ceil(LEAST_COLUMNS);
    exec.for_ranges(groups, x.len() / groups, |groups| {
        let columns = groups.start * LEAST_COLUMNS..n.min(groups.end * LEAST_COLUMNS);
        // SAFETY: tasks have different columns.
        let sums = unsafe { shared.slice(columns.clone()) };
        // The blocks' sums stay in L1.
        for (i, sums) in sums.chunks_mut(8 * LEAST_COLUMNS).enumerate() {
            let from = &x[columns.start + i * 8 * LEAST_COLUMNS..];
            exec.isa().run(Columns { from, n, sums });
        }
    });
}

/// Some columns: `from` starts at the first row's first of them.
struct Columns<'a> {
    from: &'a [f32],
    n: usize,
    sums: &'a mut [f32],
}

impl Kernel for Columns<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { from, n, sums } = self;
        let width = sums.len();
        let mut block = [0.0; 8 * LEAST_COLUMNS];
        let block = &mut block[..width];
        let rows = (from.len() + n - width) / n;
        for first in (0..rows).step_by(BLOCK) {
            block.fill(0.0);
            let last = rows.min(first + BLOCK);
            let mut row = first;
            while row + 4 <= last {
                let at = |r: usize| &from[(row + r) * n..][..width];
                add(simd, [at(0), at(1), at(2), at(3)], block);
                row += 4;
            }
            for row in row..last {
                let row = &from[row * n..][..width];
                for (sum, x) in block.iter_mut().zip(row) {
                    *sum += x;
                }
            }
            for (sum, x) in sums.iter_mut().zip(&*block) {
                *sum += x;
            }
        }
    }
}

/// Adds four rows.
#[inline(always)]
fn add<S: Simd>(simd: S, [a, b, c, d]: [&[f32]; 4], sums: &mut [f32]) {
    let len = sums.len();
    let mut at = 0;
    while at + S::LANES <= len {
        let low = simd.add(simd.load(&a[at..]), simd.load(&b[at..]));
        let high = simd.add(simd.load(&c[at..]), simd.load(&d[at..]));
        let sum = simd.add(simd.load(&sums[at..]), simd.add(low, high));
        simd.store(&mut sums[at..], sum);
        at += S::LANES;
    }
    while at < len {
        sums[at] += (a[at] + b[at]) + (c[at] + d[at]);
        at += 1;
    }
}
