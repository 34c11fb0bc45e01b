//! Softmax over rows.

mod forward;
pub(crate) mod reference;

pub use forward::softmax;
