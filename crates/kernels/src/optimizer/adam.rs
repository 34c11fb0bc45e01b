//! Adam and its kin.

use super::norm::squares;
use super::{Parameter, Rule, apply};
use crate::Exec;
use crate::simd::Simd;

/// Which Adam.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum AdamRule {
    /// AdamW (Loshchilov & Hutter 2019, <https://arxiv.org/abs/1711.05101>) in PyTorch's order:
    /// `w ← w·(1 − lr·wd)`, then `w ← w − lr/(1 − β₁ᵗ)·m/(√v/√(1 − β₂ᵗ) + ε)`.
    #[default]
    AdamW,
    /// BERT's own: no bias correction, and decay inside the update: `w ← w − lr·(m/(√v + ε) + wd·w)`
    /// (Devlin et al. 2019, <https://github.com/google-research/bert>).
    Bert,
    /// StableAdamW (Wortsman et al. 2023, <https://arxiv.org/abs/2304.13013>): debiased moments, and the learning rate
    /// divided by `max(1, RMS(g/max(√v, ε)))` of the whole tensor. It replaces clipping.
    Stable,
}

/// Adam's settings for a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adam {
    /// Which Adam.
    pub rule: AdamRule,
    /// The learning rate of this step.
    pub learning_rate: f64,
    /// What the first moment keeps of itself (β₁).
    pub beta1: f64,
    /// What the second moment keeps of itself (β₂).
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// The share of a weight that decays per unit of the learning rate.
    pub weight_decay: f64,
    /// The number of this step (t), from 1.
    pub step: u32,
}

impl Default for Adam {
    /// PyTorch's defaults of AdamW, at step 1.
    fn default() -> Self {
        Self {
            rule: AdamRule::AdamW,
            learning_rate: 1e-3,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            weight_decay: 0.01,
            step: 1,
        }
    }
}

/// A step of Adam: `m ← β₁·m + (1 − β₁)·g`, `v ← β₂·v + (1 − β₂)·g²`, and the weight's change by the [`AdamRule`]. Moments
/// start as zeros.
///
/// Gives `RMS(g/max(√v, ε))` for [`AdamRule::Stable`], else 1. Bits do not depend on the number of threads.
///
/// # Panics
/// When lengths disagree, or the step is 0.
pub fn adam(
    exec: &Exec,
    settings: &Adam,
    parameter: Parameter<'_>,
    m: &mut [f32],
    v: &mut [f32],
) -> f32 {
    assert!(settings.step > 0, "steps are numbered from 1");
    let len = parameter.weight.len();
    assert_eq!((m.len(), v.len()), (len, len), "moments for every weight");
    assert_eq!(parameter.gradient.len(), len, "a gradient for every weight");
    let (lr, decay) = (settings.learning_rate, settings.weight_decay);
    let (beta1, beta2) = (settings.beta1, settings.beta2);
    let t = settings.step as i32;
    let mut rms = 1.0;
    let update = match settings.rule {
        AdamRule::AdamW => {
            let correction = (1.0 - beta2.powi(t)).sqrt();
            // √v/c + ε, multiplied by c like the quotient's upper part.
            Update {
                beta1,
                beta2,
                keep: 1.0 - lr * decay,
                rate: lr * correction / (1.0 - beta1.powi(t)),
                epsilon: settings.epsilon * correction,
            }
        }
        AdamRule::Bert => Update {
            beta1,
            beta2,
            keep: 1.0 - lr * decay,
            rate: lr,
            epsilon: settings.epsilon,
        },
        AdamRule::Stable => {
            let debiased = |beta: f64| {
                let power = beta.powi(t);
                (power - beta) / (power - 1.0)
            };
            let beta2 = debiased(beta2);
            let sum = squares(
                exec,
                Ratio {
                    beta2: beta2 as f32,
                    // Where the rest of v must not become 0 by cancellation.
                    rest: (1.0 - beta2) as f32,
                    epsilon: (settings.epsilon * settings.epsilon) as f32,
                    scale: parameter.gradient_scale,
                },
                parameter.gradient,
                v,
            );
            rms = (sum / len.max(1) as f64).sqrt();
            let lr = lr / rms.max(1.0);
            Update {
                beta1: debiased(beta1),
                beta2,
                keep: 1.0 - lr * decay,
                rate: lr,
                epsilon: settings.epsilon,
            }
        }
    };
    apply(exec, update, parameter, [m, v]);
    rms as f32
}

/// `m ← β₁·m + (1 − β₁)·g`, `v ← β₂·v + (1 − β₂)·g²`, `w ← keep·w − rate·m/(√v + ε)`.
#[derive(Clone, Copy)]
struct Update {
    beta1: f64,
    beta2: f64,
    keep: f64,
    rate: f64,
    epsilon: f64,
}

impl Rule for Update {
    #[inline(always)]
    fn step<S: Simd>(
        self,
        simd: S,
        weight: S::F32,
        g: S::F32,
        [m, v]: [S::F32; 2],
    ) -> (S::F32, [S::F32; 2]) {
        let of = |x: f64| simd.splat(x as f32);
        let m = simd.mul_add(g, of(1.0 - self.beta1), simd.mul(m, of(self.beta1)));
        let square = simd.mul(g, g);
        let v = simd.mul_add(square, of(1.0 - self.beta2), simd.mul(v, of(self.beta2)));
        let size = simd.add(simd.sqrt(v), of(self.epsilon));
        let kept = simd.mul(weight, of(self.keep));
        let weight = simd.neg_mul_add(of(self.rate), simd.div(m, size), kept);
        (weight, [m, v])
    }
}

/// `g²/max(v′, ε²)`, where v′ is the second moment after this step.
#[derive(Clone, Copy)]
struct Ratio {
    beta2: f32,
    rest: f32,
    /// ε².
    epsilon: f32,
    scale: f32,
}

impl super::norm::Term for Ratio {
    #[inline(always)]
    fn of<S: Simd>(self, simd: S, g: S::F32, v: S::F32) -> S::F32 {
        let g = simd.mul(g, simd.splat(self.scale));
        let square = simd.mul(g, g);
        let v = simd.mul_add(
            square,
            simd.splat(self.rest),
            simd.mul(v, simd.splat(self.beta2)),
        );
        simd.div(square, simd.max(v, simd.splat(self.epsilon)))
    }
}
