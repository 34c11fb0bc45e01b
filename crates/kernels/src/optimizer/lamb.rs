//! LAMB: Adam whose steps are as long, by layers, as their weights (You et al. 2020, <https://arxiv.org/abs/1904.00962>).

use super::norm::squared_norm;
use super::{Parameter, Rule, apply};
use crate::Exec;
use crate::simd::Simd;

/// LAMB's settings for a step, in the form of NVIDIA's apex.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lamb {
    /// The learning rate of this step.
    pub learning_rate: f64,
    /// What the first moment keeps of itself (β₁).
    pub beta1: f64,
    /// What the second moment keeps of itself (β₂).
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// The share of a weight that is added to its update.
    pub weight_decay: f64,
    /// Whether moments are corrected for having started as zeros (Google's original does not).
    pub bias_correction: bool,
    /// Whether the step is as long as the weight; without, and for a weight or update of length 0, the ratio is 1.
    pub trust_ratio: bool,
    /// The number of this step (t), from 1.
    pub step: u32,
}

impl Default for Lamb {
    /// apex's defaults, at step 1.
    fn default() -> Self {
        Self {
            learning_rate: 1e-3,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-6,
            weight_decay: 0.01,
            bias_correction: true,
            trust_ratio: true,
            step: 1,
        }
    }
}

/// A step of LAMB: with Adam's moments, `u = m̂/(√v̂ + ε) + wd·w`, `r = ‖w‖/‖u‖` of the whole tensor, `w ← w − lr·r·u`.
///
/// `update` is scratch of the weight's length, which u is left in. Gives `r`. Bits do not depend on the number of threads.
///
/// # Panics
/// When lengths disagree, or the step is 0.
pub fn lamb(
    exec: &Exec,
    settings: &Lamb,
    parameter: Parameter<'_>,
    m: &mut [f32],
    v: &mut [f32],
    update: &mut [f32],
) -> f32 {
    assert!(settings.step > 0, "steps are numbered from 1");
    let len = parameter.weight.len();
    assert_eq!((m.len(), v.len()), (len, len), "moments for every weight");
    assert_eq!(update.len(), len, "room for every update");
    let (beta1, beta2) = (settings.beta1, settings.beta2);
    let corrections = if settings.bias_correction {
        let t = settings.step as i32;
        [1.0 - beta1.powi(t), (1.0 - beta2.powi(t)).sqrt()]
    } else {
        [1.0, 1.0]
    };
    // The update takes the weight's place in the first pass, and starts as it.
    update.copy_from_slice(parameter.weight);
    let direction = Direction {
        beta1,
        beta2,
        rate: corrections[1] / corrections[0],
        epsilon: settings.epsilon * corrections[1],
        decay: settings.weight_decay,
    };
    let first = Parameter {
        weight: &mut *update,
        gradient: parameter.gradient,
        gradient_scale: parameter.gradient_scale,
        bf16: None,
    };
    apply(exec, direction, first, [m, v]);
    let mut ratio = 1.0;
    if settings.trust_ratio {
        let (w, u) = (
            squared_norm(exec, parameter.weight),
            squared_norm(exec, update),
        );
        if w > 0.0 && u > 0.0 {
            ratio = (w / u).sqrt();
        }
    }
    let rate = settings.learning_rate * ratio;
    let second = Parameter {
        weight: parameter.weight,
        gradient: update,
        gradient_scale: 1.0,
        bf16: parameter.bf16,
    };
    apply(
        exec,
        Follow { rate: rate as f32 },
        second,
        [&mut [], &mut []],
    );
    ratio as f32
}

/// Adam's moments, and in place of the weight `rate·m/(√v + ε) + decay·w`.
#[derive(Clone, Copy)]
struct Direction {
    beta1: f64,
    beta2: f64,
    rate: f64,
    epsilon: f64,
    decay: f64,
}

impl Rule for Direction {
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
        let decay = simd.mul(weight, of(self.decay));
        (
            simd.mul_add(of(self.rate), simd.div(m, size), decay),
            [m, v],
        )
    }
}

/// `w ← w − rate·u`.
#[derive(Clone, Copy)]
struct Follow {
    rate: f32,
}

impl Rule for Follow {
    #[inline(always)]
    fn step<S: Simd>(
        self,
        simd: S,
        weight: S::F32,
        update: S::F32,
        states: [S::F32; 2],
    ) -> (S::F32, [S::F32; 2]) {
        (
            simd.neg_mul_add(simd.splat(self.rate), update, weight),
            states,
        )
    }
}
