//! Values as whole multiples of one step.

use super::code_book::rounded;
use crate::Exec;
use crate::exec::SharedMut;
use crate::simd::{Kernel, Simd};

/// `out = step·q` with the whole number `q` from `low` to `high` that is nearest to `x/step`, half to even. What is no number stays
/// so.
///
/// # Panics
/// When the slices differ in length, or an end is beyond 2¹⁶.
pub fn round_to_steps(exec: &Exec, x: &[f32], step: f32, (low, high): (f32, f32), out: &mut [f32]) {
    assert_eq!(x.len(), out.len(), "a value for each value");
    assert!(low.abs().max(high.abs()) <= 65_536.0, "few levels");
    let len = x.len();
    let out = SharedMut::new(out);
    exec.for_ranges(len, 4, |range| {
        // SAFETY: the ranges of different pieces are disjoint.
        let out = unsafe { out.slice(range.clone()) };
        exec.isa().run(Round {
            x: &x[range],
            step,
            ends: (low, high),
            out,
        });
    });
}

struct Round<'a> {
    x: &'a [f32],
    step: f32,
    ends: (f32, f32),
    out: &'a mut [f32],
}

impl Kernel for Round<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _simd: S) {
        let (low, high) = self.ends;
        for (out, &x) in self.out.iter_mut().zip(self.x) {
            *out = rounded((x / self.step).clamp(low, high)) * self.step;
        }
    }
}
