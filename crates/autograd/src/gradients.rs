//! Gradients, added up.

use std::collections::HashMap;

use bertha_tensor::{Element, Tensor};

use crate::tape::add_assign;
use crate::{AutogradError, Parameter, Session};

/// The gradients of a loss with respect to parameters, in the parameters' dtype.
///
/// Several backward passes add up: that is gradient accumulation. [`Gradients::clear`] forgets the values and
/// keeps the memory, so a training loop allocates it once.
#[derive(Debug, Default)]
pub struct Gradients {
    slots: Vec<Slot>,
    /// Place in `slots`, by the parameter's id.
    places: HashMap<u64, usize>,
}

#[derive(Debug)]
struct Slot {
    parameter: Parameter,
    sum: Tensor,
    /// Whether `sum` holds a gradient, or only memory.
    filled: bool,
}

impl Gradients {
    /// No gradients.
    pub fn new() -> Self {
        Self::default()
    }

    /// The gradient of a parameter, of its shape; `None` if none has flowed to it.
    pub fn get(&self, parameter: &Parameter) -> Option<&Tensor> {
        let slot = &self.slots[*self.places.get(&parameter.id())?];
        slot.filled.then_some(&slot.sum)
    }

    /// As [`Gradients::get`], to change.
    pub fn get_mut(&mut self, parameter: &Parameter) -> Option<&mut Tensor> {
        let slot = &mut self.slots[*self.places.get(&parameter.id())?];
        slot.filled.then_some(&mut slot.sum)
    }

    /// The parameters that a gradient has flowed to, and their gradients, in the order in which backward passes
    /// first reached them.
    pub fn iter(&self) -> impl Iterator<Item = (&Parameter, &Tensor)> {
        let filled = self.slots.iter().filter(|slot| slot.filled);
        filled.map(|slot| (&slot.parameter, &slot.sum))
    }

    /// As [`Gradients::iter`], to change.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&Parameter, &mut Tensor)> {
        let filled = self.slots.iter_mut().filter(|slot| slot.filled);
        filled.map(|slot| (&slot.parameter, &mut slot.sum))
    }

    /// Whether there is no gradient.
    pub fn is_empty(&self) -> bool {
        !self.slots.iter().any(|slot| slot.filled)
    }

    /// Forgets all gradients, keeping the memory for the next.
    pub fn clear(&mut self) {
        self.slots.iter_mut().for_each(|slot| slot.filled = false);
    }

    /// Adds to a parameter's gradient.
    pub(crate) fn add(
        &mut self,
        session: &Session,
        parameter: &Parameter,
        gradient: Tensor,
    ) -> Result<(), AutogradError> {
        match self.places.get(&parameter.id()) {
            Some(&place) if self.slots[place].filled => {
                add_assign(session, &mut self.slots[place].sum, &gradient)
            }
            Some(&place) => {
                let slot = &mut self.slots[place];
                slot.sum = gradient.contiguous();
                slot.filled = true;
                Ok(())
            }
            None => {
                self.open(parameter, gradient.contiguous(), true);
                Ok(())
            }
        }
    }

    /// See [`Flow::write`](crate::tape::Flow::write).
    pub(crate) fn write<T: Element>(
        &mut self,
        session: &Session,
        parameter: &Parameter,
        write: impl FnOnce(&mut [T], bool),
    ) -> Result<(), AutogradError> {
        let place = match self.places.get(&parameter.id()) {
            Some(&place) => place,
            None => {
                let sum = Tensor::scratch_in(session.pool(), parameter.dtype(), parameter.shape())?;
                self.open(parameter, sum, false)
            }
        };
        let slot = &mut self.slots[place];
        write(slot.sum.as_mut_slice()?, slot.filled);
        slot.filled = true;
        Ok(())
    }

    fn open(&mut self, parameter: &Parameter, sum: Tensor, filled: bool) -> usize {
        let place = self.slots.len();
        self.places.insert(parameter.id(), place);
        self.slots.push(Slot {
            parameter: parameter.clone(),
            sum,
            filled,
        });
        place
    }
}
