//! The learning rate of a step: a pure function, so that a resumed run needs only its step.
//!
//! Steps are counted as `transformers` counts them: update number `u` (from 0) is made with
//! `lr(u)`, the factor of `u` updates made before. With a warm-up of `W` steps the first update has
//! the factor 0 (it changes nothing), the factor is 1 first at `u = W`, and a decay that ends at
//! `total` has its last update at `total - 1`, just before the end.
//!
//! The shapes are those of `transformers.optimization` (`get_*_schedule`), factor by factor.

use serde::{Deserialize, Serialize};

use crate::TrainError;

/// How many steps a part of the training takes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Span {
    /// So many steps.
    Steps(u64),
    /// This part (0 to 1) of all steps, rounded up as `transformers` does.
    Ratio(f64),
}

impl Span {
    fn steps(self, total: u64) -> u64 {
        match self {
            Self::Steps(steps) => steps,
            Self::Ratio(ratio) => (total as f64 * ratio).ceil() as u64,
        }
    }
}

/// How the last part of [`Decay::WarmupStableDecay`] falls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tail {
    /// 1 - x.
    Linear,
    /// 1 - √x (Hägele et al. 2024, <https://arxiv.org/abs/2405.18392>).
    OneMinusSqrt,
    /// Half a cosine.
    Cosine,
}

/// What follows the warm-up. `floor` is a part (0 to 1) of the peak.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "shape")]
pub enum Decay {
    /// The peak throughout (`get_constant_schedule_with_warmup`).
    Constant,
    /// In a straight line to 0 at the last step (`get_linear_schedule_with_warmup`).
    Linear,
    /// Along a cosine to the floor (`get_cosine_with_min_lr_schedule_with_warmup`; with floor 0
    /// `get_cosine_schedule_with_warmup`). `cycles` 0.5 falls once.
    Cosine {
        /// Where it ends.
        floor: f64,
        /// Waves of the cosine.
        cycles: f64,
    },
    /// `(1 - x)^power` to the floor, then the floor (`get_polynomial_decay_schedule_with_warmup`, whose
    /// `lr_end` is `floor` times the peak).
    Polynomial {
        /// The exponent; 1 is a line.
        power: f64,
        /// Where it ends.
        floor: f64,
    },
    /// `1 / √((u + timescale - warmup) / timescale)` (`get_inverse_sqrt_schedule`).
    InverseSqrt {
        /// By default the warm-up's steps, or 10,000 if there are none.
        timescale: Option<u64>,
    },
    /// The peak, and a fall at the end (`get_wsd_schedule`); the warm-up starts at the floor as well.
    WarmupStableDecay {
        /// How long the fall takes, up to the last step.
        decay: Span,
        /// How it falls.
        tail: Tail,
        /// Where it ends.
        floor: f64,
    },
}

/// A learning rate over the steps of a training.
///
/// ```
/// use bertha_train::schedule::{Decay, Schedule, Span};
///
/// let schedule = Schedule::new(1e-3, 100, Span::Steps(10), Decay::Linear)?;
/// assert_eq!(schedule.lr(0), 0.0);
/// assert_eq!(schedule.lr(5), 5e-4);
/// assert_eq!(schedule.lr(10), 1e-3);
/// assert_eq!(schedule.lr(55), 5e-4);
/// # Ok::<(), bertha_train::TrainError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    peak: f64,
    total: u64,
    warmup: Span,
    decay: Decay,
}

impl Schedule {
    /// A schedule over `total` updates that warms up in a straight line to `peak`.
    ///
    /// # Errors
    /// [`TrainError::Setting`] when a number is not finite, negative, or a part is not from 0 to 1.
    pub fn new(peak: f64, total: u64, warmup: Span, decay: Decay) -> Result<Self, TrainError> {
        check("learning rate", peak, f64::MAX)?;
        check_span("warm-up", warmup)?;
        match decay {
            Decay::Constant | Decay::Linear | Decay::InverseSqrt { timescale: None } => {}
            Decay::Cosine { floor, cycles } => {
                check("floor of the learning rate", floor, 1.0)?;
                check("cycles of the cosine", cycles, f64::MAX)?;
            }
            Decay::Polynomial { power, floor } => {
                check("floor of the learning rate", floor, 1.0)?;
                check("power of the polynomial", power, f64::MAX)?;
            }
            Decay::InverseSqrt {
                timescale: Some(steps),
            } => {
                if steps == 0 || steps < warmup.steps(total) {
                    return Err(TrainError::Setting {
                        setting: "timescale",
                        found: steps.to_string(),
                        expected: format!("at least 1 and the warm-up's {}", warmup.steps(total)),
                    });
                }
            }
            Decay::WarmupStableDecay { decay, floor, .. } => {
                check("floor of the learning rate", floor, 1.0)?;
                check_span("decay", decay)?;
            }
        }
        Ok(Self {
            peak,
            total,
            warmup,
            decay,
        })
    }

    /// The largest learning rate.
    pub fn peak(&self) -> f64 {
        self.peak
    }

    /// The updates that it was made for.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The updates of the warm-up.
    pub fn warmup_steps(&self) -> u64 {
        self.warmup.steps(self.total)
    }

    /// The learning rate of the update that `step` updates came before.
    pub fn lr(&self, step: u64) -> f64 {
        self.peak * self.factor(step)
    }

    /// [`Schedule::lr`] as a part of the peak.
    pub fn factor(&self, step: u64) -> f64 {
        let warmup = self.warmup_steps();
        if step < warmup {
            let rise = step as f64 / warmup as f64;
            return match self.decay {
                Decay::WarmupStableDecay { floor, .. } => rise * (1.0 - floor) + floor,
                _ => rise,
            };
        }
        // Progress from the end of the warm-up to the last step.
        let length = self.total.saturating_sub(warmup).max(1) as f64;
        let progress = (step - warmup) as f64 / length;
        match self.decay {
            Decay::Constant => 1.0,
            Decay::Linear => {
                (self.total as f64 - step as f64).max(0.0)
                    / self.total.saturating_sub(warmup).max(1) as f64
            }
            Decay::Cosine { floor, cycles } => above(cosine(progress, cycles), floor),
            Decay::Polynomial { .. } if step > self.total => self.floor(),
            Decay::Polynomial { power, floor } => {
                (1.0 - floor) * (1.0 - progress).max(0.0).powf(power) + floor
            }
            Decay::InverseSqrt { timescale } => {
                let default = if warmup == 0 { 10_000 } else { warmup };
                let timescale = timescale.unwrap_or(default).max(1);
                let shift = timescale.saturating_sub(warmup);
                1.0 / ((step + shift) as f64 / timescale as f64).sqrt()
            }
            Decay::WarmupStableDecay { decay, tail, floor } => {
                let decay = decay.steps(self.total);
                let start = self.total.saturating_sub(decay).max(warmup);
                if step < start {
                    return 1.0;
                }
                if step >= start + decay {
                    return floor;
                }
                let x = (step - start) as f64 / decay as f64;
                let fall = match tail {
                    Tail::Linear => 1.0 - x,
                    Tail::OneMinusSqrt => 1.0 - x.sqrt(),
                    Tail::Cosine => cosine(x, 0.5),
                };
                above(fall, floor)
            }
        }
    }

    fn floor(&self) -> f64 {
        match self.decay {
            Decay::Cosine { floor, .. }
            | Decay::Polynomial { floor, .. }
            | Decay::WarmupStableDecay { floor, .. } => floor,
            _ => 0.0,
        }
    }
}

fn cosine(progress: f64, cycles: f64) -> f64 {
    0.5 * (1.0 + (std::f64::consts::PI * cycles * 2.0 * progress).cos())
}

/// A factor from 0 to 1, moved to be from `floor` to 1.
fn above(factor: f64, floor: f64) -> f64 {
    (factor * (1.0 - floor) + floor).max(0.0)
}

fn check(setting: &'static str, value: f64, largest: f64) -> Result<(), TrainError> {
    if value.is_finite() && (0.0..=largest).contains(&value) {
        return Ok(());
    }
    let expected = match largest {
        1.0 => "a number from 0 to 1".to_owned(),
        _ => "a finite number of at least 0".to_owned(),
    };
    Err(TrainError::Setting {
        setting,
        found: value.to_string(),
        expected,
    })
}

fn check_span(setting: &'static str, span: Span) -> Result<(), TrainError> {
    match span {
        Span::Steps(_) => Ok(()),
        Span::Ratio(ratio) => check(setting, ratio, 1.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_parts_of_all_steps_rounded_up() {
        let schedule = Schedule::new(1.0, 105, Span::Ratio(0.1), Decay::Constant).unwrap();
        assert_eq!(schedule.warmup_steps(), 11);
        assert_eq!(schedule.factor(0), 0.0);
        assert_eq!(schedule.factor(11), 1.0);
    }

    #[test]
    fn without_warm_up_the_first_update_is_at_the_peak() {
        for decay in [
            Decay::Constant,
            Decay::Linear,
            Decay::Cosine {
                floor: 0.1,
                cycles: 0.5,
            },
            Decay::Polynomial {
                power: 2.0,
                floor: 0.0,
            },
            Decay::InverseSqrt { timescale: None },
            Decay::WarmupStableDecay {
                decay: Span::Ratio(0.2),
                tail: Tail::Linear,
                floor: 0.0,
            },
        ] {
            let schedule = Schedule::new(2.0, 50, Span::Steps(0), decay).unwrap();
            assert_eq!(schedule.lr(0), 2.0, "{decay:?}");
            // Steps beyond the end stay finite and do not rise above the peak.
            for step in [50, 51, 1000] {
                let lr = schedule.lr(step);
                assert!((0.0..=2.0).contains(&lr), "{decay:?} at {step}: {lr}");
            }
        }
    }

    #[test]
    fn settings_out_of_range_are_named() {
        let floor = Decay::Cosine {
            floor: 1.5,
            cycles: 0.5,
        };
        for (schedule, name) in [
            (
                Schedule::new(-1.0, 10, Span::Steps(0), Decay::Linear),
                "learning rate",
            ),
            (
                Schedule::new(f64::NAN, 10, Span::Steps(0), Decay::Linear),
                "learning rate",
            ),
            (
                Schedule::new(1.0, 10, Span::Ratio(1.5), Decay::Linear),
                "warm-up",
            ),
            (Schedule::new(1.0, 10, Span::Steps(0), floor), "floor"),
            (
                Schedule::new(
                    1.0,
                    10,
                    Span::Steps(5),
                    Decay::InverseSqrt { timescale: Some(2) },
                ),
                "timescale",
            ),
        ] {
            let error = schedule.unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
    }

    #[test]
    fn a_schedule_is_kept_in_json() {
        let decay = Decay::WarmupStableDecay {
            decay: Span::Ratio(0.2),
            tail: Tail::OneMinusSqrt,
            floor: 0.01,
        };
        let schedule = Schedule::new(3e-4, 1000, Span::Steps(10), decay).unwrap();
        let json = serde_json::to_string(&schedule).unwrap();
        assert_eq!(serde_json::from_str::<Schedule>(&json).unwrap(), schedule);
    }
}
