//! BERT (Devlin et al. 2018, <https://arxiv.org/abs/1810.04805>), as `BertModel` in `transformers`
//! and its heads for masked LM, sequence and token classification, and question answering.
//!
//! Embeddings, then layers of self-attention and feed-forward, each `LayerNorm(x + block(x))`.

use bertha_autograd::{Session, Var, ops};
use bertha_nn::{
    Activation, Batch, Bias, EmbeddingSizes, Embeddings, FeedForward, Initial, LayerNorm, Linear,
    NnError, SelfAttention, Weights, activation_from_name,
};

use crate::model::{check_positions, require_head, wanted_rows};
use crate::{Config, ForwardOptions, Head, Model, ModelError, ModelInfo, Outputs};

/// The keys of a BERT's config.json.
#[derive(Clone, Debug)]
pub struct BertConfig {
    /// Rows of the word table.
    pub vocab_size: usize,
    /// Width.
    pub hidden_size: usize,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Attention heads.
    pub num_attention_heads: usize,
    /// Width inside the feed-forward block.
    pub intermediate_size: usize,
    /// Rows of the position table.
    pub max_position_embeddings: usize,
    /// Rows of the token-type table.
    pub type_vocab_size: usize,
    /// The feed-forward block's activation.
    pub hidden_act: Activation,
    /// What LayerNorm adds to the variance.
    pub layer_norm_eps: f32,
    /// Probability that a value of a layer's output is dropped in training.
    pub hidden_dropout_prob: f32,
    /// Probability that an attention weight is dropped in training.
    pub attention_probs_dropout_prob: f32,
    /// The same of what a classifier reads; by default `hidden_dropout_prob`.
    pub classifier_dropout: f32,
}

/// Sizes beyond this are a corrupt configuration, not a model.
const MAX_SIZE: usize = 1 << 24;

impl BertConfig {
    /// Reads the keys, with `transformers`' defaults.
    ///
    /// # Errors
    /// When a key is of another type or out of range, or asks for what BERT here does not have.
    pub fn new(config: &Config) -> Result<Self, ModelError> {
        let size = |key, default| config.size(key, Some(default), 1..=MAX_SIZE);
        let hidden_dropout = config.probability("hidden_dropout_prob", 0.1)?;
        let bert = Self {
            vocab_size: size("vocab_size", 30522)?,
            hidden_size: size("hidden_size", 768)?,
            num_hidden_layers: config.size("num_hidden_layers", Some(12), 0..=10_000)?,
            num_attention_heads: size("num_attention_heads", 12)?,
            intermediate_size: size("intermediate_size", 3072)?,
            max_position_embeddings: size("max_position_embeddings", 512)?,
            type_vocab_size: size("type_vocab_size", 2)?,
            hidden_act: activation_from_name(config.text("hidden_act", Some("gelu"))?)
                .map_err(|error| config.error("hidden_act", error.to_string()))?,
            layer_norm_eps: config.positive("layer_norm_eps", 1e-12)? as f32,
            hidden_dropout_prob: hidden_dropout,
            attention_probs_dropout_prob: config
                .probability("attention_probs_dropout_prob", 0.1)?,
            classifier_dropout: config.probability("classifier_dropout", hidden_dropout)?,
        };
        if !bert.hidden_size.is_multiple_of(bert.num_attention_heads) {
            let expected = format!("a divisor of `hidden_size`, which is {}", bert.hidden_size);
            return Err(config.error("num_attention_heads", expected));
        }
        if config.text("position_embedding_type", Some("absolute"))? != "absolute" {
            return Err(config.error("position_embedding_type", "\"absolute\"".into()));
        }
        for key in ["is_decoder", "add_cross_attention"] {
            if config.flag(key, false)? {
                return Err(config.error(key, "false: bertha runs encoders".into()));
            }
        }
        Ok(bert)
    }
}

/// A BERT with its head.
pub struct Bert {
    embeddings: Embeddings,
    layers: Vec<Layer>,
    pooler: Option<Linear>,
    head: BertHead,
    hidden_dropout: f32,
    classifier_dropout: f32,
    info: ModelInfo,
}

struct Layer {
    attention: SelfAttention,
    attention_norm: LayerNorm,
    feed_forward: FeedForward,
    output_norm: LayerNorm,
}

enum BertHead {
    Base,
    MaskedLm(Box<MaskedLmHead>),
    SequenceClassification(Linear),
    TokenClassification(Linear),
    QuestionAnswering(Linear),
}

struct MaskedLmHead {
    transform: Linear,
    activation: Activation,
    norm: LayerNorm,
    decoder: Linear,
    /// Whether the decoder's weight is the word table.
    tied: bool,
}

impl Bert {
    /// Loads the encoder and the wanted head.
    ///
    /// # Errors
    /// When the configuration is out of range, or a tensor is missing or of another shape.
    pub fn load(
        config: &Config,
        weights: &Weights<'_>,
        head: Head,
    ) -> Result<Box<dyn Model>, ModelError> {
        let bert = BertConfig::new(config)?;
        let n = bert.hidden_size;
        // The bare encoder is saved without a prefix, as `BertModel` is.
        let saved = match head {
            Head::Base => "",
            _ => "bert",
        };
        let probe = "embeddings.word_embeddings.weight";
        let encoder = weights.at_first_with(probe, &["bert", ""], saved);
        let sizes = EmbeddingSizes {
            vocabulary: bert.vocab_size,
            positions: bert.max_position_embeddings,
            types: bert.type_vocab_size,
            hidden: n,
        };
        let embeddings = Embeddings::load(&encoder.at("embeddings"), sizes, bert.layer_norm_eps)?;
        let layers = (0..bert.num_hidden_layers)
            .map(|i| Layer::load(&encoder.at("encoder.layer").at(i), &bert))
            .collect::<Result<Vec<_>, _>>()?;

        // Only the bare encoder and the sequence classifier read the pooler; the other heads' own
        // checkpoints do not even have one.
        let pooler_weights = encoder.at("pooler.dense");
        let pooler = match head {
            Head::SequenceClassification => true,
            Head::Base => pooler_weights.contains("weight") || !weights.has_checkpoint(),
            _ => false,
        };
        let pooler = pooler
            .then(|| Linear::load(&pooler_weights, n, n, Bias::Present))
            .transpose()?;
        let labels = config.labels()?;
        let head_layers = BertHead::load(head, weights, &bert, &embeddings, labels.len())?;

        let mut loaded = Self {
            info: ModelInfo {
                model_type: "bert",
                head,
                hidden_size: n,
                intermediate_size: bert.intermediate_size,
                layers: bert.num_hidden_layers,
                heads: bert.num_attention_heads,
                vocab_size: bert.vocab_size,
                max_tokens: bert.max_position_embeddings,
                labels,
                problem_type: config.problem_type()?,
                parameters: 0,
                weight_bytes: 0,
            },
            embeddings,
            layers,
            pooler,
            head: head_layers,
            hidden_dropout: bert.hidden_dropout_prob,
            classifier_dropout: bert.classifier_dropout,
        };
        loaded.info.parameters = loaded.parameters();
        loaded.info.weight_bytes = loaded.weight_bytes();
        Ok(Box::new(loaded))
    }

    fn linears(&self) -> impl Iterator<Item = &Linear> {
        let head = match &self.head {
            BertHead::Base => [None, None],
            BertHead::MaskedLm(head) => [Some(&head.transform), Some(&head.decoder)],
            BertHead::SequenceClassification(linear)
            | BertHead::TokenClassification(linear)
            | BertHead::QuestionAnswering(linear) => [Some(linear), None],
        };
        self.pooler.iter().chain(head.into_iter().flatten())
    }

    fn parameters(&self) -> usize {
        let blocks = self.layers.iter().map(|layer| {
            layer.attention.parameters()
                + layer.feed_forward.parameters()
                + layer.attention_norm.parameters()
                + layer.output_norm.parameters()
        });
        let linears = self.linears().map(Linear::parameters);
        let sum = self.embeddings.parameters() + blocks.sum::<usize>() + linears.sum::<usize>();
        match &self.head {
            BertHead::MaskedLm(head) => {
                // A tied decoder's weight is the word table once more.
                let twice = match head.tied {
                    true => self.info.vocab_size * self.info.hidden_size,
                    false => 0,
                };
                sum + head.norm.parameters() - twice
            }
            _ => sum,
        }
    }

    fn weight_bytes(&self) -> usize {
        let norm = |norm: &LayerNorm| norm.parameters() * size_of::<f32>();
        let blocks = self.layers.iter().map(|layer| {
            layer.attention.bytes()
                + layer.feed_forward.bytes()
                + norm(&layer.attention_norm)
                + norm(&layer.output_norm)
        });
        let linears = self.linears().map(Linear::bytes);
        let head = match &self.head {
            BertHead::MaskedLm(head) => norm(&head.norm),
            _ => 0,
        };
        self.embeddings.bytes() + blocks.sum::<usize>() + linears.sum::<usize>() + head
    }
}

impl Layer {
    fn load(weights: &Weights<'_>, bert: &BertConfig) -> Result<Self, NnError> {
        let (n, inner) = (bert.hidden_size, bert.intermediate_size);
        let attention = weights.at("attention");
        let projections = ["query", "key", "value"].map(|name| attention.at("self").at(name));
        let qkv = Linear::load_stacked(&projections, n, n, Bias::Present)?;
        let mix = Linear::load(&attention.at("output.dense"), n, n, Bias::Present)?;
        let up = Linear::load(&weights.at("intermediate.dense"), n, inner, Bias::Present)?;
        let down = Linear::load(&weights.at("output.dense"), inner, n, Bias::Present)?;
        let norm = |at: Weights<'_>| LayerNorm::load(&at.at("LayerNorm"), n, bert.layer_norm_eps);
        Ok(Self {
            attention: SelfAttention::new(qkv, mix, bert.num_attention_heads)?
                .with_dropout(bert.attention_probs_dropout_prob, bert.hidden_dropout_prob),
            attention_norm: norm(attention.at("output"))?,
            feed_forward: FeedForward::new(up, down, bert.hidden_act)
                .with_dropout(bert.hidden_dropout_prob),
            output_norm: norm(weights.at("output"))?,
        })
    }

    /// `x[T,N]` to `[T,N]`.
    fn forward(&self, session: &Session, x: Var, batch: &Batch) -> Result<Var, NnError> {
        let attended = self.attention.forward(session, &x, batch, &x)?;
        drop(x);
        let x = self.attention_norm.forward(session, attended)?;
        let fed = self.feed_forward.forward(session, &x, &x)?;
        drop(x);
        self.output_norm.forward(session, fed)
    }
}

impl BertHead {
    fn load(
        head: Head,
        weights: &Weights<'_>,
        bert: &BertConfig,
        embeddings: &Embeddings,
        classes: usize,
    ) -> Result<Self, ModelError> {
        let n = bert.hidden_size;
        let linear = |name: &'static str, outputs| {
            require_head(weights, name, head)?;
            Ok::<_, ModelError>(Linear::load(&weights.at(name), n, outputs, Bias::Present)?)
        };
        Ok(match head {
            Head::Base => Self::Base,
            Head::SequenceClassification => {
                Self::SequenceClassification(linear("classifier", classes)?)
            }
            Head::TokenClassification => Self::TokenClassification(linear("classifier", classes)?),
            Head::QuestionAnswering => Self::QuestionAnswering(linear("qa_outputs", 2)?),
            Head::MaskedLm => {
                let transform = linear("cls.predictions.transform.dense", n)?;
                let predictions = weights.at("cls.predictions");
                let norm = predictions.at("transform.LayerNorm");
                let bias = predictions.parameter(
                    &["bias", "decoder.bias"],
                    &[bert.vocab_size],
                    Initial::Zeros,
                )?;
                // Tied to the word table unless the file brings a decoder of its own.
                let tied = !predictions.contains("decoder.weight");
                let table = match tied {
                    true => embeddings.word_table().clone(),
                    false => predictions.parameter(
                        &["decoder.weight"],
                        &[bert.vocab_size, n],
                        Initial::Normal,
                    )?,
                };
                Self::MaskedLm(Box::new(MaskedLmHead {
                    transform,
                    activation: bert.hidden_act,
                    norm: LayerNorm::load(&norm, n, bert.layer_norm_eps)?,
                    decoder: Linear::from_parameters(weights.session(), &table, Some(&bias))?,
                    tied,
                }))
            }
        })
    }
}

impl Model for Bert {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn forward(
        &self,
        session: &Session,
        batch: &Batch,
        options: &ForwardOptions<'_>,
    ) -> Result<Outputs, ModelError> {
        check_positions(batch, self.info.max_tokens)?;
        let mut hidden_states = Vec::new();
        let x = self.embeddings.forward(session, batch, 0)?;
        let mut x = ops::dropout(session, x, self.hidden_dropout)?;
        for layer in &self.layers {
            if options.hidden_states {
                hidden_states.push(x.clone());
            }
            x = layer.forward(session, x, batch)?;
        }
        if options.hidden_states {
            hidden_states.push(x.clone());
        }
        let mut outputs = Outputs {
            pooler_output: None,
            logits: None,
            start_logits: None,
            end_logits: None,
            hidden_states,
            last_hidden_state: x,
        };
        let x = &outputs.last_hidden_state;
        if let Some(pooler) = &self.pooler {
            let first = ops::gather_rows(session, x, batch.first_tokens())?;
            let pooled = pooler.forward_with(session, &first, Activation::Tanh, None)?;
            outputs.pooler_output = Some(pooled);
        }
        match &self.head {
            BertHead::Base => {}
            BertHead::SequenceClassification(classifier) => {
                // `load` gives every sequence classifier a pooler.
                if let Some(pooled) = &outputs.pooler_output {
                    let pooled = ops::dropout(session, pooled.clone(), self.classifier_dropout)?;
                    outputs.logits = Some(classifier.forward(session, &pooled)?);
                }
            }
            BertHead::TokenClassification(classifier) => {
                let rows = wanted_rows(session, x, options)?;
                let rows = ops::dropout(session, rows, self.classifier_dropout)?;
                outputs.logits = Some(classifier.forward(session, &rows)?);
            }
            BertHead::QuestionAnswering(span) => {
                let logits = span.forward(session, x)?;
                outputs.start_logits = Some(ops::column(session, &logits, 0)?);
                outputs.end_logits = Some(ops::column(session, &logits, 1)?);
            }
            BertHead::MaskedLm(head) => {
                let rows = wanted_rows(session, x, options)?;
                let transform = &head.transform;
                let rows = transform.forward_with(session, &rows, head.activation, None)?;
                let rows = head.norm.forward(session, rows)?;
                outputs.logits = Some(head.decoder.forward(session, &rows)?);
            }
        }
        Ok(outputs)
    }
}
