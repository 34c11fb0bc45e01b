//! An optimizer: a rule, the parameters' groups, and what it remembers of every parameter.

use std::collections::{BTreeMap, BTreeSet};

use bertha_autograd::{Gradients, Parameter};
use bertha_kernels::Exec;
use bertha_tensor::{DType, Tensor};

use super::rules::{self, Step};
use super::{OptimizerConfig, ParameterGroups, ParameterRule, ParameterView, state};
use crate::TrainError;

/// What an update did.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StepReport {
    /// Parameters that were changed.
    pub updated: usize,
    /// The largest RMS of StableAdamW, or the smallest and largest trust ratio of LAMB.
    pub extremes: Option<(f64, f64)>,
}

impl StepReport {
    fn add(&mut self, value: Option<f64>) {
        self.updated += 1;
        if let Some(value) = value {
            let (low, high) = self.extremes.unwrap_or((value, value));
            self.extremes = Some((low.min(value), high.max(value)));
        }
    }
}

/// Changes parameters by their gradients.
///
/// What it remembers is held per name, so that parameters may come in any order, and is saved and
/// restored as named tensors. An update runs on the threads of an [`Exec`], parameter after parameter;
/// their number changes nothing.
///
/// ```
/// use bertha_train::optim::{GroupOptions, Optimizer, OptimizerConfig, ParameterGroups, ParameterView};
///
/// let exec = bertha_kernels::Exec::new(Some(1))?;
/// let (shape, mut weights) = ([1usize, 2], [1.0f32, -1.0]);
/// let groups = ParameterGroups::new([("w", &shape[..])], &GroupOptions::default())?;
/// let mut optimizer = Optimizer::new(OptimizerConfig::adamw(), groups)?;
/// let view = ParameterView { name: "w", shape: &shape, value: &mut weights, gradient: &[0.5, 0.0] };
/// optimizer.step(&exec, &mut [view], 0.1, 1.0)?;
/// assert!(weights[0] < 1.0 && weights[1] > -1.0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Optimizer {
    config: OptimizerConfig,
    groups: ParameterGroups,
    t: u64,
    /// Per parameter the moments, in the order of [`OptimizerConfig::moments`].
    moments: BTreeMap<String, Vec<Tensor>>,
    /// Room for LAMB's update of a parameter.
    scratch: Vec<f32>,
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
            scratch: Vec::new(),
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
        exec: &Exec,
        parameters: &mut [ParameterView<'_>],
        lr: f64,
        gradient_scale: f32,
    ) -> Result<StepReport, TrainError> {
        let mut seen = BTreeSet::new();
        for view in parameters.iter() {
            self.check(view.name, view.shape, view.value.len(), view.gradient.len())?;
            if !seen.insert(view.name) {
                return Err(TrainError::Parameter {
                    parameter: view.name.to_owned(),
                    found: "it is given twice".into(),
                    expected: "every parameter once".into(),
                });
            }
        }
        self.t += 1;
        let mut report = StepReport::default();
        for view in parameters.iter_mut() {
            let rule = self.groups.rule(view.name)?;
            if rule.trained {
                let scale = (lr, gradient_scale);
                let (name, shape) = (view.name, view.shape);
                report.add(self.update(
                    exec,
                    name,
                    shape,
                    rule,
                    scale,
                    view.value,
                    view.gradient,
                )?);
            }
        }
        Ok(report)
    }

    /// As [`Optimizer::step`], for a model's parameters: those that have a gradient.
    ///
    /// # Errors
    /// [`TrainError::Parameter`] when a parameter is unknown; nothing is changed then.
    pub fn step_parameters(
        &mut self,
        exec: &Exec,
        parameters: &[Parameter],
        gradients: &Gradients,
        lr: f64,
        gradient_scale: f32,
    ) -> Result<StepReport, TrainError> {
        let with_gradient = || {
            let pairs = parameters.iter();
            pairs.filter_map(|parameter| Some((parameter, gradients.get(parameter)?)))
        };
        for (parameter, gradient) in with_gradient() {
            let (values, elements) = (parameter.numel(), gradient.numel());
            self.check(parameter.name(), parameter.shape(), values, elements)?;
        }
        self.t += 1;
        let mut report = StepReport::default();
        for (parameter, gradient) in with_gradient() {
            let (name, shape) = (parameter.name(), parameter.shape());
            let rule = self.groups.rule(name)?;
            if rule.trained {
                let (scale, gradient) = ((lr, gradient_scale), gradient.as_slice()?);
                let one = parameter.update(|values: &mut [f32]| {
                    self.update(exec, name, shape, rule, scale, values, gradient)
                });
                report.add(one??);
            }
        }
        Ok(report)
    }

    /// Refuses a parameter that is unknown or whose slices have wrong lengths.
    fn check(
        &self,
        name: &str,
        shape: &[usize],
        values: usize,
        gradient: usize,
    ) -> Result<(), TrainError> {
        self.groups.rule(name)?;
        let elements: usize = shape.iter().product();
        if values != elements || gradient != elements {
            return Err(TrainError::Parameter {
                parameter: name.to_owned(),
                found: format!("{values} values and {gradient} elements of its gradient"),
                expected: format!("{elements}, for shape {shape:?}"),
            });
        }
        match self.moments.get(name).and_then(|moments| moments.first()) {
            Some(moment) => state::check_size(name, moment.numel(), elements),
            None => Ok(()),
        }
    }

    /// Updates one parameter; gives the RMS or the trust ratio of rules that have one.
    #[allow(clippy::too_many_arguments)]
    fn update(
        &mut self,
        exec: &Exec,
        name: &str,
        shape: &[usize],
        rule: ParameterRule,
        (lr, gradient_scale): (f64, f32),
        values: &mut [f32],
        gradient: &[f32],
    ) -> Result<Option<f64>, TrainError> {
        let moments = match self.moments.get_mut(name) {
            Some(moments) => moments,
            None => {
                let names = self.config.moments().iter();
                let zeros = names.map(|_| Tensor::zeros(DType::F32, shape));
                let zeros = zeros.collect::<Result<_, _>>()?;
                self.moments.entry(name.to_owned()).or_insert(zeros)
            }
        };
        let step = Step {
            lr: lr * rule.lr_scale,
            weight_decay: rule.weight_decay,
            // Beyond 2³² updates the corrections are 1 long since.
            t: u32::try_from(self.t).unwrap_or(u32::MAX),
            gradient_scale,
        };
        rules::update(
            exec,
            &self.config,
            step,
            values,
            gradient,
            moments,
            &mut self.scratch,
        )
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optim::GroupOptions;

    fn exec() -> Exec {
        Exec::new(Some(1)).unwrap()
    }

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
            let report = self.optimizer.step(&exec(), &mut views, lr, 1.0).unwrap();
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
        assert_eq!(
            optimizer
                .step(&exec(), &mut views, 0.1, 1.0)
                .unwrap()
                .updated,
            1
        );
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
                .step(&exec(), &mut [view], 0.1, 1.0)
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
