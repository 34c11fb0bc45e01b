//! Every operation of the trait on every tier, lane by lane against the scalar operation.

use super::{Kernel, Simd, words};
use crate::Isa;

/// Numbers of every kind; a prime number of them, so that lanes and pairs vary.
const NUMBERS: [f32; 23] = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.1,
    -2.5,
    3.5,
    1e-3,
    -7e5,
    1e20,
    -1e20,
    1e-30,
    f32::MAX,
    f32::MIN,
    f32::MIN_POSITIVE,
    1e-40,
    -1e-45,
    f32::INFINITY,
    f32::NEG_INFINITY,
    f32::NAN,
    12_345.678,
    -0.999_999_94,
    std::f32::consts::PI,
];

const MOST_LANES: usize = 16;

/// A vector's worth of numbers, from `start` on, `step` apart.
fn numbers(start: usize, step: usize) -> [f32; MOST_LANES] {
    std::array::from_fn(|i| NUMBERS[(start + i * step) % NUMBERS.len()])
}

/// The same value, NaN being the same as NaN.
fn same(a: f32, b: f32) -> bool {
    a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan()
}

/// A kernel for every tier: `each!(|simd: S| …)` runs the body on all instruction sets of the machine.
macro_rules! each {
    (|$simd:ident: $s:ident, $isa:ident| $body:block) => {
        struct Each(Isa);
        impl Kernel for Each {
            type Output = ();
            #[inline(always)]
            fn run<$s: Simd>(self, $simd: $s) {
                let $isa = self.0;
                $body
            }
        }
        for isa in Isa::available() {
            isa.run(Each(isa));
        }
    };
}

/// The lanes of a vector.
#[inline(always)]
fn lanes<S: Simd>(simd: S, v: S::F32) -> Vec<f32> {
    let mut lanes = vec![0.0; S::LANES];
    simd.store(&mut lanes, v);
    lanes
}

#[test]
fn lanewise_operations_are_the_scalar_ones() {
    each!(|simd: S, isa| {
        for start in 0..NUMBERS.len() {
            for step in [1, 3] {
                let (a, b, c) = (numbers(start, 1), numbers(start, step), numbers(step, 5));
                let (x, y, z) = (simd.load(&a), simd.load(&b), simd.load(&c));
                let check = |name: &str, found: S::F32, scalar: &dyn Fn(usize) -> f32| {
                    for (i, found) in lanes(simd, found).into_iter().enumerate() {
                        let expected = scalar(i);
                        assert!(
                            same(found, expected),
                            "{name} on {isa} of {:e}, {:e}, {:e}: {found:e}, not {expected:e}",
                            a[i],
                            b[i],
                            c[i]
                        );
                    }
                };
                check("add", simd.add(x, y), &|i| a[i] + b[i]);
                check("sub", simd.sub(x, y), &|i| a[i] - b[i]);
                check("mul", simd.mul(x, y), &|i| a[i] * b[i]);
                check("div", simd.div(x, y), &|i| a[i] / b[i]);
                check("sqrt", simd.sqrt(simd.abs(x)), &|i| a[i].abs().sqrt());
                check("abs", simd.abs(x), &|i| a[i].abs());
                check("splat", simd.splat(a[3]), &|_| a[3]);
                check("zero", simd.zero(), &|_| 0.0);
                check("copysign", simd.copysign(x, y), &|i| a[i].copysign(b[i]));
                check("max", simd.max(x, y), &|i| {
                    if a[i] > b[i] { a[i] } else { b[i] }
                });
                check("min", simd.min(x, y), &|i| {
                    if a[i] < b[i] { a[i] } else { b[i] }
                });
                let less = simd.lt(x, y);
                check("select", simd.select(less, y, z), &|i| {
                    if a[i] < b[i] { b[i] } else { c[i] }
                });
                let fused = isa != Isa::portable();
                check("mul_add", simd.mul_add(x, y, z), &|i| match fused {
                    true => a[i].mul_add(b[i], c[i]),
                    false => a[i] * b[i] + c[i],
                });
                check("neg_mul_add", simd.neg_mul_add(x, y, z), &|i| match fused {
                    true => (-a[i]).mul_add(b[i], c[i]),
                    false => c[i] - a[i] * b[i],
                });
                check("mul_sub_exact", simd.mul_sub_exact(x, y, z), &|i| {
                    a[i].mul_add(b[i], -c[i])
                });
            }
        }
    });
}

#[test]
fn what_a_product_lost_comes_back() {
    each!(|simd: S, isa| {
        let x = simd.splat(1.000_000_1);
        let product = simd.mul(x, x);
        let lost = lanes(simd, simd.mul_sub_exact(x, x, product))[0];
        let exact = f64::from(1.000_000_1_f32).powi(2) - f64::from(lanes(simd, product)[0]);
        assert!(exact != 0.0 && f64::from(lost) == exact, "{isa}");
    });
}

#[test]
fn powers_of_two_scale_down_to_subnormals() {
    each!(|simd: S, isa| {
        for significand in [0.71, 1.0, 1.234_567_9, 1.999_999_9] {
            for n in -252..=254 {
                let exact = (f64::from(significand) * 2f64.powi(n)) as f32;
                let (x, power) = (simd.splat(significand), simd.splat(n as f32));
                let found = lanes(simd, simd.scale_pow2(x, power))[0];
                assert!(
                    same(found, exact),
                    "{significand}·2^{n} on {isa}: {found:e}"
                );
                if (-180..=0).contains(&n) {
                    let found = lanes(simd, simd.scale_down(x, power))[0];
                    assert!(
                        same(found, exact),
                        "{significand}·2^{n} on {isa}: {found:e}"
                    );
                    let raised = simd.splat(significand * 2f32.powi(59));
                    let exact = (f64::from(significand) * 2f64.powi(n + 59)) as f32;
                    let found = lanes(simd, simd.scale_down(raised, power))[0];
                    assert!(
                        same(found, exact),
                        "{significand}·2^{n}+59 on {isa}: {found:e}"
                    );
                }
            }
        }
        let nan = simd.splat(f32::NAN);
        assert!(
            lanes(simd, simd.scale_pow2(nan, nan))
                .iter()
                .all(|x| x.is_nan()),
            "{isa}"
        );
        assert!(
            lanes(simd, simd.scale_down(nan, nan))
                .iter()
                .all(|x| x.is_nan()),
            "{isa}"
        );
    });
}

#[test]
fn sums_and_largest_take_every_lane() {
    each!(|simd: S, isa| {
        let values: Vec<f32> = (0..S::LANES).map(|i| (1u32 << i) as f32).collect();
        let all = ((1u32 << S::LANES) - 1) as f32;
        assert_eq!(simd.sum(simd.load(&values)), all, "{isa}");
        for i in 0..S::LANES {
            let mut values = vec![-3.0; S::LANES];
            values[i] = -2.0;
            assert_eq!(simd.largest(simd.load(&values)), -2.0, "lane {i} on {isa}");
        }
        let least = simd.splat(f32::NEG_INFINITY);
        assert_eq!(simd.largest(least), f32::NEG_INFINITY, "{isa}");
        assert_eq!(simd.sum(simd.splat(f32::INFINITY)), f32::INFINITY, "{isa}");
    });
}

#[test]
fn partial_vectors_leave_the_rest_alone() {
    each!(|simd: S, isa| {
        let values = numbers(2, 1);
        for len in 0..S::LANES {
            let loaded = lanes(simd, simd.load_partial(&values[..len]));
            let filled = simd.load_partial_or(&values[..len], simd.splat(7.0));
            let filled = lanes(simd, filled);
            let mut stored = [9.0; MOST_LANES];
            simd.store_partial(&mut stored[..len], simd.load(&values));
            for i in 0..S::LANES {
                let of = |rest| if i < len { values[i] } else { rest };
                assert!(same(loaded[i], of(0.0)), "{len} of lane {i} on {isa}");
                assert!(same(filled[i], of(7.0)), "{len} of lane {i} on {isa}");
                assert!(same(stored[i], of(9.0)), "{len} of lane {i} on {isa}");
            }
        }
    });
}

#[test]
#[should_panic(expected = "from.len() >= Self::LANES")]
fn loading_beyond_a_slice_is_refused() {
    struct Short;
    impl Kernel for Short {
        type Output = ();
        #[inline(always)]
        fn run<S: Simd>(self, simd: S) {
            simd.load(&vec![0.0; S::LANES - 1]);
        }
    }
    Isa::best().run(Short);
}

/// Partial loads and stores right before memory that may not be touched: a fault would end the process.
#[cfg(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
#[test]
fn partial_vectors_touch_nothing_beyond_the_slice() {
    use std::ffi::{c_int, c_void};

    unsafe extern "C" {
        fn mmap(
            at: *mut c_void,
            len: usize,
            prot: c_int,
            flags: c_int,
            fd: c_int,
            from: i64,
        ) -> *mut c_void;
        fn munmap(at: *mut c_void, len: usize) -> c_int;
        fn mprotect(at: *mut c_void, len: usize, prot: c_int) -> c_int;
    }
    const READ_WRITE: c_int = 3;
    const PRIVATE_ANONYMOUS: c_int = 0x22;
    // As large as pages are anywhere.
    const PAGE: usize = 1 << 16;

    /// A page that can be used between two that cannot.
    struct Guarded(*mut u8);
    impl Guarded {
        fn new() -> Self {
            // SAFETY: new anonymous memory, then rights taken from its first and last third.
            unsafe {
                let at = mmap(
                    std::ptr::null_mut(),
                    3 * PAGE,
                    READ_WRITE,
                    PRIVATE_ANONYMOUS,
                    -1,
                    0,
                );
                assert!(at as isize != -1, "three pages");
                let at = at.cast::<u8>();
                assert_eq!(mprotect(at.cast(), PAGE, 0), 0);
                assert_eq!(mprotect(at.add(2 * PAGE).cast(), PAGE, 0), 0);
                Self(at)
            }
        }

        fn values(&mut self) -> &mut [f32] {
            // SAFETY: the middle page, readable and writable, zero at first, aligned as pages are.
            unsafe { std::slice::from_raw_parts_mut(self.0.add(PAGE).cast(), PAGE / 4) }
        }
    }
    impl Drop for Guarded {
        fn drop(&mut self) {
            // SAFETY: mapped by `new`.
            unsafe { munmap(self.0.cast(), 3 * PAGE) };
        }
    }

    each!(|simd: S, isa| {
        let mut guarded = Guarded::new();
        let values = guarded.values();
        let len = values.len();
        for n in 0..S::LANES {
            for range in [0..n, len - n..len] {
                let part = &mut values[range];
                simd.store_partial(part, simd.splat(n as f32));
                assert!(part.iter().all(|&x| x == n as f32), "{isa}");
                let loaded = simd.sum(simd.load_partial(part));
                assert_eq!(loaded, (n * n) as f32, "{isa}");
                let filled = simd.sum(simd.load_partial_or(part, simd.splat(1.0)));
                assert_eq!(filled, (n * n + S::LANES - n) as f32, "{isa}");
            }
        }
    });
}

/// Words of narrow numbers by the tier's instructions and one by one: bytes, signs, pairs made, single bf16, pairs multiplied.
struct NarrowWords {
    a: [f32; 16],
    b: [f32; 16],
    sums: [f32; 16],
}

impl Kernel for NarrowWords {
    type Output = [[Vec<f32>; 2]; 5];

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Self::Output {
        let lanes = |v: S::F32| {
            let mut lanes = [0.0; 16];
            simd.store(&mut lanes, v);
            lanes[..S::LANES].to_vec()
        };
        let (a, b, sums) = (
            simd.load(&self.a),
            simd.load(&self.b),
            simd.load(&self.sums),
        );
        let (left, right) = (simd.pair_bf16(a, b), simd.pair_bf16(b, sums));
        [
            [simd.dot_int8(a, b, sums), words::dot_int8(simd, a, b, sums)].map(lanes),
            [
                simd.count_differing(a, b, sums),
                words::count_differing(simd, a, b, sums),
            ]
            .map(lanes),
            [left, words::pair_bf16(simd, a, b)].map(lanes),
            [simd.round_bf16(a), words::round_bf16(simd, a)].map(lanes),
            [
                simd.dot_bf16(left, right, sums),
                words::dot_bf16(simd, left, right, sums),
            ]
            .map(lanes),
        ]
    }
}

#[test]
fn instructions_for_words_give_what_single_numbers_give() {
    let mut state = 7u32;
    let mut value = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        // Of any sign, from 2⁻³ to 2⁴, the lower bits at random.
        f32::from_bits(state & 0x80FF_FFFF | (124 + (state >> 20) % 8) << 23)
    };
    for _ in 0..200 {
        let mut words = || NarrowWords {
            a: std::array::from_fn(|_| value()),
            b: std::array::from_fn(|_| value()),
            sums: std::array::from_fn(|_| value()),
        };
        for isa in Isa::available() {
            let mut found = vec![isa.run(words())];
            if isa != Isa::portable() {
                found.extend([isa.run_int8(words()), isa.run_bits(words())]);
            }
            if isa.multiplies_bf16() {
                found.push(isa.run_bf16(words()));
            }
            for [int8, signs, pairs, single, bf16] in found {
                for [one, other] in [int8, signs, pairs, single] {
                    let bits =
                        |lanes: &[f32]| lanes.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
                    assert_eq!(bits(&one), bits(&other), "{isa}");
                }
                let [one, other] = bf16;
                for (one, other) in one.iter().zip(&other) {
                    assert!((one - other).abs() <= 1e-4, "{isa}: {one} {other}");
                }
            }
        }
    }
}

/// Turns a block and copies it back by hand.
struct Turned;

impl Kernel for Turned {
    type Output = bool;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> bool {
        let (stride, width) = (11, 9);
        let from: Vec<f32> = (0..8 * stride).map(|i| i as f32 + 1.0).collect();
        let mut to = vec![-1.0; 8 * width];
        // SAFETY: 8 rows of 11 values, and 8 of 9.
        unsafe { simd.turn_8x8(from.as_ptr(), stride, to.as_mut_ptr(), width) };
        (0..8).all(|i| {
            let row = &to[i * width..][..width];
            (0..8).all(|r| row[r] == from[r * stride + i]) && row[8] == -1.0
        })
    }
}

#[test]
fn blocks_of_eight_by_eight_are_turned() {
    for isa in Isa::available() {
        assert!(isa.run(Turned), "{isa}");
    }
}
