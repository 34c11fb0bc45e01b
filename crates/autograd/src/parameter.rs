//! A tensor that is learned.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use bertha_tensor::{DType, Element, Tensor};

use crate::tape::Source;
use crate::{AutogradError, Var};

/// A named tensor that a model owns and an optimizer changes.
///
/// Clones are the same parameter. Layers read it through [`Parameter::var`], which follows gradients
/// unless the parameter is frozen; an optimizer writes it through [`Parameter::update`], in place.
#[derive(Clone)]
pub struct Parameter(Arc<Inner>);

struct Inner {
    id: u64,
    name: String,
    shape: Vec<usize>,
    dtype: DType,
    value: RwLock<Tensor>,
    /// Counts changes of the value, so that whoever derived something from it knows when to derive again.
    version: AtomicU64,
    frozen: AtomicBool,
}

impl Parameter {
    /// A parameter with its name in the model's files and its first value, f32 (or f64, in gradient checks).
    pub fn new(name: impl Into<String>, value: Tensor) -> Self {
        static IDS: AtomicU64 = AtomicU64::new(0);
        Self(Arc::new(Inner {
            id: IDS.fetch_add(1, Ordering::Relaxed),
            name: name.into(),
            shape: value.shape().to_vec(),
            dtype: value.dtype(),
            value: RwLock::new(value),
            version: AtomicU64::new(0),
            frozen: AtomicBool::new(false),
        }))
    }

    /// A parameter that no gradient is wanted for: weights that only serve inference.
    pub fn frozen(name: impl Into<String>, value: Tensor) -> Self {
        let parameter = Self::new(name, value);
        parameter.set_frozen(true);
        parameter
    }

    /// Its name in the model's files.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Its shape.
    pub fn shape(&self) -> &[usize] {
        &self.0.shape
    }

    /// Its dtype.
    pub fn dtype(&self) -> DType {
        self.0.dtype
    }

    /// Number of values.
    pub fn numel(&self) -> usize {
        self.0.shape.iter().product()
    }

    /// Whether no gradient is wanted.
    pub fn is_frozen(&self) -> bool {
        self.0.frozen.load(Ordering::Relaxed)
    }

    /// Freezes it, or wants its gradient again.
    pub fn set_frozen(&self, frozen: bool) {
        self.0.frozen.store(frozen, Ordering::Relaxed);
    }

    /// The value as it is now. It shares memory with the parameter: an update while it is held copies first.
    pub fn value(&self) -> Tensor {
        self.0
            .value
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The value in a computation.
    pub fn var(&self) -> Var {
        let source = (!self.is_frozen()).then(|| Source::Parameter(self.clone()));
        Var::new(self.value(), source)
    }

    /// How many times the value has changed.
    pub fn version(&self) -> u64 {
        self.0.version.load(Ordering::Acquire)
    }

    /// Replaces the value.
    ///
    /// # Errors
    /// When the shape or the dtype is another.
    pub fn set(&self, value: Tensor) -> Result<(), AutogradError> {
        if value.shape() != self.shape() || value.dtype() != self.dtype() {
            return Err(AutogradError::ParameterValue {
                name: self.name().to_owned(),
                found: format!("{} {:?}", value.dtype(), value.shape()),
                expected: format!("{} {:?}", self.dtype(), self.shape()),
            });
        }
        *self.0.value.write().unwrap_or_else(PoisonError::into_inner) = value;
        self.0.version.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }

    /// Changes the value in place, row-major.
    ///
    /// # Errors
    /// When its dtype is not `T`'s.
    pub fn update<T: Element, R>(
        &self,
        change: impl FnOnce(&mut [T]) -> R,
    ) -> Result<R, AutogradError> {
        let mut value = self.0.value.write().unwrap_or_else(PoisonError::into_inner);
        let result = change(value.as_mut_slice::<T>()?);
        self.0.version.fetch_add(1, Ordering::AcqRel);
        Ok(result)
    }

    /// What tells it apart from every other parameter of the process.
    pub(crate) fn id(&self) -> u64 {
        self.0.id
    }
}

impl PartialEq for Parameter {
    fn eq(&self, other: &Self) -> bool {
        self.id() == other.id()
    }
}

impl Eq for Parameter {}

impl std::fmt::Debug for Parameter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parameter")
            .field("name", &self.name())
            .field("dtype", &self.dtype())
            .field("shape", &self.shape())
            .field("frozen", &self.is_frozen())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn updates_are_in_place_and_counted() {
        let parameter = Parameter::new("w", Tensor::from_vec(vec![1.0_f32, 2.0], &[2]).unwrap());
        let before = parameter.value();
        parameter
            .update(|values: &mut [f32]| values[0] = 5.0)
            .unwrap();
        assert_eq!(before.as_slice::<f32>().unwrap(), [1.0, 2.0]);
        assert_eq!(parameter.value().as_slice::<f32>().unwrap(), [5.0, 2.0]);
        assert_eq!(parameter.version(), 1);
        let address = |p: &Parameter| p.value().as_slice::<f32>().unwrap().as_ptr();
        let old = address(&parameter);
        parameter
            .update(|values: &mut [f32]| values[1] = 7.0)
            .unwrap();
        assert_eq!(address(&parameter), old);
        let error = parameter
            .set(Tensor::zeros(DType::F32, &[3]).unwrap())
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("`w`") && error.contains("[3]") && error.contains("[2]"),
            "{error}"
        );
    }

    #[test]
    fn frozen_parameters_are_constants() {
        let parameter = Parameter::new("w", Tensor::zeros(DType::F32, &[1]).unwrap());
        assert!(parameter.var().is_tracked());
        parameter.set_frozen(true);
        assert!(!parameter.var().is_tracked());
    }
}
