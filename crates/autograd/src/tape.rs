//! The tape: what an operation leaves behind for its backward pass, and the walk back over it.
//!
//! There is no list of operations. A tracked [`Var`](crate::Var) holds the node of the operation that
//! made it; the node's closure holds the values it needs and the sources of the operation's inputs. Dropping
//! a `Var` thus drops whatever nothing else needs, and a forward pass whose result is dropped leaves nothing.
//!
//! Nodes are numbered in the order of their making, so an operation's inputs have smaller numbers. The
//! walk takes the largest number that has a gradient, always: each node runs once, when all that flows into
//! it has been added up, and sums are added in an order that follows from the forward pass alone.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bertha_tensor::{DType, Element, Tensor};

use crate::gradients::Gradients;
use crate::{AutogradError, Parameter, Session};

/// Where a gradient goes.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// To a parameter.
    Parameter(Parameter),
    /// Through an operation, to its inputs.
    Node(Arc<Node>),
}

/// An input of an operation, as its backward pass sees it.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// Where the input's gradient goes.
    pub(crate) source: Source,
    /// The input's shape.
    pub(crate) shape: Vec<usize>,
}

/// The backward pass of one operation: takes the gradient of the operation's output and adds those of its
/// inputs to the [`Flow`].
type Backward = Box<dyn FnOnce(&mut Flow<'_>, Tensor) -> Result<(), AutogradError> + Send>;

/// An operation that was recorded.
pub(crate) struct Node {
    id: u64,
    op: &'static str,
    /// Taken by the walk, so that what it holds is freed as soon as it has been used.
    backward: Mutex<Option<Backward>>,
}

impl Node {
    /// Records an operation. `backward` holds the sources of the inputs it has gradients for.
    pub(crate) fn record(
        op: &'static str,
        backward: impl FnOnce(&mut Flow<'_>, Tensor) -> Result<(), AutogradError> + Send + 'static,
    ) -> Source {
        static IDS: AtomicU64 = AtomicU64::new(0);
        Source::Node(Arc::new(Self {
            id: IDS.fetch_add(1, Ordering::Relaxed),
            op,
            backward: Mutex::new(Some(Box::new(backward))),
        }))
    }
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}#{}", self.op, self.id)
    }
}

/// The gradients under way.
pub(crate) struct Flow<'a> {
    session: &'a Session,
    waiting: BTreeMap<u64, (Arc<Node>, Tensor)>,
    gradients: &'a mut Gradients,
}

impl<'a> Flow<'a> {
    /// What the backward pass runs with.
    pub(crate) fn session(&self) -> &'a Session {
        self.session
    }

    /// Adds a gradient to what has flowed to `source` so far.
    pub(crate) fn add(&mut self, source: &Source, gradient: Tensor) -> Result<(), AutogradError> {
        match source {
            Source::Parameter(parameter) => self.gradients.add(self.session, parameter, gradient),
            Source::Node(node) => {
                match self.waiting.get_mut(&node.id) {
                    Some((_, sum)) => add_assign(self.session, sum, &gradient)?,
                    None => {
                        self.waiting.insert(node.id, (Arc::clone(node), gradient));
                    }
                }
                Ok(())
            }
        }
    }

    /// Runs the backward passes from `source` on to their end, before any other; gradients of parameters add up as usual.
    pub(crate) fn nested(
        &mut self,
        source: &Source,
        gradient: Tensor,
    ) -> Result<(), AutogradError> {
        run(self.session, source, gradient, self.gradients)
    }

    /// Lets `write` put an input's gradient where it is kept. `write` gets the values and whether to add to them; where
    /// it is not to add they are unspecified. A parameter's gradient is so added up without a tensor in between.
    pub(crate) fn write<T: Element>(
        &mut self,
        to: &Target,
        write: impl FnOnce(&mut [T], bool),
    ) -> Result<(), AutogradError> {
        match &to.source {
            Source::Parameter(parameter) => self.gradients.write(self.session, parameter, write),
            Source::Node(_) => {
                let mut gradient = Tensor::scratch_in(self.session.pool(), T::DTYPE, &to.shape)?;
                write(gradient.as_mut_slice()?, false);
                self.add(&to.source, gradient)
            }
        }
    }
}

/// Runs the backward passes from `source` on.
pub(crate) fn run(
    session: &Session,
    source: &Source,
    gradient: Tensor,
    gradients: &mut Gradients,
) -> Result<(), AutogradError> {
    let mut flow = Flow {
        session,
        waiting: BTreeMap::new(),
        gradients,
    };
    flow.add(source, gradient)?;
    while let Some((_, (node, gradient))) = flow.waiting.pop_last() {
        let backward = node
            .backward
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let backward = backward.ok_or(AutogradError::Spent { op: node.op })?;
        backward(&mut flow, gradient)?;
    }
    Ok(())
}

/// `sum += more`, of one shape and a float dtype.
pub(crate) fn add_assign(
    session: &Session,
    sum: &mut Tensor,
    more: &Tensor,
) -> Result<(), AutogradError> {
    fn add<T: Element + std::ops::AddAssign>(sum: &mut [T], more: &[T]) {
        sum.iter_mut()
            .zip(more)
            .for_each(|(sum, &more)| *sum += more);
    }
    // A view, such as a transposed gradient, is laid out first.
    let more = more.contiguous();
    let _ = session;
    match sum.dtype() {
        DType::F64 => add(sum.as_mut_slice::<f64>()?, more.as_slice()?),
        _ => add(sum.as_mut_slice::<f32>()?, more.as_slice()?),
    }
    Ok(())
}
