//! What stands on top of an encoder: the heads of the BERT family, whose names and small differences are data.

use bertha_autograd::{Precision, Session, Var, ops};
use bertha_nn::{
    Activation, Batch, Bias, Embeddings, FeedForward, Initial, LayerNorm, Linear, NnError, Pooling,
    Weights,
};

use bertha_tensor::Tensor;

use crate::encoder::{Dropout, EncoderConfig};
use crate::model::{require_head, wanted_rows};
use crate::{ForwardOptions, Head, ModelError, Outputs};

/// Where the heads' weights are, and how they differ.
pub(crate) struct HeadNames {
    /// The pooler: under the encoder's path.
    pub(crate) pooler: Option<&'static str>,
    pub(crate) sequence: SequenceNames,
    pub(crate) masked_lm: MaskedLmNames,
    /// Whether the heads for tokens and spans read what the masked LM's dense layer and norm make of their input.
    pub(crate) transform: bool,
    pub(crate) spans: SpanNames,
    /// The layers that tell replaced tokens, where there is such a head.
    pub(crate) discriminator: Option<[&'static str; 2]>,
    /// What scores pairs of segments in pre-training, where there is such a head.
    pub(crate) pairs: Option<PairNames>,
}

/// `out(dropout(act(dense(first token))))`.
pub(crate) enum SequenceNames {
    /// The dense layer is the pooler.
    Pooled { out: &'static str },
    /// It is the head's own; with `dropout_first` values that it reads are dropped too.
    Own {
        dense: &'static str,
        /// `None`: what the configuration says.
        activation: Option<Activation>,
        dropout_first: bool,
        out: &'static str,
    },
    /// It is the masked LM's, with its norm.
    Transformed { out: &'static str },
}

/// `out(dropout(tanh(pooler(first token))))`.
pub(crate) struct PairNames {
    pub(crate) out: &'static str,
    /// Whether values that the last layer reads are dropped, as a classifier's.
    pub(crate) dropout: bool,
}

/// What scores the ends of spans.
pub(crate) enum SpanNames {
    /// A layer.
    Plain(&'static str),
    /// A feed-forward block with its norm, then a layer; tokens of the question, which ends at the separator, but for the
    /// first are no answer.
    Block {
        up: &'static str,
        down: &'static str,
        norm: &'static str,
        out: &'static str,
    },
}

/// `decoder(LayerNorm(act(dense(x))))`, the decoder tied to the word table or not.
pub(crate) struct MaskedLmNames {
    pub(crate) dense: &'static str,
    /// `None`: what the configuration says.
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
        pooling: Pooling,
        dense: Linear,
        activation: Activation,
        norm: Option<LayerNorm>,
        /// Whether the dense layer is the pooler.
        pooled: bool,
        /// Probabilities of dropping what the dense layer reads, and what the last one reads.
        dropout: [f32; 2],
        out: Linear,
    },
    Tokens {
        transform: Option<Transform>,
        dropout: f32,
        out: Linear,
    },
    Spans {
        transform: Option<Transform>,
        dropout: f32,
        out: Linear,
    },
    BlockSpans(Box<BlockSpans>),
    Discriminator {
        dense: Linear,
        activation: Activation,
        out: Linear,
    },
    PreTraining(Box<PreTraining>),
}

/// The masked LM's head and that of pairs.
pub(crate) struct PreTraining {
    masked_lm: MaskedLm,
    pooler: Linear,
    dropout: f32,
    out: Linear,
}

/// [`SpanNames::Block`], loaded.
pub(crate) struct BlockSpans {
    dropout: f32,
    block: FeedForward,
    norm: LayerNorm,
    out: Linear,
    separator: u32,
}

/// `LayerNorm(act(dense(x)))`.
pub(crate) struct Transform {
    dense: Linear,
    activation: Activation,
    norm: LayerNorm,
}

pub(crate) struct MaskedLm {
    transform: Transform,
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
        let pooler = |name| Linear::load(&encoder.at(name).binarized(), n, n, Bias::Present);
        let transform = || match names.transform {
            true => {
                require_head(weights, names.masked_lm.dense, head)?;
                Transform::load(&names.masked_lm, from).map(Some)
            }
            false => Ok(None),
        };
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
                    pooling: Pooling::Cls,
                    norm: None,
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
                    pooling: Pooling::Cls,
                    dense: linear(dense, n)?,
                    activation: activation.unwrap_or(config.head.pooled_activation),
                    norm: None,
                    pooled: false,
                    dropout: match dropout_first {
                        true => [classifier, classifier],
                        false => [config.dropout.pooled, classifier],
                    },
                    out: linear(out, classes)?,
                },
                SequenceNames::Transformed { out } => {
                    let out = linear(out, classes)?;
                    let transform = Transform::load(&names.masked_lm, from)?;
                    Self::Sequence {
                        pooling: config.head.pooling,
                        dense: transform.dense,
                        activation: transform.activation,
                        norm: Some(transform.norm),
                        pooled: false,
                        dropout: [0.0, classifier],
                        out,
                    }
                }
            },
            Head::TokenClassification => Self::Tokens {
                transform: transform()?,
                dropout: tokens,
                out: linear("classifier", classes)?,
            },
            Head::QuestionAnswering => match names.spans {
                SpanNames::Plain(out) => Self::Spans {
                    transform: transform()?,
                    dropout: answer,
                    out: linear(out, 2)?,
                },
                SpanNames::Block {
                    up,
                    down,
                    norm,
                    out,
                } => {
                    let inner = config.intermediate_size;
                    let out = linear(out, 2)?;
                    let up = linear(up, inner)?;
                    let down = Linear::load(&weights.at(down), inner, n, Bias::Present)?;
                    Self::BlockSpans(Box::new(BlockSpans {
                        dropout: answer,
                        block: FeedForward::new(up, down, config.hidden_act)
                            .with_dropout(0.0, answer),
                        norm: LayerNorm::load(&weights.at(norm), n, config.layer_norm_eps)?,
                        out,
                        separator: config.separator,
                    }))
                }
            },
            Head::PreTraining => {
                let pairs = names.pairs.as_ref().ok_or_else(absent)?;
                Self::PreTraining(Box::new(PreTraining {
                    masked_lm: MaskedLm::load(&names.masked_lm, from)?,
                    out: linear(pairs.out, 2)?,
                    pooler: pooler(names.pooler.ok_or_else(absent)?)?,
                    dropout: if pairs.dropout { classifier } else { 0.0 },
                }))
            }
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
                pooling,
                dense,
                activation,
                norm,
                pooled,
                dropout,
                out,
            } => {
                let vector = match pooling {
                    Pooling::Mean => ops::segment_mean(session, x, batch.cu_seqlens())?,
                    _ => ops::gather_rows(session, x, batch.first_tokens())?,
                };
                let vector = ops::dropout(session, vector, dropout[0])?;
                let mut vector = dense.forward_with(session, &vector, *activation, None)?;
                if let Some(norm) = norm {
                    vector = norm.forward(session, vector)?;
                }
                if *pooled {
                    outputs.pooler_output = Some(vector.clone());
                }
                let vector = ops::dropout(session, vector, dropout[1])?;
                outputs.logits = Some(out.forward(session, &vector)?);
            }
            Self::Tokens {
                transform,
                dropout,
                out,
            } => {
                let rows = wanted_rows(session, x, options)?;
                let rows = transformed(transform.as_ref(), session, rows)?;
                let rows = ops::dropout(session, rows, *dropout)?;
                outputs.logits = Some(out.forward(session, &rows)?);
            }
            Self::Spans {
                transform,
                dropout,
                out,
            } => {
                let x = transformed(transform.as_ref(), session, x.clone())?;
                let x = ops::dropout(session, x, *dropout)?;
                let logits = out.forward(session, &x)?;
                outputs.start_logits = Some(ops::column(session, &logits, 0)?);
                outputs.end_logits = Some(ops::column(session, &logits, 1)?);
            }
            Self::BlockSpans(head) => {
                let read = ops::dropout(session, x.clone(), head.dropout)?;
                let fed = head.block.forward(session, &read, x)?;
                let fed = head.norm.forward(session, fed)?;
                let logits = head.out.forward(session, &fed)?;
                let barred = Var::constant(question_barred(batch, head.separator)?);
                let ends = [0, 1].map(|column| {
                    let scores = ops::column(session, &logits, column)?;
                    ops::sub(session, &scores, &barred)
                });
                let [start, end] = ends;
                outputs.start_logits = Some(start?);
                outputs.end_logits = Some(end?);
            }
            Self::MaskedLm(head) => {
                let rows = wanted_rows(session, x, options)?;
                outputs.logits = Some(head.forward(session, rows)?);
            }
            Self::PreTraining(head) => {
                let rows = wanted_rows(session, x, options)?;
                let first = ops::gather_rows(session, x, batch.first_tokens())?;
                outputs.logits = Some(head.masked_lm.forward(session, rows)?);
                let pooler = &head.pooler;
                let pooled = pooler.forward_with(session, &first, Activation::Tanh, None)?;
                outputs.pooler_output = Some(pooled.clone());
                let pooled = ops::dropout(session, pooled, head.dropout)?;
                outputs.pair_logits = Some(head.out.forward(session, &pooled)?);
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
            Self::Base { pooler } => [pooler.as_ref(), None, None, None],
            Self::MaskedLm(head) => {
                let [dense, decoder] = head.linears();
                [Some(dense), Some(decoder), None, None]
            }
            Self::PreTraining(head) => {
                let [dense, decoder] = head.masked_lm.linears();
                let pairs = [Some(&head.pooler), Some(&head.out)];
                [Some(dense), Some(decoder), pairs[0], pairs[1]]
            }
            Self::Sequence { dense, out, .. } | Self::Discriminator { dense, out, .. } => {
                [Some(dense), Some(out), None, None]
            }
            Self::BlockSpans(head) => [Some(&head.out), None, None, None],
            Self::Tokens { transform, out, .. } | Self::Spans { transform, out, .. } => {
                let dense = transform.as_ref().map(|transform| &transform.dense);
                [dense, Some(out), None, None]
            }
        };
        layers.into_iter().flatten()
    }

    fn norm(&self) -> Option<&LayerNorm> {
        match self {
            Self::MaskedLm(head) => Some(&head.transform.norm),
            Self::PreTraining(head) => Some(&head.masked_lm.transform.norm),
            Self::Sequence { norm, .. } => norm.as_ref(),
            Self::Tokens { transform, .. } | Self::Spans { transform, .. } => {
                transform.as_ref().map(|transform| &transform.norm)
            }
            Self::BlockSpans(head) => Some(&head.norm),
            Self::Base { .. } | Self::Discriminator { .. } => None,
        }
    }

    /// Number of parameters that are the head's alone.
    pub(crate) fn parameters(&self) -> usize {
        let linears: usize = self.linears().map(Linear::parameters).sum();
        let own = linears + self.norm().map_or(0, LayerNorm::parameters);
        match self {
            Self::MaskedLm(head) => own - head.shared,
            Self::PreTraining(head) => own - head.masked_lm.shared,
            Self::BlockSpans(head) => own + head.block.parameters(),
            _ => own,
        }
    }

    /// Bytes of the weights, in passes of a precision.
    pub(crate) fn bytes(&self, precision: Precision) -> usize {
        let linears = self.linears().map(|linear| linear.bytes(precision));
        let linears: usize = linears.sum();
        let block = match self {
            Self::BlockSpans(head) => head.block.bytes(precision),
            _ => 0,
        };
        linears + block + self.norm().map_or(0, LayerNorm::parameters) * size_of::<f32>()
    }
}

/// What is taken from the scores of a question's tokens, its separator's too, but not from the first one's, `[T]`.
fn question_barred(batch: &Batch, separator: u32) -> Result<Tensor, ModelError> {
    let mut barred = vec![0.0f32; batch.tokens()];
    for i in 0..batch.len() {
        let range = batch.range(i);
        let len = question_len(&batch.input_ids()[range.clone()], separator);
        let end = range.start + len;
        barred[(range.start + 1).min(end)..end].fill(1e6);
    }
    let len = barred.len();
    Ok(Tensor::from_vec(barred, &[len])?)
}

/// Tokens of the question, its separator counted; where there is none, the first token.
pub(crate) fn question_len(ids: &[u32], separator: u32) -> usize {
    ids.iter().position(|&id| id == separator).unwrap_or(0) + 1
}

fn transformed(transform: Option<&Transform>, session: &Session, x: Var) -> Result<Var, NnError> {
    match transform {
        Some(transform) => transform.forward(session, x),
        None => Ok(x),
    }
}

impl Transform {
    fn load(names: &MaskedLmNames, from: &HeadSource<'_>) -> Result<Self, ModelError> {
        let (weights, config) = (from.weights, from.config);
        let (n, e) = (config.hidden_size, config.embedding_size);
        let (eps, bias) = (config.layer_norm_eps, config.biases.norm);
        Ok(Self {
            dense: Linear::load(&weights.at(names.dense), n, e, config.head.dense_bias)?,
            activation: names.activation.unwrap_or(config.head.activation),
            norm: LayerNorm::load_with(&weights.at(names.norm), e, eps, bias)?,
        })
    }

    fn forward(&self, session: &Session, x: Var) -> Result<Var, NnError> {
        let x = (self.dense).forward_with(session, &x, self.activation, None)?;
        self.norm.forward(session, x)
    }
}

impl MaskedLm {
    fn load(names: &MaskedLmNames, from: &HeadSource<'_>) -> Result<Self, ModelError> {
        let (weights, config) = (from.weights, from.config);
        let (e, v) = (config.embedding_size, config.vocab_size);
        require_head(weights, names.dense, Head::MaskedLm)?;
        let bias = match config.head.decoder_bias {
            Bias::Present => Some(weights.parameter(names.bias, &[v], Initial::Zeros)?),
            Bias::Absent => None,
        };
        // Tied to the word table unless the file brings a decoder of its own.
        let tied = !weights.contains(names.decoder);
        let session = weights.session();
        let decoder = match tied {
            true => from.embeddings.tied_linear(session, bias.as_ref())?,
            false => {
                let table = weights.parameter(&[names.decoder], &[v, e], Initial::Normal)?;
                Linear::from_parameters(session, &table, bias.as_ref())?
            }
        };
        Ok(Self {
            transform: Transform::load(names, from)?,
            decoder,
            shared: if tied { v * e } else { 0 },
        })
    }

    fn forward(&self, session: &Session, rows: Var) -> Result<Var, NnError> {
        let rows = self.transform.forward(session, rows)?;
        self.decoder.forward(session, &rows)
    }

    fn linears(&self) -> [&Linear; 2] {
        [&self.transform.dense, &self.decoder]
    }
}
