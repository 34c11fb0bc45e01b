//! The options of training for few bits.

use std::collections::BTreeMap;
use std::path::PathBuf;

use bertha_compress::{Estimator, Settings};
use bertha_nn::{InputEstimator, InputRounding, WeightFormat};
use bertha_tensor::Checkpoint;
use clap::{Args, ValueEnum};

use crate::commands::formats::Format;
use crate::failure::{Failure, Result};

/// The options of training for few bits.
#[derive(Args, Debug)]
pub struct QuantizationAwareArgs {
    /// Train for this format: passes see the layers' weights rounded to it, and the folder has them
    /// packed (formats: see `bertha quantize --help`)
    #[arg(
        long,
        value_enum,
        value_name = "FORMAT",
        help_heading = "Quantization-aware training"
    )]
    quantize: Option<Format>,
    /// Train for the formats of this folder, which `bertha quantize` wrote, weight by weight
    #[arg(
        long,
        value_name = "DIR",
        conflicts_with_all = ["quantize", "quantize_embeddings"],
        help_heading = "Quantization-aware training"
    )]
    quantize_as: Option<PathBuf>,
    /// Format of the tables of words and positions; without, they stay as they are
    #[arg(
        long,
        value_enum,
        value_name = "FORMAT",
        requires = "quantize",
        help_heading = "Quantization-aware training"
    )]
    quantize_embeddings: Option<Format>,
    /// Values of a row that share a scale; 0: all of it
    #[arg(
        long,
        value_name = "N",
        default_value_t = 64,
        help_heading = "Quantization-aware training"
    )]
    group_size: usize,
    /// What becomes of gradients at the rounding
    #[arg(
        long,
        value_enum,
        default_value_t,
        help_heading = "Quantization-aware training"
    )]
    estimator: Gradient,
    /// Round inputs of layers too, to so many bits, by steps that learn
    #[arg(
        long,
        value_name = "BITS",
        value_parser = clap::value_parser!(u32).range(2..=8),
        help_heading = "Quantization-aware training"
    )]
    quantize_inputs: Option<u32>,
    /// How the steps of inputs learn
    #[arg(
        long,
        value_enum,
        default_value_t,
        help_heading = "Quantization-aware training"
    )]
    input_estimator: Step,
}

/// An estimator of inputs on the command line.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Step {
    /// From what is rounded and what is cut
    #[default]
    Lsq,
    /// From what is cut: it is where values are cut that learns
    Pact,
}

/// An estimator on the command line.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Gradient {
    /// They pass; scales are those of the weights' range
    #[default]
    Ste,
    /// They pass, and scales learn from them too (int8, int2 to int4)
    Lsq,
}

impl QuantizationAwareArgs {
    /// Which weights are trained for which format; none where no format is asked for.
    pub fn settings(&self) -> Result<Option<Settings>> {
        if let Some(dir) = &self.quantize_as {
            let packed = Checkpoint::open_dir(dir)?;
            let formats = packed
                .metadata()
                .iter()
                .filter_map(|(name, format)| Some((name.clone(), format.parse().ok()?)))
                .collect::<BTreeMap<String, WeightFormat>>();
            if formats.is_empty() {
                return Err(Failure::usage(format!(
                    "--quantize-as {}: no weight of it is quantized",
                    dir.display()
                )));
            }
            return Ok(Some(Settings::of_weights(formats)));
        }
        Ok(self.quantize.map(|format| Settings {
            embeddings: (self.quantize_embeddings).map(|format| format.grouped(self.group_size)),
            ..Settings::new(format.grouped(self.group_size))
        }))
    }

    /// How inputs are rounded, if they are.
    pub fn inputs(&self) -> Result<Option<InputRounding>> {
        let Some(bits) = self.quantize_inputs else {
            return Ok(None);
        };
        if self.quantize.is_none() && self.quantize_as.is_none() {
            return Err(Failure::usage(
                "--quantize-inputs goes with --quantize or --quantize-as, which say what weights become",
            ));
        }
        let estimator = match self.input_estimator {
            Step::Lsq => InputEstimator::LearnedSteps,
            Step::Pact => InputEstimator::Clip,
        };
        Ok(Some(InputRounding { bits, estimator }))
    }

    /// What becomes of gradients.
    pub fn estimator(&self) -> Estimator {
        match self.estimator {
            Gradient::Ste => Estimator::StraightThrough,
            Gradient::Lsq => Estimator::LearnedSteps,
        }
    }
}
