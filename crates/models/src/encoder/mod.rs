//! The encoder that BERT and its relatives share: embeddings, then layers of self-attention and feed-forward. What differs
//! among them, names, sizes, and where they normalise, is data.

mod config;
mod layer;
mod parts;

use std::borrow::Cow;
use std::sync::Arc;

use bertha_autograd::{Precision, Session, Var, ops};
use bertha_nn::{
    AttentionContext, Batch, Bias, DistanceTable, EmbeddingNames, EmbeddingSizes, Embeddings,
    GlobalTokens, LayerNorm, Linear, NnError, RelativePositionBias, Rotary, Weights,
};

use crate::ModelError;
pub use config::{
    Biases, DisentangledConfig, Dropout, EncoderConfig, HeadConfig, LayerKind, NormOrder, Positions,
};
pub(crate) use config::{Keys, MAX_SIZE};
use layer::Layer;
pub(crate) use layer::{LayerNames, Projections, Up};

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
    pub(crate) embeddings: EmbeddingNames,
    /// The layer that widens the embeddings to the layers' width.
    pub(crate) widen: Widen,
    /// The path of layer `inner` of set `group`.
    pub(crate) layer_path: fn(group: usize, inner: usize) -> String,
    pub(crate) layer: LayerNames,
    /// The table of biases by distance, where there is one.
    pub(crate) relative_bias: Option<&'static str>,
    /// The vectors of distances and their norm, where attention is disentangled.
    pub(crate) distances: Option<[&'static str; 2]>,
    /// The norm after the last layer, where there is one.
    pub(crate) final_norm: Option<&'static str>,
}

impl EncoderNames {
    /// BERT's.
    pub(crate) const BERT: Self = Self {
        embeddings: EmbeddingNames::BERT,
        widen: Widen::No,
        layer_path: |layer, _| format!("encoder.layer.{layer}"),
        layer: LayerNames::BERT,
        relative_bias: None,
        distances: None,
        final_norm: None,
    };
}

/// Embeddings and layers.
pub(crate) struct Encoder {
    pub(crate) embeddings: Embeddings,
    widen: Option<Linear>,
    /// Sets of layers.
    groups: Vec<Vec<Arc<Layer>>>,
    relative_bias: Option<RelativePositionBias>,
    distances: Option<DistanceTable>,
    final_norm: Option<LayerNorm>,
    /// Applications of a set.
    layers: usize,
    hidden_size: usize,
    max_tokens: usize,
    positions: Positions,
    dropout: f32,
}

impl Encoder {
    pub(crate) fn load(
        weights: &Weights<'_>,
        config: &EncoderConfig,
        names: &EncoderNames,
    ) -> Result<Self, NnError> {
        let sizes = EmbeddingSizes {
            vocabulary: config.vocab_size,
            positions: match config.positions {
                Positions::InAttention => 0,
                _ => config.max_position_embeddings,
            },
            types: config.type_vocab_size,
            hidden: config.embedding_size,
        };
        let (eps, norm_bias) = (config.layer_norm_eps, config.biases.norm);
        let dropout = match config.dropout_before_norm {
            true => [config.dropout.embeddings, 0.0],
            false => [0.0, config.dropout.embeddings],
        };
        let embeddings = Embeddings::load(weights, &names.embeddings, sizes, eps, norm_bias)?
            .with_scale_and_dropout(config.embedding_scale, dropout[0]);
        let (from, to) = (config.embedding_size, config.hidden_size);
        let widen = match names.widen {
            Widen::Always(name) => Some(name),
            Widen::WhereNarrower(name) if from != to => Some(name),
            _ => None,
        };
        let widen = widen.map(|name| Linear::load(&weights.at(name), from, to, Bias::Present));
        // Layers of one base share its table.
        let mut bases: Vec<Arc<Rotary>> = Vec::new();
        let head_dim = config.hidden_size / config.num_attention_heads;
        let mut rotary = |theta: f64| {
            if let Some(base) = bases.iter().find(|base| base.theta() == theta) {
                return Ok(Arc::clone(base));
            }
            let base = Arc::new(Rotary::new(head_dim, theta)?);
            bases.push(Arc::clone(&base));
            Ok::<_, NnError>(base)
        };
        let mut layer = |group, inner| {
            let path = (names.layer_path)(group, inner);
            let rotary = config.kind(group).rope_theta.map(&mut rotary).transpose()?;
            Layer::load(&weights.at(path), config, &names.layer, group, rotary).map(Arc::new)
        };
        let mut group = |group| {
            let layers = 0..config.inner_group_num;
            layers.map(|inner| layer(group, inner)).collect()
        };
        Ok(Self {
            embeddings,
            widen: widen.transpose()?,
            groups: (0..config.num_hidden_groups)
                .map(&mut group)
                .collect::<Result<_, _>>()?,
            relative_bias: (names.relative_bias)
                .map(|name| {
                    let (buckets, heads) = (config.relative_buckets, config.num_attention_heads);
                    RelativePositionBias::load(&weights.at(name), buckets, heads)
                })
                .transpose()?,
            distances: (config.disentangled.zip(names.distances))
                .map(|(disentangled, [table, norm])| {
                    let norm = (disentangled.norm)
                        .then(|| LayerNorm::load_with(&weights.at(norm), to, eps, norm_bias));
                    let rows = disentangled.buckets.rows();
                    DistanceTable::load(&weights.at(table), rows, to, norm.transpose()?)
                })
                .transpose()?,
            final_norm: (names.final_norm)
                .map(|name| LayerNorm::load_with(&weights.at(name), to, eps, norm_bias))
                .transpose()?,
            layers: config.num_hidden_layers,
            hidden_size: config.hidden_size,
            max_tokens: config.max_tokens(),
            positions: config.positions,
            dropout: dropout[1],
        })
    }

    /// The last layer's output `[T,N]`; `each` is given the embeddings and every layer's.
    pub(crate) fn forward(
        &self,
        session: &Session,
        batch: &Batch,
        globals: Option<&GlobalTokens>,
        mut each: impl FnMut(&Var),
    ) -> Result<Var, ModelError> {
        let positions = self.positions(batch)?;
        let x = self.embeddings.forward(session, batch, &positions)?;
        let mut x = ops::dropout(session, x, self.dropout)?;
        if let Some(widen) = &self.widen {
            x = widen.forward(session, &x)?;
        }
        each(&x);
        let bias = (self.relative_bias.as_ref())
            .map(|bias| bias.by_distance(session, batch.longest()))
            .transpose()?;
        let distances = self.distances.as_ref();
        let distances = distances.map(|table| table.forward(session)).transpose()?;
        // What a layer that is run again must own.
        let kept = (session.checkpoints()).then(|| Arc::new((batch.clone(), globals.cloned())));
        for i in 0..self.layers {
            let group = &self.groups[i * self.groups.len() / self.layers];
            for (inner, layer) in group.iter().enumerate() {
                x = match &kept {
                    None => {
                        let context = AttentionContext {
                            batch,
                            bias: bias.as_ref(),
                            distances: distances.as_ref(),
                            globals,
                        };
                        layer.forward(session, x, context)?
                    }
                    Some(kept) => {
                        let (layer, kept) = (Arc::clone(layer), Arc::clone(kept));
                        let others = bias.iter().chain(&distances);
                        let inputs: Vec<&Var> = [&x].into_iter().chain(others).collect();
                        let biased = bias.is_some();
                        ops::checkpoint(session, &inputs, move |session, inputs| {
                            let context = AttentionContext {
                                batch: &kept.0,
                                bias: inputs.get(1).filter(|_| biased),
                                distances: inputs.get(1 + usize::from(biased)),
                                globals: kept.1.as_ref(),
                            };
                            layer.forward(session, inputs[0].clone(), context)
                        })?
                    }
                };
                // What the last layer gives is seen normalised.
                if let Some(norm) = &self.final_norm
                    && i + 1 == self.layers
                    && inner + 1 == group.len()
                {
                    x = norm.forward(session, x)?;
                }
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
            Positions::Columns | Positions::InAttention => {
                return Ok(Cow::Borrowed(batch.positions()));
            }
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
        self.groups.iter().flatten().map(Arc::as_ref)
    }

    pub(crate) fn parameters(&self) -> usize {
        let layers: usize = self.each_layer().map(Layer::parameters).sum();
        let widen = self.widen.as_ref().map_or(0, Linear::parameters);
        self.embeddings.parameters() + widen + layers + self.others()
    }

    pub(crate) fn bytes(&self, precision: Precision) -> usize {
        let layers: usize = self.each_layer().map(|layer| layer.bytes(precision)).sum();
        let widen = self.widen.as_ref();
        let widen = widen.map_or(0, |widen| widen.bytes(precision));
        self.embeddings.bytes() + widen + layers + self.others() * size_of::<f32>()
    }

    /// Parameters of neither embeddings nor layers.
    fn others(&self) -> usize {
        let bias = self.relative_bias.as_ref();
        let distances = self.distances.as_ref();
        distances.map_or(0, DistanceTable::parameters)
            + self.final_norm.as_ref().map_or(0, LayerNorm::parameters)
            + bias.map_or(0, RelativePositionBias::parameters)
    }
}
