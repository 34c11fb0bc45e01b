//! A running mean of the weights, often a better model than the last weights.

use std::collections::BTreeMap;

use bertha_tensor::Tensor;

use super::{ParameterView, rules, state};
use crate::TrainError;

/// `w̄ = d·w̄ + (1-d)·w` after every update, with `d = min(decay, (1+t)/(10+t))` so that the first
/// weights, which are far off, do not stay in the mean.
#[derive(Clone, Debug)]
pub struct Ema {
    decay: f64,
    t: u64,
    mean: BTreeMap<String, Tensor>,
}

impl Ema {
    /// A mean that starts with the weights of the first [`Ema::update`].
    ///
    /// # Errors
    /// [`TrainError::Setting`] when `decay` is not from 0 (included) to 1 (excluded).
    pub fn new(decay: f64) -> Result<Self, TrainError> {
        if !(0.0..1.0).contains(&decay) {
            return Err(TrainError::Setting {
                setting: "the decay of averaged weights",
                found: decay.to_string(),
                expected: "a number from 0 to below 1".into(),
            });
        }
        Ok(Self {
            decay,
            t: 0,
            mean: BTreeMap::new(),
        })
    }

    /// Takes the weights after an update into the mean.
    ///
    /// # Errors
    /// [`TrainError::Parameter`] when a parameter has another size than before.
    pub fn update(&mut self, parameters: &[ParameterView<'_>]) -> Result<(), TrainError> {
        self.t += 1;
        let t = self.t as f64;
        let decay = self.decay.min((1.0 + t) / (10.0 + t));
        for parameter in parameters {
            match self.mean.get_mut(parameter.name) {
                None => {
                    let first = Tensor::from_slice(parameter.value, parameter.shape)?;
                    self.mean.insert(parameter.name.to_owned(), first);
                }
                Some(mean) => {
                    state::check_size(parameter.name, mean.numel(), parameter.value.len())?;
                    rules::ema(mean.as_mut_slice()?, parameter.value, decay);
                }
            }
        }
        Ok(())
    }

    /// The mean of a parameter.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.mean.get(name)
    }

    /// How many updates it saw.
    pub fn updates(&self) -> u64 {
        self.t
    }

    /// The means as named tensors (`ema.NAME`) for a checkpoint, to be kept with [`Ema::updates`].
    pub fn export(&self) -> Vec<(String, Tensor)> {
        let named = |(name, mean): (&String, &Tensor)| (format!("ema.{name}"), mean.clone());
        self.mean.iter().map(named).collect()
    }

    /// Goes on from what [`Ema::export`] gave; other tensors are ignored.
    ///
    /// # Errors
    /// [`TrainError::State`] when a mean is not f32.
    pub fn import<'a>(
        &mut self,
        updates: u64,
        tensors: impl IntoIterator<Item = (&'a str, &'a Tensor)>,
    ) -> Result<(), TrainError> {
        self.mean.clear();
        self.t = updates;
        for (name, tensor) in tensors {
            if let Some(parameter) = name.strip_prefix("ema.") {
                state::check_dtype(name, tensor)?;
                self.mean.insert(parameter.to_owned(), tensor.copy());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn update(ema: &mut Ema, value: f32) {
        let view = ParameterView {
            name: "w",
            shape: &[1],
            value: &mut [value],
            gradient: &[],
        };
        ema.update(&[view]).unwrap();
    }

    #[test]
    fn early_weights_are_forgotten_quickly() {
        let mut ema = Ema::new(0.5).unwrap();
        update(&mut ema, 1.0);
        assert_eq!(ema.get("w").unwrap().item::<f32>().unwrap(), 1.0);
        // d = min(0.5, 3/12) = 0.25.
        update(&mut ema, 2.0);
        assert_eq!(ema.get("w").unwrap().item::<f32>().unwrap(), 1.75);
        for _ in 0..60 {
            update(&mut ema, 3.0);
        }
        assert!((ema.get("w").unwrap().item::<f32>().unwrap() - 3.0).abs() < 1e-6);
        assert!(Ema::new(1.0).is_err());
    }

    #[test]
    fn a_saved_mean_goes_on() {
        let mut first = Ema::new(0.9).unwrap();
        for value in [1.0, 5.0, -2.0] {
            update(&mut first, value);
        }
        let saved = first.export();
        assert_eq!(saved[0].0, "ema.w");
        let mut second = Ema::new(0.9).unwrap();
        let tensors = saved.iter().map(|(name, tensor)| (name.as_str(), tensor));
        second.import(first.updates(), tensors).unwrap();
        update(&mut first, 0.3);
        update(&mut second, 0.3);
        let bits = |ema: &Ema| ema.get("w").unwrap().item::<f32>().unwrap().to_bits();
        assert_eq!(bits(&first), bits(&second));
    }
}
