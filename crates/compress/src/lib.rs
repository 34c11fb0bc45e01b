//! Models made small.
//!
//! A model is a walk over its named weights that swaps formats: [`quantize`] reads a model folder, gives each weight of its
//! linear layers (and its tables) the format that [`Settings`] ask for, and leaves the rest as it is. What is
//! saved runs packed wherever the old model ran.
//!
//! - `settings`: which weights get which format, and by which method;
//! - `calibration`: what the inputs of the linear layers are like on real texts;
//! - `rounding`: each value to the nearest level;
//! - `gptq`: each value in turn, the rest of its row making up for the error;
//! - `scaling`: input scales that move what is hard to quantize to where it is easier (SmoothQuant, AWQ);
//! - `folder`: the walk, its report, and saving;
//! - `binarize`: models of signs, as they are trained and as they are packed;
//! - `quantization_aware`: weights that learn as what they will be packed as;
//! - `distillation`: what a student learns from its teacher;
//! - `hessian`: Q-BERT's choice of bits by how sharply the loss curves;
//! - `sensitivity`: how much each layer alone changes what the model gives, and which to spare.
#![forbid(unsafe_code)]

mod binarize;
mod calibration;
mod distillation;
mod error;
mod folder;
mod gptq;
mod hessian;
mod names;
mod quantization_aware;
mod rounding;
mod scaling;
mod sensitivity;
mod settings;
mod splitting;

pub use binarize::{binarized_config, pack_binarized};
pub use calibration::{Calibration, Statistics, linear_layers};
pub use distillation::{Distillation, HiddenLoss, direction_loss, similarity_losses};
pub use error::CompressError;
pub use folder::{LayerReport, Quantized, quantize};
pub use gptq::gptq;
pub use hessian::{Curvature, PowerIteration, assign_bits, curvatures, largest_eigenvalue};
pub use names::layer_of;
pub use quantization_aware::{Estimator, QuantizationAware, STEP, with_rounded_inputs};
pub use rounding::round_to_nearest;
pub use sensitivity::{Sensitivity, sensitivities, spare};
pub use settings::{Method, Settings};
pub use splitting::{binary_weights, split_weights, ternary_weights};
