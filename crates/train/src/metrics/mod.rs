//! Measures of quality, each equal to what the field's usual program computes.

mod answers;
mod classification;
mod correlation;
mod entities;
mod language;
mod squad;

pub use answers::{AnswerSearch, WindowLogits, best_answer};
pub use classification::{Confusion, MultiLabelCounts, Prf};
pub use correlation::{
    average_precision, mean_absolute_error, mean_squared_error, pearson, roc_auc, roc_auc_macro,
    spearman,
};
pub use entities::{Entity, EntityScores, Scheme, entities, entity_scores};
pub use language::TokenLoss;
pub use squad::{
    AnswerPrediction, BestThreshold, SquadScores, answer_f1, best_threshold, exact_match,
    normalize_answer, squad_scores,
};

use crate::TrainError;

/// Refuses lists that are not equally long.
fn same_count(what: &'static str, found: usize, expected: usize) -> Result<(), TrainError> {
    match found == expected {
        true => Ok(()),
        false => Err(TrainError::Count {
            what,
            found,
            expected,
        }),
    }
}
