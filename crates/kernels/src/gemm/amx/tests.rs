//! What products in tiles promise beyond those of other instruction sets: the contract of f32 where values are far apart.

use crate::gemm::{reference, *};
use crate::testing::values;
use crate::{Exec, Isa};

const N: usize = 70;
const K: usize = 200;

/// The product, and the error of its Frobenius norm.
fn product(isa: Isa, x: &[f32], w: &[f32], format: PackedFormat) -> (Vec<f32>, f64) {
    let (rows, exec) = (x.len() / K, Exec::with_isa(isa, 2));
    let weights = PackedWeights::pack_stacked(&exec, &[(WeightSource::F32(w), N)], K, format);
    let mut y = vec![f32::NAN; rows * N];
    gemm(&exec, rows, x, &weights, Epilogue::default(), &mut y);
    let mut expected = vec![0.0; rows * N];
    reference::gemm(rows, x, w, (N, K), Epilogue::default(), &mut expected);
    let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|x| x * x).sum::<f64>().sqrt();
    let pairs = y.iter().zip(&expected);
    let error = norm(&mut pairs.map(|(a, b)| f64::from(*a) - f64::from(*b)));
    let scale = norm(&mut expected.iter().map(|&x| f64::from(x)));
    (y, error / scale)
}

/// On any machine: other tiers keep the contract too.
#[test]
fn f32_keeps_its_contract_over_wide_ranges() {
    let power = |i: usize, range: i32| 2f32.powi((i as i32 * 7919) % (2 * range + 1) - range);
    let x = values(45 * K, 1);
    let w = values(N * K, 2);
    let spread = |values: &[f32], range| -> Vec<f32> {
        let spread = values.iter().enumerate().map(|(i, v)| v * power(i, range));
        spread.collect()
    };
    let scaled = |values: &[f32], by: f32| values.iter().map(|v| v * by).collect::<Vec<_>>();
    let cases = [
        ("plain", x.clone(), w.clone()),
        ("values of 2^±20", spread(&x, 20), spread(&w, 15)),
        ("large", scaled(&x, 1e30), scaled(&w, 1e-9)),
        ("near the largest", scaled(&x, 3e38), scaled(&w, 1e-9)),
        ("small", scaled(&x, 1e-17), w.clone()),
        ("tiny inputs", scaled(&x, 1e-30), scaled(&w, 1e6)),
        ("subnormal inputs", scaled(&x, 1e-39), scaled(&w, 1e8)),
        ("tiny weights", scaled(&x, 1e9), scaled(&w, 1e-30)),
        ("subnormal weights", scaled(&x, 1e9), scaled(&w, 1e-39)),
        ("large weights", x.clone(), scaled(&w, 1e30)),
        ("zeros", x.clone(), spread(&scaled(&w, 0.0), 1)),
    ];
    for isa in Isa::available() {
        for (name, x, w) in &cases {
            let (y, error) = product(isa, x, w, PackedFormat::F32);
            match *name {
                "zeros" => assert!(y.iter().all(|&y| y == 0.0)),
                _ => assert!(error <= 1e-5, "{name} on {isa}: {error:e}"),
            }
            let (_, strict) = product(isa, x, w, PackedFormat::F32Strict);
            assert!(*name == "zeros" || strict <= 1e-6, "{name}: {strict:e}");
        }
    }
}

#[test]
fn what_is_not_finite_stays_in_its_row_or_column() {
    for isa in Isa::available() {
        let (mut x, w) = (values(40 * K, 1), values(N * K, 2));
        x[3 * K + 5] = f32::INFINITY;
        x[20 * K] = f32::NEG_INFINITY;
        x[39 * K + K - 1] = f32::NAN;
        for format in [
            PackedFormat::F32,
            PackedFormat::F32Strict,
            PackedFormat::Bf16,
        ] {
            let (y, _) = product(isa, &x, &w, format);
            for (row, y) in y.chunks(N).enumerate() {
                for (column, &y) in y.iter().enumerate() {
                    let place = format!("{row}, {column} of {format:?} on {isa}");
                    match row {
                        3 => assert_eq!(y, f32::INFINITY * w[column * K + 5], "{place}"),
                        20 => assert_eq!(y, f32::NEG_INFINITY * w[column * K], "{place}"),
                        39 => assert!(y.is_nan(), "{place}"),
                        _ => assert!(y.is_finite(), "{place}"),
                    }
                }
            }
        }
        let (x, mut w) = (values(40 * K, 1), w);
        w[33 * K + 7] = f32::INFINITY;
        w[50 * K] = f32::NAN;
        let (y, _) = product(isa, &x, &w, PackedFormat::F32);
        for y in y.chunks(N) {
            for (column, &y) in y.iter().enumerate() {
                let finite = column != 33 && column != 50;
                assert_eq!(y.is_finite(), finite, "column {column} on {isa}");
            }
        }
    }
}

/// What halves cannot hold goes to f32, and comes back.
#[test]
fn packing_again_finds_its_form() {
    let (x, w) = (values(33 * K, 1), values(N * K, 2));
    let large: Vec<f32> = w.iter().map(|w| w * 1e30).collect();
    for isa in Isa::available() {
        let exec = Exec::with_isa(isa, 2);
        let run = |weights: &PackedWeights| {
            let mut y = vec![0.0; 33 * N];
            gemm(&exec, 33, &x, weights, Epilogue::default(), &mut y);
            y
        };
        let fresh = |w| PackedWeights::pack(&exec, WeightSource::F32(w), N, K);
        let mut weights = fresh(&w);
        for values in [&large, &w] {
            weights.repack(&exec, &[(WeightSource::F32(values), N)]);
            assert!(run(&weights) == run(&fresh(values)), "{isa}");
        }
    }
}

/// Rows by twos of tiles, by one, and with rows and columns left over, give the same as the instruction set below.
#[test]
fn bytes_are_exact_at_every_edge() {
    let all = Isa::available();
    let (k, most) = (3072, 97);
    let q: Vec<i8> = values(most * k, 3)
        .iter()
        .map(|v| (v * 127.0) as i8)
        .collect();
    let x = values(most * k, 4);
    for rows in [1, 15, 16, 17, 31, 32, 33, 47, 49, 97] {
        for n in [1, 16, 17, 33, 97] {
            let scales = vec![0.5; n];
            let run = |isa, threads| {
                let exec = Exec::with_isa(isa, threads);
                let weights = Int8Weights::pack_stacked(&exec, &[(&q[..n * k], &scales)], k);
                let mut y = vec![f32::NAN; rows * n];
                let epilogue = Epilogue::default();
                gemm_int8(&exec, rows, &x[..rows * k], &weights, epilogue, &mut y);
                y
            };
            // The portable tier takes its time for what all others do alike.
            let expected = run(all[all.len().min(2) - 1], 2);
            for &isa in all.iter().skip(1) {
                assert!(
                    run(isa, 1) == expected && run(isa, 2) == expected,
                    "{isa}: {rows}, {n}"
                );
            }
        }
    }
}

#[test]
fn a_chain_is_two_products() {
    for (rows, k, inner, n) in [
        (1, 40, 70, 33),
        (17, 64, 96, 50),
        (70, 200, 257, 96),
        (1050, 32, 48, 16),
    ] {
        let mut x = values(rows * k, 1);
        let (u, d) = (values(inner * k, 2), values(n * inner, 3));
        let (b, c, residual) = (values(inner, 4), values(n, 5), values(rows * n, 6));
        // A row beyond what halves hold, of inputs and of what lies between.
        x[(rows - 1) * k] = 1e30;
        let between = Epilogue {
            bias: Some(&b),
            activation: crate::Activation::GeluErf,
            residual: None,
        };
        let epilogue = Epilogue {
            bias: Some(&c),
            activation: crate::Activation::Relu,
            residual: Some(&residual),
        };
        for isa in Isa::available() {
            for format in [PackedFormat::F32, PackedFormat::Bf16] {
                let run = |threads| {
                    let exec = Exec::with_isa(isa, threads);
                    let pack = |w, n, k| {
                        let sources = [(WeightSource::F32(w), n)];
                        PackedWeights::pack_stacked(&exec, &sources, k, format)
                    };
                    let (up, down) = (pack(&u, inner, k), pack(&d, n, inner));
                    let mut y = vec![f32::NAN; rows * n];
                    let (first, second) = ((&up, between), (&down, epilogue));
                    let chained = gemm_chain(&exec, rows, &x, first, second, &mut y);
                    // Words of two cannot end with half of one.
                    let pairs = format == PackedFormat::Bf16 && isa.multiplies_bf16();
                    let chains = isa.multiplies_halves() || (pairs && inner.is_multiple_of(2));
                    assert_eq!(chained, chains, "{isa}");
                    let mut middle = vec![f32::NAN; rows * inner];
                    let mut expected = vec![f32::NAN; rows * n];
                    gemm(&exec, rows, &x, &up, between, &mut middle);
                    gemm(&exec, rows, &middle, &down, epilogue, &mut expected);
                    (chained.then_some(y), expected)
                };
                let (found, expected) = run(1);
                if let Some(found) = &found {
                    assert!(*found == expected, "{rows} {k} {inner} {n} {format:?}");
                    assert!(run(3).0.as_ref() == Some(found), "threads change nothing");
                }
            }
        }
    }
}
