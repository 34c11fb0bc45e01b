//! Input scales: a column of a weight is multiplied by what its input is divided by, which changes nothing before
//! quantization, and a lot after.

use bertha_autograd::Session;
use bertha_kernels::GroupRange;
use bertha_nn::{QuantizedMatrix, WeightFormat};
use bertha_tensor::Tensor;

use crate::{CompressError, Statistics, round_to_nearest};

/// Exponents that AWQ tries: 0, 0.05, … 0.95.
const EXPONENTS: u8 = 20;

/// SmoothQuant's factors of the columns of `w[N,K]` (Xiao et al. 2022, <https://arxiv.org/abs/2211.10438>, equation 4):
/// `max|x|^α / max|w|^(1−α)`.
pub(crate) fn smooth_factors(w: &[f32], inputs: &Statistics, strength: f32) -> Vec<f32> {
    let k = inputs.width;
    let mut most = vec![1e-5f32; k];
    for row in w.chunks_exact(k.max(1)) {
        for (most, w) in most.iter_mut().zip(row) {
            *most = most.max(w.abs());
        }
    }
    let factor = |(x, w): (&f32, &f32)| (x.powf(strength) / w.powf(1.0 - strength)).max(1e-5);
    let x = inputs.max_abs.iter();
    x.zip(&most).map(factor).collect()
}

/// AWQ's factors (Lin et al. 2023, <https://arxiv.org/abs/2306.00978>, section 3.2): `mean|x|^r`, with the `r` whose
/// outputs are closest.
pub(crate) fn awq_factors(
    session: &Session,
    format: WeightFormat,
    w: &[f32],
    inputs: &Statistics,
) -> Result<Vec<f32>, CompressError> {
    let mut best: Option<(f64, Vec<f32>)> = None;
    for step in 0..EXPONENTS {
        let exponent = f32::from(step) / f32::from(EXPONENTS);
        let tokens = inputs.tokens.max(1) as f32;
        let mean = |sum: &f32| (sum / tokens).powf(exponent).max(1e-4);
        let mut factors: Vec<f32> = inputs.sum_abs.iter().map(mean).collect();
        let (low, high) = factors.iter().fold((f32::MAX, 0.0f32), |(low, high), &x| {
            (low.min(x), high.max(x))
        });
        let middle = (low * high).sqrt();
        factors.iter_mut().for_each(|factor| *factor /= middle);
        let matrix = scaled(format, w, &factors)?;
        let values = matrix.dequantize()?;
        let left: Vec<f32> = w
            .iter()
            .zip(values.as_slice::<f32>()?)
            .map(|(w, value)| w - value)
            .collect();
        let error = inputs.output_square(session, &left);
        if best.as_ref().is_none_or(|(least, _)| error < *least) {
            best = Some((error, factors));
        }
    }
    Ok(best.map(|(_, factors)| factors).unwrap_or_default())
}

/// `w[N,K]·diag(factors)` at the nearest levels, with an input scale that takes the factors back.
pub(crate) fn scaled(
    format: WeightFormat,
    w: &[f32],
    factors: &[f32],
) -> Result<QuantizedMatrix, CompressError> {
    let k = factors.len();
    let rows = w.chunks_exact(k.max(1));
    let scaled: Vec<f32> = rows
        .flat_map(|row| row.iter().zip(factors).map(|(w, factor)| w * factor))
        .collect();
    let inverse: Vec<f32> = factors.iter().map(|factor| 1.0 / factor).collect();
    let matrix = round_to_nearest(format, &scaled, k, GroupRange::MinMax, None)?;
    matrix
        .with_input_scale(Tensor::from_vec(inverse, &[k])?)
        .map_err(CompressError::Settings)
}
