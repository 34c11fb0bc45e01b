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
