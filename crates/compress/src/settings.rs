//! Which weights get which format, and by which method.

use std::collections::{BTreeMap, BTreeSet};

use bertha_kernels::{CodeBook, GroupRange};
use bertha_nn::WeightFormat;

use crate::CompressError;
use crate::names::layer_of;

/// How values become codes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Method {
    /// Each to the nearest level over a range of its group.
    Round(GroupRange),
    /// SmoothQuant (Xiao et al. 2022, <https://arxiv.org/abs/2211.10438>), then the nearest level. The strength is how much of
    /// the range goes from inputs to weights: 0.5 is even.
    SmoothQuant {
        /// From 0 to 1.
        strength: f32,
    },
    /// One after the other, the rest of the row making up for the error (Frantar et al. 2022,
    /// <https://arxiv.org/abs/2210.17323>).
    Gptq {
        /// Part of the mean of the Hessian's diagonal that is added to it.
        damping: f32,
    },
    /// Input scales by what inputs are like, searched (Lin et al. 2023, <https://arxiv.org/abs/2306.00978>), then the
    /// nearest level.
    Awq,
}

impl Method {
    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Round(GroupRange::MinMax) => "minmax",
            Self::Round(GroupRange::Percentile(_)) => "percentile",
            Self::Round(GroupRange::MeanSquare) => "mse",
            Self::Round(GroupRange::Ternary) => "twn",
            Self::SmoothQuant { .. } => "smoothquant",
            Self::Gptq { .. } => "gptq",
            Self::Awq => "awq",
        }
    }

    /// Whether it needs texts.
    pub fn calibrates(self) -> bool {
        !matches!(self, Self::Round(_))
    }
}

/// Which weights get which format.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Of the linear layers.
    pub format: WeightFormat,
    /// How values become codes.
    pub method: Method,
    /// Whether scales are stored in 8 bits.
    pub double_quantization: bool,
    /// The magnitude from which on layers of 8 bits do not round inputs, but multiply them as floats (Dettmers et al. 2022,
    /// LLM.int8(), <https://arxiv.org/abs/2208.07339>); 6 there.
    pub outlier_threshold: Option<f32>,
    /// Of the tables of words and positions; as they are where there is none.
    pub embeddings: Option<WeightFormat>,
    /// Also the linear layers outside of the encoder's layers: poolers and heads.
    pub heads: bool,
    /// Weights whose names contain one of these stay as they are.
    pub keep: Vec<String>,
    /// Weights that stay as they are, by their names.
    pub spared: BTreeSet<String>,
    /// Formats of weights, by their names, in place of `format`.
    pub overrides: BTreeMap<String, WeightFormat>,
}

impl Settings {
    /// A format for the linear layers of the encoder, each value to the nearest level.
    pub fn new(format: WeightFormat) -> Self {
        Self {
            format,
            method: Method::Round(GroupRange::MinMax),
            double_quantization: false,
            outlier_threshold: None,
            embeddings: None,
            heads: false,
            keep: Vec::new(),
            spared: BTreeSet::new(),
            overrides: BTreeMap::new(),
        }
    }

    /// Formats for single weights, by their names; all others stay as they are.
    pub fn of_weights(formats: BTreeMap<String, WeightFormat>) -> Self {
        Self {
            // Every name contains it.
            keep: vec![String::new()],
            overrides: formats,
            ..Self::new(WeightFormat::Int8)
        }
    }

    /// The format of a linear layer's weight; none where it stays as it is.
    pub fn format_of(&self, name: &str) -> Option<WeightFormat> {
        if let Some(&format) = self.overrides.get(name) {
            return Some(format);
        }
        let kept = self.spared.contains(name) || self.keep.iter().any(|part| name.contains(part));
        (!kept && (self.heads || layer_of(name).is_some())).then_some(self.format)
    }

    /// The format of a table; none where it stays as it is.
    pub(crate) fn format_of_table(&self, name: &str) -> Option<WeightFormat> {
        if let Some(&format) = self.overrides.get(name) {
            return Some(format);
        }
        let kept = self.keep.iter().any(|part| name.contains(part));
        self.embeddings.filter(|_| !kept)
    }

    /// Refuses what does not fit.
    pub(crate) fn check(&self) -> Result<(), CompressError> {
        let signs = |format: WeightFormat| {
            matches!(
                format,
                WeightFormat::Codes {
                    book: CodeBook::Sign,
                    ..
                }
            )
        };
        if signs(self.format) && self.method.calibrates() {
            return Err(CompressError::Settings(format!(
                "{} spreads levels over a range, which signs do not have: take minmax",
                self.method.name()
            )));
        }
        let ternary = |format: WeightFormat| {
            let book = CodeBook::Symmetric(2);
            matches!(format, WeightFormat::Codes { book: of, .. } if of == book)
        };
        if self.method == Method::Round(GroupRange::Ternary) && !ternary(self.format) {
            return Err(CompressError::Settings(format!(
                "twn finds the scale of three levels, and {} has others: take int2",
                self.format
            )));
        }
        let int8 = self.format == WeightFormat::Int8
            || self.overrides.values().any(|of| *of == WeightFormat::Int8);
        match self.outlier_threshold {
            Some(_) if !int8 => Err(CompressError::Settings(format!(
                "{} does not round inputs, so that none is an outlier: take int8, or no threshold",
                self.format
            ))),
            Some(threshold) if threshold.is_nan() || threshold <= 0.0 => {
                Err(CompressError::Settings(format!(
                    "the threshold of outliers is {threshold}, expected a number above 0"
                )))
            }
            _ => Ok(()),
        }
    }
}
