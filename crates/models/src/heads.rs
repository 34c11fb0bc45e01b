//! What stands on top of an encoder: the heads of the BERT family, whose names and small differences are data.

use bertha_autograd::{Session, ops};
use bertha_nn::{Activation, Batch, Bias, Embeddings, Initial, LayerNorm, Linear, Weights};

use crate::encoder::{Dropout, EncoderConfig};
use crate::model::{require_head, wanted_rows};
use crate::{ForwardOptions, Head, ModelError, Outputs};

/// Where the heads' weights are, and how they differ.
pub(crate) struct HeadNames {
    /// The pooler: under the encoder's path.
    pub(crate) pooler: Option<&'static str>,
    pub(crate) sequence: SequenceNames,
    pub(crate) masked_lm: MaskedLmNames,
    /// The layers that tell replaced tokens, where there is such a head.
    pub(crate) discriminator: Option<[&'static str; 2]>,
}

/// `out(dropout(act(dense(first token))))`.
pub(crate) enum SequenceNames {
    /// The dense layer is the pooler.
    Pooled { out: &'static str },
    /// It is the head's own; with `dropout_first` values that it reads are dropped too.
    Own {
        dense: &'static str,
        activation: Activation,
        dropout_first: bool,
        out: &'static str,
    },
}

/// `decoder(LayerNorm(act(dense(x))))`, the decoder tied to the word table or not.
pub(crate) struct MaskedLmNames {
    pub(crate) dense: &'static str,
    /// `None`: the feed-forward block's.
    pub(crate) activation: Option<Activation>,
    pub(crate) norm: &'static str,
    /// The names that the decoder's bias has had.
    pub(crate) bias: &'static [&'static str],
    pub(crate) decoder: &'static str,
}

/// A loaded head.
pub(crate) enum HeadLayers {
    Base {
        pooler: Option<Linear>,
    },
    MaskedLm(Box<MaskedLm>),
    Sequence {
        dense: Linear,
        activation: Activation,
        /// Whether the dense layer is the pooler.
        pooled: bool,
        /// Probabilities of dropping what the dense layer reads, and what the last one reads.
        dropout: [f32; 2],
        out: Linear,
    },
    Tokens {
        dropout: f32,
        out: Linear,
    },
    Spans {
        dropout: f32,
        out: Linear,
    },
    Discriminator {
        dense: Linear,
        activation: Activation,
        out: Linear,
    },
}

pub(crate) struct MaskedLm {
    dense: Linear,
    activation: Activation,
    norm: LayerNorm,
    decoder: Linear,
    /// Parameters that are the decoder's and the word table's at once.
    shared: usize,
}

/// What loading a head takes.
pub(crate) struct HeadSource<'a> {
    /// All weights.
    pub(crate) weights: &'a Weights<'a>,
    /// Those of the encoder.
    pub(crate) encoder: &'a Weights<'a>,
    pub(crate) embeddings: &'a Embeddings,
    pub(crate) config: &'a EncoderConfig,
    pub(crate) classes: usize,
}

impl HeadLayers {
    pub(crate) fn load(
        head: Head,
        names: &HeadNames,
        model_type: &'static str,
        from: &HeadSource<'_>,
    ) -> Result<Self, ModelError> {
        let HeadSource {
            weights,
            encoder,
            config,
            classes,
            ..
        } = *from;
        let n = config.hidden_size;
        let Dropout {
            classifier,
            tokens,
            answer,
            ..
        } = config.dropout;
        let linear = |name: &'static str, outputs| {
            require_head(weights, name, head)?;
            Ok::<_, ModelError>(Linear::load(&weights.at(name), n, outputs, Bias::Present)?)
        };
        let pooler = |name| Linear::load(&encoder.at(name), n, n, Bias::Present);
        let absent = || ModelError::NoSuchHead { model_type, head };
        Ok(match head {
            Head::Base => Self::Base {
                // A checkpoint of another head may lack it.
                pooler: (names.pooler)
                    .filter(|&name| {
                        encoder.at(name).contains("weight") || !weights.has_checkpoint()
                    })
                    .map(pooler)
                    .transpose()?,
            },
            Head::MaskedLm => Self::MaskedLm(Box::new(MaskedLm::load(&names.masked_lm, from)?)),
            Head::SequenceClassification => match names.sequence {
                SequenceNames::Pooled { out } => Self::Sequence {
                    // The classifier's absence is told before the pooler's.
                    out: linear(out, classes)?,
                    dense: pooler(names.pooler.ok_or_else(absent)?)?,
                    activation: Activation::Tanh,
                    pooled: true,
                    dropout: [0.0, classifier],
                },
                SequenceNames::Own {
                    dense,
                    activation,
                    dropout_first,
                    out,
                } => Self::Sequence {
                    dense: linear(dense, n)?,
                    activation,
                    pooled: false,
                    dropout: [if dropout_first { classifier } else { 0.0 }, classifier],
                    out: linear(out, classes)?,
                },
            },
            Head::TokenClassification => Self::Tokens {
                dropout: tokens,
                out: linear("classifier", classes)?,
            },
            Head::QuestionAnswering => Self::Spans {
                dropout: answer,
                out: linear("qa_outputs", 2)?,
            },
            Head::ReplacedTokenDetection => {
                let [dense, out] = names.discriminator.ok_or_else(absent)?;
                Self::Discriminator {
                    dense: linear(dense, n)?,
                    activation: config.hidden_act,
                    out: linear(out, 1)?,
                }
            }
        })
    }

    /// Fills in what the head gives for the encoder's output, `outputs.last_hidden_state`.
    pub(crate) fn forward(
        &self,
        session: &Session,
        batch: &Batch,
        options: &ForwardOptions<'_>,
        outputs: &mut Outputs,
    ) -> Result<(), ModelError> {
        let x = &outputs.last_hidden_state;
        match self {
            Self::Base { pooler: None } => {}
            Self::Base {
                pooler: Some(pooler),
            } => {
                let first = ops::gather_rows(session, x, batch.first_tokens())?;
                let pooled = pooler.forward_with(session, &first, Activation::Tanh, None)?;
                outputs.pooler_output = Some(pooled);
            }
            Self::Sequence {
                dense,
                activation,
                pooled,
                dropout,
                out,
            } => {
                let first = ops::gather_rows(session, x, batch.first_tokens())?;
                let first = ops::dropout(session, first, dropout[0])?;
                let vector = dense.forward_with(session, &first, *activation, None)?;
                if *pooled {
                    outputs.pooler_output = Some(vector.clone());
                }
                let vector = ops::dropout(session, vector, dropout[1])?;
                outputs.logits = Some(out.forward(session, &vector)?);
            }
            Self::Tokens { dropout, out } => {
                let rows = wanted_rows(session, x, options)?;
                let rows = ops::dropout(session, rows, *dropout)?;
                outputs.logits = Some(out.forward(session, &rows)?);
            }
            Self::Spans { dropout, out } => {
                let x = ops::dropout(session, x.clone(), *dropout)?;
                let logits = out.forward(session, &x)?;
                outputs.start_logits = Some(ops::column(session, &logits, 0)?);
                outputs.end_logits = Some(ops::column(session, &logits, 1)?);
            }
            Self::MaskedLm(head) => {
                let rows = wanted_rows(session, x, options)?;
                let dense = &head.dense;
                let rows = dense.forward_with(session, &rows, head.activation, None)?;
                let rows = head.norm.forward(session, rows)?;
                outputs.logits = Some(head.decoder.forward(session, &rows)?);
            }
            Self::Discriminator {
                dense,
                activation,
                out,
            } => {
                let rows = wanted_rows(session, x, options)?;
                let rows = dense.forward_with(session, &rows, *activation, None)?;
                let logits = out.forward(session, &rows)?;
                outputs.logits = Some(ops::column(session, &logits, 0)?);
            }
        }
        Ok(())
    }

    fn linears(&self) -> impl Iterator<Item = &Linear> {
        let layers = match self {
            Self::Base { pooler } => [pooler.as_ref(), None],
            Self::MaskedLm(head) => [Some(&head.dense), Some(&head.decoder)],
            Self::Sequence { dense, out, .. } | Self::Discriminator { dense, out, .. } => {
                [Some(dense), Some(out)]
            }
            Self::Tokens { out, .. } | Self::Spans { out, .. } => [Some(out), None],
        };
        layers.into_iter().flatten()
    }

    /// Number of parameters that are the head's alone.
    pub(crate) fn parameters(&self) -> usize {
        let linears: usize = self.linears().map(Linear::parameters).sum();
        match self {
            Self::MaskedLm(head) => linears + head.norm.parameters() - head.shared,
            _ => linears,
        }
    }

    /// Bytes of the weights.
    pub(crate) fn bytes(&self) -> usize {
        let linears: usize = self.linears().map(Linear::bytes).sum();
        match self {
            Self::MaskedLm(head) => linears + head.norm.parameters() * size_of::<f32>(),
            _ => linears,
        }
    }
}

impl MaskedLm {
    fn load(names: &MaskedLmNames, from: &HeadSource<'_>) -> Result<Self, ModelError> {
        let (weights, config) = (from.weights, from.config);
        let (n, e, v) = (config.hidden_size, config.embedding_size, config.vocab_size);
        require_head(weights, names.dense, Head::MaskedLm)?;
        let dense = Linear::load(&weights.at(names.dense), n, e, Bias::Present)?;
        let norm = LayerNorm::load(&weights.at(names.norm), e, config.layer_norm_eps)?;
        let bias = weights.parameter(names.bias, &[v], Initial::Zeros)?;
        // Tied to the word table unless the file brings a decoder of its own.
        let tied = !weights.contains(names.decoder);
        let table = match tied {
            true => from.embeddings.word_table().clone(),
            false => weights.parameter(&[names.decoder], &[v, e], Initial::Normal)?,
        };
        Ok(Self {
            dense,
            activation: names.activation.unwrap_or(config.hidden_act),
            norm,
            decoder: Linear::from_parameters(weights.session(), &table, Some(&bias))?,
            shared: if tied { v * e } else { 0 },
        })
    }
}
