//! First values of parameters that no checkpoint has.

use std::sync::{Mutex, PoisonError};

use bertha_autograd::Parameter;
use bertha_kernels::philox4x32;
use bertha_tensor::Tensor;

use crate::NnError;

/// How a parameter begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Initial {
    /// All 0.
    Zeros,
    /// All 1.
    Ones,
    /// Normally distributed around 0 with the initializer's standard deviation.
    Normal,
}

/// Gives parameters their first values, as `transformers` does: a function of the seed and the parameter's name, not
/// of the order in which parameters are made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Initializer {
    /// The seed.
    pub seed: u64,
    /// The standard deviation, `initializer_range` in config.json.
    pub std: f32,
}

/// What tells these random numbers from those of other uses of the same seed.
const STREAM: u32 = 0x696e_6974;

impl Initializer {
    /// The first value of parameter `name`.
    ///
    /// # Errors
    /// When the shape exceeds the address space.
    pub fn tensor(&self, name: &str, shape: &[usize], initial: Initial) -> Result<Tensor, NnError> {
        Ok(match initial {
            Initial::Zeros => Tensor::full(0.0_f32, shape)?,
            Initial::Ones => Tensor::full(1.0_f32, shape)?,
            Initial::Normal => {
                let mut tensor = Tensor::full(0.0_f32, shape)?;
                self.normal(name, tensor.as_mut_slice()?);
                tensor
            }
        })
    }

    fn normal(&self, name: &str, values: &mut [f32]) {
        let hash = fnv1a(name.as_bytes());
        let key = [self.seed as u32, (self.seed >> 32) as u32 ^ STREAM];
        for (block, values) in values.chunks_mut(4).enumerate() {
            let block = block as u64;
            let counter = [
                block as u32,
                (block >> 32) as u32,
                hash as u32,
                (hash >> 32) as u32,
            ];
            let words = philox4x32(counter, key);
            // Two pairs of normal values (Box & Muller 1958, <https://doi.org/10.1214/aoms/1177706645>).
            let normals = [[words[0], words[1]], [words[2], words[3]]].map(|[a, b]| {
                let uniform = |word: u32| (f64::from(word) + 0.5) / 4_294_967_296.0;
                let radius = (-2.0 * uniform(a).ln()).sqrt();
                let (sin, cos) = (2.0 * std::f64::consts::PI * uniform(b)).sin_cos();
                [radius * cos, radius * sin]
            });
            for (value, normal) in values.iter_mut().zip(normals.as_flattened()) {
                *value = (normal * f64::from(self.std)) as f32;
            }
        }
    }
}

/// FNV-1a, 64 bits (<https://datatracker.ietf.org/doc/html/draft-eastlake-fnv>).
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// The parameters of a model that is loaded to be trained, in the order in which its layers made them.
#[derive(Debug, Default)]
pub struct ParameterSet {
    all: Mutex<Vec<(Parameter, bool)>>,
}

impl ParameterSet {
    /// No parameters.
    pub fn new() -> Self {
        Self::default()
    }

    /// All parameters.
    pub fn parameters(&self) -> Vec<Parameter> {
        self.lock()
            .iter()
            .map(|(parameter, _)| parameter.clone())
            .collect()
    }

    /// The names of those that no checkpoint had.
    pub fn fresh(&self) -> Vec<String> {
        let all = self.lock();
        let fresh = all.iter().filter(|(_, fresh)| *fresh);
        fresh
            .map(|(parameter, _)| parameter.name().to_owned())
            .collect()
    }

    /// The parameter of that name.
    pub fn get(&self, name: &str) -> Option<Parameter> {
        let all = self.lock();
        let found = all.iter().find(|(parameter, _)| parameter.name() == name);
        found.map(|(parameter, _)| parameter.clone())
    }

    pub(crate) fn insert(&self, parameter: Parameter, fresh: bool) {
        self.lock().push((parameter, fresh));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<(Parameter, bool)>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normal_values_have_their_moments_and_follow_the_name() {
        let initializer = Initializer { seed: 3, std: 0.02 };
        let values = |name| {
            let tensor = initializer
                .tensor(name, &[301, 333], Initial::Normal)
                .unwrap();
            tensor.to_vec::<f32>().unwrap()
        };
        let a = values("a");
        let n = a.len() as f64;
        let mean = a.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
        let variance = a.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / n;
        // Four standard errors.
        assert!(mean.abs() < 4.0 * 0.02 / n.sqrt(), "{mean}");
        assert!(
            (variance.sqrt() / 0.02 - 1.0).abs() < 4.0 / (2.0 * n).sqrt(),
            "{variance}"
        );
        let within = a.iter().filter(|x| x.abs() < 0.02).count() as f64 / n;
        assert!((within - 0.6827).abs() < 0.006, "{within}");
        assert_eq!(a, values("a"));
        assert_ne!(a, values("b"));
    }
}
