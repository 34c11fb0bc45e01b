//! DeBERTa, versions 2 and 3 (He et al. 2020, <https://arxiv.org/abs/2006.03654>, and 2021, <https://arxiv.org/abs/2111.09543>):
//! BERT's layers with attention of contents and distances, which are where tokens are; a table of positions is rare.

use bertha_nn::{DistanceBuckets, Weights};

use crate::encoder::{
    DisentangledConfig, EncoderConfig, EncoderNames, Keys, LayerNames, MAX_SIZE, Positions,
    Projections,
};
use crate::family::Family;
use crate::heads::{HeadNames, MaskedLmNames, SequenceNames, SpanNames};
use crate::{Config, ModelError};

/// With the masked LM's head as BERT has it (`legacy` in config.json).
pub(crate) const DEBERTA: Family = family(MaskedLmNames {
    dense: "cls.predictions.transform.dense",
    activation: None,
    norm: "cls.predictions.transform.LayerNorm",
    bias: &["cls.predictions.bias", "cls.predictions.decoder.bias"],
    decoder: "cls.predictions.decoder.weight",
});

/// With the head that its authors trained.
pub(crate) const DEBERTA_OF_AUTHORS: Family = family(MaskedLmNames {
    dense: "lm_predictions.lm_head.dense",
    activation: None,
    norm: "lm_predictions.lm_head.LayerNorm",
    bias: &["lm_predictions.lm_head.bias"],
    decoder: "lm_predictions.lm_head.decoder.weight",
});

/// The one whose masked LM's head a configuration asks for; where it does not say, which the weights have.
pub(crate) fn of(config: &Config, weights: &Weights<'_>) -> Result<&'static Family, ModelError> {
    let authors = weights.contains("lm_predictions.lm_head.dense.weight");
    Ok(match config.flag("legacy", !authors)? {
        true => &DEBERTA,
        false => &DEBERTA_OF_AUTHORS,
    })
}

const fn family(masked_lm: MaskedLmNames) -> Family {
    Family {
        model_type: "deberta-v2",
        prefix: "deberta",
        config: read,
        encoder: EncoderNames {
            layer: LayerNames {
                projections: Projections::Separate([
                    "attention.self.query_proj",
                    "attention.self.key_proj",
                    "attention.self.value_proj",
                ]),
                distances: Some([
                    "attention.self.pos_query_proj",
                    "attention.self.pos_key_proj",
                ]),
                ..LayerNames::BERT
            },
            distances: Some(["encoder.rel_embeddings", "encoder.LayerNorm"]),
            ..EncoderNames::BERT
        },
        heads: HeadNames {
            pooler: None,
            sequence: SequenceNames::Own {
                dense: "pooler.dense",
                activation: None,
                dropout_first: false,
                out: "classifier",
            },
            masked_lm,
            transform: false,
            spans: SpanNames::Plain("qa_outputs"),
            discriminator: None,
            pairs: None,
        },
    }
}

fn read(config: &Config) -> Result<EncoderConfig, ModelError> {
    let keys = Keys {
        hidden: ("hidden_size", 1536),
        layers: ("num_hidden_layers", 24),
        heads: ("num_attention_heads", 24),
        intermediate: ("intermediate_size", 6144),
        eps: ("layer_norm_eps", 1e-7),
        vocab_size: 128_100,
        type_vocab_size: 0,
        classifier_dropout: ("cls_dropout", None),
        ..Keys::BERT
    };
    let mut read = EncoderConfig::read(config, &keys)?;
    read.type_vocab_size = config.size("type_vocab_size", Some(0), 0..=MAX_SIZE)?;
    if !config.flag("position_biased_input", true)? {
        read.positions = Positions::InAttention;
    }
    let width = read.hidden_size;
    for (key, what) in [
        ("embedding_size", "the layers' width"),
        ("pooler_hidden_size", "the layers' width"),
    ] {
        if config.size(key, Some(width), 1..=MAX_SIZE)? != width {
            return Err(config.error(key, format!("{width}, {what}")));
        }
    }
    let head = width / read.num_attention_heads;
    if config.size("attention_head_size", Some(head), 1..=MAX_SIZE)? != head {
        let expected = format!("{head}, the width by the number of heads");
        return Err(config.error("attention_head_size", expected));
    }
    if config.size("conv_kernel_size", Some(0), 0..=MAX_SIZE)? != 0 {
        let expected = "0: bertha has no convolution beside the first layer".into();
        return Err(config.error("conv_kernel_size", expected));
    }
    read.head.pooled_activation = config.activation("pooler_hidden_act", "gelu")?;
    read.dropout.pooled = config.probability("pooler_dropout", 0.0)?;
    read.dropout.tokens = read.dropout.embeddings;
    read.disentangled = disentangled(config, read.max_position_embeddings)?;
    Ok(read)
}

/// Which parts a score has, and how distances are numbered.
fn disentangled(
    config: &Config,
    positions: usize,
) -> Result<Option<DisentangledConfig>, ModelError> {
    let types = config.words("pos_att_type", '|')?;
    let known = ["c2p", "p2c"];
    if let Some(unknown) = types.iter().find(|name| !known.contains(name)) {
        let expected = format!("c2p, p2c, or both; {unknown:?} is neither");
        return Err(config.error("pos_att_type", expected));
    }
    if !config.flag("relative_attention", false)? {
        // Scores would be scaled as if they had these parts.
        return match types.is_empty() {
            true => Ok(None),
            false => Err(config.error("relative_attention", "true with `pos_att_type`".into())),
        };
    }
    let given = |key| config.given_size(key, MAX_SIZE);
    let max_distance = given("max_relative_positions")?.unwrap_or(positions);
    let buckets = given("position_buckets")?;
    if let Some(buckets) = buckets
        && (buckets < 4 || max_distance < buckets / 2 + 2)
    {
        let expected = format!("from 4 to below twice the {max_distance} positions");
        return Err(config.error("position_buckets", expected));
    }
    let norms = config.words("norm_rel_ebd", '|')?;
    Ok(Some(DisentangledConfig {
        buckets: DistanceBuckets::new(buckets, max_distance),
        content_to_position: types.contains(&"c2p"),
        position_to_content: types.contains(&"p2c"),
        shared: config.flag("share_att_key", false)?,
        norm: norms.contains(&"layer_norm"),
    }))
}
