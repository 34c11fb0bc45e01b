//! Formats of weights on the command line.

use std::path::PathBuf;

use bertha_compress::{Estimator, Settings};
use bertha_kernels::CodeBook;
use bertha_nn::WeightFormat;
use bertha_tensor::Checkpoint;
use clap::{Args, ValueEnum};

use crate::failure::{Failure, Result};

/// A format on the command line.
#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
pub enum Format {
    Int8,
    Int4,
    Int3,
    Int2,
    Uint4,
    Uint3,
    Uint2,
    Nf4,
    Fp4,
    E2m1,
    Sign,
}

impl Format {
    /// With so many values to a scale; 0: a row.
    pub fn grouped(self, group_size: usize) -> WeightFormat {
        let book = match self {
            Self::Int8 => return WeightFormat::Int8,
            Self::Int4 => CodeBook::Symmetric(4),
            Self::Int3 => CodeBook::Symmetric(3),
            Self::Int2 => CodeBook::Symmetric(2),
            Self::Uint4 => CodeBook::Asymmetric(4),
            Self::Uint3 => CodeBook::Asymmetric(3),
            Self::Uint2 => CodeBook::Asymmetric(2),
            Self::Nf4 => CodeBook::Nf4,
            Self::Fp4 => CodeBook::Fp4,
            Self::E2m1 => CodeBook::E2m1,
            Self::Sign => CodeBook::Sign,
        };
        let group = group_of(group_size);
        WeightFormat::Codes { book, group }
    }
}

/// Values to a scale.
pub fn group_of(size: usize) -> usize {
    match size {
        // No row is longer.
        0 => 1 << 24,
        size => size,
    }
}

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
            let formats = Checkpoint::open_dir(dir)?;
            let overrides = formats
                .metadata()
                .iter()
                .filter_map(|(name, format)| Some((name.clone(), format.parse().ok()?)))
                .collect::<std::collections::BTreeMap<String, WeightFormat>>();
            if overrides.is_empty() {
                return Err(Failure::usage(format!(
                    "--quantize-as {}: no weight of it is quantized",
                    dir.display()
                )));
            }
            return Ok(Some(Settings {
                // All else stays.
                keep: vec![String::new()],
                overrides,
                ..Settings::new(WeightFormat::Int8)
            }));
        }
        Ok(self.quantize.map(|format| Settings {
            embeddings: (self.quantize_embeddings).map(|format| format.grouped(self.group_size)),
            ..Settings::new(format.grouped(self.group_size))
        }))
    }

    /// What becomes of gradients.
    pub fn estimator(&self) -> Estimator {
        match self.estimator {
            Gradient::Ste => Estimator::StraightThrough,
            Gradient::Lsq => Estimator::LearnedSteps,
        }
    }
}
