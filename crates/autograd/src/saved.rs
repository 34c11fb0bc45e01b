//! What operations keep of the forward pass for their backward passes: the tensors themselves, or in [`Precision::Bf16`]
//! half as many bytes.

use std::sync::PoisonError;

use bertha_kernels::{from_bf16, round_to_bf16, to_bf16};
use bertha_tensor::{DType, Tensor};

use crate::session::Precision;
use crate::{AutogradError, Session};

/// A tensor that was kept.
#[derive(Clone, Debug)]
pub(crate) struct Saved(Tensor);

impl Saved {
    /// The values: as they were, or widened from bf16.
    pub(crate) fn load(&self, session: &Session) -> Result<Tensor, AutogradError> {
        if self.0.dtype() != DType::Bf16 {
            return Ok(self.0.clone());
        }
        let mut wide = session.scratch(self.0.shape())?;
        from_bf16(session.exec(), self.0.as_slice()?, wide.as_mut_slice()?);
        Ok(wide)
    }
}

impl Session {
    /// Keeps a tensor: f32 as bf16 where that is the precision, anything else as it is, laid out row-major.
    pub(crate) fn save(&self, tensor: &Tensor) -> Result<Saved, AutogradError> {
        let tensor = tensor.contiguous();
        if self.precision() != Precision::Bf16 || tensor.dtype() != DType::F32 {
            return Ok(Saved(tensor));
        }
        // What one operation gives and the next takes is often kept by both.
        let mut latest = self.latest().lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((source, saved)) = &*latest
            && source.shape() == tensor.shape()
            && source.as_slice::<f32>()?.as_ptr() == tensor.as_slice::<f32>()?.as_ptr()
        {
            // The source has been held since: its memory cannot have become another tensor's.
            return Ok(saved.clone());
        }
        let mut narrow = Tensor::scratch_in(self.pool(), DType::Bf16, tensor.shape())?;
        to_bf16(self.exec(), tensor.as_slice()?, narrow.as_mut_slice()?);
        let saved = Saved(narrow);
        *latest = Some((tensor, saved.clone()));
        Ok(saved)
    }

    /// The operand of a product other than a linear layer's: an f32 tensor rounded to bf16 where that is the precision.
    pub(crate) fn operand(&self, tensor: &Tensor) -> Result<Tensor, AutogradError> {
        let mut tensor = tensor.contiguous();
        if self.precision() == Precision::Bf16 && tensor.dtype() == DType::F32 {
            round_to_bf16(self.exec(), tensor.as_mut_slice()?);
        }
        Ok(tensor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bf16_is_kept_in_half_the_bytes_and_once() {
        let session = Session::new(Some(1)).unwrap();
        let values = [1.0f32, 1.0 + f32::EPSILON, -3.0e-39, f32::INFINITY];
        let tensor = Tensor::from_slice(&values, &[2, 2]).unwrap();
        let whole = session.save(&tensor).unwrap();
        assert_eq!(
            whole.load(&session).unwrap().as_slice::<f32>().unwrap(),
            values
        );

        let session = session.with_precision(Precision::Bf16);
        let saved = session.save(&tensor).unwrap();
        assert_eq!(saved.0.size_in_bytes(), 8);
        let loaded = saved.load(&session).unwrap();
        let rounded = values.map(|value| half::bf16::from_f32(value).to_f32());
        assert_eq!(loaded.as_slice::<f32>().unwrap(), rounded);
        assert_eq!(
            session.operand(&tensor).unwrap().as_slice::<f32>().unwrap(),
            rounded
        );
        assert_eq!(tensor.as_slice::<f32>().unwrap(), values);

        let address = |saved: &Saved| saved.0.as_slice::<half::bf16>().unwrap().as_ptr();
        assert_eq!(address(&session.save(&tensor).unwrap()), address(&saved));
        // Another tensor, even one of the same values, is kept for itself.
        let other = session.save(&tensor.copy()).unwrap();
        assert_ne!(address(&other), address(&saved));
    }
}
