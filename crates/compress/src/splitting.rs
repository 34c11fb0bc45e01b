//! BinaryBERT (Bai et al. 2020, <https://arxiv.org/abs/2012.15701>): a model learns with ternary weights first, each of which is then
//! split into two binary ones whose sum it is, and learns on as these.

use std::collections::BTreeMap;

use bertha_autograd::Session;
use bertha_kernels::{CodeBook, GroupRange};
use bertha_models::{Config, TrainableModel};
use bertha_nn::WeightFormat;
use bertha_tensor::{Checkpoint, Tensor};
use serde_json::json;

use crate::names::{ends_as, is_in_pooler, is_table, layer_of};
use crate::quantization_aware::put_input_keys;
use crate::{CompressError, Estimator, Method, QuantizationAware, Settings, linear_layers};

/// Ternary weights: each row of the encoder's layers and the pooler has levels −1, 0 and 1 and a scale, that of what is large
/// in it (Li et al. 2016, <https://arxiv.org/abs/1605.04711>), and so has each word. Gradients pass.
///
/// # Errors
/// When the model has no such weights.
pub fn ternary_weights(
    session: &Session,
    model: &mut TrainableModel,
) -> Result<QuantizationAware, CompressError> {
    let format = |columns| WeightFormat::Codes {
        book: CodeBook::Symmetric(2),
        group: columns,
    };
    learning(session, model, format)
}

/// Binary weights: two for each of what [`split_weights`] gave, with their mean magnitudes; words stay ternary.
///
/// # Errors
/// As [`ternary_weights`].
pub fn binary_weights(
    session: &Session,
    model: &mut TrainableModel,
) -> Result<QuantizationAware, CompressError> {
    let format = |columns: usize| WeightFormat::Codes {
        book: CodeBook::Sign,
        group: columns / 2,
    };
    learning(session, model, format)
}

fn learning(
    session: &Session,
    model: &mut TrainableModel,
    format: impl Fn(usize) -> WeightFormat,
) -> Result<QuantizationAware, CompressError> {
    let layers = linear_layers(&*model.model, session)?.concat();
    let mut formats = BTreeMap::new();
    for parameter in &model.parameters {
        let (name, &[_, columns]) = (parameter.name(), parameter.shape()) else {
            continue;
        };
        let inside = layer_of(name).is_some() || is_in_pooler(name);
        if inside && !is_table(name) && layers.iter().any(|layer| ends_as(name, layer)) {
            formats.insert(name.to_owned(), format(columns));
        }
    }
    let ternary = WeightFormat::Codes {
        book: CodeBook::Symmetric(2),
        group: usize::MAX,
    };
    let settings = Settings {
        method: Method::Round(GroupRange::Ternary),
        embeddings: Some(ternary),
        keep: vec!["position_embeddings".into(), "token_type_embeddings".into()],
        overrides: formats,
        ..Settings::new(ternary)
    };
    QuantizationAware::new(session, model, &settings, Estimator::StraightThrough)
}

/// The model that was trained as [`ternary_weights`], with each weight `[N,K]` of those split into two `[N,2·K]`, which as [`binary_weights`] give what
/// the one gave: a checkpoint, and its configuration.
///
/// # Errors
/// When a weight is not finite.
pub fn split_weights(
    aware: &QuantizationAware,
    model: &TrainableModel,
) -> Result<(Checkpoint, Config), CompressError> {
    let mut tensors = BTreeMap::new();
    for parameter in &model.parameters {
        let (name, value) = (parameter.name(), parameter.value());
        let codes = if is_table(name) {
            None
        } else {
            aware.codes(name)?
        };
        let (Some(rows), &[n, k]) = (codes, value.shape()) else {
            tensors.insert(name.to_owned(), value);
            continue;
        };
        let value = value.contiguous();
        let mut both = Vec::with_capacity(2 * n * k);
        for (w, row) in value.as_slice::<f32>()?.chunks_exact(k.max(1)).zip(&rows) {
            let book = CodeBook::Symmetric(2);
            let levels: Vec<f32> = row.codes.iter().map(|&code| book.level(code)).collect();
            let scale = row.groups.first().map_or(0.0, |group| group.scale);
            let (first, second) = split_row(w, &levels, scale);
            both.extend(first);
            both.extend(second);
        }
        tensors.insert(name.to_owned(), Tensor::from_vec(both, &[n, 2 * k])?);
    }
    let mut keys = json!({ "quant_method": "bertha", "split_weights": true });
    if let Some(rounding) = model.config.input_rounding()? {
        put_input_keys(&mut keys, rounding);
    }
    let mut config = model.config.clone();
    config.set("quantization_config", keys);
    let checkpoint = Checkpoint::from_tensors(config.file(), tensors, BTreeMap::new());
    Ok((checkpoint, config))
}

/// Two rows whose signs times their mean magnitudes sum up to `scale·levels`, near `w` together. Off the zeros both have the sign of
/// `w`; on them they have opposite ones.
///
/// With a magnitude of `b` on the zeros, `b = (α·n − Σ|w|)/(2·zeros)`, the magnitudes of both together have the mean `α`; shares `m`
/// and `1 − m` of what is not zero make them equal.
fn split_row(w: &[f32], levels: &[f32], scale: f32) -> (Vec<f32>, Vec<f32>) {
    let values = || w.iter().map(|&w| f64::from(w)).zip(levels);
    if let Some(found) = shares(values(), scale) {
        return found;
    }
    // The values themselves can always be split.
    let rounded = levels
        .iter()
        .map(|level| f64::from(*level) * f64::from(scale));
    let rounded = rounded.zip(levels);
    shares(rounded, scale).unwrap_or_else(|| {
        let half: Vec<f32> = levels.iter().map(|level| level * scale / 2.0).collect();
        (half.clone(), half)
    })
}

fn shares<'a>(
    values: impl Iterator<Item = (f64, &'a f32)> + Clone,
    scale: f32,
) -> Option<(Vec<f32>, Vec<f32>)> {
    let (mut count, mut zeros) = (0.0, 0.0);
    let (mut on, mut off, mut positive) = (0.0, 0.0, 0.0);
    for (w, &level) in values.clone() {
        count += 1.0;
        if level == 0.0 {
            zeros += 1.0;
            on += w.abs();
            positive += w.max(0.0);
        } else {
            off += w.abs();
            if w * f64::from(level) <= 0.0 {
                return None;
            }
        }
    }
    let b = match zeros > 0.0 {
        true => (f64::from(scale) * count - on - off) / (2.0 * zeros),
        false => 0.0,
    };
    if zeros > 0.0 && b <= 0.0 || off <= 0.0 {
        return None;
    }
    // On the zeros the first has |w| more where w is positive, the second where it is not.
    let share = (off + (on - positive) - positive) / (2.0 * off);
    if !(share > 0.0 && share < 1.0) {
        return None;
    }
    let split = values.map(|(w, &level)| match (level == 0.0, w > 0.0) {
        (false, _) => (share * w, (1.0 - share) * w),
        (true, true) => (w + b, -b),
        (true, false) => (b, w - b),
    });
    Some(split.map(|(a, b)| (a as f32, b as f32)).unzip())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signs_and_scale(w: &[f32]) -> (Vec<f32>, f64) {
        let signs = w.iter().map(|&w| if w >= 0.0 { 1.0 } else { -1.0 });
        let sum: f64 = w.iter().map(|w| f64::from(w.abs())).sum();
        (signs.collect(), sum / w.len() as f64)
    }

    /// Of latent values, of values that are too uneven to be split as they are, and without a zero.
    #[test]
    fn two_binary_rows_are_a_ternary_one() {
        let wave = |i: usize, by: f32| ((i * 7 + 3) as f32 * by).sin();
        let rows: [Vec<f32>; 4] = [
            (0..64).map(|i| wave(i, 0.61)).collect(),
            (0..33).map(|i| wave(i, 1.3) * 0.02).collect(),
            vec![1.0, -1.0, 1.0, 1.0],
            // All zeros have one sign and are many.
            [vec![0.4; 40], vec![1.0, -1.0]].concat(),
        ];
        for w in rows {
            let magnitude = w.iter().map(|w| w.abs()).sum::<f32>() / w.len() as f32;
            let large: Vec<f32> = (w.iter().map(|w| w.abs()))
                .filter(|w| *w > 0.7 * magnitude)
                .collect();
            let scale = large.iter().sum::<f32>() / large.len() as f32;
            let levels: Vec<f32> = (w.iter())
                .map(|w| (w / scale).round().clamp(-1.0, 1.0))
                .collect();
            let (first, second) = split_row(&w, &levels, scale);
            let ((s1, a1), (s2, a2)) = (signs_and_scale(&first), signs_and_scale(&second));
            assert!((a1 - f64::from(scale) / 2.0).abs() < 1e-6, "{a1} {scale}");
            assert!((a2 - f64::from(scale) / 2.0).abs() < 1e-6, "{a2} {scale}");
            for (i, level) in levels.iter().enumerate() {
                let sum = f64::from(s1[i]) * a1 + f64::from(s2[i]) * a2;
                assert!((sum - f64::from(level * scale)).abs() < 1e-6, "{i}");
            }
        }
    }
}
