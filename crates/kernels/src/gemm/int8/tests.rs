use super::*;
use crate::testing::values;
use crate::{Activation, reference};

fn quantized(w: &[f32], n: usize, k: usize) -> (Vec<i8>, Vec<f32>) {
    let mut q = vec![0; n * k];
    let scales = (0..n)
        .map(|r| quantize_row_int8(&w[r * k..][..k], &mut q[r * k..][..k]))
        .collect();
    (q, scales)
}

const SHAPES: [(usize, usize, usize); 8] = [
    (1, 1, 1),
    (1, 16, 8),
    (3, 17, 33),
    (5, 15, 2),
    (4, 48, 64),
    (66, 31, 129),
    (2, 100, 7),
    (130, 33, 5),
];

#[test]
fn every_tier_gives_the_reference() {
    for (rows, n, k) in SHAPES {
        let (x, w) = (values(rows * k, 1), values(n * k, 2));
        let (bias, residual) = (values(n, 3), values(rows * n, 4));
        let (q, scales) = quantized(&w, n, k);
        let mut expected = vec![0.0; rows * n];
        reference::gemm_int8(rows, &x, (&q, &scales), k, &mut expected);
        for isa in Isa::available() {
            let run = |threads, epilogue| {
                let exec = Exec::with_isa(isa, threads);
                let weights = Int8Weights::pack_stacked(&exec, &[(&q, &scales)], k);
                let mut y = vec![f32::NAN; rows * n];
                gemm_int8(&exec, rows, &x, &weights, epilogue, &mut y);
                y
            };
            // Sums are exact and scaled the same way: not a bit differs.
            assert_eq!(
                run(1, Epilogue::default()),
                expected,
                "{isa} {rows} {n} {k}"
            );
            let epilogue = Epilogue {
                bias: Some(&bias),
                activation: Activation::GeluErf,
                residual: Some(&residual),
            };
            let one = run(1, epilogue);
            assert_eq!(one, run(3, epilogue), "{isa}: threads change nothing");
            for (i, found) in one.iter().enumerate() {
                let mut value = [f64::from(expected[i] + bias[i % n])];
                reference::activate(Activation::GeluErf, &mut value);
                let wanted = value[0] + f64::from(residual[i]);
                // GELU after products of bytes is coarse in the matrix unit.
                assert!(
                    (f64::from(*found) - wanted).abs() < 1e-4 * value[0].abs().max(1.0),
                    "{found} {wanted}"
                );
            }
        }
    }
}

#[test]
fn the_largest_values_do_not_overflow_and_rows_do_not_depend_on_each_other() {
    let (n, k) = (16, 3072);
    let q: Vec<i8> = (0..n * k)
        .map(|i| if i / k % 2 == 0 { 127 } else { -127 })
        .collect();
    let x = vec![127.0; 5 * k];
    for isa in Isa::available() {
        let exec = Exec::with_isa(isa, 1);
        let weights = Int8Weights::pack_stacked(&exec, &[(&q, &vec![1.0; n])], k);
        let mut y = vec![0.0; 5 * n];
        gemm_int8(&exec, 5, &x, &weights, Epilogue::default(), &mut y);
        for (i, &y) in y.iter().enumerate() {
            let sign = if i % n % 2 == 0 { 1.0 } else { -1.0 };
            assert_eq!(y, sign * (127 * 127 * k) as f32, "{isa}");
        }
        let mut alone = vec![0.0; n];
        gemm_int8(&exec, 1, &x[..k], &weights, Epilogue::default(), &mut alone);
        assert_eq!(alone, y[4 * n..]);
    }
}

#[test]
fn rows_of_zeros_and_of_what_is_no_number() {
    let mut q = [1i8; 3];
    assert_eq!(quantize_row_int8(&[0.0, -0.0, 0.0], &mut q), 0.0);
    assert_eq!(q, [0; 3]);
    assert!(quantize_row_int8(&[1.0, f32::NAN, 0.0], &mut q).is_nan());
    assert!(quantize_row_int8(&[1.0, f32::INFINITY, 0.0], &mut q).is_nan());
    assert_eq!(quantize_row_int8(&[-127.0, 0.5, 1.5], &mut q), 1.0);
    assert_eq!(q, [-127, 0, 2]);
}

/// One column of inputs is 60 times as large: as bytes the others are left a few levels each.
#[test]
fn outliers_are_not_rounded() {
    let (rows, n, k) = (9, 37, 70);
    let (mut x, w) = (values(rows * k, 1), values(n * k, 2));
    let (bias, residual) = (values(n, 3), values(rows * n, 4));
    x.iter_mut().skip(11).step_by(k).for_each(|x| *x *= 60.0);
    // A row without any, and one with several.
    x[3 * k + 11] = 0.5;
    (x[5 * k], x[5 * k + k - 1]) = (7.0, -6.0);
    let (q, scales) = quantized(&w, n, k);
    let large = |x: f32| if x.abs() >= 6.0 { x } else { 0.0 };
    let small: Vec<f32> = x.iter().map(|&x| x - large(x)).collect();
    let mut expected = vec![0.0; rows * n];
    reference::gemm_int8(rows, &small, (&q, &scales), k, &mut expected);
    let mut exact = vec![0.0f64; rows * n];
    for row in 0..rows {
        for column in 0..n {
            let at = row * n + column;
            for i in 0..k {
                let weight = f32::from(q[column * k + i]) * scales[column];
                if large(x[row * k + i]) != 0.0 {
                    expected[at] += x[row * k + i] * weight;
                }
                exact[at] += f64::from(x[row * k + i]) * f64::from(weight);
            }
        }
    }
    for isa in Isa::available() {
        let run = |x: &[f32], threshold: Option<f32>, epilogue, threads| {
            let exec = Exec::with_isa(isa, threads);
            let weights = Int8Weights::pack_stacked(&exec, &[(&q, &scales)], k);
            let weights = match threshold {
                Some(threshold) => weights.with_outliers(threshold),
                None => weights,
            };
            let mut y = vec![f32::NAN; rows * n];
            gemm_int8(&exec, rows, x, &weights, epilogue, &mut y);
            y
        };
        let plain = Epilogue::default();
        let found = run(&x, Some(6.0), plain, 1);
        assert_eq!(found, expected, "{isa}");
        let error = |y: &[f32]| -> f64 {
            let pairs = y.iter().zip(&exact);
            pairs
                .map(|(y, exact)| (f64::from(*y) - exact).powi(2))
                .sum()
        };
        let rounded = run(&x, None, plain, 1);
        assert!(error(&rounded) > 100.0 * error(&found), "{isa}");
        // Where no value is large, not a bit differs.
        assert_eq!(
            run(&small, Some(6.0), plain, 1),
            run(&small, None, plain, 1)
        );
        let whole = Epilogue {
            bias: Some(&bias),
            activation: Activation::Relu,
            residual: Some(&residual),
        };
        let found = run(&x, Some(6.0), whole, 1);
        assert_eq!(found, run(&x, Some(6.0), whole, 3), "{isa}: threads");
        for (i, found) in found.iter().enumerate() {
            let wanted = (expected[i] + bias[i % n]).max(0.0) + residual[i];
            assert!(
                (found - wanted).abs() < 1e-4 * wanted.abs().max(1.0),
                "{isa}"
            );
        }
        // A row is what it is alone.
        let exec = Exec::with_isa(isa, 1);
        let weights = Int8Weights::pack_stacked(&exec, &[(&q, &scales)], k).with_outliers(6.0);
        let mut alone = vec![f32::NAN; n];
        gemm_int8(&exec, 1, &x[3 * k..4 * k], &weights, plain, &mut alone);
        assert_eq!(alone, expected[3 * n..4 * n], "{isa}");
    }
}
