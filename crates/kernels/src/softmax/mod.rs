//! Softmax over rows.

mod backward;
mod forward;
pub(crate) mod reference;

pub use backward::{log_softmax, log_softmax_backward, softmax_backward};
pub use forward::softmax;
pub(crate) use forward::{Powers, max};
