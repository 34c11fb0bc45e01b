//! A layer of an encoder: attention, feed-forward, and a norm for each.

use std::sync::Arc;

use bertha_autograd::{Precision, Session, Var};
use bertha_nn::{
    AttentionContext, Bias, Disentangled, DistanceProjection, FeedForward, GlobalProjections,
    LayerNorm, Linear, NnError, Rotary, SelfAttention, Weights,
};

use super::{EncoderConfig, NormOrder};

/// Where a layer's weights are, under the layer's own path.
pub(crate) struct LayerNames {
    pub(crate) projections: Projections,
    pub(crate) mix: &'static str,
    pub(crate) attention_norm: &'static str,
    pub(crate) up: Up,
    pub(crate) down: &'static str,
    pub(crate) output_norm: &'static str,
    /// The queries, keys and values of global tokens, where there are such projections.
    pub(crate) global: Option<[&'static str; 3]>,
    /// The queries and keys of distances, where attention is disentangled and these are not the tokens' layers.
    pub(crate) distances: Option<[&'static str; 2]>,
}

/// The layers that give queries, keys and values.
pub(crate) enum Projections {
    /// One each.
    Separate([&'static str; 3]),
    /// One for all.
    Together(&'static str),
}

/// What goes up in the feed-forward block.
pub(crate) enum Up {
    Plain(&'static str),
    /// One layer whose first half is activated and multiplies the other.
    Gated(&'static str),
    /// The layer that is activated, and the one that it multiplies.
    GatedPair([&'static str; 2]),
}

impl LayerNames {
    /// BERT's.
    pub(crate) const BERT: Self = Self {
        projections: Projections::Separate([
            "attention.self.query",
            "attention.self.key",
            "attention.self.value",
        ]),
        mix: "attention.output.dense",
        attention_norm: "attention.output.LayerNorm",
        up: Up::Plain("intermediate.dense"),
        down: "output.dense",
        output_norm: "output.LayerNorm",
        global: None,
        distances: None,
    };
}

pub(super) struct Layer {
    order: NormOrder,
    attention: SelfAttention,
    /// `None` where what attention reads is normalised already.
    attention_norm: Option<LayerNorm>,
    feed_forward: FeedForward,
    output_norm: LayerNorm,
}

impl Layer {
    pub(super) fn load(
        weights: &Weights<'_>,
        config: &EncoderConfig,
        names: &LayerNames,
        index: usize,
        rotary: Option<Arc<Rotary>>,
    ) -> Result<Self, NnError> {
        let weights = &weights.binarized();
        let (n, inner) = (config.hidden_size, config.intermediate_size);
        let (kind, biases) = (config.kind(index), config.biases);
        let linear = |name: &str, from, to, bias| Linear::load(&weights.at(name), from, to, bias);
        let stacked = |names: &[&str], outputs, bias| {
            let parts: Vec<_> = names.iter().map(|name| weights.at(name)).collect();
            Linear::load_stacked(&parts, n, outputs, bias)
        };
        let qkv = match &names.projections {
            Projections::Separate(names) => stacked(names, n, biases.projections)?,
            Projections::Together(name) => linear(name, n, 3 * n, biases.projections)?,
        };
        let mix = linear(names.mix, n, n, biases.attention)?;
        let up = match &names.up {
            Up::Plain(name) => linear(name, n, inner, biases.feed_forward)?,
            Up::Gated(name) => linear(name, n, 2 * inner, biases.feed_forward)?,
            Up::GatedPair(names) => stacked(names, inner, biases.feed_forward)?,
        };
        let mut below = weights.at(names.down);
        if matches!(names.up, Up::Plain(_)) && biases.feed_forward == Bias::Present {
            below = below.activated();
        }
        let down = Linear::load(&below, inner, n, biases.feed_forward)?;
        let norm =
            |name| LayerNorm::load_with(&weights.at(name), n, config.layer_norm_eps, biases.norm);
        let dropout = &config.dropout;
        let mut attention = SelfAttention::new(qkv, mix, config.num_attention_heads)?
            .with_pattern(kind.pattern)
            .with_dropout(dropout.attention_weights, dropout.attention)
            .binarized_as(weights)?;
        if let Some(rotary) = rotary {
            attention = attention.with_rotary(rotary);
        }
        if let Some([query, key, value]) = names.global {
            attention = attention.with_global(GlobalProjections {
                query: linear(query, n, n, biases.projections)?,
                key_value: stacked(&[key, value], n, biases.projections)?,
            });
        }
        if let Some(disentangled) = config.disentangled {
            let projection = |wanted, place: usize| match (wanted, names.distances) {
                (false, _) => Ok(DistanceProjection::Absent),
                (true, Some(names)) if !disentangled.shared => {
                    let own = linear(names[place], n, n, biases.projections)?;
                    Ok(DistanceProjection::Own(Box::new(own)))
                }
                _ => Ok::<_, NnError>(DistanceProjection::Shared),
            };
            attention = attention.with_disentangled(Disentangled::new(
                disentangled.buckets,
                projection(disentangled.content_to_position, 1)?,
                projection(disentangled.position_to_content, 0)?,
                dropout.embeddings,
            ));
        }
        let mut feed_forward = FeedForward::new(up, down, config.hidden_act)
            .with_dropout(dropout.inner, dropout.feed_forward);
        if !matches!(names.up, Up::Plain(_)) {
            feed_forward = feed_forward.gated();
        }
        let unnormed = config.norm_order == NormOrder::Pre { first: false } && index == 0;
        Ok(Self {
            order: config.norm_order,
            attention,
            attention_norm: match unnormed {
                true => None,
                false => Some(norm(names.attention_norm)?),
            },
            feed_forward,
            output_norm: norm(names.output_norm)?,
        })
    }

    /// `x[T,N]` to `[T,N]`.
    pub(super) fn forward(
        &self,
        session: &Session,
        x: Var,
        context: AttentionContext<'_>,
    ) -> Result<Var, NnError> {
        let normed = |norm: Option<&LayerNorm>, x: Var| match norm {
            Some(norm) => norm.forward(session, x),
            None => Ok(x),
        };
        match self.order {
            NormOrder::Post => {
                let attended = self.attention.forward(session, &x, context, &x)?;
                drop(x);
                let x = normed(self.attention_norm.as_ref(), attended)?;
                let fed = self.feed_forward.forward(session, &x, &x)?;
                drop(x);
                self.output_norm.forward(session, fed)
            }
            NormOrder::Pre { .. } => {
                let read = normed(self.attention_norm.as_ref(), x.clone())?;
                let x = self.attention.forward(session, &read, context, &x)?;
                drop(read);
                let read = self.output_norm.forward(session, x.clone())?;
                self.feed_forward.forward(session, &read, &x)
            }
        }
    }

    fn norms(&self) -> impl Iterator<Item = &LayerNorm> {
        self.attention_norm.iter().chain([&self.output_norm])
    }

    pub(super) fn parameters(&self) -> usize {
        let norms: usize = self.norms().map(LayerNorm::parameters).sum();
        self.attention.parameters() + self.feed_forward.parameters() + norms
    }

    pub(super) fn bytes(&self, precision: Precision) -> usize {
        let norms: usize = self.norms().map(LayerNorm::parameters).sum();
        self.attention.bytes(precision)
            + self.feed_forward.bytes(precision)
            + norms * size_of::<f32>()
    }
}
