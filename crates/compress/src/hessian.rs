//! Q-BERT's choice of bits (Shen et al. 2019, <https://arxiv.org/abs/1909.05840>): how sharply the loss curves along each
//! layer's parameters, by the largest eigenvalue of its Hessian, and how much that differs over the data.

use bertha_autograd::{Gradients, Parameter, Session};
use bertha_models::TrainableModel;
use bertha_train::collate::TrainingBatch;
use bertha_train::random::{Seed, Stream};
use bertha_train::trainer::{batch_loss, loss_terms};
use serde::Serialize;

use crate::CompressError;
use crate::names::layer_of;

/// How sensitive a layer is.
#[derive(Clone, Debug, Serialize)]
pub struct Curvature {
    /// Its number.
    pub layer: usize,
    /// The eigenvalue of largest magnitude on each slice of the data.
    pub eigenvalues: Vec<f64>,
    /// `|mean| + standard deviation` of them (equation 3).
    pub omega: f64,
}

/// When a power iteration ends.
#[derive(Clone, Copy, Debug)]
pub struct PowerIteration {
    /// After so many products, at the latest.
    pub most: usize,
    /// When the eigenvalue changes by no more than this part of itself.
    pub tolerance: f64,
    /// What it starts from follows from this.
    pub seed: u64,
}

impl Default for PowerIteration {
    fn default() -> Self {
        Self {
            most: 20,
            tolerance: 0.01,
            seed: 42,
        }
    }
}

/// The curvature of each layer of a model on slices of data, in the order of the layers. The loss is the mean over a
/// slice, without dropout.
///
/// # Errors
/// When the model has no layers whose names say which they are, or refuses a batch.
pub fn curvatures(
    session: &Session,
    model: &TrainableModel,
    slices: &[Vec<TrainingBatch>],
    iteration: PowerIteration,
) -> Result<Vec<Curvature>, CompressError> {
    let layers = model.parameters.iter().filter_map(|p| layer_of(p.name()));
    let Some(last) = layers.max() else {
        return Err(CompressError::Settings(
            "no parameter's name says which layer it belongs to".into(),
        ));
    };
    let frozen: Vec<bool> = model.parameters.iter().map(Parameter::is_frozen).collect();
    let mut found = Vec::with_capacity(last + 1);
    let result = (0..=last).try_for_each(|layer| {
        let of_layer = |parameter: &&Parameter| layer_of(parameter.name()) == Some(layer);
        for parameter in &model.parameters {
            parameter.set_frozen(!of_layer(&parameter));
        }
        let parameters: Vec<Parameter> =
            model.parameters.iter().filter(of_layer).cloned().collect();
        let mut eigenvalues = Vec::with_capacity(slices.len());
        for (i, slice) in slices.iter().enumerate() {
            let product = |v: &[f32]| hessian_product(session, model, &parameters, slice, v);
            let start = (iteration.seed, (layer * slices.len() + i) as u64);
            let size = parameters.iter().map(Parameter::numel).sum();
            eigenvalues.push(largest_eigenvalue(size, product, iteration, start)?);
        }
        found.push(Curvature {
            layer,
            omega: omega(&eigenvalues),
            eigenvalues,
        });
        Ok::<(), CompressError>(())
    });
    for (parameter, frozen) in model.parameters.iter().zip(frozen) {
        parameter.set_frozen(frozen);
    }
    result.map(|()| found)
}

/// `|mean| + standard deviation`.
fn omega(values: &[f64]) -> f64 {
    let count = values.len().max(1) as f64;
    let mean = values.iter().sum::<f64>() / count;
    let variance = values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / count;
    mean.abs() + variance.sqrt()
}

/// The eigenvalue of largest magnitude of a symmetric matrix that is known by its products, with its sign.
///
/// # Errors
/// What `product` gives.
pub fn largest_eigenvalue<E>(
    size: usize,
    mut product: impl FnMut(&[f32]) -> Result<Vec<f32>, E>,
    iteration: PowerIteration,
    (seed, stream): (u64, u64),
) -> Result<f64, E> {
    let mut rng = Seed::new(seed).rng(Stream::Init, stream, 0);
    let mut v: Vec<f32> = (0..size).map(|_| rng.normal() as f32).collect();
    let mut eigenvalue = 0.0f64;
    normalize(&mut v);
    for step in 0..iteration.most {
        let mut w = product(&v)?;
        let before = eigenvalue;
        let pairs = v.iter().zip(&w);
        eigenvalue = pairs.map(|(&v, &w)| f64::from(v) * f64::from(w)).sum();
        if normalize(&mut w) == 0.0 {
            return Ok(0.0);
        }
        v = w;
        let change = (eigenvalue - before).abs();
        if step > 0 && change <= iteration.tolerance * eigenvalue.abs() {
            break;
        }
    }
    Ok(eigenvalue)
}

fn norm(v: &[f32]) -> f64 {
    v.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt()
}

/// Makes `v` of length 1, and gives the length it had.
fn normalize(v: &mut [f32]) -> f64 {
    let length = norm(v);
    if length > 0.0 {
        v.iter_mut()
            .for_each(|x| *x = (f64::from(*x) / length) as f32);
    }
    length
}

/// `H·v` by the difference of two gradients, `[∇L(w + εv) − ∇L(w − εv)]/2ε`, for `v` of length 1.
fn hessian_product(
    session: &Session,
    model: &TrainableModel,
    parameters: &[Parameter],
    batches: &[TrainingBatch],
    v: &[f32],
) -> Result<Vec<f32>, CompressError> {
    let kept: Vec<_> = parameters.iter().map(Parameter::value).collect();
    let mut square = 0.0;
    for value in &kept {
        square += norm(value.contiguous().as_slice::<f32>()?).powi(2);
    }
    let step = 1e-3 * square.sqrt().max(1.0);
    let at = |sign: f64| {
        let mut rest = v;
        for (parameter, kept) in parameters.iter().zip(&kept) {
            let (part, more) = rest.split_at(parameter.numel());
            rest = more;
            let mut moved = kept.copy();
            for (w, &v) in moved.as_mut_slice::<f32>()?.iter_mut().zip(part) {
                *w += (sign * step * f64::from(v)) as f32;
            }
            parameter.set(moved)?;
        }
        gradient(session, model, parameters, batches)
    };
    let found = at(1.0).and_then(|above| Ok((above, at(-1.0)?)));
    for (parameter, kept) in parameters.iter().zip(kept) {
        parameter.set(kept)?;
    }
    let (mut above, below) = found?;
    for (above, below) in above.iter_mut().zip(below) {
        *above = ((f64::from(*above) - f64::from(below)) / (2.0 * step)) as f32;
    }
    Ok(above)
}

/// The gradient of the mean loss over batches, all parameters' end to end.
fn gradient(
    session: &Session,
    model: &TrainableModel,
    parameters: &[Parameter],
    batches: &[TrainingBatch],
) -> Result<Vec<f32>, CompressError> {
    let over: usize = batches.iter().map(loss_terms).sum();
    let mut gradients = Gradients::new();
    for batch in batches {
        let loss = batch_loss(session, &*model.model, batch, over as f64, 0.0)?;
        if let Some(loss) = loss {
            loss.backward(session, &mut gradients)?;
        }
    }
    let mut all = Vec::with_capacity(parameters.iter().map(Parameter::numel).sum());
    for parameter in parameters {
        match gradients.get(parameter) {
            Some(gradient) => all.extend_from_slice(gradient.contiguous().as_slice::<f32>()?),
            None => all.extend(std::iter::repeat_n(0.0, parameter.numel())),
        }
    }
    Ok(all)
}

/// Bits for each layer, such that their mean is at most `average`: the whole number below it for all, one more for as many
/// of the most sensitive as that allows. Of equals the first come first.
pub fn assign_bits(omegas: &[f64], average: f64) -> Vec<u8> {
    let low = average.floor();
    let more = ((average - low) * omegas.len() as f64 + 1e-9).floor() as usize;
    let mut order: Vec<usize> = (0..omegas.len()).collect();
    order.sort_by(|&a, &b| omegas[b].total_cmp(&omegas[a]));
    let mut bits = vec![low as u8; omegas.len()];
    for &layer in &order[..more] {
        bits[layer] += 1;
    }
    bits
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The largest eigenvalue of a matrix with a negative one, and of one with two that are almost the same.
    #[test]
    fn power_iteration_finds_the_largest_magnitude_and_its_sign() {
        for (diagonal, expected, near) in [
            ([3.0f32, -7.0, 1.0, 0.5], -7.0, 0.05),
            ([2.0, 1.0, 5.0, 0.1], 5.0, 0.05),
            ([4.0, 3.99, 1.0, 1.0], 4.0, 0.08),
        ] {
            let product = |v: &[f32]| {
                let pairs = v.iter().zip(diagonal);
                Ok::<_, ()>(pairs.map(|(v, d)| v * d).collect())
            };
            let iteration = PowerIteration {
                most: 100,
                tolerance: 1e-4,
                seed: 3,
            };
            let found = largest_eigenvalue(4, product, iteration, (3, 0)).unwrap();
            assert!((found - expected).abs() < near, "{found} {expected}");
        }
    }

    /// Values that the authors' documentation ships, of BERT-base on CoLA.
    #[test]
    fn the_most_sensitive_layers_get_more_bits() {
        let eigenvalues = [
            6.67, 9.38, 14.55, 18.26, 18.81, 21.75, 16.43, 15.37, 25.82, 1.71, 0.80, 1.01,
        ];
        let bits = assign_bits(&eigenvalues, 2.5);
        assert_eq!(bits, [2, 2, 2, 3, 3, 3, 3, 3, 3, 2, 2, 2]);
        assert_eq!(assign_bits(&eigenvalues, 3.0), [3; 12]);
        assert_eq!(assign_bits(&[1.0, 1.0, 1.0], 2.34), [3, 2, 2]);
        assert_eq!(omega(&[-3.0, -1.0]), 3.0);
    }
}
