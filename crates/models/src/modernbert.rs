//! ModernBERT (Warner et al. 2024, <https://arxiv.org/abs/2412.13663>): norms before the blocks, rotary positions, gated
//! feed-forward, and in two layers of three a window of attention.

use bertha_nn::{Bias, EmbeddingNames, Pattern, Pooling};

use crate::encoder::{
    Biases, EncoderConfig, EncoderNames, HeadConfig, Keys, LayerKind, LayerNames, MAX_SIZE,
    NormOrder, Projections, Up, Widen,
};
use crate::family::Family;
use crate::heads::{HeadNames, MaskedLmNames, SequenceNames, SpanNames};
use crate::{Config, ModelError};

pub(crate) const MODERN_BERT: Family = Family {
    model_type: "modernbert",
    prefix: "model",
    config: read,
    encoder: EncoderNames {
        embeddings: EmbeddingNames {
            word: "embeddings.tok_embeddings",
            norm: "embeddings.norm",
            ..EmbeddingNames::BERT
        },
        widen: Widen::No,
        layer_path: |layer, _| format!("layers.{layer}"),
        layer: LayerNames {
            projections: Projections::Together("attn.Wqkv"),
            mix: "attn.Wo",
            attention_norm: "attn_norm",
            up: Up::Gated("mlp.Wi"),
            down: "mlp.Wo",
            output_norm: "mlp_norm",
            ..LayerNames::BERT
        },
        final_norm: Some("final_norm"),
        ..EncoderNames::BERT
    },
    heads: HeadNames {
        pooler: None,
        sequence: SequenceNames::Transformed { out: "classifier" },
        masked_lm: MaskedLmNames {
            dense: "head.dense",
            activation: None,
            norm: "head.norm",
            bias: &["decoder.bias"],
            decoder: "decoder.weight",
        },
        transform: true,
        spans: SpanNames::Plain("classifier"),
        discriminator: None,
        pairs: None,
    },
};

fn read(config: &Config) -> Result<EncoderConfig, ModelError> {
    let keys = Keys {
        layers: ("num_hidden_layers", 22),
        intermediate: ("intermediate_size", 1152),
        activation: ("hidden_activation", "gelu"),
        eps: ("norm_eps", 1e-5),
        max_positions: ("max_position_embeddings", 8192),
        dropout: ("embedding_dropout", 0.0),
        attention_dropout: ("attention_dropout", 0.0),
        classifier_dropout: ("classifier_dropout", Some(0.0)),
        vocab_size: 50368,
        type_vocab_size: 0,
        ..Keys::BERT
    };
    let bias = |key, default| {
        let present = config.flag(key, default)?;
        Ok::<_, ModelError>(if present { Bias::Present } else { Bias::Absent })
    };
    let mut read = EncoderConfig::read(config, &keys)?;
    let kinds = layer_kinds(config, read.num_hidden_layers)?;
    read = read.with_rotary(config, keys.heads.0, kinds)?;
    read.norm_order = NormOrder::Pre { first: false };
    read.biases = Biases {
        projections: bias("attention_bias", false)?,
        attention: bias("attention_bias", false)?,
        feed_forward: bias("mlp_bias", false)?,
        norm: bias("norm_bias", false)?,
    };
    read.head = HeadConfig {
        activation: config.activation("classifier_activation", "gelu")?,
        pooled_activation: read.hidden_act,
        dense_bias: bias("classifier_bias", false)?,
        decoder_bias: bias("decoder_bias", true)?,
        pooling: match config.text("classifier_pooling", Some("cls"))? {
            "cls" => Pooling::Cls,
            "mean" => Pooling::Mean,
            _ => return Err(config.error("classifier_pooling", "cls or mean".into())),
        },
    };
    read.dropout.attention = read.dropout.attention_weights;
    read.dropout.inner = config.probability("mlp_dropout", 0.0)?;
    read.dropout.feed_forward = 0.0;
    read.dropout.answer = read.dropout.classifier;
    Ok(read)
}

/// Which layers see a window, and the bases of their positions: from the keys of today's files or of the first ones.
fn layer_kinds(config: &Config, layers: usize) -> Result<Vec<LayerKind>, ModelError> {
    const TYPES: [(&str, &str, f64); 2] = [
        ("full_attention", "global_rope_theta", 160_000.0),
        ("sliding_attention", "local_rope_theta", 10_000.0),
    ];
    let side = config.size("local_attention", Some(128), 0..=MAX_SIZE)? / 2;
    let mut kinds = Vec::new();
    for (i, (name, old_key, default)) in TYPES.into_iter().enumerate() {
        let scaling = format!("rope_parameters.{name}.rope_type");
        if config.text(&scaling, Some("default"))? != "default" {
            return Err(config.error(&scaling, "\"default\": positions are not scaled".into()));
        }
        let theta = config.positive(old_key, default)?;
        let theta = config.positive(&format!("rope_parameters.{name}.rope_theta"), theta)?;
        kinds.push(LayerKind {
            pattern: match i {
                0 => Pattern::Full,
                _ => Pattern::Window(side),
            },
            rope_theta: Some(theta),
        });
    }
    let Some(names) = config.texts("layer_types")? else {
        let every = config.size("global_attn_every_n_layers", Some(3), 1..=MAX_SIZE)?;
        let kind = |layer: usize| kinds[usize::from(!layer.is_multiple_of(every))];
        return Ok((0..layers).map(kind).collect());
    };
    let known = |name: &&str| TYPES.iter().position(|(known, ..)| known == name);
    let read: Option<Vec<_>> = names.iter().map(|name| Some(kinds[known(name)?])).collect();
    read.filter(|read| read.len() == layers).ok_or_else(|| {
        let expected = format!("full_attention or sliding_attention for each of {layers} layers");
        config.error("layer_types", expected)
    })
}
