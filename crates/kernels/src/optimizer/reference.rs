//! The optimizers one weight at a time, in f64.

use super::{Adam, AdamRule, Lamb, Sgd};
use crate::Float;

/// A step of [`adam`](crate::adam) on a whole tensor.
pub fn adam<F: Float>(settings: &Adam, w: &mut [F], g: &[F], m: &mut [F], v: &mut [F]) -> f64 {
    let (lr, wd) = (settings.learning_rate, settings.weight_decay);
    let (b1, b2) = (settings.beta1, settings.beta2);
    let (epsilon, t) = (settings.epsilon, settings.step as i32);
    let debiased = |beta: f64| (beta.powi(t) - beta) / (beta.powi(t) - 1.0);
    let stable = settings.rule == AdamRule::Stable;
    let (b1, b2) = if stable {
        (debiased(b1), debiased(b2))
    } else {
        (b1, b2)
    };
    for i in 0..w.len() {
        let g = g[i].to_f64();
        m[i] = F::from_f64(b1 * m[i].to_f64() + (1.0 - b1) * g);
        v[i] = F::from_f64(b2 * v[i].to_f64() + (1.0 - b2) * g * g);
    }
    let mut rms = 1.0;
    if stable {
        let ratio = |(g, v): (&F, &F)| g.to_f64().powi(2) / v.to_f64().max(epsilon * epsilon);
        rms = (g.iter().zip(&*v).map(ratio).sum::<f64>() / w.len() as f64).sqrt();
    }
    for i in 0..w.len() {
        let (old, m, v) = (w[i].to_f64(), m[i].to_f64(), v[i].to_f64());
        w[i] = F::from_f64(match settings.rule {
            AdamRule::AdamW => {
                let size = v.sqrt() / (1.0 - b2.powi(t)).sqrt() + epsilon;
                old * (1.0 - lr * wd) - lr / (1.0 - b1.powi(t)) * m / size
            }
            AdamRule::Bert => old - lr * (m / (v.sqrt() + epsilon) + wd * old),
            AdamRule::Stable => {
                let lr = lr / rms.max(1.0);
                old * (1.0 - lr * wd) - lr * m / (v.sqrt() + epsilon)
            }
        });
    }
    rms
}

/// A step of [`lamb`](crate::lamb) on a whole tensor; gives the trust ratio.
pub fn lamb<F: Float>(settings: &Lamb, w: &mut [F], g: &[F], m: &mut [F], v: &mut [F]) -> f64 {
    let (b1, b2) = (settings.beta1, settings.beta2);
    let (c1, c2) = match settings.bias_correction {
        true => (
            1.0 - b1.powi(settings.step as i32),
            1.0 - b2.powi(settings.step as i32),
        ),
        false => (1.0, 1.0),
    };
    let mut update = Vec::new();
    for i in 0..w.len() {
        let g = g[i].to_f64();
        m[i] = F::from_f64(b1 * m[i].to_f64() + (1.0 - b1) * g);
        v[i] = F::from_f64(b2 * v[i].to_f64() + (1.0 - b2) * g * g);
        let size = (v[i].to_f64() / c2).sqrt() + settings.epsilon;
        update.push(m[i].to_f64() / c1 / size + settings.weight_decay * w[i].to_f64());
    }
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
    let sizes = (
        norm(&mut w.iter().map(|w| w.to_f64())),
        norm(&mut update.iter().copied()),
    );
    let trusted = settings.trust_ratio && sizes.0 > 0.0 && sizes.1 > 0.0;
    let ratio = if trusted { sizes.0 / sizes.1 } else { 1.0 };
    for (w, u) in w.iter_mut().zip(update) {
        *w = F::from_f64(w.to_f64() - settings.learning_rate * ratio * u);
    }
    ratio
}

/// A step of [`sgd`](crate::sgd); without momentum `buffer` is left as it is.
pub fn sgd<F: Float>(settings: &Sgd, w: &mut [F], g: &[F], buffer: &mut [F]) {
    let momentum = settings.momentum;
    for i in 0..w.len() {
        let old = w[i].to_f64();
        let mut g = g[i].to_f64() + settings.weight_decay * old;
        if momentum != 0.0 {
            let b = match settings.step {
                1 => g,
                _ => momentum * buffer[i].to_f64() + (1.0 - settings.dampening) * g,
            };
            buffer[i] = F::from_f64(b);
            g = if settings.nesterov {
                g + momentum * b
            } else {
                b
            };
        }
        w[i] = F::from_f64(old - settings.learning_rate * g);
    }
}
