//! The operations a model is made of, on [`Var`]s.
//!
//! A model's forward pass is written once, over these operations. A [`Var`] that nothing tracks
//! costs nothing: the operation runs its kernel and the inputs are dropped as soon as the caller
//! drops them. A *tracked* [`Var`] came from a [`Parameter`]: its operations are recorded, and
//! [`Var::backward`] walks back over them and adds up [`Gradients`]. An operation that has no backward
//! refuses a tracked input **at forward**, by name ([`AutogradError::NoBackward`]): a gradient can never
//! be cut off silently. Every operation is listed in [`ops::REGISTRY`] with what it can do.
//!
//! ```
//! use bertha_autograd::{Session, Var, ops};
//! use bertha_tensor::Tensor;
//!
//! let session = Session::new(Some(1))?;
//! let x = Var::constant(Tensor::from_vec(vec![0.0f32, 0.0, 1.0, 3.0], &[2, 2])?);
//! let p = ops::softmax(&session, x)?;
//! assert_eq!(p.as_slice()?[..2], [0.5, 0.5]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod error;
mod gradients;
pub mod ops;
mod parameter;
mod saved;
mod session;
mod tape;
mod var;
mod weight;

pub use error::AutogradError;
pub use gradients::Gradients;
pub use parameter::Parameter;
pub use session::{Explanation, Observer, Precision, Ran, Session, Taps};
pub use var::Var;
pub use weight::{LinearPart, LinearWeight, QuantizedWeight};
