//! The products of training against the three loops.

use super::*;
use crate::Isa;

fn values(len: usize, seed: usize) -> Vec<f32> {
    let noise = |i: usize| ((i * 7 + seed * 13) as f32 * 12.9898).sin() * 43_758.547;
    (0..len).map(|i| 2.0 * noise(i).fract() - 0.3).collect()
}

fn assert_close(found: &[f32], expected: &[f32], isa: Isa, what: &str) {
    // The contract of f32, which products of halves come near.
    let most = if isa.multiplies_halves() { 1e-5 } else { 1e-6 };
    let squares = |v: &mut dyn Iterator<Item = f64>| v.map(|x| x * x).sum::<f64>().sqrt();
    let pairs = found.iter().zip(expected);
    let error = squares(&mut pairs.map(|(a, b)| f64::from(*a) - f64::from(*b)));
    let scale = squares(&mut expected.iter().map(|&x| f64::from(x)));
    assert!(
        error <= most * scale.max(1e-30),
        "{what} on {isa}: {error:e} of {scale:e}"
    );
}

#[test]
fn a_transposed_weight_gives_the_gradient_of_the_input() {
    for (t, n, k) in [
        (1, 1, 1),
        (5, 70, 29),
        (13, 49, 100),
        (40, 520, 48),
        (3, 7, 0),
    ] {
        let (dy, w) = (values(t * n, 1), values(n * k, 2));
        let mut expected = vec![0.0; t * k];
        reference::matmul((t, k, n), (&dy, (n, 1)), (&w, (k, 1)), false, &mut expected);
        for isa in Isa::available() {
            let exec = Exec::with_isa(isa, 2);
            // In two parts, as the projections of an attention are.
            let part = n / 3;
            let (upper, lower) = w.split_at(part * k);
            let sources = [
                (WeightSource::F32(upper), part),
                (WeightSource::F32(lower), n - part),
            ];
            let weights = PackedWeights::pack_transposed(&exec, &sources, k, PackedFormat::F32);
            assert_eq!((weights.n(), weights.k()), (k, n));
            let mut dx = vec![f32::NAN; t * k];
            gemm(&exec, t, &dy, &weights, Epilogue::default(), &mut dx);
            assert_close(&dx, &expected, isa, &format!("[{t}, {n}, {k}]"));
        }
    }
}

#[test]
fn repacking_is_packing_anew() {
    let (n, k) = (70, 29);
    let (old, new, x) = (values(n * k, 1), values(n * k, 2), values(5 * n.max(k), 3));
    for isa in Isa::available() {
        let exec = Exec::with_isa(isa, 2);
        let product = |weights: &PackedWeights| {
            let mut y = vec![0.0; 5 * weights.n()];
            gemm(
                &exec,
                5,
                &x[..5 * weights.k()],
                weights,
                Epilogue::default(),
                &mut y,
            );
            y
        };
        let mut weights = PackedWeights::pack(&exec, WeightSource::F32(&old), n, k);
        weights.repack(&exec, &[(WeightSource::F32(&new), n)]);
        let fresh = PackedWeights::pack(&exec, WeightSource::F32(&new), n, k);
        assert!(product(&weights) == product(&fresh), "{isa}");
        let source = |values| [(WeightSource::F32(values), n)];
        let mut weights =
            PackedWeights::pack_transposed(&exec, &source(&old), k, PackedFormat::F32);
        weights.repack_transposed(&exec, &source(&new));
        let fresh = PackedWeights::pack_transposed(&exec, &source(&new), k, PackedFormat::F32);
        assert!(product(&weights) == product(&fresh), "{isa}, transposed");
    }
}

#[test]
#[should_panic(expected = "as many rows")]
fn repacking_other_shapes_is_refused() {
    let exec = Exec::with_isa(Isa::best(), 1);
    let w = values(12, 1);
    let mut weights = PackedWeights::pack(&exec, WeightSource::F32(&w), 3, 4);
    weights.repack(&exec, &[(WeightSource::F32(&w[..8]), 2)]);
}

#[test]
fn gradients_of_weights_agree_and_accumulate() {
    for (t, n, k) in [
        (0, 3, 5),
        (1, 1, 1),
        (7, 6, 16),
        (130, 25, 49),
        (400, 193, 97),
        (801, 50, 130),
    ] {
        let (dy, x, old) = (values(t * n, 1), values(t * k, 2), values(n * k, 3));
        for isa in Isa::available() {
            for accumulate in [false, true] {
                let run = |threads| {
                    let mut dw = old.clone();
                    let exec = Exec::with_isa(isa, threads);
                    gemm_tn(&exec, (t, n, k), &dy, &x, accumulate, &mut dw);
                    dw
                };
                let found = run(1);
                let mut expected = old.clone();
                reference::matmul(
                    (n, k, t),
                    (&dy, (1, n)),
                    (&x, (k, 1)),
                    accumulate,
                    &mut expected,
                );
                let within_contract = |threads| {
                    let mut dw = old.clone();
                    let exec = Exec::with_isa(isa, threads);
                    let (a, b) = (Matrix::row_major(&dy, n), Matrix::row_major(&x, k));
                    let (shape, a) = ((n, k, t), a.transposed());
                    matmul_in(&exec, PackedFormat::F32, shape, a, b, accumulate, &mut dw);
                    dw
                };
                let near = within_contract(1);
                assert_close(&near, &expected, isa, &format!("[{t}, {n}, {k}], f32"));
                assert!(near == within_contract(3), "threads change nothing: {isa}");
                assert_close(&found, &expected, isa, &format!("[{t}, {n}, {k}]"));
                for threads in [2, 3, 8] {
                    assert!(
                        run(threads) == found,
                        "[{t}, {n}, {k}] on {isa}, {threads} threads"
                    );
                }
            }
        }
    }
}

#[test]
fn matrices_of_any_strides_multiply() {
    let (m, n, k) = (29, 53, 31);
    let data = values(20_000, 1);
    // Row-major, transposed, spread out, and a row that repeats.
    for a_strides in [(k, 1), (1, m), (2 * k, 2), (0, 1)] {
        for b_strides in [(n, 1), (1, k), (3 * n, 3), (0, 1)] {
            let view = |(row_stride, column_stride)| Matrix {
                data: &data,
                row_stride,
                column_stride,
            };
            let mut expected = vec![1.0; m * n];
            let shape = (m, n, k);
            reference::matmul(
                shape,
                (&data, a_strides),
                (&data, b_strides),
                true,
                &mut expected,
            );
            for isa in Isa::available() {
                let mut found = vec![1.0; m * n];
                let exec = Exec::with_isa(isa, 2);
                matmul(
                    &exec,
                    shape,
                    view(a_strides),
                    view(b_strides),
                    true,
                    &mut found,
                );
                assert_close(
                    &found,
                    &expected,
                    isa,
                    &format!("{a_strides:?}, {b_strides:?}"),
                );
            }
        }
    }
}

#[test]
fn batches_are_products_of_their_own() {
    let (m, n, k) = (9, 20, 11);
    let (a, b) = (values(4 * m * k, 1), values(2 * k * n, 2));
    // The second operand is shared by pairs of batches.
    let offsets: Vec<_> = (0..4).map(|i| (i * m * k, i / 2 * k * n)).collect();
    for isa in Isa::available() {
        let exec = Exec::with_isa(isa, 3);
        let mut found = vec![f32::NAN; 4 * m * n];
        let (left, right) = (Matrix::row_major(&a, k), Matrix::row_major(&b, n));
        batched_matmul(&exec, (m, n, k), left, right, &offsets, false, &mut found);
        for (&(i, j), found) in offsets.iter().zip(found.chunks_exact(m * n)) {
            let mut expected = vec![0.0; m * n];
            let (left, right) = (Matrix::row_major(&a[i..], k), Matrix::row_major(&b[j..], n));
            matmul(&exec, (m, n, k), left, right, false, &mut expected);
            assert!(found == expected, "{isa}");
        }
    }
}

#[test]
#[should_panic(expected = "a has")]
fn a_matrix_that_is_too_short_is_refused() {
    let (a, b) = (values(11, 1), values(12, 2));
    let exec = Exec::with_isa(Isa::best(), 1);
    let (a, b) = (Matrix::row_major(&a, 4), Matrix::row_major(&b, 3));
    matmul(&exec, (3, 3, 4), a, b, false, &mut [0.0; 9]);
}

#[test]
fn columns_are_summed_in_one_order() {
    for (t, n) in [
        (0, 5),
        (1, 1),
        (3, 7),
        (500, 63),
        (1000, 200),
        (300, 1100),
        (4, 0),
    ] {
        let (x, old) = (values(t * n, 1), values(n, 2));
        let mut expected = old.clone();
        reference::column_sums(&x, true, &mut expected);
        for isa in Isa::available() {
            let run = |threads| {
                let mut sums = old.clone();
                column_sums(&Exec::with_isa(isa, threads), &x, true, &mut sums);
                sums
            };
            let found = run(1);
            assert_close(&found, &expected, isa, &format!("[{t}, {n}]"));
            for threads in [2, 3, 8] {
                assert!(
                    run(threads) == found,
                    "[{t}, {n}] on {isa}, {threads} threads"
                );
            }
            let mut fresh = vec![f32::NAN; n];
            column_sums(&Exec::with_isa(isa, 2), &x, false, &mut fresh);
            let all = fresh.iter().zip(&old).map(|(sum, old)| sum + old);
            assert_close(&all.collect::<Vec<_>>(), &expected, isa, "from zero");
        }
    }
}

#[test]
fn what_is_activated_is_kept() {
    let (t, n, k) = (131, 57, 33);
    let (x, w, bias, residual) = (
        values(t * k, 1),
        values(n * k, 2),
        values(n, 3),
        values(t * n, 4),
    );
    for isa in Isa::available() {
        let exec = Exec::with_isa(isa, 2);
        let weights = PackedWeights::pack(&exec, WeightSource::F32(&w), n, k);
        let epilogue = Epilogue {
            bias: Some(&bias),
            activation: crate::Activation::GeluErf,
            residual: Some(&residual),
        };
        let (mut y, mut kept) = (vec![f32::NAN; t * n], vec![f32::NAN; t * n]);
        gemm_keeping(&exec, t, &x, &weights, epilogue, &mut kept, &mut y);
        let mut expected = vec![f32::NAN; t * n];
        gemm(&exec, t, &x, &weights, epilogue, &mut expected);
        assert!(y == expected, "{isa}");
        let plain = Epilogue {
            bias: Some(&bias),
            ..Epilogue::default()
        };
        gemm(&exec, t, &x, &weights, plain, &mut expected);
        assert!(kept == expected, "{isa}");
    }
}

/// The norm of the difference by that of what is expected.
fn distance(found: &[f32], expected: &[f32]) -> f64 {
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    let pairs = found.iter().zip(expected);
    let apart = norm(&mut pairs.map(|(f, e)| f64::from(*f) - f64::from(*e)));
    apart / norm(&mut expected.iter().map(|&e| f64::from(e)))
}

#[test]
fn a_product_of_bf16_is_that_of_rounded_operands() {
    let round = |values: &[f32]| -> Vec<f32> {
        let rounded = values.iter().map(|&v| half::bf16::from_f32(v).to_f32());
        rounded.collect()
    };
    for (t, n, k) in [(1, 1, 1), (5, 70, 29), (40, 520, 48), (130, 97, 1100)] {
        let (x, w) = (values(t * k, 1), values(n * k, 2));
        let (x_rounded, w_rounded) = (round(&x), round(&w));
        let part = n / 3 * k;
        let source = |w: &'static [f32]| {
            let (upper, lower) = w.split_at(part);
            [upper, lower].map(|w| (WeightSource::F32(w), w.len() / k))
        };
        let (w, w_rounded): (&'static [f32], &'static [f32]) = (w.leak(), w_rounded.leak());
        for isa in Isa::available() {
            let product = |x: &[f32], weights: &PackedWeights, threads| {
                let t = x.len() / weights.k();
                let mut y = vec![f32::NAN; t * weights.n()];
                let exec = Exec::with_isa(isa, threads);
                gemm(&exec, t, x, weights, Epilogue::default(), &mut y);
                y
            };
            let exec = Exec::with_isa(isa, 2);
            let plain =
                PackedWeights::pack_stacked(&exec, &source(w_rounded), k, PackedFormat::F32);
            let half = PackedWeights::pack_stacked(&exec, &source(w), k, PackedFormat::Bf16);
            assert_eq!(half.format(), PackedFormat::Bf16);
            if !isa.multiplies_halves() {
                let filled = k.next_multiple_of(if isa.multiplies_bf16() { 2 } else { 1 });
                assert_eq!(2 * half.bytes() * k, plain.bytes() * filled);
            }
            let expected = product(&x_rounded, &plain, 1);
            let one = product(&x, &half, 1);
            let place = format!("[{t}, {n}, {k}] on {isa}");
            // An instruction for pairs sums in another order.
            let same = |found: &[f32], expected: &[f32]| match isa.multiplies_bf16() {
                false => found == expected,
                true => distance(found, expected) < 1e-6,
            };
            assert!(same(&one, &expected), "{place}");
            assert!(product(&x, &half, 2) == one, "two threads: {place}");
            let last = product(&x[(t - 1) * k..], &half, 1);
            assert!(one[(t - 1) * n..] == last, "alone: {place}");

            // The transpose, in the place of another.
            let plain =
                PackedWeights::pack_transposed(&exec, &source(w_rounded), k, PackedFormat::F32);
            let zeros = vec![0.0; n * k];
            let zeros = [(WeightSource::F32(&zeros), n)];
            let mut half = PackedWeights::pack_transposed(&exec, &zeros, k, PackedFormat::Bf16);
            half.repack_transposed(&exec, &source(w));
            let (dy, dy_rounded) = (values(t * n, 3), round(&values(t * n, 3)));
            let (found, expected) = (product(&dy, &half, 2), product(&dy_rounded, &plain, 1));
            assert!(same(&found, &expected), "transposed: {place}");
        }
    }
}

#[test]
fn gradients_of_weights_in_bf16_are_those_of_rounded_operands() {
    for (t, n, k) in [(1, 1, 1), (7, 50, 9), (129, 97, 64), (1601, 24, 130)] {
        let round = |values: Vec<f32>| -> Vec<f32> {
            let rounded = values.iter().map(|&v| half::bf16::from_f32(v).to_f32());
            rounded.collect()
        };
        let (dy, x) = (round(values(t * n, 1)), round(values(t * k, 2)));
        let before = values(n * k, 3);
        for isa in Isa::available() {
            let run = |threads| {
                let mut dw = before.clone();
                let a = Matrix::row_major(&dy, n).transposed();
                let exec = Exec::with_isa(isa, threads);
                let (shape, b) = ((n, k, t), Matrix::row_major(&x, k));
                matmul_in(&exec, PackedFormat::Bf16, shape, a, b, true, &mut dw);
                dw
            };
            let mut expected = before.clone();
            gemm_tn(
                &Exec::with_isa(isa, 1),
                (t, n, k),
                &dy,
                &x,
                true,
                &mut expected,
            );
            let found = run(1);
            assert!(
                distance(&found, &expected) < 1e-6,
                "[{t}, {n}, {k}] on {isa}"
            );
            assert!(run(3) == found, "threads change nothing: {isa}");
            // An operand with strides of its own.
            let turned: Vec<f32> = (0..t * k).map(|i| x[i % t * k + i / t]).collect();
            let mut dw = before.clone();
            let (a, b) = (Matrix::row_major(&dy, n), Matrix::row_major(&turned, t));
            let exec = Exec::with_isa(isa, 2);
            matmul_in(
                &exec,
                PackedFormat::Bf16,
                (n, k, t),
                a.transposed(),
                b.transposed(),
                true,
                &mut dw,
            );
            assert!(dw == found, "the same from a transposed operand: {isa}");
        }
    }
}
