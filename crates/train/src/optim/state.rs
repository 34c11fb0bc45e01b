//! Checks that saved or remembered state fits a parameter.

use bertha_tensor::{DType, Tensor};

use crate::TrainError;

/// Refuses a parameter that changed its number of elements.
pub(super) fn check_size(name: &str, before: usize, now: usize) -> Result<(), TrainError> {
    if before == now {
        return Ok(());
    }
    Err(TrainError::Parameter {
        parameter: name.to_owned(),
        found: format!("it has {now} elements"),
        expected: format!("{before} as before"),
    })
}

/// Refuses a saved tensor that is not f32.
pub(super) fn check_dtype(name: &str, tensor: &Tensor) -> Result<(), TrainError> {
    if tensor.dtype() == DType::F32 {
        return Ok(());
    }
    Err(TrainError::State {
        found: format!("`{name}` of dtype {}", tensor.dtype()),
        expected: "f32".into(),
    })
}
