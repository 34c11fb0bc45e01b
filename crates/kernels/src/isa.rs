//! Instruction sets: which there are, which this machine has, and the proof of it.

use std::fmt;
use std::str::FromStr;

use crate::KernelError;
#[cfg(target_arch = "x86_64")]
use crate::amx::Amx;
#[cfg(target_arch = "x86_64")]
use crate::simd::{Avx2, Avx512, Avx512Bf16, Avx512Popcnt, Avx512Vnni};
use crate::simd::{Kernel, Portable, Simd};

/// An instruction set that this machine has.
///
/// A value is a proof: there is none but by detection at run time, so a kernel that holds one may
/// use the instructions. Tiers, lowest first: `portable` (any CPU), `avx2` (x86-64 with AVX2, FMA and
/// F16C), `avx512` (with AVX-512 F, BW, DQ and VL), `amx` (that with BF16, and AMX with BF16 and INT8 as Linux grants it).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Isa(pub(crate) Tier);

/// The proof tokens, one a tier.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Tier {
    Portable(Portable),
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
    #[cfg(target_arch = "x86_64")]
    Amx(Amx),
}

/// What some CPUs with AVX-512 have beside it.
enum Extension {
    Bf16,
    Vnni,
    Popcnt,
}

const NAMES: [&str; 4] = ["portable", "avx2", "avx512", "amx"];

impl Isa {
    /// The tier that runs anywhere.
    pub fn portable() -> Self {
        Self(Tier::Portable(Portable))
    }

    /// The instruction sets of this machine, lowest first.
    pub fn available() -> Vec<Self> {
        let mut tiers = vec![Tier::Portable(Portable)];
        #[cfg(target_arch = "x86_64")]
        {
            tiers.extend(Avx2::detect().map(Tier::Avx2));
            tiers.extend(Avx512::detect().map(Tier::Avx512));
            tiers.extend(Amx::detect().map(Tier::Amx));
        }
        tiers.into_iter().map(Self).collect()
    }

    /// The highest instruction set of this machine.
    pub fn best() -> Self {
        Self::available().pop().unwrap_or_else(Self::portable)
    }

    /// The instruction set that the environment variable `BERTHA_ISA` names, else the best.
    ///
    /// # Errors
    /// When it names an instruction set that is unknown or that this machine lacks.
    pub fn from_env() -> Result<Self, KernelError> {
        match std::env::var_os("BERTHA_ISA") {
            None => Ok(Self::best()),
            Some(name) if name.is_empty() => Ok(Self::best()),
            Some(name) => name.to_string_lossy().parse(),
        }
    }

    /// Its name, as `BERTHA_ISA` takes it.
    pub fn name(self) -> &'static str {
        match self.0 {
            Tier::Portable(_) => NAMES[0],
            #[cfg(target_arch = "x86_64")]
            Tier::Avx2(_) => NAMES[1],
            #[cfg(target_arch = "x86_64")]
            Tier::Avx512(_) => NAMES[2],
            #[cfg(target_arch = "x86_64")]
            Tier::Amx(_) => NAMES[3],
        }
    }

    /// Runs a kernel compiled for this instruction set.
    #[inline]
    pub(crate) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self.0 {
            Tier::Portable(simd) => simd.vectorize(kernel),
            #[cfg(target_arch = "x86_64")]
            Tier::Avx2(simd) => simd.vectorize(kernel),
            #[cfg(target_arch = "x86_64")]
            Tier::Avx512(simd) => simd.vectorize(kernel),
            #[cfg(target_arch = "x86_64")]
            Tier::Amx(amx) => amx.vectors().plain().vectorize(kernel),
        }
    }

    /// The proof of AMX, where this is `amx`.
    #[cfg(target_arch = "x86_64")]
    #[inline]
    pub(crate) fn amx(self) -> Option<Amx> {
        match self.0 {
            Tier::Amx(amx) => Some(amx),
            _ => None,
        }
    }

    /// Whether its vectors are AVX-512's.
    #[cfg(target_arch = "x86_64")]
    fn has_avx512(self) -> bool {
        matches!(self.0, Tier::Avx512(_) | Tier::Amx(_))
    }

    /// Whether it multiplies f32 in a unit of its own, as halves: `amx`.
    pub fn multiplies_halves(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        return self.amx().is_some();
        #[cfg(not(target_arch = "x86_64"))]
        false
    }

    /// Whether it multiplies bf16 by an instruction of its own: `amx`, and `avx512` on machines that have AVX-512 BF16.
    pub fn multiplies_bf16(self) -> bool {
        self.has(Extension::Bf16)
    }

    /// Whether it multiplies bytes by an instruction of its own: `amx`, and `avx512` on machines that have AVX-512 VNNI.
    pub fn multiplies_int8(self) -> bool {
        self.has(Extension::Vnni)
    }

    /// Whether it counts bits by an instruction of its own: `amx` and `avx512` on machines that have AVX-512 VPOPCNTDQ.
    pub fn counts_bits(self) -> bool {
        self.has(Extension::Popcnt)
    }

    /// Whether its vectors are AVX-512's and the machine has an extension of it.
    fn has(self, extension: Extension) -> bool {
        #[cfg(target_arch = "x86_64")]
        if self.has_avx512() {
            return match extension {
                Extension::Bf16 => Avx512Bf16::detect().is_some(),
                Extension::Vnni => Avx512Vnni::detect().is_some(),
                Extension::Popcnt => Avx512Popcnt::detect().is_some(),
            };
        }
        let _ = extension;
        false
    }

    /// Runs a kernel with the instructions that multiply bf16.
    ///
    /// # Panics
    /// Where there are none: [`Isa::multiplies_bf16`].
    #[inline]
    pub(crate) fn run_bf16<K: Kernel>(self, kernel: K) -> K::Output {
        #[cfg(target_arch = "x86_64")]
        if let (true, Some(simd)) = (self.has_avx512(), Avx512Bf16::detect()) {
            return simd.vectorize(kernel);
        }
        drop(kernel);
        panic!("{self} has no instruction that multiplies bf16")
    }

    /// [`Isa::run_native`] with the instructions that multiply bytes, where there are any.
    #[inline]
    pub(crate) fn run_int8<K: Kernel>(self, kernel: K) -> K::Output {
        #[cfg(target_arch = "x86_64")]
        if let (true, Some(simd)) = (self.has_avx512(), Avx512Vnni::detect()) {
            return simd.vectorize(kernel);
        }
        self.run_native(kernel)
    }

    /// [`Isa::run_native`] with the instructions that count bits, where there are any.
    #[inline]
    pub(crate) fn run_bits<K: Kernel>(self, kernel: K) -> K::Output {
        #[cfg(target_arch = "x86_64")]
        if let (true, Some(simd)) = (self.has_avx512(), Avx512Popcnt::detect()) {
            return simd.vectorize(kernel);
        }
        self.run_native(kernel)
    }

    /// Runs a kernel that exists only above the portable tier, and so is compiled for no other.
    ///
    /// # Panics
    /// On the portable tier.
    #[inline]
    pub(crate) fn run_native<K: Kernel>(self, kernel: K) -> K::Output {
        match self.0 {
            Tier::Portable(_) => {
                drop(kernel);
                unreachable!("the portable tier has its own way")
            }
            #[cfg(target_arch = "x86_64")]
            Tier::Avx2(simd) => simd.vectorize(kernel),
            #[cfg(target_arch = "x86_64")]
            Tier::Avx512(simd) => simd.vectorize(kernel),
            #[cfg(target_arch = "x86_64")]
            Tier::Amx(amx) => amx.vectors().plain().vectorize(kernel),
        }
    }
}

impl FromStr for Isa {
    type Err = KernelError;

    /// The instruction set of that name, if this machine has it.
    fn from_str(name: &str) -> Result<Self, KernelError> {
        if !NAMES.contains(&name) {
            return Err(KernelError::UnknownIsa {
                found: name.to_owned(),
                known: NAMES.join(", "),
            });
        }
        let available = Self::available();
        let found = available.iter().find(|isa| isa.name() == name);
        found.copied().ok_or_else(|| KernelError::UnavailableIsa {
            found: name.to_owned(),
            available: available
                .iter()
                .map(|isa| isa.name())
                .collect::<Vec<_>>()
                .join(", "),
        })
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Debug for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_to_what_the_machine_has() {
        let available = Isa::available();
        assert_eq!(available[0], Isa::portable());
        assert!(available.is_sorted());
        for &isa in &available {
            assert_eq!(isa.name().parse(), Ok(isa));
        }
        let lacking = NAMES
            .iter()
            .filter(|name| available.iter().all(|isa| isa.name() != **name));
        for name in lacking {
            let error = name.parse::<Isa>().unwrap_err().to_string();
            assert!(
                error.contains(name) && error.contains("portable"),
                "{error}"
            );
        }
        let error = "sse9".parse::<Isa>().unwrap_err().to_string();
        assert!(
            error.contains("sse9") && error.contains("avx512"),
            "{error}"
        );
    }
}
