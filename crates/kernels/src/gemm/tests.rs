//! The product on every instruction set against the three loops.

use super::*;
use crate::testing::values;
use crate::{Activation, Isa};

struct Case {
    rows: usize,
    n: usize,
    k: usize,
    x: Vec<f32>,
    w: Vec<f32>,
    bias: Vec<f32>,
    residual: Vec<f32>,
}

impl Case {
    fn new(rows: usize, n: usize, k: usize) -> Self {
        Self {
            rows,
            n,
            k,
            x: values(rows * k, 1),
            w: values(n * k, 2),
            bias: values(n, 3),
            residual: values(rows * n, 4),
        }
    }

    fn epilogue(&self, activation: Activation) -> Epilogue<'_> {
        Epilogue {
            bias: Some(&self.bias),
            activation,
            residual: Some(&self.residual),
        }
    }

    fn run(&self, isa: Isa, threads: usize, epilogue: Epilogue<'_>) -> Vec<f32> {
        let exec = Exec::with_isa(isa, threads);
        let weights = PackedWeights::pack(&exec, WeightSource::F32(&self.w), self.n, self.k);
        let mut y = vec![f32::NAN; self.rows * self.n];
        gemm(&exec, self.rows, &self.x, &weights, epilogue, &mut y);
        y
    }

    fn check(&self, isa: Isa, epilogue: Epilogue<'_>) {
        let Self { rows, n, k, .. } = *self;
        let found = self.run(isa, 2, epilogue);
        let mut expected = vec![0.0; rows * n];
        reference::gemm(rows, &self.x, &self.w, (n, k), epilogue, &mut expected);
        // Frobenius norm of the error over that of the result: the contract of f32 is 1e-5, which products of halves come near;
        // plain f32 sums of this length stay well below 1e-6.
        let most = if isa.multiplies_halves() { 1e-5 } else { 1e-6 };
        let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|x| x * x).sum::<f64>().sqrt();
        let pairs = found.iter().zip(&expected);
        let error = norm(&mut pairs.map(|(a, b)| f64::from(*a) - f64::from(*b)));
        let scale = norm(&mut expected.iter().map(|&x| f64::from(x)));
        assert!(
            error <= most * scale.max(1e-30),
            "[{rows}, {n}, {k}] on {isa}: {error} of {scale}"
        );
    }
}

#[test]
fn odd_shapes_agree_with_the_reference() {
    let mut shapes = vec![(0, 3, 3), (3, 0, 3), (2, 3, 0)];
    for rows in [1, 2, 3, 5, 7, 8, 9, 13, 129] {
        for (n, k) in [
            (1, 1),
            (2, 17),
            (47, 5),
            (48, 64),
            (49, 31),
            (100, 12),
            (145, 513),
        ] {
            shapes.push((rows, n, k));
        }
    }
    shapes.push((260, 100, 1100));
    for (rows, n, k) in shapes {
        let case = Case::new(rows, n, k);
        for isa in Isa::available() {
            case.check(isa, Epilogue::default());
            case.check(isa, case.epilogue(Activation::None));
        }
    }
}

#[test]
fn every_epilogue_agrees_with_the_reference() {
    let case = Case::new(11, 57, 33);
    for isa in Isa::available() {
        for activation in Activation::ALL {
            let full = case.epilogue(activation);
            case.check(isa, full);
            case.check(isa, Epilogue { bias: None, ..full });
            case.check(
                isa,
                Epilogue {
                    residual: None,
                    ..full
                },
            );
        }
    }
}

#[test]
fn the_same_bits_for_any_threads_and_any_company() {
    for (rows, n, k) in [(131, 200, 700), (6, 1000, 300)] {
        let case = Case::new(rows, n, k);
        let epilogue = case.epilogue(Activation::GeluErf);
        for isa in Isa::available() {
            let expected = case.run(isa, 1, epilogue);
            for threads in [2, 3, 8] {
                assert!(
                    case.run(isa, threads, epilogue) == expected,
                    "{isa}, {threads} threads"
                );
            }
            let exec = Exec::with_isa(isa, 2);
            let weights = PackedWeights::pack(&exec, WeightSource::F32(&case.w), n, k);
            for part in [0..1, 2..rows, rows / 2..rows / 2 + 3] {
                let mut y = vec![0.0; part.len() * n];
                let x = &case.x[part.start * k..part.end * k];
                let residual = &case.residual[part.start * n..part.end * n];
                let epilogue = Epilogue {
                    residual: Some(residual),
                    ..epilogue
                };
                gemm(&exec, part.len(), x, &weights, epilogue, &mut y);
                assert!(
                    y == expected[part.start * n..part.end * n],
                    "{isa}, rows {part:?}"
                );
            }
        }
    }
}

#[test]
fn stacked_and_half_precision_weights_are_those_of_one_f32_matrix() {
    let case = Case::new(5, 70, 29);
    let k = case.k;
    let bf16: Vec<_> = case.w.iter().map(|&w| half::bf16::from_f32(w)).collect();
    let f16: Vec<_> = case.w.iter().map(|&w| half::f16::from_f32(w)).collect();
    let mut rounded = case.w[..20 * k].to_vec();
    rounded.extend(bf16[20 * k..51 * k].iter().map(|w| w.to_f32()));
    rounded.extend(f16[51 * k..].iter().map(|w| w.to_f32()));
    for isa in Isa::available() {
        let exec = Exec::with_isa(isa, 3);
        let sources = [
            (WeightSource::F32(&case.w[..20 * k]), 20),
            (WeightSource::Bf16(&bf16[20 * k..51 * k]), 31),
            (WeightSource::F16(&f16[51 * k..]), 19),
        ];
        let stacked = PackedWeights::pack_stacked(&exec, &sources, k, PackedFormat::F32);
        let whole = PackedWeights::pack(&exec, WeightSource::F32(&rounded), case.n, k);
        assert_eq!((stacked.n(), stacked.k()), (70, 29));
        assert!(stacked.bytes() >= 70 * 29 * 4);
        let product = |weights| {
            let mut y = vec![0.0; case.rows * case.n];
            gemm(
                &exec,
                case.rows,
                &case.x,
                weights,
                Epilogue::default(),
                &mut y,
            );
            y
        };
        assert!(product(&stacked) == product(&whole), "{isa}");
    }
}

#[test]
fn infinities_and_nan_stay_where_they_belong() {
    let mut case = Case::new(3, 50, 40);
    case.x[40] = f32::NAN;
    case.x[2 * 40] = f32::INFINITY;
    for isa in Isa::available() {
        let y = case.run(isa, 2, Epilogue::default());
        assert!(y[..50].iter().all(|y| y.is_finite()), "{isa}");
        assert!(y[50..100].iter().all(|y| y.is_nan()), "{isa}");
        assert!(y[100..].iter().all(|y| y.is_infinite()), "{isa}");
    }
}
