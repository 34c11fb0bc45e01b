//! Softmax one value at a time, in f64.

/// `e^(x−max)/Σ e^(x−max)` over each row of `n` values, in place.
pub fn softmax(values: &mut [f32], n: usize) {
    assert!(
        n > 0 && values.len().is_multiple_of(n),
        "whole rows of {n} values"
    );
    for row in values.chunks_exact_mut(n) {
        let max = row.iter().fold(f32::NEG_INFINITY, |max, &x| max.max(x));
        let powers: Vec<f64> = row
            .iter()
            .map(|&x| (f64::from(x) - f64::from(max)).exp())
            .collect();
        let sum: f64 = powers.iter().sum();
        for (value, power) in row.iter_mut().zip(powers) {
            *value = (power / sum) as f32;
        }
    }
}
