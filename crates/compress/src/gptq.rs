//! GPTQ (Frantar et al. 2022, <https://arxiv.org/abs/2210.17323>): the values of a row become codes one after the other,
//! and the values that are still to come make up for each error, as the inputs' second moments say.

use bertha_kernels::{Group, GroupRange, decode_group, encode_group};
use bertha_nn::{QuantizedMatrix, WeightFormat};
use rayon::prelude::*;

use crate::rounding::{Row, assemble, fit, levels};
use crate::{CompressError, Statistics};

/// `w[rows,K]` with codes that keep its products with the seen inputs: the squared error of the output is what is
/// made small, not that of the weights. `damping` is the part of the mean of the diagonal of `xᵀx` that is added to it.
///
/// # Errors
/// When a tensor cannot be made, or `xᵀx` is not positive definite even so.
///
/// # Panics
/// When `w` is not rows of the inputs' width.
pub fn gptq(
    format: WeightFormat,
    w: &[f32],
    inputs: &Statistics,
    damping: f32,
    range: GroupRange,
) -> Result<QuantizedMatrix, CompressError> {
    let k = inputs.width;
    assert!(k > 0 && w.len().is_multiple_of(k), "rows of {k} values");
    let (book, size) = levels(format, k);
    let tokens = inputs.tokens.max(1) as f64;
    let mut hessian: Vec<f64> = inputs.gram.iter().map(|&x| f64::from(x) / tokens).collect();
    let mean = (0..k).map(|i| hessian[i * k + i]).sum::<f64>() / k as f64;
    // Inputs that are always 0: their weights do not matter.
    let dead: Vec<bool> = (0..k).map(|i| hessian[i * k + i] <= 0.0).collect();
    for i in 0..k {
        hessian[i * k + i] += match dead[i] {
            true => mean.max(1.0),
            false => f64::from(damping) * mean,
        };
    }
    let upper = inverse_factor(&mut hessian, k).ok_or_else(|| {
        CompressError::Settings(
            "the second moments of the inputs cannot be inverted: take more texts, or more damping"
                .into(),
        )
    })?;
    let rows: Vec<Row> = w
        .par_chunks_exact(k)
        .map(|row| {
            let mut row: Vec<f32> = row.to_vec();
            for (w, &dead) in row.iter_mut().zip(&dead) {
                if dead {
                    *w = 0.0;
                }
            }
            let mut codes = vec![0; k];
            let mut groups: Vec<Group> = Vec::with_capacity(k.div_ceil(size));
            for j in 0..k {
                if j % size == 0 {
                    let values = &row[j..k.min(j + size)];
                    groups.push(fit(format, book, values, range, None));
                }
                let group = groups[j / size];
                let mut value = [0.0];
                encode_group(book, &row[j..=j], group, &mut codes[j..=j]);
                decode_group(book, &codes[j..=j], group, &mut value);
                let factors = &upper[j * k..][..k];
                let error = (row[j] - value[0]) / factors[j];
                for (w, factor) in row[j + 1..].iter_mut().zip(&factors[j + 1..]) {
                    *w -= error * factor;
                }
            }
            Row { codes, groups }
        })
        .collect();
    assemble(format, k, &rows)
}

/// The upper factor `U` of `A⁻¹ = Uᵀ·U`, row-major; none where `A` is not positive definite. `a` is overwritten.
fn inverse_factor(a: &mut [f64], k: usize) -> Option<Vec<f32>> {
    cholesky(a, k)?;
    // The inverse of the lower factor, kept transposed: its rows then lie together.
    let mut inverse = vec![0.0f64; k * k];
    inverse
        .par_chunks_exact_mut(k)
        .enumerate()
        .for_each(|(column, to)| {
            for i in column..k {
                let known = dot(&a[i * k + column..i * k + i], &to[column..i]);
                let unit = if i == column { 1.0 } else { 0.0 };
                to[i] = (unit - known) / a[i * k + i];
            }
        });
    // A⁻¹ = L⁻ᵀ·L⁻¹: entry (i, j) is the product of columns i and j of L⁻¹.
    a.par_chunks_exact_mut(k).enumerate().for_each(|(i, to)| {
        for j in 0..=i {
            to[j] = dot(
                &inverse[i * k + i..(i + 1) * k],
                &inverse[j * k + i..(j + 1) * k],
            );
        }
    });
    cholesky(a, k)?;
    let mut upper = vec![0.0f32; k * k];
    for i in 0..k {
        for j in i..k {
            upper[i * k + j] = a[j * k + i] as f32;
        }
    }
    Some(upper)
}

/// The lower factor of `A = L·Lᵀ` in place of the lower triangle.
fn cholesky(a: &mut [f64], k: usize) -> Option<()> {
    for j in 0..k {
        let (above, rest) = a.split_at_mut(j * k);
        let _ = above;
        let (row, below) = rest.split_at_mut(k);
        let pivot = row[j] - dot(&row[..j], &row[..j]);
        if pivot.is_nan() || pivot <= 0.0 {
            return None;
        }
        let pivot = pivot.sqrt();
        row[j] = pivot;
        let row = &*row;
        below
            .par_chunks_exact_mut(k)
            .with_min_len(64)
            .for_each(|other| other[j] = (other[j] - dot(&other[..j], &row[..j])) / pivot);
    }
    Some(())
}

/// Eight sums at once: the order is fixed, and the compiler keeps them in vectors.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    let mut sums = [0.0; 8];
    let (a_chunks, b_chunks) = (a.chunks_exact(8), b.chunks_exact(8));
    let tail = a_chunks.remainder().iter().zip(b_chunks.remainder());
    let tail: f64 = tail.map(|(a, b)| a * b).sum();
    for (a, b) in a_chunks.zip(b_chunks) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    sums.iter().sum::<f64>() + tail
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::round_to_nearest;
    use bertha_autograd::Session;
    use bertha_kernels::CodeBook;

    fn normal(count: usize, seed: u64) -> Vec<f32> {
        let mut state = seed;
        let mut uniform = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            ((state >> 33) as f64 + 0.5) / f64::from(1u32 << 31)
        };
        (0..count)
            .map(|_| {
                let (u, v) = (uniform(), uniform());
                ((-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()) as f32
            })
            .collect()
    }

    #[test]
    fn the_factor_is_that_of_the_inverse() {
        let k = 37;
        let x = normal(100 * k, 1);
        let mut a = vec![0.0; k * k];
        for i in 0..k {
            for j in 0..k {
                a[i * k + j] = (0..100)
                    .map(|t| f64::from(x[t * k + i] * x[t * k + j]))
                    .sum();
            }
        }
        let original = a.clone();
        let upper = inverse_factor(&mut a, k).unwrap();
        // A·(UᵀU) is the identity.
        for i in 0..k {
            for j in 0..k {
                let inverse = |l: usize| -> f64 {
                    let of = |m: usize| f64::from(upper[m * k + l]) * f64::from(upper[m * k + j]);
                    (0..k).map(of).sum()
                };
                let found: f64 = (0..k).map(|l| original[i * k + l] * inverse(l)).sum();
                let expected = if i == j { 1.0 } else { 0.0 };
                assert!((found - expected).abs() < 1e-3, "{i} {j}: {found}");
            }
        }
    }

    /// With inputs that are independent there is nothing to make up; where they follow each other there is.
    #[test]
    fn outputs_keep_closer_than_by_rounding() {
        let session = Session::new(Some(1)).unwrap();
        let (rows, k, tokens) = (24, 64, 2000);
        let format = WeightFormat::Codes {
            book: CodeBook::Symmetric(3),
            group: 32,
        };
        let mut better = 0;
        for seed in 0..10 {
            let w = normal(rows * k, 100 + seed);
            let noise = normal(tokens * k, 200 + seed);
            let mut x = noise.clone();
            for t in 0..tokens {
                for i in 1..k {
                    let drift = 0.9 * x[t * k + i - 1];
                    x[t * k + i] = drift + (1.0f32 - 0.81).sqrt() * noise[t * k + i];
                }
            }
            let mut inputs = Statistics::new(k);
            inputs.add(&session, &x);
            let error = |matrix: &QuantizedMatrix| {
                let values = matrix.dequantize().unwrap();
                let values = values.as_slice::<f32>().unwrap();
                let left: Vec<f32> = w.iter().zip(values).map(|(w, v)| w - v).collect();
                inputs.output_square(&session, &left)
            };
            let rounded = round_to_nearest(format, &w, k, GroupRange::MinMax, None).unwrap();
            let fitted = gptq(format, &w, &inputs, 0.01, GroupRange::MinMax).unwrap();
            better += usize::from(error(&fitted) < 0.8 * error(&rounded));

            let mut even = Statistics::new(k);
            even.tokens = 1;
            (0..k).for_each(|i| even.gram[i * k + i] = 1.0);
            let same = gptq(format, &w, &even, 0.01, GroupRange::MinMax).unwrap();
            let (a, b) = (same.dequantize().unwrap(), rounded.dequantize().unwrap());
            assert_eq!(a.as_slice::<f32>().unwrap(), b.as_slice::<f32>().unwrap());
        }
        assert!(better >= 9, "{better} of 10");
    }
}
