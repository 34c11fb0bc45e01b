//! Inputs on few levels whose step learns (Liu et al. 2022, BiT, <https://arxiv.org/abs/2205.13016>, section 3.2; with more
//! bits than one Esser et al. 2020, LSQ, <https://arxiv.org/abs/1902.08153>).

use bertha_autograd::{AutogradError, Parameter, Session, Var, ops};
use bertha_kernels::round_to_steps;
use bertha_tensor::{DType, Tensor};

use crate::estimators::matrix_signs;
use crate::initializer::Initial;
use crate::{NnError, Weights};

/// Which values an input has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Range {
    /// On both sides of 0: with one bit `−α` and `α`.
    Signed,
    /// From 0 on, as those of a softmax or a ReLU: with one bit 0 and `α`.
    Unsigned,
}

impl Range {
    /// What the step is called: of one bit the magnitude, or the larger of two values.
    fn name(self) -> &'static str {
        match self {
            Self::Signed => "level",
            Self::Unsigned => "ceiling",
        }
    }
}

/// How the step of inputs that are rounded learns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InputEstimator {
    /// LSQ: from what is rounded and from what is cut (Esser et al. 2020, <https://arxiv.org/abs/1902.08153>).
    #[default]
    LearnedSteps,
    /// PACT: from what is cut alone, so that it is where values are cut that learns; it begins where none is (Choi et al. 2018,
    /// <https://arxiv.org/abs/1805.06085>, on both sides of 0).
    Clip,
}

impl InputEstimator {
    /// What a configuration calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::LearnedSteps => "lsq",
            Self::Clip => "pact",
        }
    }

    /// That of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::LearnedSteps, Self::Clip]
            .into_iter()
            .find(|of| of.name() == name)
    }
}

/// Inputs of layers as whole numbers of some bits, as many on both sides of 0, by a step that learns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InputRounding {
    /// Bits of a value, 2 to 8.
    pub bits: u32,
    /// How the step learns.
    pub estimator: InputEstimator,
}

/// `α·q` of the whole number `q` that is nearest to `(x + β)/α`, within what its bits hold. The step `α` and, of a layer's
/// inputs, the shift `β` of each column are learned.
pub(crate) struct Elastic {
    /// `[1]`: α. Until the first pass of training it is 0, and follows from what comes in.
    step: Parameter,
    /// `[K]`: β.
    shift: Option<Parameter>,
    range: Range,
    bits: u32,
    rule: Rule,
}

/// Whose levels and gradients they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// BiT's.
    Elastic,
    /// As many levels on both sides of 0.
    Even(InputEstimator),
}

impl Elastic {
    /// Of the inputs of a layer that is not binarized: `input_level`.
    pub(crate) fn rounded(weights: &Weights<'_>, rounding: InputRounding) -> Result<Self, NnError> {
        Ok(Self {
            rule: Rule::Even(rounding.estimator),
            ..Self::plain(weights, "input", Range::Signed, rounding.bits)?
        })
    }

    /// Of the inputs of a layer, with a shift: `input_level` or `input_ceiling`, and `input_shift`.
    pub(crate) fn of_inputs(
        weights: &Weights<'_>,
        inputs: usize,
        range: Range,
        bits: u32,
    ) -> Result<Self, NnError> {
        let shift = weights.parameter(&["input_shift"], &[inputs], Initial::Zeros)?;
        Ok(Self {
            shift: Some(shift),
            ..Self::plain(weights, "input", range, bits)?
        })
    }

    /// Without a shift: `WHAT_level` or `WHAT_ceiling`.
    pub(crate) fn plain(
        weights: &Weights<'_>,
        what: &str,
        range: Range,
        bits: u32,
    ) -> Result<Self, NnError> {
        let name = format!("{what}_{}", range.name());
        Ok(Self {
            step: weights.parameter(&[&name], &[1], Initial::Zeros)?,
            shift: None,
            range,
            bits,
            rule: Rule::Elastic,
        })
    }

    /// Whether a folder has what [`of_inputs`](Self::of_inputs) reads.
    pub(crate) fn has_inputs(weights: &Weights<'_>) -> bool {
        [Range::Signed, Range::Unsigned]
            .iter()
            .any(|range| weights.contains(&format!("input_{}", range.name())))
    }

    /// Bits of a value.
    pub(crate) fn bits(&self) -> u32 {
        self.bits
    }

    /// The least and the largest whole number; with one bit −1 and 1, without a 0 in between, or 0 and 1.
    fn ends(&self) -> (f32, f32) {
        let levels = (1u32 << self.bits) as f32;
        match (self.range, self.bits) {
            (Range::Signed, 1) => (-1.0, 1.0),
            (Range::Signed, _) if matches!(self.rule, Rule::Even(_)) => {
                (1.0 - levels / 2.0, levels / 2.0 - 1.0)
            }
            (Range::Signed, _) => (-levels / 2.0, levels / 2.0 - 1.0),
            (Range::Unsigned, _) => (0.0, levels - 1.0),
        }
    }

    /// α as it is, or what it begins with where it was not learned yet: by the mean magnitude of inputs.
    pub(crate) fn step(&self, x: Option<&Var>) -> Result<f32, AutogradError> {
        let step = self.step.value().as_slice::<f32>()?[0];
        if step != 0.0 {
            // An update may take it below 0.
            return Ok(step.max(f32::MIN_POSITIVE));
        }
        let Some(x) = x else {
            return Ok(f32::MIN_POSITIVE);
        };
        let x = x.tensor().contiguous();
        let x = x.as_slice::<f32>()?;
        if self.rule == Rule::Even(InputEstimator::Clip) {
            let most = x.iter().map(|x| x.abs()).fold(0.0, f32::max);
            return Ok((most / self.ends().1).max(f32::MIN_POSITIVE));
        }
        let sum: f64 = x.iter().map(|&x| f64::from(x.abs())).sum();
        let mean = sum / x.len().max(1) as f64;
        let times = match self.range {
            Range::Signed => 2.0,
            Range::Unsigned => 4.0,
        };
        let first = times * mean / f64::from(self.ends().1).sqrt();
        Ok((first as f32).max(f32::MIN_POSITIVE))
    }

    /// With one bit, what a layer is packed with.
    pub(crate) fn bit_inputs(&self, step: f32) -> Result<BitInputs, AutogradError> {
        let shift = match &self.shift {
            Some(shift) => shift.value().as_slice::<f32>()?.to_vec(),
            None => Vec::new(),
        };
        let unsigned = self.range == Range::Unsigned;
        Ok(BitInputs {
            step,
            shift,
            unsigned,
        })
    }

    /// `x[T,K]` on its levels. The gradient passes where `x` is within them; that of the step is `Σ g·(q − x/α)` within and
    /// `Σ g·q` outside (with signs, `Σ g·q` everywhere), by the root of the number of values and the largest level.
    pub(crate) fn forward(&self, session: &Session, x: &Var) -> Result<Var, AutogradError> {
        let shifted = match &self.shift {
            Some(shift) => ops::add(session, x, &shift.var())?,
            None => x.clone(),
        };
        let step = self.step(Some(&shifted))?;
        if session.is_training() && self.step.value().as_slice::<f32>()? == [0.0] {
            self.step.set(Tensor::from_vec(vec![step], &[1])?)?;
        }
        let (low, high) = self.ends();
        let count: usize = x.shape().iter().product();
        let share = 1.0 / (count.max(1) as f64 * f64::from(high)).sqrt();
        let of_step = ops::mul_scalar(session, &self.step.var(), share)?;
        let tracked = shifted.is_tracked() || of_step.is_tracked();
        if self.bits > 1 && !tracked {
            let moved = shifted.tensor().contiguous();
            let mut values = Tensor::scratch_in(session.pool(), DType::F32, x.shape())?;
            let (from, to) = (moved.as_slice::<f32>()?, values.as_mut_slice::<f32>()?);
            round_to_steps(session.exec(), from, step, (low, high), to);
            return Ok(Var::constant(values));
        }
        let columns = x.shape().last().copied().unwrap_or(0);
        let level = |x: f32, moved: f32, threshold: f32| match (self.bits, x >= threshold) {
            (1, true) => high,
            (1, false) => low,
            _ => (moved / step).round_ties_even().clamp(low, high),
        };
        let thresholds = self.bit_inputs(step)?.thresholds(columns);
        let (inputs, moved) = (x.tensor().contiguous(), shifted.tensor().contiguous());
        let moved = moved.as_slice::<f32>()?;
        let pairs = inputs.as_slice::<f32>()?.iter().zip(moved);
        let of_columns = pairs.zip(thresholds.iter().cycle());
        let levels: Vec<f32> = of_columns
            .map(|((&x, &moved), &threshold)| level(x, moved, threshold))
            .collect();
        let values: Vec<f32> = levels.iter().map(|level| level * step).collect();
        let values = Tensor::from_vec(values, x.shape())?;
        if !tracked {
            return Ok(Var::constant(values));
        }
        let moved = moved.iter().zip(&levels);
        let slopes = moved.map(|(&moved, &level)| {
            let inside = (low..=high).contains(&(moved / step));
            let signs = self.bits == 1 && self.range == Range::Signed;
            match inside && !signs {
                true if self.rule == Rule::Even(InputEstimator::Clip) => 0.0,
                true => level - moved / step,
                false => level,
            }
        });
        let slopes = Tensor::from_vec(slopes.collect(), x.shape())?;
        let of_step = ops::mul(session, &Var::constant(slopes), &of_step)?;
        let (low, high) = (f64::from(low * step), f64::from(high * step));
        let within = ops::clamp(session, &shifted, low, high)?;
        let surrogate = ops::add(session, &within, &of_step)?;
        ops::straight_through(session, &surrogate, values)
    }
}

/// The inputs of a layer of signs as BiT has them: `−α` and `α`, or 0 and `α`, by whether `x + β` is above the middle.
#[derive(Clone, Debug)]
pub struct BitInputs {
    /// α.
    pub step: f32,
    /// β, `[K]`; none is 0.
    pub shift: Vec<f32>,
    /// Whether values are 0 and `α`.
    pub unsigned: bool,
}

impl BitInputs {
    /// Those that a layer's parameters say, by what they are called after the layer: `input_level` or `input_ceiling`, and
    /// `input_shift`.
    ///
    /// # Errors
    /// When one is not f32.
    pub fn find(get: impl Fn(&str) -> Option<Tensor>) -> Result<Option<Self>, NnError> {
        let of = |range: Range| get(&format!("input_{}", range.name()));
        let (unsigned, step) = match (of(Range::Signed), of(Range::Unsigned)) {
            (Some(step), _) => (false, step),
            (None, Some(step)) => (true, step),
            (None, None) => return Ok(None),
        };
        let shift = match get("input_shift") {
            Some(shift) => shift.as_slice::<f32>()?.to_vec(),
            None => Vec::new(),
        };
        let step = step.as_slice::<f32>()?.first().copied().unwrap_or(0.0);
        Ok(Some(Self {
            step: step.max(f32::MIN_POSITIVE),
            shift,
            unsigned,
        }))
    }

    /// The least input of each of `columns` whose bit is 1.
    pub fn thresholds(&self, columns: usize) -> Vec<f32> {
        let middle = if self.unsigned { self.step / 2.0 } else { 0.0 };
        match self.shift.is_empty() {
            true => vec![middle; columns],
            false => self.shift.iter().map(|shift| middle - shift).collect(),
        }
    }

    /// The signs that stand for `x[T,K]`.
    ///
    /// # Errors
    /// When it is not f32.
    pub(crate) fn signs(&self, x: &Var) -> Result<Tensor, AutogradError> {
        let thresholds = self.thresholds(x.shape().last().copied().unwrap_or(0));
        let values = x.tensor().contiguous();
        let pairs = values
            .as_slice::<f32>()?
            .iter()
            .zip(thresholds.iter().cycle());
        let signs = pairs.map(|(x, threshold)| if x >= threshold { 1.0 } else { -1.0 });
        Ok(Tensor::from_vec(signs.collect::<Vec<f32>>(), x.shape())?)
    }

    /// The weight `w[N,K]` for products of signs.
    ///
    /// # Errors
    /// When it is not f32.
    pub fn weight(&self, w: &Tensor) -> Result<BitWeight, AutogradError> {
        let (mut scales, signs) = matrix_signs(w)?;
        let times = if self.unsigned {
            self.step / 2.0
        } else {
            self.step
        };
        scales.iter_mut().for_each(|scale| *scale *= times);
        let columns = w.shape().last().copied().unwrap_or(0).max(1);
        let rows = signs.chunks(columns).zip(&scales);
        let offset = |(signs, scale): (&[f32], &f32)| signs.iter().sum::<f32>() * scale;
        let offsets = self.unsigned.then(|| rows.map(offset).collect());
        Ok(BitWeight {
            scales,
            signs,
            offsets,
        })
    }
}

/// A weight of signs whose scales hold those of its inputs.
#[derive(Clone, Debug)]
pub struct BitWeight {
    /// `[N]`: what sums of signs are multiplied by.
    pub scales: Vec<f32>,
    /// `[N,K]`: −1 and 1.
    pub signs: Vec<f32>,
    /// `[N]`: what is added to a product of signs where they stand for 0 and `2·s`: `Σ w·x = s·(Σ w·sign + Σ w)`.
    pub offsets: Option<Vec<f32>>,
}

impl BitWeight {
    /// A bias and the offsets.
    pub fn bias(&self, bias: &[f32]) -> Vec<f32> {
        match &self.offsets {
            None => bias.to_vec(),
            Some(offsets) => bias.iter().zip(offsets).map(|(b, o)| b + o).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use bertha_autograd::Gradients;

    use super::*;

    fn elastic(range: Range, bits: u32, step: f32, shift: Option<Vec<f32>>) -> Elastic {
        let of = |name: &str, values: Vec<f32>| {
            let shape = [values.len()];
            Parameter::new(name, Tensor::from_vec(values, &shape).unwrap())
        };
        Elastic {
            step: of("step", vec![step]),
            shift: shift.map(|values| of("shift", values)),
            range,
            bits,
            rule: Rule::Elastic,
        }
    }

    /// What comes of a row, and the gradients of it, the step and the shift where all have the upstream gradients 1, 2, 3, …
    fn run(elastic: &Elastic, x: &[f32]) -> (Vec<f32>, [Vec<f32>; 3]) {
        let session = Session::new(Some(1)).unwrap();
        let shape = [1, x.len()];
        let x = Parameter::new("x", Tensor::from_vec(x.to_vec(), &shape).unwrap());
        let y = elastic.forward(&session, &x.var()).unwrap();
        let upstream = (1..=shape[1]).map(|i| i as f32).collect();
        let upstream = Var::constant(Tensor::from_vec(upstream, &shape).unwrap());
        let loss = ops::mul(&session, &y, &upstream).unwrap();
        let loss = ops::sum_all(&session, &loss).unwrap();
        let mut gradients = Gradients::new();
        loss.backward(&session, &mut gradients).unwrap();
        let of = |parameter: Option<&Parameter>| match parameter.and_then(|of| gradients.get(of)) {
            Some(gradient) => gradient.contiguous().as_slice::<f32>().unwrap().to_vec(),
            None => Vec::new(),
        };
        let found = [Some(&x), Some(&elastic.step), elastic.shift.as_ref()].map(of);
        (y.as_slice().unwrap().to_vec(), found)
    }

    fn assert_close(found: f32, expected: f32) {
        assert!((found - expected).abs() < 1e-6, "{found} {expected}");
    }

    #[test]
    fn one_bit_about_zero() {
        let of = elastic(Range::Signed, 1, 0.5, Some(vec![0.0, 0.0, 0.0, 1.0]));
        let (y, [dx, step, shift]) = run(&of, &[-2.0, -0.25, 0.0, -0.75]);
        assert_eq!(y, [-0.5, -0.5, 0.5, 0.5]);
        assert_eq!(dx, [0.0, 2.0, 3.0, 4.0]);
        assert_eq!(shift, dx);
        // (−1 − 2 + 3 + 4)/√4
        assert_close(step[0], 2.0);
    }

    #[test]
    fn one_bit_from_zero() {
        let of = elastic(Range::Unsigned, 1, 0.5, None);
        let (y, [dx, step, _]) = run(&of, &[-0.1, 0.125, 0.375, 0.75]);
        assert_eq!(y, [0.0, 0.0, 0.5, 0.5]);
        assert_eq!(dx, [0.0, 2.0, 3.0, 0.0]);
        // Outside the level, within the rounding: (1·0 + 2·(0 − 1/4) + 3·(1 − 3/4) + 4·1)/√4
        assert_close(step[0], (-0.5 + 0.75 + 4.0) / 2.0);
    }

    #[test]
    fn two_bits() {
        let of = elastic(Range::Signed, 2, 0.5, None);
        let (y, [dx, step, _]) = run(&of, &[-3.0, -0.6, 0.2, 0.9]);
        assert_eq!(y, [-1.0, -0.5, 0.0, 0.5]);
        assert_eq!(dx, [0.0, 2.0, 3.0, 0.0]);
        // (1·−2 + 2·(−1 + 1.2) + 3·(0 − 0.4) + 4·1)/√(4·1)
        assert_close(step[0], (-2.0 + 0.4 - 1.2 + 4.0) / 2.0);
        let of = elastic(Range::Unsigned, 2, 0.25, None);
        assert_eq!(run(&of, &[-1.0, 0.1, 0.3, 9.0]).0, [0.0, 0.0, 0.25, 0.75]);
    }

    #[test]
    fn even_levels_learn_by_what_is_cut() {
        let x = [-3.0, -0.6, 0.2, 0.9];
        for (estimator, rounded) in [
            (InputEstimator::LearnedSteps, 3.0 * (0.0 - 0.4)),
            (InputEstimator::Clip, 0.0),
        ] {
            let of = Elastic {
                rule: Rule::Even(estimator),
                ..elastic(Range::Signed, 2, 0.5, None)
            };
            let (y, [dx, step, _]) = run(&of, &x);
            assert_eq!(y, [-0.5, -0.5, 0.0, 0.5]);
            // −1.2 steps are beyond the last level.
            assert_eq!(dx, [0.0, 0.0, 3.0, 0.0]);
            let cut = -1.0 - 2.0 + 4.0;
            assert_close(step[0], (cut + rounded) / 2.0);
        }
        let of = Elastic {
            rule: Rule::Even(InputEstimator::Clip),
            ..elastic(Range::Signed, 8, 0.0, None)
        };
        let x = Var::constant(Tensor::from_vec(vec![0.5f32, -2.54], &[1, 2]).unwrap());
        // Nothing is cut at first.
        assert_close(of.step(Some(&x)).unwrap(), 0.02);
    }

    #[test]
    fn products_of_signs_are_those_of_levels() {
        let w = Tensor::from_vec(vec![0.3f32, -0.1, 0.4, 0.0, 0.2, -0.7], &[2, 3]).unwrap();
        for unsigned in [false, true] {
            let inputs = BitInputs {
                step: 0.5,
                shift: vec![0.1, 0.0, -0.3],
                unsigned,
            };
            let range = if unsigned {
                Range::Unsigned
            } else {
                Range::Signed
            };
            let of = elastic(range, 1, inputs.step, Some(inputs.shift.clone()));
            let x = [0.2, 0.1, 0.6];
            let levels = run(&of, &x).0;
            let x = Var::constant(Tensor::from_vec(x.to_vec(), &[1, 3]).unwrap());
            let signs = inputs.signs(&x).unwrap();
            let signs = signs.as_slice::<f32>().unwrap();
            let weight = inputs.weight(&w).unwrap();
            let bias = weight.bias(&[0.0, 0.0]);
            // Mean 1/60, mean magnitude 17/60.
            let scale = 1.7 / 6.0;
            let rows = weight.signs.chunks(3).zip(weight.scales.iter().zip(&bias));
            for (of, (times, bias)) in rows {
                let product =
                    |values: &[f32]| -> f32 { of.iter().zip(values).map(|(w, x)| w * x).sum() };
                let found = product(signs) * times + bias;
                assert_close(found, scale * product(&levels));
            }
        }
    }
}
