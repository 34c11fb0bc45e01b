//! Training of bertha: the [`trainer`], and what it stands on, each part to be used by itself.
//!
//! - [`trainer`]: the loop, with evaluation, checkpoints and exact resumption;
//! - [`random`]: independent streams of one seed, orders of data that can be read at any place;
//! - [`data`]: from files to tokenized examples, cached;
//! - [`collate`]: from examples to packed batches, masked and paired where pre-training wants it;
//! - [`schedule`]: the learning rate of a step, a pure function;
//! - [`optim`]: parameter groups, optimizers, clipping, averaged weights;
//! - [`metrics`]: measures of quality, equal to what the usual programs compute;
//! - [`memory`]: what an update takes, told before;
//! - [`record`] and [`curve`]: what a run did, as lines and as a picture;
//! - [`collective`]: ranks that train together.
//!
//! Everything is a function of its inputs and a seed: the same on any number of threads, and the same
//! after a resume.
#![forbid(unsafe_code)]
#![warn(unreachable_pub)]

pub mod collate;
pub mod collective;
pub mod curve;
pub mod data;
mod error;
pub mod memory;
pub mod metrics;
pub mod optim;
pub mod random;
pub mod record;
pub mod schedule;
pub mod trainer;

pub use error::TrainError;
