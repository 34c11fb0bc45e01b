//! The norm of all gradients together, and the factor that bounds it.

use bertha_kernels::{Exec, squared_norm};

use crate::TrainError;

/// The Euclidean norm of all gradients, given with their parameters' names, as if they were one vector.
/// It has the same bits on any number of threads.
///
/// # Errors
/// [`TrainError::NonFinite`] naming the first parameter, in the order given, whose gradient holds an
/// infinity or no number.
pub fn global_norm<'a>(
    exec: &Exec,
    gradients: impl IntoIterator<Item = (&'a str, &'a [f32])>,
) -> Result<f64, TrainError> {
    let mut sum = 0.0;
    for (name, gradient) in gradients {
        let mut square = squared_norm(exec, gradient);
        if !square.is_finite() {
            if let Some(index) = gradient.iter().position(|x| !x.is_finite()) {
                return Err(TrainError::NonFinite {
                    parameter: name.to_owned(),
                    index,
                    value: gradient[index],
                });
            }
            // Squares of finite but huge numbers overflow in f32, never in f64.
            square = gradient.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
        }
        sum += square;
    }
    Ok(sum.sqrt())
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
        norm_on(1, gradients)
    }

    fn norm_on(threads: usize, gradients: &[(&str, Vec<f32>)]) -> Result<f64, TrainError> {
        let exec = Exec::new(Some(threads)).unwrap();
        global_norm(&exec, gradients.iter().map(|(name, g)| (*name, &g[..])))
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
        let run = |threads| norm_on(threads, &gradients).unwrap();
        assert_eq!(run(1).to_bits(), run(3).to_bits());
    }
}
