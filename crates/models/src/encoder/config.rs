//! What config.json says of an encoder.

use bertha_nn::{Activation, Bias, DistanceBuckets, Pattern, Pooling};

use crate::{Config, GlobalRule, ModelError};

/// Sizes beyond this are a corrupt configuration, not a model.
pub(crate) const MAX_SIZE: usize = 1 << 24;

/// What an encoder's config.json says, whatever its keys are called.
#[derive(Clone, Debug)]
pub struct EncoderConfig {
    /// Rows of the word table.
    pub vocab_size: usize,
    /// Width of the embeddings.
    pub embedding_size: usize,
    /// Width of the layers.
    pub hidden_size: usize,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Sets of layer weights, each used for several layers in a row where there are fewer than layers.
    pub num_hidden_groups: usize,
    /// Layers of a set.
    pub inner_group_num: usize,
    /// Attention heads.
    pub num_attention_heads: usize,
    /// Width inside the feed-forward block.
    pub intermediate_size: usize,
    /// Rows of the position table.
    pub max_position_embeddings: usize,
    /// How tokens are numbered.
    pub positions: Positions,
    /// Rows of the token-type table; 0: there is none.
    pub type_vocab_size: usize,
    /// What word vectors are multiplied by.
    pub embedding_scale: f32,
    /// Whether values of embeddings are dropped before the norm, not after it.
    pub dropout_before_norm: bool,
    /// The feed-forward block's activation.
    pub hidden_act: Activation,
    /// What LayerNorm adds to the variance.
    pub layer_norm_eps: f32,
    /// Where a layer normalises.
    pub norm_order: NormOrder,
    /// Which layers have a bias.
    pub biases: Biases,
    /// Buckets of distances, where a bias goes by them.
    pub relative_buckets: usize,
    /// How attention knows distances, where it is disentangled.
    pub disentangled: Option<DisentangledConfig>,
    /// Which tokens are global; `None`: the architecture has no such tokens.
    pub global_tokens: Option<GlobalRule>,
    /// The id that ends a question, where the model must know.
    pub separator: u32,
    /// Whether token types, where none are given to answer a question, are 0 for the question and 1 for the text.
    pub types_by_question: bool,
    /// What sets the attention of each layer apart; empty: nothing.
    pub layer_kinds: Vec<LayerKind>,
    /// What the heads read from config.json.
    pub head: HeadConfig,
    /// Probabilities of dropping values in training.
    pub dropout: Dropout,
}

/// Attention of contents and distances (DeBERTa).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DisentangledConfig {
    /// How distances are numbered.
    pub buckets: DistanceBuckets,
    /// Whether queries of tokens are compared with keys of distances.
    pub content_to_position: bool,
    /// Whether keys of tokens are compared with queries of distances.
    pub position_to_content: bool,
    /// Whether the tokens' own layers make queries and keys of distances.
    pub shared: bool,
    /// Whether the vectors of distances are normalised.
    pub norm: bool,
}

/// Where a layer normalises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormOrder {
    /// What comes out: `LayerNorm(x + block(x))`.
    Post,
    /// What goes in: `x + block(LayerNorm(x))`, and once more after the last layer.
    Pre {
        /// Whether the first layer's attention, which reads normalised embeddings, has a norm too.
        first: bool,
    },
}

/// Which layers have a bias.
#[derive(Clone, Copy, Debug)]
pub struct Biases {
    /// Those that give queries, keys and values.
    pub projections: Bias,
    /// That which mixes the heads.
    pub attention: Bias,
    /// Those of the feed-forward block.
    pub feed_forward: Bias,
    /// The norms' shifts.
    pub norm: Bias,
}

/// What sets the attention of a layer apart.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LayerKind {
    /// Which keys a query sees.
    pub pattern: Pattern,
    /// The base of rotary positions, where there are any.
    pub rope_theta: Option<f64>,
}

/// What the heads read from config.json.
#[derive(Clone, Copy, Debug)]
pub struct HeadConfig {
    /// The activation of the heads' own dense layer, where they do not fix it.
    pub activation: Activation,
    /// That of a sequence classifier's dense layer, where it does not fix it.
    pub pooled_activation: Activation,
    /// Whether that layer has a bias.
    pub dense_bias: Bias,
    /// Whether the masked LM's decoder has one.
    pub decoder_bias: Bias,
    /// How a sequence's vectors become one.
    pub pooling: Pooling,
}

/// Probabilities that values are dropped in training.
#[derive(Clone, Copy, Debug)]
pub struct Dropout {
    /// Of the embeddings.
    pub embeddings: f32,
    /// Of attention weights.
    pub attention_weights: f32,
    /// Of the attention block's output.
    pub attention: f32,
    /// Between the feed-forward block's layers.
    pub inner: f32,
    /// Of the feed-forward block's output.
    pub feed_forward: f32,
    /// Of what a sequence classifier's dense layer reads, where that has a probability of its own.
    pub pooled: f32,
    /// Of what a sequence classifier reads.
    pub classifier: f32,
    /// Of what a token classifier reads.
    pub tokens: f32,
    /// Of what the layer of question answering reads.
    pub answer: f32,
}

/// How the tokens of a sequence are numbered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Positions {
    /// 0, 1, …, by their column.
    Columns,
    /// From one after the id of padding on; a padding token itself has that id as its position, and does not count.
    AfterPadding(u32),
    /// Not by a table: attention turns queries and keys by them, or knows distances.
    InAttention,
}

/// What the keys of config.json are called, and what they are when absent.
pub(crate) struct Keys {
    pub(crate) hidden: (&'static str, usize),
    pub(crate) layers: (&'static str, usize),
    pub(crate) heads: (&'static str, usize),
    pub(crate) intermediate: (&'static str, usize),
    pub(crate) activation: (&'static str, &'static str),
    pub(crate) eps: (&'static str, f64),
    pub(crate) max_positions: (&'static str, usize),
    pub(crate) dropout: (&'static str, f32),
    pub(crate) attention_dropout: (&'static str, f32),
    /// By default what `dropout` is.
    pub(crate) classifier_dropout: (&'static str, Option<f32>),
    pub(crate) vocab_size: usize,
    pub(crate) type_vocab_size: usize,
}

impl Keys {
    /// BERT's.
    pub(crate) const BERT: Self = Self {
        hidden: ("hidden_size", 768),
        layers: ("num_hidden_layers", 12),
        heads: ("num_attention_heads", 12),
        intermediate: ("intermediate_size", 3072),
        activation: ("hidden_act", "gelu"),
        eps: ("layer_norm_eps", 1e-12),
        max_positions: ("max_position_embeddings", 512),
        dropout: ("hidden_dropout_prob", 0.1),
        attention_dropout: ("attention_probs_dropout_prob", 0.1),
        classifier_dropout: ("classifier_dropout", None),
        vocab_size: 30522,
        type_vocab_size: 2,
    };
}

impl EncoderConfig {
    /// Reads the keys.
    ///
    /// # Errors
    /// When a key is of another type or out of range, or asks for what is not an encoder of this kind.
    pub(crate) fn read(config: &Config, keys: &Keys) -> Result<Self, ModelError> {
        let size = |key, default| config.size(key, Some(default), 1..=MAX_SIZE);
        let named = |(key, default)| size(key, default);
        let hidden_size = named(keys.hidden)?;
        let layers = config.size(keys.layers.0, Some(keys.layers.1), 0..=10_000)?;
        let dropout = config.probability(keys.dropout.0, keys.dropout.1)?;
        let (key, default) = keys.classifier_dropout;
        let classifier = config.probability(key, default.unwrap_or(dropout))?;
        let hidden_act = config.activation(keys.activation.0, keys.activation.1)?;
        let read = Self {
            vocab_size: size("vocab_size", keys.vocab_size)?,
            embedding_size: hidden_size,
            hidden_size,
            num_hidden_layers: layers,
            num_hidden_groups: layers,
            inner_group_num: 1,
            num_attention_heads: named(keys.heads)?,
            intermediate_size: named(keys.intermediate)?,
            max_position_embeddings: named(keys.max_positions)?,
            positions: Positions::Columns,
            type_vocab_size: match keys.type_vocab_size {
                0 => 0,
                default => size("type_vocab_size", default)?,
            },
            embedding_scale: 1.0,
            dropout_before_norm: false,
            hidden_act,
            layer_norm_eps: config.positive(keys.eps.0, keys.eps.1)? as f32,
            norm_order: NormOrder::Post,
            biases: Biases {
                projections: Bias::Present,
                attention: Bias::Present,
                feed_forward: Bias::Present,
                norm: Bias::Present,
            },
            relative_buckets: 0,
            disentangled: None,
            global_tokens: None,
            separator: 0,
            types_by_question: false,
            layer_kinds: Vec::new(),
            head: HeadConfig {
                activation: hidden_act,
                pooled_activation: hidden_act,
                dense_bias: Bias::Present,
                decoder_bias: Bias::Present,
                pooling: Pooling::Cls,
            },
            dropout: Dropout {
                embeddings: dropout,
                attention_weights: config
                    .probability(keys.attention_dropout.0, keys.attention_dropout.1)?,
                attention: dropout,
                inner: 0.0,
                feed_forward: dropout,
                pooled: 0.0,
                classifier,
                tokens: classifier,
                answer: 0.0,
            },
        };
        if !hidden_size.is_multiple_of(read.num_attention_heads) {
            let expected = format!("a divisor of `{}`, which is {hidden_size}", keys.hidden.0);
            return Err(config.error(keys.heads.0, expected));
        }
        if config.text("position_embedding_type", Some("absolute"))? != "absolute" {
            return Err(config.error("position_embedding_type", "\"absolute\"".into()));
        }
        for key in ["is_decoder", "add_cross_attention"] {
            if config.flag(key, false)? {
                return Err(config.error(key, "false: bertha runs encoders".into()));
            }
        }
        Ok(read)
    }

    /// Width of the embeddings where it may be another than the layers'.
    pub(crate) fn with_embedding_size(
        mut self,
        config: &Config,
        default: usize,
    ) -> Result<Self, ModelError> {
        self.embedding_size = config.size("embedding_size", Some(default), 1..=MAX_SIZE)?;
        Ok(self)
    }

    /// Positions counted from the id of padding on, as RoBERTa does.
    pub(crate) fn with_positions_after_padding(
        mut self,
        config: &Config,
    ) -> Result<Self, ModelError> {
        let rows = self.max_position_embeddings;
        if rows < 2 {
            let expected = "at least 2: one for padding and one for a token".into();
            return Err(config.error("max_position_embeddings", expected));
        }
        let pad = config.size("pad_token_id", Some(1), 0..=rows - 2)?;
        self.positions = Positions::AfterPadding(pad as u32);
        Ok(self)
    }

    /// Rotary positions in every layer: heads are turned, and there is no table.
    ///
    /// # Errors
    /// When heads have an odd width.
    pub(crate) fn with_rotary(
        mut self,
        config: &Config,
        heads: &str,
        kinds: Vec<LayerKind>,
    ) -> Result<Self, ModelError> {
        let width = self.hidden_size / self.num_attention_heads;
        if !width.is_multiple_of(2) {
            let expected =
                format!("heads of an even width, for rotary positions; they have {width}");
            return Err(config.error(heads, expected));
        }
        self.positions = Positions::InAttention;
        self.layer_kinds = kinds;
        Ok(self)
    }

    /// What sets the attention of a layer apart.
    pub(crate) fn kind(&self, layer: usize) -> LayerKind {
        self.layer_kinds.get(layer).copied().unwrap_or_default()
    }

    /// The longest sequence, in tokens.
    pub fn max_tokens(&self) -> usize {
        match self.positions {
            Positions::Columns | Positions::InAttention => self.max_position_embeddings,
            Positions::AfterPadding(pad) => self.max_position_embeddings - pad as usize - 1,
        }
    }
}
