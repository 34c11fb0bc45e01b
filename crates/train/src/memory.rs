//! The memory of an update, told before it is made: from passes over small batches, whose memory grows with the tokens in a
//! straight line, and for some models with the lengths of sequences too.

use bertha_autograd::{Gradients, Session};
use bertha_kernels::Exec;
use bertha_models::{Head, TrainableModel};
use bertha_nn::Batch;

use crate::TrainError;
use crate::collate::{Targets, TrainingBatch};
use crate::trainer::{batch_loss, loss_terms};

/// Bytes that an update with AdamW takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepMemory {
    /// Parameters, and the forms of them that products run on.
    pub weights: usize,
    /// Their gradients.
    pub gradients: usize,
    /// The optimizer's two moments.
    pub optimizer: usize,
    /// What the forward pass keeps for the backward pass, and what both use in between.
    pub activations: usize,
}

impl StepMemory {
    /// All together.
    pub fn total(&self) -> usize {
        self.weights + self.gradients + self.optimizer + self.activations
    }
}

/// Tokens of a sequence of the small batches.
const PROBE: usize = 64;

/// Predicts the memory of an update over batches of `tokens` tokens, in sequences of `length`, with the head that the
/// model has; of a masked LM 15 % of the tokens are to be guessed. The model computes two small batches for it.
///
/// Dropout is on; activation checkpointing and the precision are the session's, which the model was made with. The kernels'
/// own scratch memory, which does not depend on the batch, is not counted.
///
/// # Errors
/// When the model cannot run or has no loss.
pub fn step_memory(
    session: &Session,
    model: &TrainableModel,
    tokens: usize,
    length: usize,
) -> Result<StepMemory, TrainError> {
    let length = length.clamp(1, model.model.info().max_tokens);
    let head = model.model.info().head;
    let vocabulary = model.model.info().vocab_size as u32;
    // Buffers that earlier work left in the session's pool would be counted as well.
    let session = Session::from_exec(Exec::with_isa(
        session.exec().isa(),
        session.exec().threads(),
    ))
    .checkpointing(session.checkpoints())
    .with_precision(session.precision());
    let peak = |sequences: usize, probe: usize| -> Result<usize, TrainError> {
        let ids: Vec<u32> = (0..probe as u32).map(|i| i % vocabulary).collect();
        let batch = TrainingBatch {
            batch: Batch::from_sequences(&vec![ids; sequences])?,
            targets: targets(head, sequences, probe, model.config.labels()?.len()),
            examples: (0..sequences as u32).collect(),
        };
        let session = session.training(0, 0);
        session.pool().reset_peak();
        let over = loss_terms(&batch) as f64;
        let loss = batch_loss(&session, model.model.as_ref(), &batch, over, 0.0)?;
        let mut gradients = Gradients::new();
        if let Some(loss) = loss {
            loss.backward(&session, &mut gradients)?;
        }
        Ok(session.pool().stats().peak_used_bytes)
    };
    // The first pass packs the weights.
    let probe = length.min(PROBE);
    peak(1, probe)?;
    // What a token takes in sequences of a length, and what the rest takes.
    let line = |probe: usize| -> Result<(f64, f64), TrainError> {
        let (few, more) = (peak(2, probe)?, peak(6, probe)?);
        let each = more.saturating_sub(few) as f64 / (4 * probe) as f64;
        Ok((each, few as f64 - each * (2 * probe) as f64))
    };
    let (mut each, fixed) = line(probe)?;
    if length >= 2 * probe {
        // Attention that keeps a value for each pair of tokens takes more where sequences are longer.
        let (longer, _) = line(2 * probe)?;
        each += (longer - each).max(0.0) / probe as f64 * (length - probe) as f64;
    }
    let gradients = 4 * model.numel();
    let activations = fixed - gradients as f64 + each * tokens as f64;
    Ok(StepMemory {
        weights: model.model.info().weight_bytes,
        gradients,
        optimizer: 8 * model.numel(),
        activations: activations.max(each * tokens as f64) as usize,
    })
}

/// Something to learn for every sequence of `length` tokens.
fn targets(head: Head, sequences: usize, length: usize, classes: usize) -> Targets {
    let tokens = sequences * length;
    match head {
        Head::SequenceClassification => Targets::Classes(vec![0; sequences]),
        Head::TokenClassification => Targets::Tokens(vec![0; tokens]),
        Head::QuestionAnswering => Targets::Spans {
            starts: vec![0; sequences],
            ends: vec![0; sequences],
        },
        Head::ReplacedTokenDetection => Targets::MultiLabel {
            classes: classes.min(1),
            values: vec![0.0; tokens],
        },
        _ => {
            let rows: Vec<u32> = (0..tokens as u32).filter(|row| row * 3 % 20 < 3).collect();
            Targets::Masked {
                ids: vec![0; rows.len()],
                rows,
                classes: (head == Head::PreTraining).then(|| vec![0; sequences]),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bertha_autograd::Precision;
    use bertha_models::Config;

    #[test]
    fn a_larger_batch_takes_what_was_said() {
        let config = |model_type: &str| {
            let json = format!(
                r#"{{"model_type": "{model_type}", "vocab_size": 300, "hidden_size": 48, "num_hidden_layers": 3,
                "num_attention_heads": 4, "intermediate_size": 100, "max_position_embeddings": 200,
                "relative_attention": true, "position_buckets": 32, "pos_att_type": "p2c|c2p", "share_att_key": true}}"#
            );
            Config::from_json(json.as_bytes(), "config.json").unwrap()
        };
        for (model_type, head, checkpointing, precision) in [
            ("bert", Head::MaskedLm, false, Precision::F32),
            ("bert", Head::MaskedLm, true, Precision::F32),
            ("bert", Head::MaskedLm, false, Precision::Bf16),
            ("bert", Head::SequenceClassification, false, Precision::F32),
            ("deberta-v2", Head::MaskedLm, false, Precision::F32),
            ("deberta-v2", Head::MaskedLm, true, Precision::F32),
        ] {
            let session = Session::new(Some(1)).unwrap();
            let session = session
                .checkpointing(checkpointing)
                .with_precision(precision);
            let model = TrainableModel::new(config(model_type), head, &session, 1).unwrap();
            let said = step_memory(&session, &model, 4000, 200).unwrap();

            let batch = TrainingBatch {
                batch: Batch::from_sequences(&vec![vec![5; 200]; 20]).unwrap(),
                targets: targets(head, 20, 200, 2),
                examples: (0..20).collect(),
            };
            let session = session.training(0, 0);
            let before = session.pool().stats().used_bytes;
            session.pool().reset_peak();
            let loss = batch_loss(&session, model.model.as_ref(), &batch, 1.0, 0.0);
            let mut gradients = Gradients::new();
            let loss = loss.unwrap().unwrap();
            loss.backward(&session, &mut gradients).unwrap();
            let found = session.pool().stats().peak_used_bytes - before;
            let ratio = (said.activations + said.gradients) as f64 / found as f64;
            assert!((0.85..1.2).contains(&ratio), "{model_type} {head}: {ratio}");
        }
    }
}
