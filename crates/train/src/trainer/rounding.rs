//! Quantization-aware training: passes see rounded weights, updates go to what these are rounded from.

use bertha_autograd::{Gradients, Parameter, Session};
use bertha_tensor::Tensor;
use serde_json::Value;

use super::Trainer;
use crate::TrainError;

/// What passes have in place of weights, and how its gradient becomes that of the weights.
///
/// In every pass, those of evaluation too, parameters have the values that [`WeightRounding::round`] gives. Checkpoints, averages
/// and updates are of the weights themselves.
pub trait WeightRounding {
    /// What passes have in place of a parameter; none where they have itself.
    ///
    /// # Errors
    /// When it cannot be rounded.
    fn round(&self, parameter: &Parameter) -> Result<Option<Tensor>, TrainError>;

    /// Makes of the gradients of what [`WeightRounding::round`] gave those of the parameters, which have their own values again.
    /// Where nothing is done, the former are the latter (the straight-through estimator).
    ///
    /// # Errors
    /// When a gradient has not its parameter's shape.
    fn estimate(&self, session: &Session, gradients: &mut Gradients) -> Result<(), TrainError>;

    /// What a resumed run must have in common with the run that it goes on from.
    fn setup(&self) -> Value;
}

impl<T: WeightRounding + ?Sized> WeightRounding for std::sync::Arc<T> {
    fn round(&self, parameter: &Parameter) -> Result<Option<Tensor>, TrainError> {
        (**self).round(parameter)
    }

    fn estimate(&self, session: &Session, gradients: &mut Gradients) -> Result<(), TrainError> {
        (**self).estimate(session, gradients)
    }

    fn setup(&self) -> Value {
        (**self).setup()
    }
}

/// Parameters that have rounded values, with their own.
pub(super) struct Rounded(Vec<(Parameter, Tensor)>);

impl Rounded {
    /// Rounds the parameters of a trainer that has a rounding.
    pub(super) fn of(trainer: &Trainer<'_>) -> Result<Self, TrainError> {
        let mut own = Self(Vec::new());
        let Some(rounding) = &trainer.rounding else {
            return Ok(own);
        };
        for parameter in &trainer.model.parameters {
            let Some(value) = rounding.round(parameter)? else {
                continue;
            };
            own.0.push((parameter.clone(), parameter.value()));
            parameter.set(value)?;
        }
        Ok(own)
    }

    /// Gives the parameters their own values again.
    pub(super) fn restore(self) -> Result<(), TrainError> {
        for (parameter, value) in self.0 {
            parameter.set(value)?;
        }
        Ok(())
    }
}
