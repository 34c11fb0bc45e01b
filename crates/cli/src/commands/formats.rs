//! Formats of weights on the command line.

use bertha_kernels::CodeBook;
use bertha_nn::WeightFormat;
use clap::ValueEnum;

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
