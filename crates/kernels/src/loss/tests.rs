//! The losses against the scalar forms, and those against differences.

use super::*;
use crate::{Exec, Isa};

fn values(len: usize, seed: usize, range: f32) -> Vec<f32> {
    let noise = |i: usize| ((i * 7 + seed * 13) as f32 * 12.9898).sin() * 43_758.547;
    (0..len).map(|i| range * noise(i).fract()).collect()
}

fn close(found: &[f32], expected: &[f32], what: &str) {
    for (i, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!(
            (a - b).abs() <= 3e-6 * b.abs().max(1.0),
            "{what}, value {i}: {a} for {b}"
        );
    }
}

#[test]
fn cross_entropy_agrees_with_the_reference_for_any_threads() {
    for (rows, classes) in [(0, 3), (1, 1), (7, 2), (30, 17), (60, 1000)] {
        let logits = values(rows * classes, 1, 20.0);
        let weights: Vec<f32> = values(classes, 2, 1.0).iter().map(|w| w + 2.0).collect();
        let labels: Vec<i64> = (0..rows)
            .map(|row| {
                if row % 5 == 3 {
                    -100
                } else {
                    (row * 31 % classes) as i64
                }
            })
            .collect();
        let narrow: Vec<i32> = labels.iter().map(|&label| label as i32).collect();
        for smoothing in [0.0, 0.1] {
            for class_weights in [None, Some(&weights[..])] {
                let settings = CrossEntropy {
                    label_smoothing: smoothing,
                    class_weights,
                    ..CrossEntropy::default()
                };
                let (mut expected, mut losses) = (logits.clone(), vec![f32::NAN; rows]);
                reference::cross_entropy(
                    &mut expected,
                    classes,
                    Labels::I64(&labels),
                    &settings,
                    0.5,
                    &mut losses,
                );
                for isa in Isa::available() {
                    let run = |threads, labels| {
                        let exec = Exec::with_isa(isa, threads);
                        let (mut x, mut losses) = (logits.clone(), vec![f32::NAN; rows]);
                        cross_entropy(&exec, &mut x, classes, labels, &settings, 0.5, &mut losses);
                        (x, losses)
                    };
                    let found = run(1, Labels::I64(&labels));
                    let what = format!("[{rows}, {classes}], smoothing {smoothing} on {isa}");
                    close(&found.0, &expected, &what);
                    close(&found.1, &losses, &what);
                    for threads in [2, 3, 8] {
                        assert!(
                            run(threads, Labels::I32(&narrow)) == found,
                            "{what}, {threads} threads"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn the_reference_is_what_differences_tell() {
    let classes = 5;
    let logits: Vec<f64> = values(15, 1, 3.0).iter().map(|&x| x.into()).collect();
    let weights = [0.5, 2.0, 1.0, 1.5, 0.1];
    let settings = CrossEntropy {
        label_smoothing: 0.2,
        class_weights: Some(&weights),
        ..CrossEntropy::default()
    };
    let labels = Labels::I32(&[4, -100, 1]);
    let targets: Vec<f64> = (0..15).map(|i| f64::from(i) / 15.0).collect();
    let run = |which: usize, x: &[f64]| -> (f64, Vec<f64>) {
        let (mut x, mut losses) = (x.to_vec(), vec![0.0; 15]);
        match which {
            0 => {
                reference::cross_entropy(&mut x, classes, labels, &settings, 1.0, &mut losses[..3])
            }
            1 => reference::binary_cross_entropy(&mut x, &targets, 1.0, &mut losses),
            _ => reference::mean_squared_error(&mut x, &targets, 1.0, &mut losses),
        }
        (losses.iter().sum(), x)
    };
    for which in 0..3 {
        let (_, gradient) = run(which, &logits);
        for (i, found) in gradient.iter().enumerate() {
            let at = |h: f64| {
                let mut x = logits.clone();
                x[i] += h;
                run(which, &x).0
            };
            let expected = (at(1e-6) - at(-1e-6)) / 2e-6;
            assert!(
                (found - expected).abs() < 1e-7,
                "{which}, {i}: {found}, {expected}"
            );
        }
    }
}

#[test]
fn pointwise_losses_agree_with_the_reference() {
    let (x, t) = (values(10_007, 1, 30.0), values(10_007, 2, 1.0));
    for isa in Isa::available() {
        for threads in [1, 2, 3, 8] {
            let exec = Exec::with_isa(isa, threads);
            for which in 0..2 {
                let (mut found, mut losses) = (x.clone(), vec![f32::NAN; x.len()]);
                let (mut expected, mut expected_losses) = (x.clone(), losses.clone());
                if which == 0 {
                    binary_cross_entropy(&exec, &mut found, &t, 0.25, &mut losses);
                    reference::binary_cross_entropy(&mut expected, &t, 0.25, &mut expected_losses);
                } else {
                    mean_squared_error(&exec, &mut found, &t, 0.25, &mut losses);
                    reference::mean_squared_error(&mut expected, &t, 0.25, &mut expected_losses);
                }
                close(&found, &expected, "gradients");
                close(&losses, &expected_losses, "losses");
            }
        }
    }
}

#[test]
#[should_panic(expected = "label 3 of row 1")]
fn labels_that_are_no_class_are_refused() {
    let exec = Exec::with_isa(Isa::best(), 1);
    let labels = Labels::I32(&[0, 3]);
    cross_entropy(
        &exec,
        &mut [0.0; 6],
        3,
        labels,
        &CrossEntropy::default(),
        1.0,
        &mut [0.0; 2],
    );
}
