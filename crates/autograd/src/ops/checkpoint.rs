//! Computing a part of a model twice, to keep less of it: of its forward pass only the inputs are kept, and the backward
//! pass runs it again first (Chen et al. 2016, <https://arxiv.org/abs/1604.06174>).

use std::sync::{Arc, Mutex, PoisonError};

use bertha_tensor::Tensor;

use super::{OpInfo, differentiable};
use crate::tape::{Node, Source};
use crate::{AutogradError, Session, Var};

pub(super) const INFO: OpInfo = differentiable("checkpoint");

/// `part(inputs)`, recorded as one operation. Gradients have the same bits as without: dropout in the part drops the same
/// values again. The part must be a function of its inputs, of parameters and of the session.
///
/// Where no input is tracked, or nothing is recorded, the part runs as it would on its own.
///
/// # Errors
/// Those of `part`; in the backward pass [`AutogradError::Recomputation`].
pub fn checkpoint<E: From<AutogradError> + std::fmt::Display>(
    session: &Session,
    inputs: &[&Var],
    part: impl Fn(&Session, &[Var]) -> Result<Var, E> + Send + 'static,
) -> Result<Var, E> {
    let given: Vec<Var> = inputs.iter().copied().cloned().collect();
    if !INFO.admit(session, inputs)? {
        return part(session, &given);
    }
    let again = session.replayed();
    let detached: Vec<Var> = given.iter().map(Var::detach).collect();
    let y = part(&session.unrecorded(), &detached)?.into_tensor();
    drop(detached);
    Ok(INFO.record(y, move |flow, dy| {
        // Leaves that catch what flows to the inputs.
        let leaves: Vec<Leaf> = given.iter().map(Leaf::new).collect();
        let vars: Vec<Var> = leaves.iter().map(|leaf| leaf.var.clone()).collect();
        let y = part(&again, &vars).map_err(|error| AutogradError::Recomputation {
            reason: error.to_string(),
        })?;
        drop(vars);
        if let Some(to) = y.target() {
            drop(y);
            flow.nested(&to.source, dy)?;
        }
        for (input, leaf) in given.iter().zip(leaves) {
            if let (Some(to), Some(gradient)) = (input.target(), leaf.take()) {
                flow.add(&to.source, gradient)?;
            }
        }
        Ok(())
    }))
}

/// An input as the second run sees it.
struct Leaf {
    var: Var,
    caught: Arc<Mutex<Option<Tensor>>>,
}

impl Leaf {
    fn new(input: &Var) -> Self {
        let caught = Arc::new(Mutex::new(None));
        let to = Arc::clone(&caught);
        let source: Option<Source> = input.is_tracked().then(|| {
            Node::record("checkpoint's input", move |_, gradient| {
                *to.lock().unwrap_or_else(PoisonError::into_inner) = Some(gradient);
                Ok(())
            })
        });
        Self {
            var: Var::new(input.tensor().clone(), source),
            caught,
        }
    }

    fn take(self) -> Option<Tensor> {
        drop(self.var);
        let mut caught = self.caught.lock().unwrap_or_else(PoisonError::into_inner);
        caught.take()
    }
}
