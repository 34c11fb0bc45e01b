//! What every architecture is to its users.

use bertha_autograd::{Session, Var, ops};
use bertha_nn::{Batch, Weights};

use crate::ModelError;

/// What stands on top of an encoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Head {
    /// Nothing: the token vectors, and the pooler's vector where there is one.
    Base,
    /// A score for each word of the vocabulary at each token.
    MaskedLm,
    /// A score for each class, of the whole sequence.
    SequenceClassification,
    /// A score for each class, of each token.
    TokenClassification,
    /// A score for each token to start, and to end, the answer.
    QuestionAnswering,
    /// A score for each token to have been replaced (ELECTRA's discriminator).
    ReplacedTokenDetection,
    /// That of masked LM, and two scores for the whole of a pair of segments: that the second follows the first, and that
    /// it does not (BERT, BigBird) or that they are swapped (ALBERT).
    PreTraining,
}

impl Head {
    /// The head of a `transformers` class such as `BertForMaskedLM`; `Base` for any other.
    pub fn from_architecture(class: &str) -> Self {
        let has = |suffix| class.ends_with(suffix);
        if class == "ElectraForPreTraining" {
            Self::ReplacedTokenDetection
        } else if matches!(
            class,
            "BertForPreTraining" | "AlbertForPreTraining" | "BigBirdForPreTraining"
        ) {
            Self::PreTraining
        } else if has("ForMaskedLM") || has("ForPreTraining") {
            Self::MaskedLm
        } else if has("ForSequenceClassification") {
            Self::SequenceClassification
        } else if has("ForTokenClassification") {
            Self::TokenClassification
        } else if has("ForQuestionAnswering") {
            Self::QuestionAnswering
        } else {
            Self::Base
        }
    }

    /// The name of its class in `transformers`, such as `BertForMaskedLM`.
    pub fn class(self, prefix: &str) -> String {
        let suffix = match self {
            Self::Base => "Model",
            Self::MaskedLm => "ForMaskedLM",
            Self::SequenceClassification => "ForSequenceClassification",
            Self::TokenClassification => "ForTokenClassification",
            Self::QuestionAnswering => "ForQuestionAnswering",
            Self::ReplacedTokenDetection | Self::PreTraining => "ForPreTraining",
        };
        format!("{prefix}{suffix}")
    }

    /// The head in words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Base => "no head",
            Self::MaskedLm => "masked-LM",
            Self::SequenceClassification => "sequence-classification",
            Self::TokenClassification => "token-classification",
            Self::QuestionAnswering => "question-answering",
            Self::ReplacedTokenDetection => "replaced-token-detection",
            Self::PreTraining => "pre-training",
        }
    }
}

impl std::fmt::Display for Head {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// What a sequence classifier was trained to predict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProblemType {
    /// Numbers.
    Regression,
    /// One class of several.
    SingleLabel,
    /// Any number of classes.
    MultiLabel,
}

/// The facts of a loaded model.
#[derive(Clone, Debug)]
pub struct ModelInfo {
    /// `model_type` of the configuration.
    pub model_type: &'static str,
    /// The head that was loaded.
    pub head: Head,
    /// Width of a token's vector (N).
    pub hidden_size: usize,
    /// Width inside the feed-forward block.
    pub intermediate_size: usize,
    /// Number of layers.
    pub layers: usize,
    /// Attention heads of a layer (H).
    pub heads: usize,
    /// Rows of the word table (V); the tokenizer may know fewer.
    pub vocab_size: usize,
    /// The longest sequence, in tokens.
    pub max_tokens: usize,
    /// Names of the classes.
    pub labels: Vec<String>,
    /// What the classes mean, where the configuration says.
    pub problem_type: Option<ProblemType>,
    /// Parameters that were loaded.
    pub parameters: usize,
    /// Bytes that the weights take in memory once packed, mapped tables included.
    pub weight_bytes: usize,
}

impl ModelInfo {
    /// What `transformers` calls the scores of pairs ([`Outputs::pair_logits`]) and their labels.
    pub fn pair_names(&self) -> [&'static str; 2] {
        match self.model_type {
            "albert" => ["sop_logits", "sentence_order_label"],
            _ => ["seq_relationship_logits", "next_sentence_label"],
        }
    }

    /// Bytes of intermediate tensors that a forward pass over `tokens` tokens holds at its peak: the
    /// input, the feed-forward block's inner vectors and its output, f32.
    pub fn activation_bytes(&self, tokens: usize) -> usize {
        let attention = 5 * self.hidden_size;
        let feed_forward = 2 * self.hidden_size + self.intermediate_size;
        tokens
            .saturating_mul(attention.max(feed_forward))
            .saturating_mul(4)
    }
}

/// What a forward pass should give beyond the head's own output.
#[derive(Clone, Copy, Debug, Default)]
pub struct ForwardOptions<'a> {
    /// Also give the embeddings' output and every layer's.
    pub hidden_states: bool,
    /// Compute per-token logits only for these packed rows: a masked-LM head over all tokens is
    /// `[T,V]`, and only the masked ones are wanted.
    pub logit_rows: Option<&'a [u32]>,
    /// For each sequence the places of the tokens that see all of it and are seen by all of it, where the architecture
    /// has such tokens (Longformer). By default those that `transformers` takes for the head: the first of a sequence
    /// that is classified, those of a question before its separator, else none.
    pub global_tokens: Option<&'a [Vec<u32>]>,
}

/// What a forward pass gives: packed rows, named as in `transformers`.
#[derive(Clone, Debug)]
pub struct Outputs {
    /// The last layer's output, `[T,N]`.
    pub last_hidden_state: Var,
    /// The pooler's output, `[B,N]`.
    pub pooler_output: Option<Var>,
    /// `[T,V]` (or the asked rows), `[B,C]`, `[T,C]` or `[T]` (or the asked rows), by the head.
    pub logits: Option<Var>,
    /// `[B,2]`, of [`Head::PreTraining`].
    pub pair_logits: Option<Var>,
    /// `[T]`.
    pub start_logits: Option<Var>,
    /// `[T]`.
    pub end_logits: Option<Var>,
    /// The embeddings' output and each layer's, `[T,N]` each, when asked for.
    pub hidden_states: Vec<Var>,
}

/// A loaded architecture with its head.
pub trait Model: Send + Sync {
    /// The facts.
    fn info(&self) -> &ModelInfo;

    /// Runs a batch.
    ///
    /// # Errors
    /// When an id, a type or a position is outside its table.
    fn forward(
        &self,
        session: &Session,
        batch: &Batch,
        options: &ForwardOptions<'_>,
    ) -> Result<Outputs, ModelError>;
}

/// The rows that logits are wanted for: those asked for, or all.
pub(crate) fn wanted_rows(
    session: &Session,
    x: &Var,
    options: &ForwardOptions<'_>,
) -> Result<Var, ModelError> {
    Ok(match options.logit_rows {
        Some(rows) => ops::gather_rows(session, x, rows)?,
        None => x.clone(),
    })
}

/// Refuses a checkpoint that lacks a head's layer.
pub(crate) fn require_head(
    weights: &Weights<'_>,
    layer: &'static str,
    wanted: Head,
) -> Result<(), ModelError> {
    if weights.is_trainable() || weights.at(layer).contains("weight") {
        return Ok(());
    }
    Err(ModelError::MissingHead {
        file: weights.file().to_path_buf(),
        wanted,
        tensor: layer,
    })
}
