use super::*;
use crate::quant::pack_codes;
use crate::testing::values;
use crate::{Activation, Epilogue, Exec, Isa, reference};

fn bits(w: &[f32], k: usize) -> Vec<u8> {
    let rows = w.chunks_exact(k).map(|row| {
        let codes: Vec<u8> = row.iter().map(|&w| u8::from(w >= 0.0)).collect();
        let mut bytes = vec![0; k.div_ceil(8)];
        pack_codes(1, &codes, &mut bytes);
        bytes
    });
    rows.flatten().collect()
}

#[test]
fn every_tier_gives_the_reference_to_the_bit() {
    for (rows, n, k) in [
        (1, 1, 1),
        (1, 9, 63),
        (2, 8, 64),
        (3, 17, 65),
        (5, 24, 192),
        (66, 13, 768),
        (7, 11, 3072),
        (4, 3, 2000),
    ] {
        let (x, w) = (values(rows * k, 1), values(n * k, 2));
        let (scales, bias) = (values(n, 3), values(n, 4));
        let residual = values(rows * n, 5);
        let mut expected = vec![0.0; rows * n];
        reference::gemm_binary(rows, &x, (&w, &scales), k, &mut expected);
        let half = n / 2;
        let (first, second) = (bits(&w[..half * k], k), bits(&w[half * k..], k));
        let parts: [(&[u8], &[f32]); 2] = [(&first, &scales[..half]), (&second, &scales[half..])];
        for isa in Isa::available() {
            let run = |threads, epilogue| {
                let exec = Exec::with_isa(isa, threads);
                let weights = BinaryWeights::pack_stacked(&exec, &parts, k);
                let mut y = vec![f32::NAN; rows * n];
                gemm_binary(&exec, rows, &x, &weights, epilogue, &mut y);
                y
            };
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
                assert!((f64::from(*found) - wanted).abs() < 1e-3 * (1.0 + wanted.abs()));
            }
        }
    }
}

#[test]
fn attention_of_bits_is_that_of_signs() {
    for (heads, head_dim) in [(1, 1), (3, 32), (2, 64), (2, 20), (1, 130)] {
        let cu_seqlens = [0, 1, 6, 6 + 70, 6 + 70 + 129];
        let tokens = 205;
        let mut qkv = values(tokens * 3 * heads * head_dim, 7);
        (qkv[0], qkv[1]) = (-0.0, 0.0);
        let softmax = |scale, threshold| Attends::Softmax { scale, threshold };
        for attends in [
            Attends::Positive,
            Attends::NotNegative,
            Attends::All,
            softmax(0.0, 0.02),
            softmax(0.3, 0.01),
            softmax(20.0, 0.5),
        ] {
            let shape = BinaryAttentionShape {
                heads,
                head_dim,
                attends,
            };
            let mut expected = vec![f32::NAN; tokens * heads * head_dim];
            reference::binary_attention(&qkv, &cu_seqlens, shape, &mut expected);
            for isa in Isa::available() {
                for threads in [1, 3] {
                    let mut out = vec![f32::NAN; expected.len()];
                    let exec = Exec::with_isa(isa, threads);
                    binary_attention(&exec, &qkv, &cu_seqlens, shape, &mut out);
                    assert_eq!(out, expected, "{isa} {heads} {head_dim}");
                }
            }
        }
    }
}

/// A column's threshold is as good as taken from its values: their difference is never rounded to the other side of 0.
#[test]
fn thresholds_are_signs_of_differences() {
    for (rows, n, k) in [(1, 9, 63), (5, 24, 192), (3, 17, 200)] {
        let (mut x, w, scales) = (values(rows * k, 1), values(n * k, 2), values(n, 3));
        let mut thresholds = values(k, 6);
        (x[0], thresholds[0], x[k - 1], thresholds[k - 1]) = (0.25, 0.25, -1e-40, 0.0);
        let columns = thresholds.iter().cycle();
        let moved: Vec<f32> = x.iter().zip(columns).map(|(x, least)| x - least).collect();
        let mut expected = vec![0.0; rows * n];
        reference::gemm_binary(rows, &moved, (&w, &scales), k, &mut expected);
        let codes = bits(&w, k);
        for isa in Isa::available() {
            let exec = Exec::with_isa(isa, 2);
            let weights = BinaryWeights::pack_stacked(&exec, &[(&codes, &scales)], k);
            let weights = weights.with_thresholds(thresholds.clone());
            let mut y = vec![f32::NAN; rows * n];
            gemm_binary(&exec, rows, &x, &weights, Epilogue::default(), &mut y);
            assert_eq!(y, expected, "{isa} {rows} {n} {k}");
        }
    }
}

/// Equal scores of 4 keys weigh a quarter each.
#[test]
fn a_softmax_is_compared_with_its_threshold() {
    let qkv = vec![1.0; 4 * 3 * 2];
    let seen = |threshold| {
        let attends = Attends::Softmax {
            scale: 0.7,
            threshold,
        };
        let shape = BinaryAttentionShape {
            heads: 1,
            head_dim: 2,
            attends,
        };
        let mut out = vec![f32::NAN; 4 * 2];
        let exec = Exec::new(Some(1)).unwrap();
        binary_attention(&exec, &qkv, &[0, 4], shape, &mut out);
        out[0]
    };
    assert_eq!((seen(0.25), seen(0.26)), (4.0, 0.0));
}

/// A weight of 1, 0, 1, 1 over values +, −, −, + sums to 1: both ways to count agree.
#[test]
fn counting_bits_is_adding_signs() {
    let (a, v) = (0b1101u64, 0b1001u64);
    assert_eq!(2 * (a & v).count_ones() as i32 - a.count_ones() as i32, 1);
}

#[test]
fn binarized_rows_and_their_gradients() {
    let (n, k) = (5, 37);
    let mut w = values(n * k, 11);
    w.iter_mut().for_each(|w| *w *= 1.6);
    let dy = values(n * k, 12);
    for isa in Isa::available() {
        let run = |threads| {
            let exec = Exec::with_isa(isa, threads);
            let (mut out, mut means) = (vec![0.0; n * k], vec![0.0; n]);
            binarize_rows(&exec, &w, k, &mut out, &mut means);
            let mut dw = vec![f32::NAN; n * k];
            binarize_rows_backward(&exec, &w, &means, k, &dy, &mut dw);
            (out, dw)
        };
        let (out, dw) = run(1);
        assert_eq!((out.clone(), dw.clone()), run(3), "{isa}");
        for row in 0..n {
            let of = |values: &[f32]| -> Vec<f64> {
                values[row * k..][..k]
                    .iter()
                    .map(|&x| f64::from(x))
                    .collect()
            };
            let (w, dy, out, dw) = (of(&w), of(&dy), of(&out), of(&dw));
            let mean = |x: &[f64]| x.iter().sum::<f64>() / k as f64;
            let centre = mean(&w);
            let scale = mean(&w.iter().map(|w| w.abs()).collect::<Vec<_>>());
            let pass = |i: usize| {
                if (w[i] - centre).abs() <= 1.0 {
                    dy[i]
                } else {
                    0.0
                }
            };
            let passed: Vec<f64> = (0..k).map(pass).collect();
            for i in 0..k {
                let sign = if w[i] - centre >= 0.0 { 1.0 } else { -1.0 };
                assert!((out[i] - sign * scale).abs() < 1e-6, "{isa}");
                assert!((dw[i] - (passed[i] - mean(&passed))).abs() < 1e-5, "{isa}");
            }
        }
    }
}
