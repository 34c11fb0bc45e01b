//! Which implementation runs for each operation, so that nobody need wonder.

use crate::Isa;
use crate::isa::Tier;

/// The implementation that each operation runs on an instruction set, as pairs of names.
pub fn operations(isa: Isa) -> [(&'static str, &'static str); 9] {
    let gemm = match isa.0 {
        Tier::Portable(_) => "portable (matrixmultiply)",
        #[cfg(target_arch = "x86_64")]
        _ => isa.name(),
    };
    // All others are written once over the SIMD trait, which every instruction set has.
    let simd = isa.name();
    [
        ("gemm", gemm),
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
