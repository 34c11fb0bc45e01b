//! The roof that a product is measured against: how many multiply-adds this machine does.

use std::hint::black_box;
use std::marker::PhantomData;
use std::time::{Duration, Instant};

use crate::Exec;
#[cfg(target_arch = "x86_64")]
use crate::amx::{Amx, BLOCK, Bf16, Halves, Int8, Operand, TileKernel, Tiles};
#[cfg(target_arch = "x86_64")]
use crate::buffer::AlignedFloats;
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
    #[cfg(target_arch = "x86_64")]
    if let Some(amx) = isa.amx() {
        match operands {
            Operands::F32 => return Some(measure_tiles::<Halves>(exec, amx)),
            Operands::Bf16 => return Some(measure_tiles::<Bf16>(exec, amx)),
            Operands::Int8 => return Some(measure_tiles::<Int8>(exec, amx)),
            Operands::F32Strict | Operands::LowBit | Operands::Binary => {}
        }
    }
    match operands {
        Operands::Bf16 if isa.multiplies_bf16() => {
            Some(measure::<Bf16Pair>(exec, |chains| isa.run_bf16(chains)))
        }
        Operands::F32 | Operands::F32Strict | Operands::LowBit | Operands::Bf16 => {
            Some(peak_flops(exec))
        }
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
    let each = exec.isa().run(FlopsOfStep) * D::VALUES;
    best_rate(exec, each, |steps| {
        black_box(run(Chains {
            steps,
            word: PhantomData,
        }));
    })
}

/// The best rate of products of tiles, where one of f32 is three.
#[cfg(target_arch = "x86_64")]
fn measure_tiles<O: Operand>(exec: &Exec, amx: Amx) -> f64 {
    let each = 2 * BLOCK * BLOCK * O::STEP;
    let each = each as f64 / O::PRODUCTS as f64;
    each * best_rate(exec, 1, |steps| {
        amx.run(TileChains::<O> {
            steps,
            operand: PhantomData,
        });
    })
}

/// The best rate of short runs on all threads: operations a second, of `each` a step.
fn best_rate(exec: &Exec, each: usize, run: impl Fn(usize) + Sync) -> f64 {
    let threads = exec.threads();
    let mut steps = 1 << 10;
    let mut best = 0.0f64;
    let until = Instant::now() + Duration::from_millis(200);
    while Instant::now() < until {
        let start = Instant::now();
        // As many pieces as threads: nobody is idle.
        exec.parallel(threads, |_| run(steps));
        let seconds = start.elapsed().as_secs_f64();
        best = best.max((threads * steps * each) as f64 / seconds);
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

/// `steps` times four products of tiles.
#[cfg(target_arch = "x86_64")]
struct TileChains<O> {
    steps: usize,
    operand: PhantomData<O>,
}

#[cfg(target_arch = "x86_64")]
impl<O: Operand> TileKernel for TileChains<O> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, tiles: &Tiles, _simd: S) {
        // Not of zeros, which some machines multiply faster.
        let operand = AlignedFloats::filled(O::STEP_BYTES / size_of::<f32>(), 1.25);
        let operand = operand.as_ptr().cast();
        tiles.clear();
        // SAFETY: a step of each operand.
        unsafe { O::multiply::<false>(tiles, operand, operand) }
        for _ in 0..self.steps {
            O::multiply_again(tiles);
        }
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
