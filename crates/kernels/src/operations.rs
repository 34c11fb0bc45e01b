//! Which implementation runs for each operation, so that nobody need wonder.

use crate::Isa;
use crate::isa::Tier;

/// What a product multiplies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operands {
    /// f32, within its contract of 10⁻⁵.
    F32,
    /// f32, by f32 multiply-adds.
    F32Strict,
    /// bf16; sums are f32.
    Bf16,
    /// Bytes; sums are whole numbers.
    Int8,
    /// f32 by what codes of 1 to 4 bits stand for.
    LowBit,
    /// Signs; sums are whole numbers.
    Binary,
}

/// The implementation that a product runs on an instruction set: its name, and in brackets the extension or crate that
/// multiplies.
pub fn product_kernel(isa: Isa, operands: Operands) -> &'static str {
    match isa.0 {
        Tier::Portable(_) => match operands {
            Operands::Int8 | Operands::Binary => "portable",
            _ => "portable (matrixmultiply)",
        },
        #[cfg(target_arch = "x86_64")]
        _ => match operands {
            Operands::F32 if isa.multiplies_halves() => "amx (f32 as two bf16)",
            Operands::Bf16 if isa.multiplies_halves() => "amx (bf16)",
            Operands::Int8 if isa.multiplies_halves() => "amx (int8)",
            Operands::Binary if isa.multiplies_halves() => "amx (avx512, vpopcntdq)",
            _ if isa.multiplies_halves() => "amx (avx512)",
            Operands::Bf16 if isa.multiplies_bf16() => "avx512 (bf16)",
            Operands::Bf16 if isa.name() == "avx512" => "avx512 (as f32)",
            Operands::Bf16 => "avx2 (as f32)",
            Operands::Int8 if isa.multiplies_int8() => "avx512 (vnni)",
            Operands::Binary if isa.counts_bits() => "avx512 (vpopcntdq)",
            Operands::Int8 | Operands::Binary if isa.name() == "avx512" => "avx512 (as avx2)",
            _ => isa.name(),
        },
    }
}

/// The implementation that each operation runs on an instruction set, as pairs of names.
pub fn operations(isa: Isa) -> [(&'static str, &'static str); 13] {
    // All others are written once over the SIMD trait, which every instruction set has.
    let simd = isa.name();
    [
        ("gemm", product_kernel(isa, Operands::F32)),
        ("gemm_bf16", product_kernel(isa, Operands::Bf16)),
        ("gemm_int8", product_kernel(isa, Operands::Int8)),
        ("gemm_low_bit", product_kernel(isa, Operands::LowBit)),
        ("gemm_binary", product_kernel(isa, Operands::Binary)),
        ("attention", simd),
        ("embedding", simd),
        ("layer_norm", simd),
        ("softmax", simd),
        ("gelu", simd),
        ("dropout", simd),
        ("cross_entropy", simd),
        ("optimizer", simd),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_names_its_instruction_set() {
        for isa in Isa::available() {
            for (operation, implementation) in operations(isa) {
                assert!(implementation.starts_with(isa.name()), "{operation}");
            }
        }
    }
}
