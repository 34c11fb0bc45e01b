//! Which rule an optimizer follows, and the rule's numbers.

use serde::{Deserialize, Serialize};

use crate::TrainError;

/// The rule of an optimizer. Learning rate and weight decay are not here: they come with each step and
/// from the parameter's group.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "rule", deny_unknown_fields)]
pub enum OptimizerConfig {
    /// AdamW ([`bertha_kernels::AdamRule::AdamW`]).
    #[serde(rename = "adamw")]
    AdamW {
        /// Decays of the two moments.
        betas: (f64, f64),
        /// What is added to the denominator.
        eps: f64,
    },
    /// The original BERT's Adam ([`bertha_kernels::AdamRule::Bert`]).
    BertAdam {
        /// Decays of the two moments.
        betas: (f64, f64),
        /// What is added to the denominator.
        eps: f64,
    },
    /// StableAdamW ([`bertha_kernels::AdamRule::Stable`]).
    #[serde(rename = "stable_adamw")]
    StableAdamW {
        /// Decays of the two moments.
        betas: (f64, f64),
        /// What is added to the denominator.
        eps: f64,
    },
    /// LAMB ([`bertha_kernels::lamb`]).
    Lamb {
        /// Decays of the two moments.
        betas: (f64, f64),
        /// What is added to the denominator.
        eps: f64,
        /// Whether parameters without weight decay have a trust ratio as well (NVLAMB).
        trust_all: bool,
    },
    /// Lion (Chen et al. 2023, <https://arxiv.org/abs/2302.06675>): the sign of a mean of gradients.
    Lion {
        /// How much of the mean goes into the update, and the mean's decay.
        betas: (f64, f64),
    },
    /// SGD as PyTorch's ([`bertha_kernels::sgd`]).
    Sgd {
        /// How much of the last update goes on; 0 for none.
        momentum: f64,
        /// Whether the momentum looks ahead.
        nesterov: bool,
    },
}

impl OptimizerConfig {
    /// AdamW with PyTorch's betas 0.9 and 0.999, ε 1e-8.
    pub const fn adamw() -> Self {
        Self::AdamW {
            betas: (0.9, 0.999),
            eps: 1e-8,
        }
    }

    /// The optimizer of the original BERT: betas 0.9 and 0.999, ε 1e-6.
    pub const fn bert_adam() -> Self {
        Self::BertAdam {
            betas: (0.9, 0.999),
            eps: 1e-6,
        }
    }

    /// StableAdamW with betas 0.9 and 0.99, ε 1e-6; it needs no gradient clipping.
    pub const fn stable_adamw() -> Self {
        Self::StableAdamW {
            betas: (0.9, 0.99),
            eps: 1e-6,
        }
    }

    /// LAMB with betas 0.9 and 0.999, ε 1e-6.
    pub const fn lamb() -> Self {
        Self::Lamb {
            betas: (0.9, 0.999),
            eps: 1e-6,
            trust_all: false,
        }
    }

    /// Lion with betas 0.9 and 0.99. It wants a learning rate 3 to 10 times smaller than AdamW's.
    pub const fn lion() -> Self {
        Self::Lion { betas: (0.9, 0.99) }
    }

    /// SGD with momentum, not Nesterov's.
    pub const fn sgd(momentum: f64) -> Self {
        Self::Sgd {
            momentum,
            nesterov: false,
        }
    }

    /// The moments that the rule remembers of a parameter.
    pub(super) fn moments(&self) -> &'static [&'static str] {
        match self {
            Self::AdamW { .. }
            | Self::BertAdam { .. }
            | Self::StableAdamW { .. }
            | Self::Lamb { .. } => &["exp_avg", "exp_avg_sq"],
            Self::Lion { .. } => &["exp_avg"],
            Self::Sgd { momentum: 0.0, .. } => &[],
            Self::Sgd { .. } => &["momentum"],
        }
    }

    pub(super) fn check(&self) -> Result<(), TrainError> {
        let refuse = |setting, found: f64, expected: &str| {
            Err(TrainError::Setting {
                setting,
                found: found.to_string(),
                expected: expected.to_owned(),
            })
        };
        let (betas, eps) = match *self {
            Self::AdamW { betas, eps }
            | Self::BertAdam { betas, eps }
            | Self::StableAdamW { betas, eps }
            | Self::Lamb { betas, eps, .. } => (betas, eps),
            Self::Lion { betas } => (betas, 0.0),
            Self::Sgd { momentum, .. } => {
                if !(0.0..1.0).contains(&momentum) {
                    return refuse("momentum", momentum, "a number from 0 to below 1");
                }
                return Ok(());
            }
        };
        for beta in [betas.0, betas.1] {
            if !(0.0..1.0).contains(&beta) {
                return refuse(
                    "a beta of the optimizer",
                    beta,
                    "a number from 0 to below 1",
                );
            }
        }
        match eps.is_finite() && eps >= 0.0 {
            true => Ok(()),
            false => refuse("the optimizer's eps", eps, "a finite number of at least 0"),
        }
    }
}
