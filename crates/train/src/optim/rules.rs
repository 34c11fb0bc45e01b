//! The update of one parameter: most rules are the kernels', Lion is here.

use bertha_kernels::{
    self as kernels, Adam, AdamRule, Exec, Lamb, Parameter as OptimizerParameter, Sgd,
};
use bertha_tensor::Tensor;

use super::OptimizerConfig;
use crate::TrainError;

/// What an update of a parameter needs to know besides the rule.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    /// The learning rate of this parameter.
    pub(super) lr: f64,
    /// Its weight decay; 0 for none.
    pub(super) weight_decay: f64,
    /// The number of this update, from 1.
    pub(super) t: u32,
    /// What the gradient is multiplied with first.
    pub(super) gradient_scale: f32,
}

/// Updates a parameter; gives the RMS (StableAdamW) or the trust ratio (LAMB) of rules that have one.
/// `moments` are those of [`OptimizerConfig::moments`]; `scratch` grows to the parameter's size where a
/// rule needs it.
pub(super) fn update(
    exec: &Exec,
    config: &OptimizerConfig,
    step: Step,
    weight: &mut [f32],
    gradient: &[f32],
    moments: &mut [Tensor],
    scratch: &mut Vec<f32>,
) -> Result<Option<f64>, TrainError> {
    let (first, second) = match moments {
        [] => (&mut [][..], &mut [][..]),
        [first] => (first.as_mut_slice::<f32>()?, &mut [][..]),
        [first, second, ..] => (first.as_mut_slice()?, second.as_mut_slice()?),
    };
    let Step {
        lr: learning_rate,
        weight_decay,
        t: step_number,
        gradient_scale,
    } = step;
    let adam = |rule, (beta1, beta2): (f64, f64), epsilon| Adam {
        rule,
        learning_rate,
        beta1,
        beta2,
        epsilon,
        weight_decay,
        step: step_number,
    };
    let len = weight.len();
    let parameter = OptimizerParameter {
        weight,
        gradient,
        gradient_scale,
        bf16: None,
    };
    match *config {
        OptimizerConfig::AdamW { betas, eps } => {
            let settings = adam(AdamRule::AdamW, betas, eps);
            kernels::adam(exec, &settings, parameter, first, second);
        }
        OptimizerConfig::BertAdam { betas, eps } => {
            let settings = adam(AdamRule::Bert, betas, eps);
            kernels::adam(exec, &settings, parameter, first, second);
        }
        OptimizerConfig::StableAdamW { betas, eps } => {
            let settings = adam(AdamRule::Stable, betas, eps);
            let rms = kernels::adam(exec, &settings, parameter, first, second);
            return Ok(Some(f64::from(rms)));
        }
        OptimizerConfig::Lamb {
            betas: (beta1, beta2),
            eps,
            trust_all,
        } => {
            let settings = Lamb {
                learning_rate,
                beta1,
                beta2,
                epsilon: eps,
                weight_decay,
                bias_correction: true,
                trust_ratio: trust_all || weight_decay > 0.0,
                step: step_number,
            };
            if scratch.len() < len {
                scratch.resize(len, 0.0);
            }
            let scratch = &mut scratch[..len];
            let ratio = kernels::lamb(exec, &settings, parameter, first, second, scratch);
            return Ok(Some(f64::from(ratio)));
        }
        OptimizerConfig::Lion { betas } => lion(parameter, first, betas, &step),
        OptimizerConfig::Sgd { momentum, nesterov } => {
            let settings = Sgd {
                learning_rate,
                momentum,
                dampening: 0.0,
                weight_decay,
                nesterov,
                step: step_number,
            };
            kernels::sgd(exec, &settings, parameter, first);
        }
    }
    Ok(None)
}

/// Lion: `w = w·(1 - lr·wd) - lr·sign(β1·m + (1-β1)·g)`, then `m = β2·m + (1-β2)·g`; the sign of 0 is 0.
fn lion(parameter: OptimizerParameter<'_>, m: &mut [f32], betas: (f64, f64), step: &Step) {
    let (b1, b2) = (betas.0 as f32, betas.1 as f32);
    let (r1, r2) = ((1.0 - betas.0) as f32, (1.0 - betas.1) as f32);
    let (keep, lr) = ((1.0 - step.lr * step.weight_decay) as f32, step.lr as f32);
    for ((w, &g), m) in parameter.weight.iter_mut().zip(parameter.gradient).zip(m) {
        let g = step.gradient_scale * g;
        let mixed = b1 * *m + r1 * g;
        // f32::signum(0.0) is 1.
        let sign = if mixed == 0.0 { 0.0 } else { mixed.signum() };
        *w = *w * keep - lr * sign;
        *m = b2 * *m + r2 * g;
    }
}

/// The running mean of weights: `w̄ = d·w̄ + (1-d)·w`.
pub(super) fn ema(mean: &mut [f32], p: &[f32], decay: f64) {
    let (keep, take) = (decay as f32, (1.0 - decay) as f32);
    for (mean, &p) in mean.iter_mut().zip(p) {
        *mean = keep * *mean + take * p;
    }
}

#[cfg(test)]
mod tests {
    use bertha_tensor::DType;

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

    /// A parameter under a rule, with lr 0.1 and decay 0.01 unless told otherwise.
    struct Run {
        config: OptimizerConfig,
        step: Step,
        weight: Vec<f32>,
        moments: Vec<Tensor>,
    }

    impl Run {
        fn new(config: OptimizerConfig, weight: &[f32]) -> Self {
            let zeros = |_: &&str| Tensor::zeros(DType::F32, &[weight.len()]).unwrap();
            Self {
                config,
                step: Step {
                    lr: 0.1,
                    weight_decay: 0.01,
                    t: 0,
                    gradient_scale: 1.0,
                },
                weight: weight.to_vec(),
                moments: config.moments().iter().map(zeros).collect(),
            }
        }

        fn step(&mut self, gradient: &[f32]) -> Option<f64> {
            self.step.t += 1;
            let exec = Exec::new(Some(2)).unwrap();
            let (weight, moments) = (&mut self.weight, &mut self.moments);
            let scratch = &mut Vec::new();
            update(
                &exec,
                &self.config,
                self.step,
                weight,
                gradient,
                moments,
                scratch,
            )
            .unwrap()
        }
    }

    #[test]
    fn adamw_as_specified() {
        let mut run = Run::new(OptimizerConfig::adamw(), &[1.0]);
        for (g, expected) in [(0.5, 0.899), (-0.25, 0.871_467_3), (0.125, 0.836_552_9)] {
            run.step(&[g]);
            near(&run.weight, &[expected]);
        }
    }

    #[test]
    fn bert_adam_as_specified() {
        let mut run = Run::new(OptimizerConfig::bert_adam(), &[1.0]);
        let expected = [0.682_792_2, 0.568_933_5, 0.399_853_4];
        for (g, expected) in [0.5, -0.25, 0.125].into_iter().zip(expected) {
            run.step(&[g]);
            near(&run.weight, &[expected]);
        }
    }

    #[test]
    fn stable_adamw_as_specified() {
        let mut run = Run::new(OptimizerConfig::stable_adamw(), &[1.0, -2.0]);
        for (g, expected, rms) in [
            ([0.5, 0.1], [0.899_000_2, -2.097_999], 1.0),
            ([-0.25, 0.1], [0.871_431_3, -2.195_9], 0.837_021),
            ([4.0, 0.1], [0.823_754, -2.265_811], 1.398_964),
        ] {
            let found = run.step(&g).unwrap();
            near(&run.weight, &expected);
            assert!((found - rms).abs() < 1e-6, "{found}, expected {rms}");
        }
    }

    #[test]
    fn lamb_as_specified() {
        let mut run = Run::new(OptimizerConfig::lamb(), &[3.0, 4.0]);
        for (g, expected, ratio) in [
            ([0.3, -0.1], [2.634_235, 4.340_905], 3.551_127),
            ([0.1, 0.2], [2.172_292_5, 4.130_107], 5.147_552),
        ] {
            let found = run.step(&g).unwrap();
            near(&run.weight, &expected);
            assert!((found - ratio).abs() < 1e-5, "{found}, expected {ratio}");
        }
    }

    #[test]
    fn lamb_trusts_zeros_and_what_does_not_decay() {
        let mut run = Run::new(OptimizerConfig::lamb(), &[0.0]);
        assert_eq!(run.step(&[1.0]), Some(1.0));
        near(&run.weight, &[-0.1]);
        let mut run = Run::new(OptimizerConfig::lamb(), &[5.0]);
        run.step.weight_decay = 0.0;
        assert_eq!(run.step(&[1.0]), Some(1.0));
        near(&run.weight, &[4.9]);
    }

    #[test]
    fn lion_as_specified() {
        let lion = |weight| {
            let mut run = Run::new(OptimizerConfig::lion(), &[weight]);
            (run.step.lr, run.step.weight_decay, run.step.gradient_scale) = (0.01, 0.1, 0.5);
            run
        };
        let mut run = lion(1.0);
        for (g, expected) in [(0.5, 0.989), (-0.25, 0.998_011), (-0.01, 0.987_013)] {
            // Half of a doubled gradient is the gradient.
            run.step(&[2.0 * g]);
            near(&run.weight, &[expected]);
        }
        let mut run = lion(1.0);
        run.step(&[0.0]);
        near(&run.weight, &[0.999]);
    }

    /// By hand: momentum 0.9, lr 0.1.
    #[test]
    fn sgd_gathers_momentum() {
        let sgd = |config, decay| {
            let mut run = Run::new(config, &[1.0]);
            run.step.weight_decay = decay;
            run
        };
        let mut run = sgd(OptimizerConfig::sgd(0.9), 0.0);
        for expected in [0.9, 0.71] {
            run.step(&[1.0]);
            near(&run.weight, &[expected]);
        }
        let nesterov = OptimizerConfig::Sgd {
            momentum: 0.9,
            nesterov: true,
        };
        let mut run = sgd(nesterov, 0.5);
        run.step(&[1.0]);
        near(&run.weight, &[1.0 - 0.1 * (1.5 + 0.9 * 1.5)]);
        let mut run = sgd(OptimizerConfig::sgd(0.0), 0.0);
        run.step(&[1.0]);
        near(&run.weight, &[0.9]);
    }

    #[test]
    fn a_scaled_gradient_is_a_smaller_gradient() {
        for config in [
            OptimizerConfig::adamw(),
            OptimizerConfig::bert_adam(),
            OptimizerConfig::stable_adamw(),
            OptimizerConfig::lamb(),
            OptimizerConfig::lion(),
            OptimizerConfig::sgd(0.9),
        ] {
            let run = |g: f32, scale: f32| {
                let mut run = Run::new(config, &[1.0, 2.0]);
                run.step.gradient_scale = scale;
                run.step(&[g, -g]);
                run.step(&[-2.0 * g, g]);
                run.weight
            };
            assert_eq!(run(4.0, 0.25), run(1.0, 1.0), "{config:?}");
        }
    }
}
