//! The optimizers against known steps and the scalar forms.

use super::*;
use crate::{Isa, reference};

fn values(len: usize, seed: usize) -> Vec<f32> {
    let noise = |i: usize| ((i * 7 + seed * 13) as f32 * 12.9898).sin() * 43_758.547;
    (0..len).map(|i| 2.0 * noise(i).fract() - 0.3).collect()
}

fn parameter<'a>(weight: &'a mut [f32], gradient: &'a [f32]) -> Parameter<'a> {
    Parameter {
        weight,
        gradient,
        gradient_scale: 1.0,
        bf16: None,
    }
}

/// Each step's gradient and the weights after it.
fn check_steps<const N: usize>(
    start: [f32; N],
    steps: &[([f32; N], [f64; N], f64)],
    mut step: impl FnMut(&Exec, u32, Parameter<'_>, &mut [f32], &mut [f32]) -> f32,
) {
    for isa in Isa::available() {
        let exec = Exec::with_isa(isa, 2);
        let (mut w, mut m, mut v) = (start, [0.0; N], [0.0; N]);
        for (t, (gradient, expected, number)) in steps.iter().enumerate() {
            let found = step(
                &exec,
                t as u32 + 1,
                parameter(&mut w, gradient),
                &mut m,
                &mut v,
            );
            assert!(
                (f64::from(found) - number).abs() < 2e-6 * number,
                "{isa}: {found} for {number}"
            );
            for (w, expected) in w.iter().zip(expected) {
                assert!(
                    (f64::from(*w) - expected).abs() < 1e-6,
                    "{isa}, step {}: {w} for {expected}",
                    t + 1
                );
            }
        }
    }
}

#[test]
fn adam_makes_the_known_steps() {
    // Computed in f64 from the published rules.
    let adam_of = |rule, epsilon| {
        move |exec: &Exec, step, p: Parameter<'_>, m: &mut [f32], v: &mut [f32]| {
            let settings = Adam {
                rule,
                learning_rate: 0.1,
                epsilon,
                step,
                ..Adam::default()
            };
            adam(exec, &settings, p, m, v)
        }
    };
    check_steps(
        [1.0],
        &[
            ([0.5], [0.899_000_002], 1.0),
            ([-0.25], [0.871_467_299], 1.0),
            ([0.125], [0.836_552_918], 1.0),
        ],
        adam_of(AdamRule::AdamW, 1e-8),
    );
    check_steps(
        [1.0],
        &[
            ([0.5], [0.682_792_233], 1.0),
            ([-0.25], [0.568_933_478], 1.0),
            ([0.125], [0.399_853_415], 1.0),
        ],
        adam_of(AdamRule::Bert, 1e-6),
    );
    check_steps(
        [1.0, -2.0],
        &[
            ([0.5, 0.1], [0.899_000_2, -2.097_999], 1.0),
            ([-0.25, 0.1], [0.871_431_32, -2.1959], 0.837_021),
            ([4.0, 0.1], [0.823_754_04, -2.265_811_08], 1.398_964),
        ],
        |exec, step, p, m, v| {
            let settings = Adam {
                rule: AdamRule::Stable,
                learning_rate: 0.1,
                beta2: 0.99,
                epsilon: 1e-6,
                step,
                ..Adam::default()
            };
            adam(exec, &settings, p, m, v)
        },
    );
}

#[test]
fn lamb_makes_the_known_steps() {
    check_steps(
        [3.0, 4.0],
        &[
            ([0.3, -0.1], [2.634_235_05, 4.340_904_69], 3.551_127),
            ([0.1, 0.2], [2.172_292_54, 4.130_107_17], 5.147_552),
        ],
        |exec, step, p, m, v| {
            let settings = Lamb {
                learning_rate: 0.1,
                step,
                ..Lamb::default()
            };
            lamb(exec, &settings, p, m, v, &mut [0.0; 2])
        },
    );
}

type State = (Vec<f32>, Vec<f32>, Vec<f32>);

/// Several steps on `len` weights, for each of some numbers of threads, against the reference's.
fn check(
    name: &str,
    step: impl Fn(&Exec, u32, Parameter<'_>, &mut [f32], &mut [f32]),
    expect: impl Fn(u32, &mut [f32], &[f32], &mut [f32], &mut [f32]),
) {
    for len in [0, 1, 7, 33, 40_001] {
        let gradients: Vec<_> = (0..3).map(|t| values(len, t + 2)).collect();
        let mut expected: State = (values(len, 1), vec![0.0; len], vec![0.0; len]);
        for (t, g) in gradients.iter().enumerate() {
            let halved: Vec<f32> = g.iter().map(|g| g * 0.5).collect();
            let (w, m, v) = &mut expected;
            expect(t as u32 + 1, w, &halved, m, v);
        }
        for isa in Isa::available() {
            let run = |threads| {
                let exec = Exec::with_isa(isa, threads);
                let (mut w, mut m, mut v): State = (values(len, 1), vec![0.0; len], vec![0.0; len]);
                let mut copy = vec![half::bf16::ZERO; len];
                for (t, gradient) in gradients.iter().enumerate() {
                    let parameter = Parameter {
                        weight: &mut w,
                        gradient,
                        gradient_scale: 0.5,
                        bf16: Some(&mut copy),
                    };
                    step(&exec, t as u32 + 1, parameter, &mut m, &mut v);
                }
                assert!(
                    w.iter()
                        .zip(&copy)
                        .all(|(w, c)| half::bf16::from_f32(*w) == *c),
                    "{name}, {isa}"
                );
                (w, m, v)
            };
            let found = run(1);
            for threads in [2, 3, 8] {
                assert!(run(threads) == found, "{name} on {isa}, {threads} threads");
            }
            for (found, expected) in [
                (&found.0, &expected.0),
                (&found.1, &expected.1),
                (&found.2, &expected.2),
            ] {
                for (a, b) in found.iter().zip(expected) {
                    assert!(
                        (a - b).abs() <= 4e-6 * b.abs().max(1.0),
                        "{name} on {isa}: {a} for {b}"
                    );
                }
            }
        }
    }
}

#[test]
fn every_rule_is_its_reference_for_any_threads() {
    for rule in [AdamRule::AdamW, AdamRule::Bert, AdamRule::Stable] {
        let of = |step| Adam {
            rule,
            learning_rate: 0.01,
            epsilon: 1e-6,
            step,
            ..Adam::default()
        };
        check(
            "adam",
            |exec, t, p, m, v| {
                adam(exec, &of(t), p, m, v);
            },
            |t, w, g, m, v| {
                reference::adam(&of(t), w, g, m, v);
            },
        );
    }
    for (trust_ratio, bias_correction) in [(true, true), (false, true), (true, false)] {
        let of = |step| Lamb {
            trust_ratio,
            bias_correction,
            learning_rate: 0.01,
            step,
            ..Lamb::default()
        };
        check(
            "lamb",
            |exec, t, p, m, v| {
                lamb(exec, &of(t), p, m, v, &mut vec![0.0; m.len()]);
            },
            |t, w, g, m, v| {
                reference::lamb(&of(t), w, g, m, v);
            },
        );
    }
    for (momentum, dampening, nesterov) in [
        (0.0, 0.0, false),
        (0.9, 0.0, false),
        (0.9, 0.1, false),
        (0.9, 0.0, true),
    ] {
        let of = |step| Sgd {
            learning_rate: 0.1,
            momentum,
            dampening,
            weight_decay: 0.01,
            nesterov,
            step,
        };
        check(
            "sgd",
            |exec, t, p, m, _| sgd(exec, &of(t), p, if momentum == 0.0 { &mut [] } else { m }),
            |t, w, g, m, _| reference::sgd(&of(t), w, g, m),
        );
    }
}

#[test]
fn norms_are_those_of_f64_for_any_threads() {
    for len in [0, 1, 17, 4096, 100_003] {
        let x = values(len, 1);
        let exact: f64 = x.iter().map(|&x| f64::from(x).powi(2)).sum();
        for isa in Isa::available() {
            let norm = |threads| squared_norm(&Exec::with_isa(isa, threads), &x);
            let found = norm(1);
            assert!(
                (found - exact).abs() <= 1e-6 * exact,
                "{len} on {isa}: {found} for {exact}"
            );
            for threads in [2, 3, 8] {
                assert_eq!(norm(threads).to_bits(), found.to_bits(), "{len} on {isa}");
            }
            let mut half = x.clone();
            scale(&Exec::with_isa(isa, 3), &mut half, 0.5);
            assert!(
                half.iter().zip(&x).all(|(h, x)| *h == 0.5 * x),
                "{len} on {isa}"
            );
        }
    }
}

#[test]
fn bf16_is_rounded_as_half_does() {
    for bits in (0..=u32::MAX).step_by(65_521) {
        let x = f32::from_bits(bits);
        let (found, expected) = (crate::bf16::narrow(x), half::bf16::from_f32(x));
        assert!(
            found == expected || found.is_nan() && expected.is_nan(),
            "{x:e}"
        );
    }
}

#[test]
#[should_panic(expected = "a gradient for every weight")]
fn gradients_of_another_length_are_refused() {
    let exec = Exec::with_isa(Isa::best(), 1);
    let mut weight = [1.0, 2.0];
    let parameter = parameter(&mut weight, &[1.0]);
    adam(
        &exec,
        &Adam::default(),
        parameter,
        &mut [0.0; 2],
        &mut [0.0; 2],
    );
}
