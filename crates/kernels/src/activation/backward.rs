//! Gradients of the activations over the SIMD trait: each slope is a function of the argument alone, so
//! that of a forward pass only the argument need be kept.

use super::Activation;
use crate::Exec;
use crate::exec::SharedMut;
use crate::simd::math;
use crate::simd::unary::Unary;
use crate::simd::{Kernel, Simd};

macro_rules! slopes {
    ($($name:ident = $call:path;)*) => {$(
        #[derive(Clone, Copy)]
        pub(super) struct $name;

        impl Unary for $name {
            #[inline(always)]
            fn of<S: Simd>(self, simd: S, x: S::F32) -> S::F32 {
                $call(simd, x)
            }
        }
    )*};
}

slopes! {
    IdentitySlope = one;
    GeluErfSlope = math::gelu_slope;
    GeluTanhSlope = math::gelu_tanh_slope;
    ReluSlope = relu_slope;
    SiluSlope = math::silu_slope;
    TanhSlope = math::tanh_slope;
    SigmoidSlope = math::sigmoid_slope;
}

/// `dx = dy·act′(x)` for every value, in place of `dy`; `x` is what the activation was applied to.
///
/// Errors of the slopes are at most 5 ULP for tanh and sigmoid, the larger of 6 ULP and 4·2⁻²⁴ for SiLU, 4·2⁻²⁴ for
/// GELU and 8·2⁻²⁴ for its tanh form (slopes there are between −0.13 and 1.13). ReLU's is 0 at 0, as in PyTorch.
///
/// # Panics
/// When `x` and `dy` have different lengths.
pub fn activate_backward(exec: &Exec, activation: Activation, x: &[f32], dy: &mut [f32]) {
    assert_eq!(x.len(), dy.len(), "a gradient for every value");
    let work = match activation {
        Activation::None => return,
        Activation::Relu => 1,
        _ => 5,
    };
    let len = dy.len();
    let shared = SharedMut::new(dy);
    exec.for_ranges(len, work, |range| {
        let isa = exec.isa();
        // SAFETY: ranges are disjoint.
        let dy = unsafe { shared.slice(range.clone()) };
        let x = &x[range];
        match activation {
            Activation::None => {}
            Activation::GeluErf => isa.run(Times(GeluErfSlope, x, dy)),
            Activation::GeluTanh => isa.run(Times(GeluTanhSlope, x, dy)),
            Activation::Relu => isa.run(Times(ReluSlope, x, dy)),
            Activation::Silu => isa.run(Times(SiluSlope, x, dy)),
            Activation::Tanh => isa.run(Times(TanhSlope, x, dy)),
            Activation::Sigmoid => isa.run(Times(SigmoidSlope, x, dy)),
        }
    });
}

/// 1.
#[inline(always)]
fn one<S: Simd>(simd: S, _x: S::F32) -> S::F32 {
    simd.splat(1.0)
}

/// 1 above 0, else 0; NaN of NaN.
#[inline(always)]
fn relu_slope<S: Simd>(simd: S, x: S::F32) -> S::F32 {
    let step = simd.select(simd.lt(simd.zero(), x), simd.splat(1.0), simd.zero());
    // x − x is NaN of infinity too, which has a slope.
    let bounded = simd.min(simd.splat(1.0), simd.max(simd.splat(-1.0), x));
    simd.add(step, simd.sub(bounded, bounded))
}

/// `dy·f(x)`, in place of `dy`.
struct Times<'a, F>(F, &'a [f32], &'a mut [f32]);

impl<F: Unary> Kernel for Times<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self(slope, x, dy) = self;
        let len = dy.len();
        let x = &x[..len];
        let mut at = 0;
        // Two at a time: their chains of dependent operations overlap.
        while at + 2 * S::LANES <= len {
            let a = slope.of(simd, simd.load(&x[at..]));
            let b = slope.of(simd, simd.load(&x[at + S::LANES..]));
            let a = simd.mul(a, simd.load(&dy[at..]));
            let b = simd.mul(b, simd.load(&dy[at + S::LANES..]));
            simd.store(&mut dy[at..], a);
            simd.store(&mut dy[at + S::LANES..], b);
            at += 2 * S::LANES;
        }
        while at < len {
            let (x, dy) = (&x[at..], &mut dy[at..]);
            if dy.len() >= S::LANES {
                let v = simd.mul(slope.of(simd, simd.load(x)), simd.load(dy));
                simd.store(dy, v);
            } else {
                let v = simd.mul(slope.of(simd, simd.load_partial(x)), simd.load_partial(dy));
                simd.store_partial(dy, v);
            }
            at += S::LANES;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;
    use crate::activation::reference::slope;
    use crate::simd::testing::{sample, ulps};

    /// The stated bound on a slope's error: absolute, and in ULP.
    fn bounds(activation: Activation) -> (f64, f64) {
        let unit = 2f64.powi(-24);
        match activation {
            Activation::None | Activation::Relu => (0.0, 0.0),
            Activation::Tanh | Activation::Sigmoid => (0.0, 5.0),
            Activation::Silu => (4.0 * unit, 6.0),
            Activation::GeluErf => (4.0 * unit, 0.0),
            Activation::GeluTanh => (8.0 * unit, 0.0),
        }
    }

    #[test]
    fn slopes_keep_their_bounds() {
        let places = [
            0.0, 1.0, 1.278_465, 0.751_8, 11.0, 14.5, 15.0, 87.34, 104.0, 1e-20,
        ];
        let x: Vec<f32> = sample(2003, &places).map(f32::from_bits).collect();
        let mut failed = Vec::new();
        for activation in Activation::ALL {
            for isa in Isa::available() {
                let mut found = vec![1.0; x.len()];
                activate_backward(&Exec::with_isa(isa, 2), activation, &x, &mut found);
                let (absolute, relative) = bounds(activation);
                let mut worst = (0.0, 0.0, 0.0);
                for (&x, &found) in x.iter().zip(&found) {
                    let exact = slope(activation, x.into());
                    let distance = (f64::from(found) - exact).abs();
                    if exact.is_nan() && found.is_nan() {
                        continue;
                    }
                    let error = ulps(found, exact);
                    let unit = if relative > 0.0 { error } else { f64::INFINITY };
                    let over = !(distance <= absolute || unit <= relative);
                    if over && (distance.is_nan() || distance > worst.1) {
                        worst = (x, distance, error);
                    }
                }
                if worst != (0.0, 0.0, 0.0) {
                    failed.push(format!("{activation:?} on {isa}: {worst:?}"));
                }
            }
        }
        assert!(failed.is_empty(), "{}", failed.join("\n"));
    }

    #[test]
    fn the_gradient_is_multiplied_and_bits_do_not_change_with_threads() {
        let x: Vec<f32> = (0..100_003)
            .map(|i| (i as f32 * 0.37).sin() * 4.0)
            .collect();
        let dy: Vec<f32> = (0..x.len()).map(|i| (i as f32 * 0.11).cos()).collect();
        for isa in Isa::available() {
            for activation in Activation::ALL {
                let run = |threads, range: std::ops::Range<usize>| {
                    let mut dx = dy[range.clone()].to_vec();
                    let exec = Exec::with_isa(isa, threads);
                    activate_backward(&exec, activation, &x[range], &mut dx);
                    dx
                };
                let all = run(1, 0..x.len());
                for threads in [2, 3, 8] {
                    assert!(run(threads, 0..x.len()) == all, "{activation:?} on {isa}");
                }
                assert!(
                    run(1, 1001..1014) == all[1001..1014],
                    "{activation:?} on {isa}"
                );
                let mut expected = dy.clone();
                crate::reference::activate_backward(activation, &x, &mut expected);
                let close = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-6;
                assert!(
                    all.iter().zip(&expected).all(close),
                    "{activation:?} on {isa}"
                );
            }
        }
    }
}
