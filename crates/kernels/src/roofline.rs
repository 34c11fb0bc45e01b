//! The roof that a product is measured against: how many multiply-adds this machine does.

use std::hint::black_box;
use std::time::{Duration, Instant};

use crate::Exec;
use crate::simd::{Kernel, Simd};

/// The f32 operations per second (two for each multiply-add) that the session's threads reach
/// together on its instruction set, with all operands in registers: the best of some short runs.
///
/// Takes about a fifth of a second. The portable tier is measured as it computes elsewhere: with a
/// multiplication and an addition.
pub fn peak_flops(exec: &Exec) -> f64 {
    let threads = exec.threads();
    let mut steps = 1 << 10;
    let mut best = 0.0f64;
    let until = Instant::now() + Duration::from_millis(200);
    while Instant::now() < until {
        let start = Instant::now();
        // As many pieces as threads: nobody is idle.
        exec.parallel(threads, |_| {
            black_box(exec.isa().run(Chains { steps }));
        });
        let seconds = start.elapsed().as_secs_f64();
        let each = exec.isa().run(FlopsOfStep);
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
struct Chains {
    steps: usize,
}

impl Kernel for Chains {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> f32 {
        let factor = simd.splat(black_box(0.999));
        let term = simd.splat(black_box(0.001));
        let mut sums = [simd.splat(black_box(1.0)); CHAINS];
        for _ in 0..self.steps {
            for sum in &mut sums {
                *sum = simd.mul_add(*sum, factor, term);
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
            let peak = peak_flops(&Exec::with_isa(isa, 1));
            assert!(peak.is_finite() && peak > 1e6, "{isa}: {peak}");
        }
    }
}
