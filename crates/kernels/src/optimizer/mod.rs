//! Optimizers: each changes a weight in one pass over memory, in place.
//!
//! A step is bound by memory: with f32 weights, gradients and two moments it reads 16 bytes a weight and writes 12.
//! So everything happens in one pass: the gradient's scale (of clipping, or of accumulation), decay, moments, update,
//! and where it is wanted a bf16 copy of the new weight.
//!
//! Rules that depend on a norm of the whole tensor (LAMB, StableAdamW) first take it in a pass of their own, whose sum
//! has one order whatever the number of threads.

mod adam;
mod lamb;
mod norm;
pub(crate) mod reference;
mod sgd;
#[cfg(test)]
mod tests;

pub use adam::{Adam, AdamRule, adam};
pub use lamb::{Lamb, lamb};
pub use norm::{scale, squared_norm};
pub use sgd::{Sgd, sgd};

use crate::Exec;
use crate::exec::SharedMut;
use crate::simd::{Kernel, Simd};

/// A weight with its gradient.
#[derive(Debug)]
pub struct Parameter<'a> {
    /// The weight.
    pub weight: &'a mut [f32],
    /// Its gradient.
    pub gradient: &'a [f32],
    /// What the gradient is multiplied by first: that of clipping, one over the number of accumulated passes, or 1.
    pub gradient_scale: f32,
    /// The new weight rounded to bf16 (ties to even), if it is wanted.
    pub bf16: Option<&'a mut [half::bf16]>,
}

/// What a rule does with some vectors: weight, gradient and two states. `step` must be `#[inline(always)]`.
trait Rule: Copy + Sync {
    /// The new weight and states.
    fn step<S: Simd>(
        self,
        simd: S,
        weight: S::F32,
        gradient: S::F32,
        states: [S::F32; 2],
    ) -> (S::F32, [S::F32; 2]);
}

/// About the operations a weight takes, for sharing weights among threads.
const WORK: usize = 4;

/// Applies a rule to a parameter and its states (an empty one is none).
fn apply(exec: &Exec, rule: impl Rule, parameter: Parameter<'_>, states: [&mut [f32]; 2]) {
    let Parameter {
        weight,
        gradient,
        gradient_scale,
        bf16,
    } = parameter;
    let len = weight.len();
    assert_eq!(gradient.len(), len, "a gradient for every weight");
    for state in &states {
        assert!(
            state.len() == len || state.is_empty(),
            "a state for every weight"
        );
    }
    if let Some(bf16) = &bf16 {
        assert_eq!(bf16.len(), len, "a copy of every weight");
    }
    let weight = SharedMut::new(weight);
    let has = states.each_ref().map(|state| !state.is_empty());
    let states = states.map(SharedMut::new);
    let bf16 = bf16.map(SharedMut::new);
    exec.for_ranges(len, WORK, |range| {
        let part = |i: usize| if has[i] { range.clone() } else { 0..0 };
        // SAFETY: ranges are disjoint.
        let (weight, states, bf16) = unsafe {
            (
                weight.slice(range.clone()),
                [states[0].slice(part(0)), states[1].slice(part(1))],
                bf16.as_ref().map(|all| all.slice(range.clone())),
            )
        };
        exec.isa().run(Step {
            rule,
            weight,
            gradient: &gradient[range.clone()],
            gradient_scale,
            states,
            bf16,
        });
    });
}

/// A range of a parameter.
struct Step<'a, R> {
    rule: R,
    weight: &'a mut [f32],
    gradient: &'a [f32],
    gradient_scale: f32,
    states: [&'a mut [f32]; 2],
    bf16: Option<&'a mut [half::bf16]>,
}

impl<R: Rule> Kernel for Step<'_, R> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self {
            rule,
            weight,
            gradient,
            gradient_scale,
            states: [first, second],
            mut bf16,
        } = self;
        let factor = simd.splat(gradient_scale);
        let len = weight.len();
        let mut at = 0;
        while at < len {
            let g = simd.mul(load(simd, &gradient[at..]), factor);
            let mut states = [simd.zero(); 2];
            if !first.is_empty() {
                states[0] = load(simd, &first[at..]);
            }
            if !second.is_empty() {
                states[1] = load(simd, &second[at..]);
            }
            let w = load(simd, &weight[at..]);
            let (w, states) = rule.step(simd, w, g, states);
            store(simd, &mut weight[at..], w);
            if !first.is_empty() {
                store(simd, &mut first[at..], states[0]);
            }
            if !second.is_empty() {
                store(simd, &mut second[at..], states[1]);
            }
            if let Some(bf16) = &mut bf16 {
                let end = len.min(at + S::LANES);
                for (to, &w) in bf16[at..end].iter_mut().zip(&weight[at..end]) {
                    *to = crate::bf16::narrow(w);
                }
            }
            at += S::LANES;
        }
    }
}

/// A vector, or what is left where there is less.
#[inline(always)]
fn load<S: Simd>(simd: S, from: &[f32]) -> S::F32 {
    if from.len() >= S::LANES {
        simd.load(from)
    } else {
        simd.load_partial(from)
    }
}

/// Writes a vector, or as much of it as there is room for.
#[inline(always)]
fn store<S: Simd>(simd: S, to: &mut [f32], v: S::F32) {
    if to.len() >= S::LANES {
        simd.store(to, v);
    } else {
        simd.store_partial(to, v);
    }
}
