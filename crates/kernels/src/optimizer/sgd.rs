//! Stochastic gradient descent with momentum.

use super::{Parameter, Rule, apply};
use crate::Exec;
use crate::simd::Simd;

/// The settings of a step, with PyTorch's meaning.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct Sgd {
    /// The learning rate of this step.
    pub learning_rate: f64,
    /// What the momentum keeps of itself; with 0 there is none.
    pub momentum: f64,
    /// The share of a gradient that the momentum does not take. The first step takes all.
    pub dampening: f64,
    /// The share of a weight that is added to its gradient.
    pub weight_decay: f64,
    /// Whether the momentum is looked ahead by a step (Nesterov).
    pub nesterov: bool,
    /// The number of this step, from 1.
    pub step: u32,
}

/// A step: `g ← g + wd·w`, `b ← momentum·b + (1 − dampening)·g` (b = g in step 1), `w ← w − lr·b`, or with Nesterov
/// `w ← w − lr·(g + momentum·b)`. `buffer` is b, and empty without momentum.
///
/// # Panics
/// When lengths disagree, the step is 0, or there is a momentum without a buffer.
pub fn sgd(exec: &Exec, settings: &Sgd, parameter: Parameter<'_>, buffer: &mut [f32]) {
    assert!(settings.step > 0, "steps are numbered from 1");
    let len = parameter.weight.len();
    let wanted = if settings.momentum == 0.0 { 0 } else { len };
    assert_eq!(buffer.len(), wanted, "a momentum for every weight");
    let first = settings.step == 1;
    let descent = Descent {
        rate: settings.learning_rate as f32,
        decay: settings.weight_decay as f32,
        keep: if first { 0.0 } else { settings.momentum } as f32,
        take: if first { 1.0 } else { 1.0 - settings.dampening } as f32,
        momentum: settings.momentum as f32,
        nesterov: settings.nesterov,
    };
    apply(exec, descent, parameter, [buffer, &mut []]);
}

#[derive(Clone, Copy)]
struct Descent {
    rate: f32,
    decay: f32,
    keep: f32,
    take: f32,
    momentum: f32,
    nesterov: bool,
}

impl Rule for Descent {
    #[inline(always)]
    fn step<S: Simd>(
        self,
        simd: S,
        weight: S::F32,
        g: S::F32,
        [b, other]: [S::F32; 2],
    ) -> (S::F32, [S::F32; 2]) {
        let g = simd.mul_add(simd.splat(self.decay), weight, g);
        let rate = simd.splat(self.rate);
        if self.momentum == 0.0 {
            return (simd.neg_mul_add(rate, g, weight), [b, other]);
        }
        let b = simd.mul_add(g, simd.splat(self.take), simd.mul(b, simd.splat(self.keep)));
        let direction = if self.nesterov {
            simd.mul_add(simd.splat(self.momentum), b, g)
        } else {
            b
        };
        (simd.neg_mul_add(rate, direction, weight), [b, other])
    }
}
