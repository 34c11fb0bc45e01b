//! What a model can be trained for.

use bertha_models::{Config, Head};
use serde::{Deserialize, Serialize};

use crate::data::LabelMap;

/// What a model is trained for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// To guess masked tokens (pre-training).
    MaskedLm,
    /// To guess masked tokens, and whether the second segment of a pair follows the first (pre-training).
    PreTraining,
    /// To put texts, or pairs of texts, into one class of several.
    Classify,
    /// To say of each class whether a text belongs to it.
    MultiLabel,
    /// To say numbers of texts, or pairs of texts.
    Regress,
    /// To put tokens into classes.
    Tag,
    /// To find the answer to a question in a text.
    Answer,
}

impl Task {
    /// The head that a model needs for it.
    pub fn head(self) -> Head {
        match self {
            Self::MaskedLm => Head::MaskedLm,
            Self::PreTraining => Head::PreTraining,
            Self::Classify | Self::MultiLabel | Self::Regress => Head::SequenceClassification,
            Self::Tag => Head::TokenClassification,
            Self::Answer => Head::QuestionAnswering,
        }
    }

    /// Whether tokens are masked for it.
    pub fn masks(self) -> bool {
        matches!(self, Self::MaskedLm | Self::PreTraining)
    }

    /// The measure that the best model is chosen by, unless another is asked for.
    pub fn metric(self) -> &'static str {
        match self {
            Self::MaskedLm | Self::PreTraining => "loss",
            Self::Classify => "accuracy",
            Self::MultiLabel => "micro_f1",
            Self::Regress => "mean_squared_error",
            Self::Tag | Self::Answer => "f1",
        }
    }

    /// Whether a larger value of a measure is a better one.
    pub fn is_gain(metric: &str) -> bool {
        !matches!(
            metric,
            "loss" | "perplexity" | "mean_squared_error" | "mean_absolute_error"
        )
    }

    /// Writes into a configuration what the task is: its problem type and the names of its classes, as
    /// `transformers` reads them. `labels` are none where the task has none.
    pub fn configure(self, config: &mut Config, labels: Option<&LabelMap>) {
        let problem = match self {
            Self::Classify => Some("single_label_classification"),
            Self::MultiLabel => Some("multi_label_classification"),
            Self::Regress => Some("regression"),
            _ => None,
        };
        if let Some(problem) = problem {
            config.set("problem_type", problem);
        }
        if let Some(labels) = labels {
            config.set("id2label", labels.id2label());
            config.set("label2id", labels.label2id());
        }
    }
}
