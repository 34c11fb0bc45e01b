//! An optimizer: a rule, the parameters' groups, and what it remembers of every parameter.

use std::collections::BTreeMap;

use bertha_tensor::{DType, Tensor};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::rules::{self, AdamStep, LionStep, SgdStep};
use super::{ParameterGroups, ParameterView, state};
use crate::TrainError;

/// The rule of an optimizer. Learning rate and weight decay are not here: they come with each step and
/// from the parameter's group.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "rule", deny_unknown_fields)]
pub enum OptimizerConfig {
    /// [`rules::adamw`].
    #[serde(rename = "adamw")]
    AdamW {
        /// Decays of the two moments.
        betas: (f64, f64),
        /// What is added to the denominator.
        eps: f64,
    },
    /// [`rules::bert_adam`].
    BertAdam {
        /// Decays of the two moments.
        betas: (f64, f64),
        /// What is added to the denominator.
        eps: f64,
    },
    /// [`rules::stable_adamw`].
    #[serde(rename = "stable_adamw")]
    StableAdamW {
        /// Decays of the two moments.
        betas: (f64, f64),
        /// What is added to the denominator.
        eps: f64,
    },
    /// [`rules::lamb`].
    Lamb {
        /// Decays of the two moments.
        betas: (f64, f64),
        /// What is added to the denominator.
        eps: f64,
        /// Whether parameters without weight decay have a trust ratio as well (NVLAMB).
        trust_all: bool,
    },
    /// [`rules::lion`].
    Lion {
        /// How much of the mean goes into the update, and the mean's decay.
        betas: (f64, f64),
    },
    /// [`rules::sgd`].
    Sgd {
        /// How much of the last update goes on; 0 for none.
        momentum: f64,
        /// Whether the momentum looks ahead.
        nesterov: bool,
    },
}

impl OptimizerConfig {
    /// AdamW with PyTorch's betas 0.9 and 0.999, ε 1e-8.
    pub const fn adamw() -> Self {
        Self::AdamW {
            betas: (0.9, 0.999),
            eps: 1e-8,
        }
    }

    /// The optimizer of the original BERT: betas 0.9 and 0.999, ε 1e-6.
    pub const fn bert_adam() -> Self {
        Self::BertAdam {
            betas: (0.9, 0.999),
            eps: 1e-6,
        }
    }

    /// StableAdamW with betas 0.9 and 0.99, ε 1e-6; it needs no gradient clipping.
    pub const fn stable_adamw() -> Self {
        Self::StableAdamW {
            betas: (0.9, 0.99),
            eps: 1e-6,
        }
    }

    /// LAMB with betas 0.9 and 0.999, ε 1e-6.
    pub const fn lamb() -> Self {
        Self::Lamb {
            betas: (0.9, 0.999),
            eps: 1e-6,
            trust_all: false,
        }
    }

    /// Lion with betas 0.9 and 0.99. It wants a learning rate 3 to 10 times smaller than AdamW's.
    pub const fn lion() -> Self {
        Self::Lion { betas: (0.9, 0.99) }
    }

    /// SGD with momentum, not Nesterov's.
    pub const fn sgd(momentum: f64) -> Self {
        Self::Sgd {
            momentum,
            nesterov: false,
        }
    }

    /// The moments that the rule remembers of a parameter.
    fn moments(&self) -> &'static [&'static str] {
        match self {
            Self::AdamW { .. }
            | Self::BertAdam { .. }
            | Self::StableAdamW { .. }
            | Self::Lamb { .. } => &["exp_avg", "exp_avg_sq"],
            Self::Lion { .. } => &["exp_avg"],
            Self::Sgd { momentum: 0.0, .. } => &[],
            Self::Sgd { .. } => &["momentum"],
        }
    }

    fn check(&self) -> Result<(), TrainError> {
        let refuse = |setting, found: f64, expected: &str| {
            Err(TrainError::Setting {
                setting,
                found: found.to_string(),
                expected: expected.to_owned(),
            })
        };
        let (betas, eps) = match *self {
            Self::AdamW { betas, eps }
            | Self::BertAdam { betas, eps }
            | Self::StableAdamW { betas, eps }
            | Self::Lamb { betas, eps, .. } => (betas, eps),
            Self::Lion { betas } => (betas, 0.0),
            Self::Sgd { momentum, .. } => {
                if !(0.0..1.0).contains(&momentum) {
                    return refuse("momentum", momentum, "a number from 0 to below 1");
                }
                return Ok(());
            }
        };
        for beta in [betas.0, betas.1] {
            if !(0.0..1.0).contains(&beta) {
                return refuse(
                    "a beta of the optimizer",
                    beta,
                    "a number from 0 to below 1",
                );
            }
        }
        match eps.is_finite() && eps >= 0.0 {
            true => Ok(()),
            false => refuse("the optimizer's eps", eps, "a finite number of at least 0"),
        }
    }
}

/// What an update did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepReport {
    /// Parameters that were changed.
    pub updated: usize,
    /// The largest RMS of StableAdamW, or the smallest and largest trust ratio of LAMB.
    pub extremes: Option<(f64, f64)>,
}

/// Changes parameters by their gradients.
///
/// What it remembers is held per name, so that parameters may come in any order, and is saved and
/// restored as named tensors. An update runs on the threads of the pool that it is called in, one
/// parameter each; their number changes nothing.
///
/// ```
/// use bertha_train::optim::{GroupOptions, Optimizer, OptimizerConfig, ParameterGroups, ParameterView};
///
/// let (shape, mut weights) = ([1usize, 2], [1.0f32, -1.0]);
/// let groups = ParameterGroups::new([("w", &shape[..])], &GroupOptions::default())?;
/// let mut optimizer = Optimizer::new(OptimizerConfig::adamw(), groups)?;
/// let view = ParameterView { name: "w", shape: &shape, value: &mut weights, gradient: &[0.5, 0.0] };
/// optimizer.step(&mut [view], 0.1, 1.0)?;
/// assert!(weights[0] < 1.0 && weights[1] > -1.0);
/// # Ok::<(), bertha_train::TrainError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Optimizer {
    config: OptimizerConfig,
    groups: ParameterGroups,
    t: u64,
    /// Per parameter the moments, in the order of [`OptimizerConfig::moments`].
    moments: BTreeMap<String, Vec<Tensor>>,
}

impl Optimizer {
    /// An optimizer that remembers nothing yet.
    ///
    /// # Errors
    /// [`TrainError::Setting`] when a number of the rule is out of range.
    pub fn new(config: OptimizerConfig, groups: ParameterGroups) -> Result<Self, TrainError> {
        config.check()?;
        Ok(Self {
            config,
            groups,
            t: 0,
            moments: BTreeMap::new(),
        })
    }

    /// The rule.
    pub fn config(&self) -> OptimizerConfig {
        self.config
    }

    /// The groups.
    pub fn groups(&self) -> &ParameterGroups {
        &self.groups
    }

    /// How many updates were made.
    pub fn updates(&self) -> u64 {
        self.t
    }

    /// Makes one update with the learning rate `lr`. Gradients are multiplied with `gradient_scale`
    /// first (see [`clip_factor`](super::clip_factor)). Frozen parameters are left as they are.
    ///
    /// # Errors
    /// [`TrainError::Parameter`] when a parameter is unknown, comes twice or with slices of wrong
    /// lengths; nothing is changed then.
    pub fn step(
        &mut self,
        parameters: &mut [ParameterView<'_>],
        lr: f64,
        gradient_scale: f32,
    ) -> Result<StepReport, TrainError> {
        let names = self.config.moments();
        let mut work = Vec::with_capacity(parameters.len());
        for parameter in parameters.iter_mut() {
            check_view(parameter)?;
            let rule = self.groups.rule(parameter.name)?;
            if rule.trained {
                if let Some(moments) = self.moments.get(parameter.name) {
                    let before = moments.first().map_or(parameter.value.len(), Tensor::numel);
                    state::check_size(parameter.name, before, parameter.value.len())?;
                }
                work.push((parameter, rule));
            }
        }
        let mut seen = std::collections::BTreeSet::new();
        if let Some((twice, _)) = work.iter().find(|(view, _)| !seen.insert(view.name)) {
            return Err(TrainError::Parameter {
                parameter: twice.name.to_owned(),
                found: "it is given twice".into(),
                expected: "every parameter once".into(),
            });
        }
        // The moments leave the map while several threads write to them.
        let mut jobs = Vec::with_capacity(work.len());
        for (view, rule) in work {
            let moments = match self.moments.remove(view.name) {
                Some(moments) => moments,
                None => names
                    .iter()
                    .map(|_| Tensor::zeros(DType::F32, view.shape))
                    .collect::<Result<_, _>>()?,
            };
            jobs.push((view, rule, moments));
        }
        self.t += 1;
        let (config, t) = (self.config, self.t);
        let reports: Vec<Result<Option<f64>, TrainError>> = jobs
            .par_iter_mut()
            .map(|(view, rule, moments)| {
                let lr = lr * rule.lr_scale;
                update(
                    &config,
                    view,
                    moments,
                    (lr, rule.weight_decay),
                    t,
                    gradient_scale,
                )
            })
            .collect();
        let updated = jobs.len();
        for (view, _, moments) in jobs {
            self.moments.insert(view.name.to_owned(), moments);
        }
        let mut extremes: Option<(f64, f64)> = None;
        for report in reports {
            if let Some(value) = report? {
                let (low, high) = extremes.unwrap_or((value, value));
                extremes = Some((low.min(value), high.max(value)));
            }
        }
        Ok(StepReport { updated, extremes })
    }

    /// What it remembers, as tensors `optimizer.MOMENT.NAME` for a checkpoint, to be kept with
    /// [`Optimizer::updates`]. Cheap: the tensors are shared until the next step.
    pub fn export(&self) -> Vec<(String, Tensor)> {
        let mut tensors = Vec::new();
        for (parameter, moments) in &self.moments {
            for (moment, tensor) in self.config.moments().iter().zip(moments) {
                tensors.push((format!("optimizer.{moment}.{parameter}"), tensor.clone()));
            }
        }
        tensors
    }

    /// Goes on from what [`Optimizer::export`] gave after `updates` updates. Tensors of other names than
    /// `optimizer.*` are ignored.
    ///
    /// # Errors
    /// [`TrainError::State`] when a moment is missing, of another rule, or not f32, and
    /// [`TrainError::Parameter`] when it is of no known parameter; the optimizer is then as it was.
    pub fn import<'a>(
        &mut self,
        updates: u64,
        tensors: impl IntoIterator<Item = (&'a str, &'a Tensor)>,
    ) -> Result<(), TrainError> {
        let names = self.config.moments();
        let mut found: BTreeMap<String, Vec<Option<Tensor>>> = BTreeMap::new();
        for (full, tensor) in tensors {
            let Some(name) = full.strip_prefix("optimizer.") else {
                continue;
            };
            let split = name.split_once('.');
            let moment = split.and_then(|(moment, _)| names.iter().position(|n| *n == moment));
            let (Some((_, parameter)), Some(moment)) = (split, moment) else {
                return Err(TrainError::State {
                    found: format!("`{full}`"),
                    expected: format!("moments of this rule: {names:?}"),
                });
            };
            state::check_dtype(full, tensor)?;
            self.groups.rule(parameter)?;
            found
                .entry(parameter.to_owned())
                .or_insert_with(|| vec![None; names.len()])[moment] = Some(tensor.copy());
        }
        let mut moments = BTreeMap::new();
        for (parameter, tensors) in found {
            let tensors: Option<Vec<Tensor>> = tensors.into_iter().collect();
            let Some(tensors) = tensors else {
                return Err(TrainError::State {
                    found: format!("not all moments of `{parameter}`"),
                    expected: format!("{names:?}"),
                });
            };
            if let [first, second] = &tensors[..] {
                state::check_size(&parameter, first.numel(), second.numel())?;
            }
            moments.insert(parameter, tensors);
        }
        if moments.is_empty() && updates > 0 && !names.is_empty() {
            return Err(TrainError::State {
                found: format!("no moments after {updates} updates"),
                expected: "tensors named `optimizer.*`".into(),
            });
        }
        self.moments = moments;
        self.t = updates;
        Ok(())
    }
}

fn check_view(view: &ParameterView<'_>) -> Result<(), TrainError> {
    let elements: usize = view.shape.iter().product();
    if view.value.len() == elements && view.gradient.len() == elements {
        return Ok(());
    }
    Err(TrainError::Parameter {
        parameter: view.name.to_owned(),
        found: format!(
            "{} values and {} elements of its gradient",
            view.value.len(),
            view.gradient.len()
        ),
        expected: format!("{elements}, for shape {:?}", view.shape),
    })
}

/// Applies the rule to one parameter; gives the RMS or the trust ratio of rules that have one.
fn update(
    config: &OptimizerConfig,
    view: &mut ParameterView<'_>,
    moments: &mut [Tensor],
    (lr, weight_decay): (f64, f64),
    t: u64,
    scale: f32,
) -> Result<Option<f64>, TrainError> {
    let adam = |(beta1, beta2): (f64, f64), eps| AdamStep {
        lr,
        beta1,
        beta2,
        eps,
        weight_decay,
        t,
        scale,
    };
    let (first, second) = match moments {
        [] => (&mut [][..], &mut [][..]),
        [first] => (first.as_mut_slice::<f32>()?, &mut [][..]),
        [first, second, ..] => (first.as_mut_slice()?, second.as_mut_slice()?),
    };
    let (p, g) = (&mut *view.value, view.gradient);
    match *config {
        OptimizerConfig::AdamW { betas, eps } => {
            rules::adamw(p, g, first, second, &adam(betas, eps));
        }
        OptimizerConfig::BertAdam { betas, eps } => {
            rules::bert_adam(p, g, first, second, &adam(betas, eps));
        }
        OptimizerConfig::StableAdamW { betas, eps } => {
            let step = adam(betas, eps);
            return Ok(Some(rules::stable_adamw(p, g, first, second, &step)));
        }
        OptimizerConfig::Lamb {
            betas,
            eps,
            trust_all,
        } => {
            let trust = trust_all || weight_decay > 0.0;
            let step = adam(betas, eps);
            return Ok(Some(rules::lamb(p, g, first, second, &step, trust)));
        }
        OptimizerConfig::Lion {
            betas: (beta1, beta2),
        } => {
            let step = LionStep {
                lr,
                beta1,
                beta2,
                weight_decay,
                scale,
            };
            rules::lion(p, g, first, &step);
        }
        OptimizerConfig::Sgd { momentum, nesterov } => {
            let step = SgdStep {
                lr,
                momentum,
                nesterov,
                weight_decay,
                scale,
            };
            rules::sgd(p, g, first, &step);
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optim::GroupOptions;

    const ALL: [OptimizerConfig; 7] = [
        OptimizerConfig::adamw(),
        OptimizerConfig::bert_adam(),
        OptimizerConfig::stable_adamw(),
        OptimizerConfig::lamb(),
        OptimizerConfig::lion(),
        OptimizerConfig::sgd(0.9),
        OptimizerConfig::sgd(0.0),
    ];

    /// Minimises `Σ (a·x - b)²` over two parameters.
    struct Problem {
        optimizer: Optimizer,
        a: Vec<f32>,
        b: Vec<f32>,
    }

    const SHAPES: [(&str, &[usize]); 2] = [("layer.0.weight", &[2, 3]), ("bias", &[2])];

    impl Problem {
        fn new(config: OptimizerConfig) -> Self {
            let groups = ParameterGroups::new(SHAPES, &GroupOptions::default()).unwrap();
            Self {
                optimizer: Optimizer::new(config, groups).unwrap(),
                a: vec![1.0, -2.0, 0.5, 3.0, 0.25, -1.0],
                b: vec![0.5, -0.5],
            }
        }

        fn loss(&self) -> f32 {
            let all = self.a.iter().chain(&self.b);
            all.map(|x| (x - 0.25).powi(2)).sum()
        }

        fn step(&mut self, lr: f64) {
            let gradient = |p: &[f32]| p.iter().map(|x| 2.0 * (x - 0.25)).collect::<Vec<f32>>();
            let (ga, gb) = (gradient(&self.a), gradient(&self.b));
            let mut views = [
                ParameterView {
                    name: SHAPES[1].0,
                    shape: SHAPES[1].1,
                    value: &mut self.b,
                    gradient: &gb,
                },
                ParameterView {
                    name: SHAPES[0].0,
                    shape: SHAPES[0].1,
                    value: &mut self.a,
                    gradient: &ga,
                },
            ];
            let report = self.optimizer.step(&mut views, lr, 1.0).unwrap();
            assert_eq!(report.updated, 2);
        }
    }

    #[test]
    fn every_rule_descends() {
        for config in ALL {
            let mut problem = Problem::new(config);
            let before = problem.loss();
            for _ in 0..60 {
                problem.step(0.02);
            }
            let after = problem.loss();
            assert!(after < 0.5 * before, "{config:?}: {before} to {after}");
        }
    }

    #[test]
    fn a_saved_optimizer_goes_on_bit_for_bit() {
        for config in ALL {
            let mut first = Problem::new(config);
            for _ in 0..5 {
                first.step(0.01);
            }
            let saved = first.optimizer.export();
            let mut second = Problem::new(config);
            second.a.clone_from(&first.a);
            second.b.clone_from(&first.b);
            let tensors = saved.iter().map(|(name, tensor)| (name.as_str(), tensor));
            second.optimizer.import(5, tensors).unwrap();
            for _ in 0..5 {
                first.step(0.01);
                second.step(0.01);
            }
            assert_eq!(first.a, second.a, "{config:?}");
            assert_eq!(first.b, second.b, "{config:?}");
        }
    }

    #[test]
    fn what_was_saved_does_not_change_with_later_steps() {
        let mut problem = Problem::new(OptimizerConfig::adamw());
        problem.step(0.1);
        let saved = problem.optimizer.export();
        let before = saved[0].1.to_vec::<f32>().unwrap();
        problem.step(0.1);
        assert_eq!(saved[0].1.to_vec::<f32>().unwrap(), before);
    }

    #[test]
    fn frozen_parameters_stay() {
        let options = GroupOptions {
            frozen: vec!["a".into()],
            ..GroupOptions::default()
        };
        let shape: &[usize] = &[1];
        let groups = ParameterGroups::new([("a", shape), ("b", shape)], &options).unwrap();
        let mut optimizer = Optimizer::new(OptimizerConfig::adamw(), groups).unwrap();
        let (mut a, mut b) = ([1.0], [1.0]);
        let mut views = [("a", &mut a), ("b", &mut b)].map(|(name, value)| ParameterView {
            name,
            shape,
            value,
            gradient: &[1.0],
        });
        assert_eq!(optimizer.step(&mut views, 0.1, 1.0).unwrap().updated, 1);
        assert_eq!(a, [1.0]);
        assert_ne!(b, [1.0]);
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let mut problem = Problem::new(OptimizerConfig::adamw());
        let mut wrong = |name: &'static str, gradient: &[f32]| {
            let view = ParameterView {
                name,
                shape: &[2],
                value: &mut [0.0; 2],
                gradient,
            };
            problem
                .optimizer
                .step(&mut [view], 0.1, 1.0)
                .unwrap_err()
                .to_string()
        };
        let error = wrong("other", &[0.0; 2]);
        assert!(error.contains("`other`"), "{error}");
        let error = wrong("bias", &[0.0; 3]);
        assert!(error.contains("`bias`") && error.contains('3'), "{error}");

        let tensor = Tensor::zeros(DType::F32, &[2]).unwrap();
        for name in [
            "optimizer.exp_avg.bias",
            "optimizer.velocity.bias",
            "optimizer.exp_avg.no",
        ] {
            problem.optimizer.import(1, [(name, &tensor)]).unwrap_err();
        }
        let whole = Tensor::zeros(DType::I64, &[2]).unwrap();
        problem
            .optimizer
            .import(1, [("optimizer.exp_avg.bias", &whole)])
            .unwrap_err();
        let bad = OptimizerConfig::AdamW {
            betas: (1.0, 0.9),
            eps: 1e-8,
        };
        let groups = ParameterGroups::new([], &GroupOptions::default()).unwrap();
        assert!(Optimizer::new(bad, groups).is_err());
    }
}
