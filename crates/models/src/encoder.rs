//! The encoder that BERT and its nearest relatives share: embeddings, then layers of self-attention and feed-forward,
//! each `LayerNorm(x + block(x))`. What differs among them, names and sizes, is data.

use std::borrow::Cow;

use bertha_autograd::{Session, Var, ops};
use bertha_nn::{
    Activation, Batch, Bias, EmbeddingSizes, Embeddings, FeedForward, LayerNorm, Linear, NnError,
    SelfAttention, Weights, activation_from_name,
};

use crate::{Config, ModelError};

/// Sizes beyond this are a corrupt configuration, not a model.
const MAX_SIZE: usize = 1 << 24;

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
    /// The feed-forward block's activation.
    pub hidden_act: Activation,
    /// What LayerNorm adds to the variance.
    pub layer_norm_eps: f32,
    /// Probabilities of dropping values in training.
    pub dropout: Dropout,
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
    /// Of the feed-forward block's output.
    pub feed_forward: f32,
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
}

/// What the keys of config.json are called, and what they are when absent.
pub(crate) struct Keys {
    pub(crate) hidden: (&'static str, usize),
    pub(crate) layers: (&'static str, usize),
    pub(crate) heads: (&'static str, usize),
    pub(crate) intermediate: (&'static str, usize),
    pub(crate) activation: (&'static str, &'static str),
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
        let read = Self {
            vocab_size: size("vocab_size", keys.vocab_size)?,
            embedding_size: hidden_size,
            hidden_size,
            num_hidden_layers: layers,
            num_hidden_groups: layers,
            inner_group_num: 1,
            num_attention_heads: named(keys.heads)?,
            intermediate_size: named(keys.intermediate)?,
            max_position_embeddings: size("max_position_embeddings", 512)?,
            positions: Positions::Columns,
            type_vocab_size: match keys.type_vocab_size {
                0 => 0,
                default => size("type_vocab_size", default)?,
            },
            hidden_act: activation_from_name(
                config.text(keys.activation.0, Some(keys.activation.1))?,
            )
            .map_err(|error| config.error(keys.activation.0, error.to_string()))?,
            layer_norm_eps: config.positive("layer_norm_eps", 1e-12)? as f32,
            dropout: Dropout {
                embeddings: dropout,
                attention_weights: config
                    .probability(keys.attention_dropout.0, keys.attention_dropout.1)?,
                attention: dropout,
                feed_forward: dropout,
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

    /// The longest sequence, in tokens.
    pub(crate) fn max_tokens(&self) -> usize {
        match self.positions {
            Positions::Columns => self.max_position_embeddings,
            Positions::AfterPadding(pad) => self.max_position_embeddings - pad as usize - 1,
        }
    }
}

/// Where a layer's weights are, under the layer's own path.
pub(crate) struct LayerNames {
    pub(crate) query: &'static str,
    pub(crate) key: &'static str,
    pub(crate) value: &'static str,
    pub(crate) mix: &'static str,
    pub(crate) attention_norm: &'static str,
    pub(crate) up: &'static str,
    pub(crate) down: &'static str,
    pub(crate) output_norm: &'static str,
}

impl LayerNames {
    /// BERT's.
    pub(crate) const BERT: Self = Self {
        query: "attention.self.query",
        key: "attention.self.key",
        value: "attention.self.value",
        mix: "attention.output.dense",
        attention_norm: "attention.output.LayerNorm",
        up: "intermediate.dense",
        down: "output.dense",
        output_norm: "output.LayerNorm",
    };
}

/// Whether there is a layer between the embeddings and the others, and where its weights are.
#[derive(Clone, Copy)]
pub(crate) enum Widen {
    /// Never.
    No,
    /// Where the widths differ.
    WhereNarrower(&'static str),
    /// Always.
    Always(&'static str),
}

/// Where an encoder's weights are.
pub(crate) struct EncoderNames {
    /// The layer that widens the embeddings to the layers' width.
    pub(crate) widen: Widen,
    /// The path of layer `inner` of set `group`.
    pub(crate) layer_path: fn(group: usize, inner: usize) -> String,
    pub(crate) layer: LayerNames,
}

/// Embeddings and layers.
pub(crate) struct Encoder {
    pub(crate) embeddings: Embeddings,
    widen: Option<Linear>,
    /// Sets of layers.
    groups: Vec<Vec<Layer>>,
    /// Applications of a set.
    layers: usize,
    max_tokens: usize,
    positions: Positions,
    dropout: f32,
}

struct Layer {
    attention: SelfAttention,
    attention_norm: LayerNorm,
    feed_forward: FeedForward,
    output_norm: LayerNorm,
}

impl Encoder {
    pub(crate) fn load(
        weights: &Weights<'_>,
        config: &EncoderConfig,
        names: &EncoderNames,
    ) -> Result<Self, NnError> {
        let sizes = EmbeddingSizes {
            vocabulary: config.vocab_size,
            positions: config.max_position_embeddings,
            types: config.type_vocab_size,
            hidden: config.embedding_size,
        };
        let embeddings = Embeddings::load(&weights.at("embeddings"), sizes, config.layer_norm_eps)?;
        let (from, to) = (config.embedding_size, config.hidden_size);
        let widen = match names.widen {
            Widen::Always(name) => Some(name),
            Widen::WhereNarrower(name) if from != to => Some(name),
            _ => None,
        };
        let widen = widen.map(|name| Linear::load(&weights.at(name), from, to, Bias::Present));
        let layer = |group, inner| {
            let path = (names.layer_path)(group, inner);
            Layer::load(&weights.at(path), config, &names.layer)
        };
        let group = |group| {
            let layers = 0..config.inner_group_num;
            layers.map(|inner| layer(group, inner)).collect()
        };
        Ok(Self {
            embeddings,
            widen: widen.transpose()?,
            groups: (0..config.num_hidden_groups)
                .map(group)
                .collect::<Result<_, _>>()?,
            layers: config.num_hidden_layers,
            max_tokens: config.max_tokens(),
            positions: config.positions,
            dropout: config.dropout.embeddings,
        })
    }

    /// The last layer's output `[T,N]`; `each` is given the embeddings and every layer's.
    pub(crate) fn forward(
        &self,
        session: &Session,
        batch: &Batch,
        mut each: impl FnMut(&Var),
    ) -> Result<Var, ModelError> {
        let positions = self.positions(batch)?;
        let x = self.embeddings.forward(session, batch, &positions)?;
        let mut x = ops::dropout(session, x, self.dropout)?;
        if let Some(widen) = &self.widen {
            x = widen.forward(session, &x)?;
        }
        each(&x);
        for i in 0..self.layers {
            for layer in &self.groups[i * self.groups.len() / self.layers] {
                x = layer.forward(session, x, batch)?;
                each(&x);
            }
        }
        Ok(x)
    }

    /// A row of the position table for each token.
    fn positions<'b>(&self, batch: &'b Batch) -> Result<Cow<'b, [u32]>, ModelError> {
        let limit = self.max_tokens;
        if let Some(token) = (batch.positions().iter()).position(|&p| p as usize >= limit) {
            let starts = batch.first_tokens();
            return Err(ModelError::TooLong {
                index: starts.partition_point(|&start| start as usize <= token) - 1,
                position: batch.positions()[token],
                limit,
            });
        }
        let pad = match self.positions {
            Positions::Columns => return Ok(Cow::Borrowed(batch.positions())),
            Positions::AfterPadding(pad) => pad,
        };
        let mut positions = Vec::with_capacity(batch.tokens());
        for i in 0..batch.len() {
            let mut last = pad;
            positions.extend(batch.input_ids()[batch.range(i)].iter().map(|&id| {
                if id == pad {
                    return pad;
                }
                last += 1;
                last
            }));
        }
        Ok(Cow::Owned(positions))
    }

    fn each_layer(&self) -> impl Iterator<Item = &Layer> {
        self.groups.iter().flatten()
    }

    pub(crate) fn parameters(&self) -> usize {
        let layers = self.each_layer().map(|layer| {
            layer.attention.parameters()
                + layer.feed_forward.parameters()
                + layer.attention_norm.parameters()
                + layer.output_norm.parameters()
        });
        let widen = self.widen.as_ref().map_or(0, Linear::parameters);
        self.embeddings.parameters() + widen + layers.sum::<usize>()
    }

    pub(crate) fn bytes(&self) -> usize {
        let norm = |norm: &LayerNorm| norm.parameters() * size_of::<f32>();
        let layers = self.each_layer().map(|layer| {
            layer.attention.bytes()
                + layer.feed_forward.bytes()
                + norm(&layer.attention_norm)
                + norm(&layer.output_norm)
        });
        let widen = self.widen.as_ref().map_or(0, Linear::bytes);
        self.embeddings.bytes() + widen + layers.sum::<usize>()
    }
}

impl Layer {
    fn load(
        weights: &Weights<'_>,
        config: &EncoderConfig,
        names: &LayerNames,
    ) -> Result<Self, NnError> {
        let (n, inner) = (config.hidden_size, config.intermediate_size);
        let projections = [names.query, names.key, names.value].map(|name| weights.at(name));
        let qkv = Linear::load_stacked(&projections, n, n, Bias::Present)?;
        let mix = Linear::load(&weights.at(names.mix), n, n, Bias::Present)?;
        let up = Linear::load(&weights.at(names.up), n, inner, Bias::Present)?;
        let down = Linear::load(&weights.at(names.down), inner, n, Bias::Present)?;
        let norm = |name| LayerNorm::load(&weights.at(name), n, config.layer_norm_eps);
        let dropout = &config.dropout;
        Ok(Self {
            attention: SelfAttention::new(qkv, mix, config.num_attention_heads)?
                .with_dropout(dropout.attention_weights, dropout.attention),
            attention_norm: norm(names.attention_norm)?,
            feed_forward: FeedForward::new(up, down, config.hidden_act)
                .with_dropout(dropout.feed_forward),
            output_norm: norm(names.output_norm)?,
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
