//! Activations over the SIMD trait.

use super::Activation;
use crate::Exec;
use crate::simd::Simd;
use crate::simd::math;
use crate::simd::unary::{Unary, map};

macro_rules! unary {
    ($($name:ident = $call:path;)*) => {$(
        #[derive(Clone, Copy)]
        pub(crate) struct $name;

        impl Unary for $name {
            #[inline(always)]
            fn of<S: Simd>(self, simd: S, x: S::F32) -> S::F32 {
                $call(simd, x)
            }
        }
    )*};
}

unary! {
    Identity = identity;
    GeluErf = math::gelu;
    GeluErfCoarse = math::gelu_coarse;
    GeluTanh = math::gelu_tanh;
    Relu = relu;
    Silu = math::silu;
    Tanh = math::tanh;
    Sigmoid = math::sigmoid;
}

/// `act(x)` for every value, in place.
pub fn activate(exec: &Exec, activation: Activation, values: &mut [f32]) {
    // About the vector operations of a function, by the lanes of the narrowest vectors.
    let work = match activation {
        Activation::None | Activation::Relu => 1,
        _ => 4,
    };
    if activation == Activation::None {
        return;
    }
    exec.for_rows(values, 1, work, |_, values| {
        let isa = exec.isa();
        match activation {
            Activation::None => {}
            Activation::GeluErf => map(isa, GeluErf, values),
            Activation::GeluTanh => map(isa, GeluTanh, values),
            Activation::Relu => map(isa, Relu, values),
            Activation::Silu => map(isa, Silu, values),
            Activation::Tanh => map(isa, Tanh, values),
            Activation::Sigmoid => map(isa, Sigmoid, values),
        }
    });
}

/// `x`.
#[inline(always)]
fn identity<S: Simd>(_simd: S, x: S::F32) -> S::F32 {
    x
}

/// `max(x, 0)`, NaN of NaN.
#[inline(always)]
fn relu<S: Simd>(simd: S, x: S::F32) -> S::F32 {
    // The argument is the second operand, so that NaN stays.
    simd.max(simd.zero(), x)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;
    use crate::simd::testing::ulps;

    /// Values of every kind, `len` of them.
    fn values(len: usize) -> Vec<f32> {
        let special = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0, 1e-40];
        let spread = |i: usize| (i as f32 * 0.37).sin() * 1.3f32.powi(i as i32 % 23 - 10);
        (0..len)
            .map(|i| match i % 31 {
                0 => special[i / 31 % special.len()],
                _ => spread(i),
            })
            .collect()
    }

    #[test]
    fn every_activation_agrees_with_the_reference() {
        for isa in Isa::available() {
            let exec = Exec::with_isa(isa, 2);
            for activation in Activation::ALL {
                for len in [0, 1, 7, 8, 15, 16, 17, 31, 33, 1000] {
                    let arguments = values(len);
                    let mut found = arguments.clone();
                    activate(&exec, activation, &mut found);
                    for (x, found) in arguments.into_iter().zip(found) {
                        let exact = crate::activation::reference::scalar(activation, x.into());
                        let error = ulps(found, exact);
                        assert!(error <= 5.0, "{activation:?}({x:e}) = {found:e} on {isa}");
                    }
                }
            }
        }
    }

    #[test]
    fn the_same_bits_for_any_threads_and_any_company() {
        for isa in Isa::available() {
            for activation in Activation::ALL {
                let bits = |threads, values: &[f32]| {
                    let mut values = values.to_vec();
                    activate(&Exec::with_isa(isa, threads), activation, &mut values);
                    values.into_iter().map(f32::to_bits).collect::<Vec<_>>()
                };
                let arguments = values(100_003);
                let expected = bits(1, &arguments);
                assert!(bits(3, &arguments) == expected, "{activation:?} on {isa}");
                let part = bits(1, &arguments[1001..1014]);
                assert!(part == expected[1001..1014], "{activation:?} on {isa}");
            }
        }
    }
}
