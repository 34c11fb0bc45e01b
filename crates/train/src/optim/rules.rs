//! The update rules, each on one parameter's slices: plain scalar code, one element after the other.
//!
//! `p` is the parameter, `g` its gradient, of which `scale` times is meant (that is how it is clipped
//! without being written again), `m` and `v` the moments, `t` the number of this update, from 1. All slices of a call are equally long, which the caller
//! ensures. Elements are f32; what is the same for all elements is computed once in f64. Sums over a
//! parameter (LAMB, StableAdamW) run in f64 in the order of the elements.

/// What Adam and its relatives share.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamStep {
    /// The learning rate of this parameter.
    pub lr: f64,
    /// Decay of the mean of gradients.
    pub beta1: f64,
    /// Decay of the mean of squared gradients.
    pub beta2: f64,
    /// What is added to the denominator.
    pub eps: f64,
    /// Weight decay of this parameter; 0 for none.
    pub weight_decay: f64,
    /// The number of this update, from 1.
    pub t: u64,
    /// What the gradient is multiplied with first; 1 leaves it.
    pub scale: f32,
}

impl AdamStep {
    /// `1 - β^t`, which a mean that started from 0 lacks.
    fn corrections(&self) -> (f64, f64) {
        let t = self.t as f64;
        (1.0 - self.beta1.powf(t), 1.0 - self.beta2.powf(t))
    }

    /// The betas with which a mean is unbiased at every update, 0 at the first:
    /// `(β^t - β) / (β^t - 1)`.
    fn debiased(&self) -> (f64, f64) {
        let t = self.t as f64;
        let one = |beta: f64| {
            let power = beta.powf(t);
            (power - beta) / (power - 1.0)
        };
        // At t = 1 the difference is 0 exactly.
        (one(self.beta1), one(self.beta2))
    }
}

/// AdamW (Loshchilov and Hutter 2019, <https://arxiv.org/abs/1711.05101>) in PyTorch's order: decay,
/// moments, `p -= lr/(1-β1^t) · m / (√v/√(1-β2^t) + ε)`.
pub fn adamw(p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32], step: &AdamStep) {
    let (c1, c2) = step.corrections();
    let (b1, b2) = (step.beta1 as f32, step.beta2 as f32);
    let (r1, r2) = ((1.0 - step.beta1) as f32, (1.0 - step.beta2) as f32);
    let keep = (1.0 - step.lr * step.weight_decay) as f32;
    let (size, root, eps) = ((step.lr / c1) as f32, c2.sqrt() as f32, step.eps as f32);
    for (((p, &g), m), v) in p.iter_mut().zip(g).zip(m).zip(v) {
        let g = step.scale * g;
        *m = b1 * *m + r1 * g;
        *v = b2 * *v + r2 * g * g;
        *p = *p * keep - size * *m / (v.sqrt() / root + eps);
    }
}

/// The optimizer BERT was trained with: no bias correction, decay inside of the update,
/// `p -= lr · (m / (√v + ε) + wd·p)`. Its first steps are 3.2 times as long as AdamW's: it needs a
/// warm-up.
pub fn bert_adam(p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32], step: &AdamStep) {
    let (b1, b2) = (step.beta1 as f32, step.beta2 as f32);
    let (r1, r2) = ((1.0 - step.beta1) as f32, (1.0 - step.beta2) as f32);
    let (lr, decay, eps) = (step.lr as f32, step.weight_decay as f32, step.eps as f32);
    for (((p, &g), m), v) in p.iter_mut().zip(g).zip(m).zip(v) {
        let g = step.scale * g;
        *m = b1 * *m + r1 * g;
        *v = b2 * *v + r2 * g * g;
        *p -= lr * (*m / (v.sqrt() + eps) + decay * *p);
    }
}

/// StableAdamW (Wortsman et al. 2023, <https://arxiv.org/abs/2304.13013>): AdamW with debiased betas
/// and, per parameter, a learning rate divided by `max(1, RMS)`, `RMS = √mean(g² / max(v, ε²))`. The
/// decay follows the divided rate. Gives RMS. It takes the place of gradient clipping.
pub fn stable_adamw(
    p: &mut [f32],
    g: &[f32],
    m: &mut [f32],
    v: &mut [f32],
    step: &AdamStep,
) -> f64 {
    let (b1, b2) = step.debiased();
    let (r1, r2) = ((1.0 - b1) as f32, (1.0 - b2) as f32);
    let (b1, b2, eps) = (b1 as f32, b2 as f32, step.eps as f32);
    let smallest = step.eps * step.eps;
    let mut sum = 0.0f64;
    for ((&g, m), v) in g.iter().zip(m.iter_mut()).zip(v.iter_mut()) {
        let g = step.scale * g;
        *m = b1 * *m + r1 * g;
        *v = b2 * *v + r2 * g * g;
        sum += f64::from(g) * f64::from(g) / f64::from(*v).max(smallest);
    }
    let rms = (sum / g.len().max(1) as f64).sqrt();
    let lr = step.lr / rms.max(1.0);
    let (keep, lr) = ((1.0 - lr * step.weight_decay) as f32, lr as f32);
    for ((p, &m), &v) in p.iter_mut().zip(&*m).zip(&*v) {
        *p = *p * keep - lr * m / (v.sqrt() + eps);
    }
    rms
}

/// LAMB (You et al. 2020, <https://arxiv.org/abs/1904.00962>), with bias correction:
/// `u = m̂/(√v̂+ε) + wd·p`, `p -= lr · r · u` with the trust ratio `r = ‖p‖/‖u‖` (1 where either is 0,
/// or where `trust` is off, as for parameters without decay). Gives `r`.
pub fn lamb(
    p: &mut [f32],
    g: &[f32],
    m: &mut [f32],
    v: &mut [f32],
    step: &AdamStep,
    trust: bool,
) -> f64 {
    let (c1, c2) = step.corrections();
    let (b1, b2) = (step.beta1 as f32, step.beta2 as f32);
    let (r1, r2) = ((1.0 - step.beta1) as f32, (1.0 - step.beta2) as f32);
    let (c1, c2) = (c1 as f32, c2 as f32);
    let (decay, eps) = (step.weight_decay as f32, step.eps as f32);
    let update = |p: f32, m: f32, v: f32| m / c1 / ((v / c2).sqrt() + eps) + decay * p;
    let (mut p_norm, mut u_norm) = (0.0f64, 0.0f64);
    for (((&p, &g), m), v) in p.iter().zip(g).zip(m.iter_mut()).zip(v.iter_mut()) {
        let g = step.scale * g;
        *m = b1 * *m + r1 * g;
        *v = b2 * *v + r2 * g * g;
        let u = f64::from(update(p, *m, *v));
        p_norm += f64::from(p) * f64::from(p);
        u_norm += u * u;
    }
    let ratio = match trust && p_norm > 0.0 && u_norm > 0.0 {
        true => (p_norm / u_norm).sqrt(),
        false => 1.0,
    };
    let size = (step.lr * ratio) as f32;
    for ((p, &m), &v) in p.iter_mut().zip(&*m).zip(&*v) {
        *p -= size * update(*p, m, v);
    }
    ratio
}

/// What Lion needs to know.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LionStep {
    /// The learning rate of this parameter.
    pub lr: f64,
    /// How much of the mean goes into the update.
    pub beta1: f64,
    /// Decay of the mean of gradients.
    pub beta2: f64,
    /// Weight decay of this parameter; 0 for none.
    pub weight_decay: f64,
    /// What the gradient is multiplied with first; 1 leaves it.
    pub scale: f32,
}

/// Lion (Chen et al. 2023, <https://arxiv.org/abs/2302.06675>):
/// `p = p·(1 - lr·wd) - lr·sign(β1·m + (1-β1)·g)`, then `m = β2·m + (1-β2)·g`; the sign of 0 is 0.
pub fn lion(p: &mut [f32], g: &[f32], m: &mut [f32], step: &LionStep) {
    let (b1, b2) = (step.beta1 as f32, step.beta2 as f32);
    let (r1, r2) = ((1.0 - step.beta1) as f32, (1.0 - step.beta2) as f32);
    let (keep, lr) = ((1.0 - step.lr * step.weight_decay) as f32, step.lr as f32);
    for ((p, &g), m) in p.iter_mut().zip(g).zip(m) {
        let g = step.scale * g;
        let mixed = b1 * *m + r1 * g;
        // f32::signum(0.0) is 1.
        let sign = if mixed == 0.0 { 0.0 } else { mixed.signum() };
        *p = *p * keep - lr * sign;
        *m = b2 * *m + r2 * g;
    }
}

/// What SGD needs to know.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SgdStep {
    /// The learning rate of this parameter.
    pub lr: f64,
    /// How much of the last update goes on.
    pub momentum: f64,
    /// Whether the momentum looks ahead.
    pub nesterov: bool,
    /// Weight decay of this parameter; 0 for none.
    pub weight_decay: f64,
    /// What the gradient is multiplied with first; 1 leaves it.
    pub scale: f32,
}

/// SGD as PyTorch's: `g += wd·p`; with momentum `m = μ·m + g` (from `m = g`, as `m` starts at 0);
/// `p -= lr·m`, or with Nesterov's look ahead `p -= lr·(g + μ·m)`. Without momentum `m` is empty.
pub fn sgd(p: &mut [f32], g: &[f32], m: &mut [f32], step: &SgdStep) {
    let (lr, momentum) = (step.lr as f32, step.momentum as f32);
    let decay = step.weight_decay as f32;
    if m.is_empty() {
        for (p, &g) in p.iter_mut().zip(g) {
            *p -= lr * (step.scale * g + decay * *p);
        }
        return;
    }
    for ((p, &g), m) in p.iter_mut().zip(g).zip(m) {
        let g = step.scale * g + decay * *p;
        *m = momentum * *m + g;
        *p -= lr * if step.nesterov { g + momentum * *m } else { *m };
    }
}

/// The running mean of weights: `w̄ = d·w̄ + (1-d)·w`.
pub fn ema(mean: &mut [f32], p: &[f32], decay: f64) {
    let (keep, take) = (decay as f32, (1.0 - decay) as f32);
    for (mean, &p) in mean.iter_mut().zip(p) {
        *mean = keep * *mean + take * p;
    }
}

/// The sum of squares in f64, in blocks of a fixed length whose sums are added in order, so that the
/// result depends on the values alone.
pub fn sum_of_squares(values: &[f32]) -> f64 {
    const BLOCK: usize = 4096;
    let block = |values: &[f32]| -> f64 {
        // Eight running sums, which the compiler keeps in registers.
        let mut sums = [0.0f64; 8];
        let (chunks, rest) = values.as_chunks::<8>();
        for chunk in chunks {
            for (sum, &x) in sums.iter_mut().zip(chunk) {
                *sum += f64::from(x) * f64::from(x);
            }
        }
        let rest: f64 = rest.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
        sums.iter().sum::<f64>() + rest
    };
    values.chunks(BLOCK).map(block).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(found: &[f32], expected: &[f32]) {
        assert_eq!(found.len(), expected.len());
        for (f, e) in found.iter().zip(expected) {
            assert!(
                (f - e).abs() < 1e-6 * e.abs().max(1.0),
                "{found:?}, expected {expected:?}"
            );
        }
    }

    fn step(lr: f64, eps: f64, t: u64) -> AdamStep {
        AdamStep {
            lr,
            beta1: 0.9,
            beta2: 0.999,
            eps,
            weight_decay: 0.01,
            t,
            scale: 1.0,
        }
    }

    #[test]
    fn adamw_as_specified() {
        let (mut p, mut m, mut v) = ([1.0], [0.0], [0.0]);
        let expected = [0.899, 0.871_467_3, 0.836_552_9];
        for (t, g) in [(1, 0.5), (2, -0.25), (3, 0.125)] {
            adamw(&mut p, &[g], &mut m, &mut v, &step(0.1, 1e-8, t));
            near(&p, &expected[t as usize - 1..][..1]);
        }
    }

    #[test]
    fn bert_adam_as_specified() {
        let (mut p, mut m, mut v) = ([1.0], [0.0], [0.0]);
        let expected = [0.682_792_2, 0.568_933_5, 0.399_853_4];
        for (t, g) in [(1, 0.5), (2, -0.25), (3, 0.125)] {
            bert_adam(&mut p, &[g], &mut m, &mut v, &step(0.1, 1e-6, t));
            near(&p, &expected[t as usize - 1..][..1]);
        }
    }

    #[test]
    fn stable_adamw_as_specified() {
        let (mut p, mut m, mut v) = ([1.0, -2.0], [0.0; 2], [0.0; 2]);
        for (t, g, expected, rms) in [
            (1, [0.5, 0.1], [0.899_000_2, -2.097_999], 1.0),
            (2, [-0.25, 0.1], [0.871_431_3, -2.195_9], 0.837_021),
            (3, [4.0, 0.1], [0.823_754, -2.265_811], 1.398_964),
        ] {
            let step = AdamStep {
                beta2: 0.99,
                ..step(0.1, 1e-6, t)
            };
            let found = stable_adamw(&mut p, &g, &mut m, &mut v, &step);
            near(&p, &expected);
            assert!((found - rms).abs() < 1e-6, "{found}, expected {rms}");
        }
    }

    #[test]
    fn lamb_as_specified() {
        let (mut p, mut m, mut v) = ([3.0, 4.0], [0.0; 2], [0.0; 2]);
        for (t, g, expected, ratio) in [
            (1, [0.3, -0.1], [2.634_235, 4.340_905], 3.551_127),
            (2, [0.1, 0.2], [2.172_292_5, 4.130_107], 5.147_552),
        ] {
            let found = lamb(&mut p, &g, &mut m, &mut v, &step(0.1, 1e-6, t), true);
            near(&p, &expected);
            assert!((found - ratio).abs() < 1e-5, "{found}, expected {ratio}");
        }
    }

    #[test]
    fn lamb_trusts_zeros() {
        let (mut p, mut m, mut v) = ([0.0], [0.0], [0.0]);
        assert_eq!(
            lamb(&mut p, &[1.0], &mut m, &mut v, &step(0.1, 1e-6, 1), true),
            1.0
        );
        near(&p, &[-0.1]);
        let (mut p, mut m, mut v) = ([5.0], [0.0], [0.0]);
        let ratio = lamb(&mut p, &[1.0], &mut m, &mut v, &step(0.1, 1e-6, 1), false);
        assert_eq!(ratio, 1.0);
    }

    #[test]
    fn lion_as_specified() {
        let step = LionStep {
            lr: 0.01,
            beta1: 0.9,
            beta2: 0.99,
            weight_decay: 0.1,
            scale: 0.5,
        };
        let (mut p, mut m) = ([1.0], [0.0]);
        for (g, expected) in [(0.5, 0.989), (-0.25, 0.998_011), (-0.01, 0.987_013)] {
            // Half of a doubled gradient is the gradient.
            lion(&mut p, &[2.0 * g], &mut m, &step);
            near(&p, &[expected]);
        }
        let (mut p, mut m) = ([1.0], [0.0]);
        lion(&mut p, &[0.0], &mut m, &step);
        near(&p, &[0.999]);
    }

    /// By hand: momentum 0.9, lr 0.1, no decay.
    #[test]
    fn sgd_gathers_momentum() {
        let step = SgdStep {
            lr: 0.1,
            momentum: 0.9,
            nesterov: false,
            weight_decay: 0.0,
            scale: 1.0,
        };
        let (mut p, mut m) = ([1.0], [0.0]);
        sgd(&mut p, &[1.0], &mut m, &step);
        near(&p, &[0.9]);
        sgd(&mut p, &[1.0], &mut m, &step);
        near(&p, &[0.71]);
        let (mut p, mut m) = ([1.0], [0.0]);
        let nesterov = SgdStep {
            nesterov: true,
            weight_decay: 0.5,
            ..step
        };
        sgd(&mut p, &[1.0], &mut m, &nesterov);
        near(&p, &[1.0 - 0.1 * (1.5 + 0.9 * 1.5)]);
        let mut p = [1.0];
        sgd(&mut p, &[1.0], &mut [], &step);
        near(&p, &[0.9]);
    }

    #[test]
    fn a_scaled_gradient_is_a_smaller_gradient() {
        let scaled = AdamStep {
            scale: 0.25,
            ..step(0.1, 1e-6, 1)
        };
        type Rule = fn(&mut [f32], &[f32], &mut [f32], &mut [f32], &AdamStep);
        let rules: [Rule; 4] = [
            adamw,
            bert_adam,
            |p, g, m, v, step| {
                stable_adamw(p, g, m, v, step);
            },
            |p, g, m, v, step| {
                lamb(p, g, m, v, step, true);
            },
        ];
        for rule in rules {
            let run = |g: f32, step: &AdamStep| {
                let (mut p, mut m, mut v) = ([1.0, 2.0], [0.5, 0.25], [0.25, 1.0]);
                rule(&mut p, &[g, -g], &mut m, &mut v, step);
                (p, m, v)
            };
            assert_eq!(run(4.0, &scaled), run(1.0, &step(0.1, 1e-6, 1)));
        }
    }

    #[test]
    fn squares_are_added_in_double_precision() {
        // In f32 the sum would stop growing at 2^24.
        let values = vec![1.0f32; 20_000_003];
        assert_eq!(sum_of_squares(&values), 20_000_003.0);
        assert_eq!(sum_of_squares(&[3.0, 4.0]), 25.0);
        assert_eq!(sum_of_squares(&[]), 0.0);
    }
}
