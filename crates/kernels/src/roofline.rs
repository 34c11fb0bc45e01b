//! The roof that a product is measured against: how many multiply-adds this machine does.

use std::hint::black_box;
use std::marker::PhantomData;
use std::time::{Duration, Instant};

use crate::Exec;
use crate::gemm::tile::{Bf16Pair, Dot, F32Word, Int8Quad, Signs};
use crate::operations::Operands;
use crate::simd::{Kernel, Simd};

/// The f32 operations per second (two for each multiply-add) that the session's threads reach
/// together on its instruction set, with all operands in registers: the best of some short runs.
///
/// Takes about a fifth of a second. The portable tier is measured as it computes elsewhere: with a
/// multiplication and an addition.
pub fn peak_flops(exec: &Exec) -> f64 {
    measure::<F32Word>(exec, |chains| exec.isa().run(chains))
}

/// As [`peak_flops`] for products of other operands: whole numbers count as operations too, and a multiply-add of signs as
/// two. For bf16 that of f32, where the machine multiplies them as such; none where the rate is not that of one
/// instruction.
pub fn peak_operations(exec: &Exec, operands: Operands) -> Option<f64> {
    let isa = exec.isa();
    match operands {
        Operands::Bf16 if isa.multiplies_bf16() => {
            Some(measure::<Bf16Pair>(exec, |chains| isa.run_bf16(chains)))
        }
        Operands::F32 | Operands::LowBit | Operands::Bf16 => Some(peak_flops(exec)),
        Operands::Int8 if isa.multiplies_int8() => {
            Some(measure::<Int8Quad>(exec, |chains| isa.run_int8(chains)))
        }
        Operands::Binary if isa.counts_bits() => {
            Some(measure::<Signs>(exec, |chains| isa.run_bits(chains)))
        }
        Operands::Int8 | Operands::Binary => None,
    }
}

/// The best rate of chains of multiply-adds on words of a kind.
fn measure<D: Dot>(exec: &Exec, run: impl Fn(Chains<D>) -> f32 + Sync) -> f64 {
    let threads = exec.threads();
    let mut steps = 1 << 10;
    let mut best = 0.0f64;
    let until = Instant::now() + Duration::from_millis(200);
    while Instant::now() < until {
        let start = Instant::now();
        // As many pieces as threads: nobody is idle.
        exec.parallel(threads, |_| {
            black_box(run(Chains {
                steps,
                word: PhantomData,
            }));
        });
        let seconds = start.elapsed().as_secs_f64();
        let each = exec.isa().run(FlopsOfStep);
        best = best.max((threads * steps * each * D::VALUES) as f64 / seconds);
        // Long enough that starting the threads does not count.
        if seconds < 2e-3 {
            steps *= 2;
        }
    }
    best
}

/// Multiply-adds that do not wait for each other: more than latency times rate of any CPU at hand.
const CHAINS: usize = 12;

/// `steps` rounds of a multiply-add for each chain.
struct Chains<D> {
    steps: usize,
    word: PhantomData<D>,
}

impl<D: Dot> Kernel for Chains<D> {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> f32 {
        let factor = simd.splat(black_box(0.999));
        let term = simd.splat(black_box(0.001));
        let mut sums = [simd.splat(black_box(1.0)); CHAINS];
        for _ in 0..self.steps {
            for sum in &mut sums {
                *sum = D::dot(simd, factor, term, *sum);
            }
        }
        sums.into_iter().map(|sum| simd.sum(sum)).sum()
    }
}

struct FlopsOfStep;

impl Kernel for FlopsOfStep {
    type Output = usize;

    #[inline(always)]
    fn run<S: Simd>(self, _simd: S) -> usize {
        2 * CHAINS * S::LANES
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;

    #[test]
    fn every_tier_has_a_roof() {
        for isa in Isa::available() {
            let exec = Exec::with_isa(isa, 1);
            let peak = peak_flops(&exec);
            assert!(peak.is_finite() && peak > 1e6, "{isa}: {peak}");
            let of = |operands| peak_operations(&exec, operands);
            assert!(of(Operands::Bf16).is_some_and(|peak| peak > 1e6));
            assert_eq!(of(Operands::Int8).is_some(), isa.multiplies_int8());
            assert_eq!(of(Operands::Binary).is_some(), isa.counts_bits());
        }
    }
}
