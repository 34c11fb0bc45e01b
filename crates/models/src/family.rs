//! A model of the BERT family: an encoder and a head, by the description of its architecture.

use bertha_autograd::Session;
use bertha_nn::{Batch, Weights};

use crate::encoder::{Encoder, EncoderConfig, EncoderNames};
use crate::heads::{HeadLayers, HeadNames, HeadSource, question_len};
use crate::{
    Config, ForwardOptions, GlobalRule, Head, Model, ModelError, ModelInfo, Outputs, globals,
};

/// An architecture of the BERT family: all that sets it apart.
pub(crate) struct Family {
    /// `model_type` in config.json.
    pub(crate) model_type: &'static str,
    /// What the encoder's names begin with in a checkpoint with a head.
    pub(crate) prefix: &'static str,
    /// Reads config.json.
    pub(crate) config: fn(&Config) -> Result<EncoderConfig, ModelError>,
    pub(crate) encoder: EncoderNames,
    pub(crate) heads: HeadNames,
}

/// A loaded model.
struct Transformer {
    encoder: Encoder,
    head: HeadLayers,
    info: ModelInfo,
    globals: Option<GlobalRule>,
    separator: u32,
    /// Whether token types that are not given follow from the question.
    types_by_question: bool,
}

impl Family {
    /// Loads the encoder and the wanted head.
    ///
    /// # Errors
    /// When the configuration is out of range, a tensor is missing or of another shape, or the architecture has no
    /// such head.
    pub(crate) fn load(
        &self,
        config: &Config,
        weights: &Weights<'_>,
        head: Head,
    ) -> Result<Box<dyn Model>, ModelError> {
        let sizes = (self.config)(config)?;
        if sizes.global_tokens.is_none() && config.contains(globals::KEY) {
            return Err(ModelError::NoGlobalTokens {
                model_type: self.model_type,
            });
        }
        // The bare encoder is saved without a prefix, as `transformers` does.
        let saved = match head {
            Head::Base => "",
            _ => self.prefix,
        };
        let probe = format!("{}.weight", self.encoder.embeddings.word);
        let from = weights.at_first_with(&probe, &[self.prefix, ""], saved);
        let encoder = Encoder::load(&from, &sizes, &self.encoder)?;
        let labels = config.labels()?;
        let source = HeadSource {
            weights,
            encoder: &from,
            embeddings: &encoder.embeddings,
            config: &sizes,
            classes: labels.len(),
        };
        let layers = HeadLayers::load(head, &self.heads, self.model_type, &source)?;
        let precision = weights.session().precision();
        let info = ModelInfo {
            model_type: self.model_type,
            head,
            hidden_size: sizes.hidden_size,
            intermediate_size: sizes.intermediate_size,
            layers: sizes.num_hidden_layers,
            heads: sizes.num_attention_heads,
            vocab_size: sizes.vocab_size,
            max_tokens: sizes.max_tokens(),
            labels,
            problem_type: config.problem_type()?,
            parameters: encoder.parameters() + layers.parameters(),
            weight_bytes: encoder.bytes(precision) + layers.bytes(precision),
        };
        Ok(Box::new(Transformer {
            encoder,
            head: layers,
            info,
            globals: sizes.global_tokens,
            separator: sizes.separator,
            types_by_question: sizes.types_by_question && head == Head::QuestionAnswering,
        }))
    }
}

impl Transformer {
    /// Type 0 for a question, 1 for what follows.
    fn types(&self, batch: &Batch) -> Vec<u32> {
        let mut types = vec![1; batch.tokens()];
        for i in 0..batch.len() {
            let range = batch.range(i);
            let len = question_len(&batch.input_ids()[range.clone()], self.separator);
            types[range][..len].fill(0);
        }
        types
    }
}

impl Model for Transformer {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn forward(
        &self,
        session: &Session,
        batch: &Batch,
        options: &ForwardOptions<'_>,
    ) -> Result<Outputs, ModelError> {
        let mut hidden_states = Vec::new();
        let typed;
        let batch = match self.types_by_question && batch.type_ids().is_none() {
            false => batch,
            true => {
                typed = batch.clone().with_type_ids(self.types(batch))?;
                &typed
            }
        };
        let info = &self.info;
        let (rule, separator) = (self.globals, self.separator);
        let globals =
            GlobalRule::tokens(rule, info.model_type, info.head, separator, batch, options)?;
        let parts = match globals.is_none() && !options.hidden_states {
            true => self.encoder.forward_in_parts(session, batch)?,
            false => None,
        };
        let last_hidden_state = match parts {
            Some(last_hidden_state) => last_hidden_state,
            None => self
                .encoder
                .forward(session, batch, globals.as_ref(), |x| {
                    if options.hidden_states {
                        hidden_states.push(x.clone());
                    }
                })?,
        };
        let mut outputs = Outputs {
            pooler_output: None,
            logits: None,
            pair_logits: None,
            start_logits: None,
            end_logits: None,
            hidden_states,
            last_hidden_state,
        };
        self.head.forward(session, batch, options, &mut outputs)?;
        Ok(outputs)
    }
}
