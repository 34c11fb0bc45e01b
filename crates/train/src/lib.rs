//! Training of bertha, the part of it that is not differentiation: what the training loop stands on.
//!
//! - [`random`]: independent streams of one seed, orders of data that can be read at any place;
//! - [`schedule`]: the learning rate of a step, a pure function;
//! - [`optim`]: parameter groups, optimizers, clipping, averaged weights.
//!
//! Everything is a function of its inputs and a seed: the same on any number of threads, and the same
//! after a resume.
#![forbid(unsafe_code)]
#![warn(unreachable_pub)]

pub mod data;
mod error;
pub mod optim;
pub mod random;
pub mod schedule;

pub use error::TrainError;
