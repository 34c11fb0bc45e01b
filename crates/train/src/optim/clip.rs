//! The norm of all gradients together, and the factor that bounds it.

use rayon::prelude::*;

use super::ParameterView;
use super::rules::sum_of_squares;
use crate::TrainError;

/// The Euclidean norm of all gradients, as if they were one vector. Sums run in f64 in an order that
/// depends on the parameters alone.
///
/// # Errors
/// [`TrainError::NonFinite`] naming the first parameter, in the order given, whose gradient holds an
/// infinity or no number.
pub fn global_norm(parameters: &[ParameterView<'_>]) -> Result<f64, TrainError> {
    let sums: Vec<f64> = parameters
        .par_iter()
        .map(|parameter| sum_of_squares(parameter.gradient))
        .collect();
    for (parameter, sum) in parameters.iter().zip(&sums) {
        // The sum of finite f32 squares stays finite in f64.
        if !sum.is_finite()
            && let Some(index) = parameter.gradient.iter().position(|x| !x.is_finite())
        {
            return Err(TrainError::NonFinite {
                parameter: parameter.name.to_owned(),
                index,
                value: parameter.gradient[index],
            });
        }
    }
    Ok(sums.iter().sum::<f64>().sqrt())
}

/// What gradients of this norm are multiplied with so that the norm is at most `largest`, as
/// PyTorch's `clip_grad_norm_`: `min(1, largest / (norm + 1e-6))`.
pub fn clip_factor(norm: f64, largest: f64) -> f32 {
    (largest / (norm + 1e-6)).min(1.0) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn norm(gradients: &[(&str, Vec<f32>)]) -> Result<f64, TrainError> {
        let mut values: Vec<Vec<f32>> = gradients.iter().map(|(_, g)| g.clone()).collect();
        let views: Vec<ParameterView<'_>> = gradients
            .iter()
            .zip(&mut values)
            .map(|((name, gradient), value)| ParameterView {
                name,
                shape: &[],
                value,
                gradient,
            })
            .collect();
        global_norm(&views)
    }

    #[test]
    fn all_gradients_are_one_vector() {
        let found = norm(&[("a", vec![3.0]), ("b", vec![0.0, 4.0]), ("c", vec![])]).unwrap();
        assert_eq!(found, 5.0);
        assert_eq!(clip_factor(found, 10.0), 1.0);
        assert!((clip_factor(found, 1.0) - 0.2).abs() < 1e-6);
        assert_eq!(clip_factor(0.0, 1.0), 1.0);
    }

    #[test]
    fn large_gradients_do_not_overflow() {
        let found = norm(&[("a", vec![3e38; 4])]).unwrap();
        assert!((found / 6e38 - 1.0).abs() < 1e-6);
    }

    #[test]
    fn the_parameter_that_broke_is_named() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let error = norm(&[("a", vec![1.0]), ("b.weight", vec![0.0, bad])]).unwrap_err();
            let text = error.to_string();
            assert!(
                text.contains("`b.weight`") && text.contains("element 1"),
                "{text}"
            );
        }
    }

    #[test]
    fn threads_do_not_change_the_norm() {
        let gradient: Vec<f32> = (0..100_000).map(|i| (i as f32).sin()).collect();
        let gradients: Vec<(&str, Vec<f32>)> = (0..8).map(|_| ("a", gradient.clone())).collect();
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
            pool.build().unwrap().install(|| norm(&gradients).unwrap())
        };
        assert_eq!(run(1).to_bits(), run(3).to_bits());
    }
}
