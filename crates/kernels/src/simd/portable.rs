//! The tier for any CPU: plain arrays, which the compiler turns into whatever vectors there are.

use super::{Kernel, Simd};

/// The token of the portable tier; every machine has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Portable;

const LANES: usize = 8;

/// 1.5·2²³: what is added to it is rounded to an integer, which stands in its last bits.
const SHIFT: f32 = 12_582_912.0;

/// Eight values.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(32))]
pub(crate) struct Lanes([f32; LANES]);

// Loops rather than `array::map` and `from_fn`, here and below: the compiler takes a third of the time.
#[inline(always)]
fn map(a: Lanes, f: impl Fn(f32) -> f32) -> Lanes {
    let mut out = a;
    let mut i = 0;
    while i < LANES {
        out.0[i] = f(a.0[i]);
        i += 1;
    }
    out
}

#[inline(always)]
fn zip(a: Lanes, b: Lanes, f: impl Fn(f32, f32) -> f32) -> Lanes {
    let mut out = a;
    let mut i = 0;
    while i < LANES {
        out.0[i] = f(a.0[i], b.0[i]);
        i += 1;
    }
    out
}

impl Simd for Portable {
    type F32 = Lanes;
    type Mask = [bool; LANES];
    const LANES: usize = LANES;
    const REGISTERS: usize = 16;

    #[inline(always)]
    fn vectorize<K: Kernel>(self, kernel: K) -> K::Output {
        #[inline(never)]
        fn run<K: Kernel>(simd: Portable, kernel: K) -> K::Output {
            kernel.run(simd)
        }
        run(self, kernel)
    }

    #[inline(always)]
    fn splat(self, x: f32) -> Lanes {
        Lanes([x; LANES])
    }

    #[inline(always)]
    unsafe fn load_ptr(self, p: *const f32) -> Lanes {
        // SAFETY: the caller's promise; an array of f32 has the alignment of one.
        Lanes(unsafe { p.cast::<[f32; LANES]>().read() })
    }

    #[inline(always)]
    unsafe fn store_ptr(self, p: *mut f32, v: Lanes) {
        // SAFETY: the caller's promise; an array of f32 has the alignment of one.
        unsafe { p.cast::<[f32; LANES]>().write(v.0) }
    }

    #[inline(always)]
    fn prefetch(self, _p: *const f32) {}

    #[inline(always)]
    fn prefetch_l2(self, _p: *const f32) {}

    #[inline(always)]
    fn load_partial(self, from: &[f32]) -> Lanes {
        Lanes(std::array::from_fn(|i| from.get(i).copied().unwrap_or(0.0)))
    }

    #[inline(always)]
    fn load_partial_or(self, from: &[f32], fill: Lanes) -> Lanes {
        Lanes(std::array::from_fn(|i| {
            from.get(i).copied().unwrap_or(fill.0[i])
        }))
    }

    #[inline(always)]
    fn store_partial(self, to: &mut [f32], v: Lanes) {
        for (to, value) in to.iter_mut().zip(v.0) {
            *to = value;
        }
    }

    #[inline(always)]
    fn add(self, a: Lanes, b: Lanes) -> Lanes {
        zip(a, b, |a, b| a + b)
    }

    #[inline(always)]
    fn sub(self, a: Lanes, b: Lanes) -> Lanes {
        zip(a, b, |a, b| a - b)
    }

    #[inline(always)]
    fn mul(self, a: Lanes, b: Lanes) -> Lanes {
        zip(a, b, |a, b| a * b)
    }

    #[inline(always)]
    fn div(self, a: Lanes, b: Lanes) -> Lanes {
        zip(a, b, |a, b| a / b)
    }

    // Two roundings: without the instruction, f32::mul_add is a slow call.
    #[inline(always)]
    fn mul_add(self, a: Lanes, b: Lanes, c: Lanes) -> Lanes {
        self.add(self.mul(a, b), c)
    }

    #[inline(always)]
    fn neg_mul_add(self, a: Lanes, b: Lanes, c: Lanes) -> Lanes {
        self.sub(c, self.mul(a, b))
    }

    // A product of f32 is exact in f64.
    #[inline(always)]
    fn mul_sub_exact(self, a: Lanes, b: Lanes, c: Lanes) -> Lanes {
        let wide = |i| f64::from(a.0[i]) * f64::from(b.0[i]) - f64::from(c.0[i]);
        Lanes(std::array::from_fn(|i| wide(i) as f32))
    }

    #[inline(always)]
    fn max(self, a: Lanes, b: Lanes) -> Lanes {
        zip(a, b, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    fn min(self, a: Lanes, b: Lanes) -> Lanes {
        zip(a, b, |a, b| if a < b { a } else { b })
    }

    #[inline(always)]
    fn sqrt(self, x: Lanes) -> Lanes {
        map(x, f32::sqrt)
    }

    #[inline(always)]
    fn abs(self, x: Lanes) -> Lanes {
        map(x, f32::abs)
    }

    #[inline(always)]
    fn copysign(self, magnitude: Lanes, sign: Lanes) -> Lanes {
        zip(magnitude, sign, f32::copysign)
    }

    #[inline(always)]
    fn scale_pow2(self, x: Lanes, n: Lanes) -> Lanes {
        zip(x, n, |x, n| {
            let n = (n + SHIFT).to_bits().wrapping_sub(SHIFT.to_bits()) as i32;
            let half = n >> 1;
            let power = |n: i32| f32::from_bits((n.wrapping_add(127) as u32) << 23);
            x * power(half) * power(n - half)
        })
    }

    #[inline(always)]
    fn scale_down(self, x: Lanes, n: Lanes) -> Lanes {
        const TWO_64: f32 = (1u128 << 64) as f32;
        zip(x, n, |x, n| {
            // The integer is in the last bits of n + 1.5·2²³: a conversion would check its range.
            let power = ((n + SHIFT).to_bits() << 23).wrapping_add(TWO_64.to_bits());
            x * f32::from_bits(power) * (1.0 / TWO_64)
        })
    }

    #[inline(always)]
    fn lt(self, a: Lanes, b: Lanes) -> [bool; LANES] {
        std::array::from_fn(|i| a.0[i] < b.0[i])
    }

    #[inline(always)]
    fn select(self, mask: [bool; LANES], a: Lanes, b: Lanes) -> Lanes {
        Lanes(std::array::from_fn(
            |i| if mask[i] { a.0[i] } else { b.0[i] },
        ))
    }

    #[inline(always)]
    fn sum(self, v: Lanes) -> f32 {
        let [a, b, c, d, e, f, g, h] = v.0;
        ((a + e) + (c + g)) + ((b + f) + (d + h))
    }

    #[inline(always)]
    fn largest(self, v: Lanes) -> f32 {
        v.0.into_iter().fold(f32::NEG_INFINITY, f32::max)
    }
}
