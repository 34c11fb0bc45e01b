//! ALBERT (Lan et al. 2019, <https://arxiv.org/abs/1909.11942>): narrow embeddings, and layers that share their weights.

use crate::encoder::{EncoderConfig, EncoderNames, Keys, LayerNames, Projections, Up, Widen};
use crate::family::Family;
use crate::heads::{HeadNames, MaskedLmNames, PairNames, SequenceNames, SpanNames};
use crate::{Config, ModelError};

pub(crate) const ALBERT: Family = Family {
    model_type: "albert",
    prefix: "albert",
    config: read,
    encoder: EncoderNames {
        widen: Widen::Always("encoder.embedding_hidden_mapping_in"),
        layer_path: |group, inner| {
            format!("encoder.albert_layer_groups.{group}.albert_layers.{inner}")
        },
        layer: LayerNames {
            projections: Projections::Separate([
                "attention.query",
                "attention.key",
                "attention.value",
            ]),
            mix: "attention.dense",
            attention_norm: "attention.LayerNorm",
            up: Up::Plain("ffn"),
            down: "ffn_output",
            output_norm: "full_layer_layer_norm",
            ..LayerNames::BERT
        },
        ..EncoderNames::BERT
    },
    heads: HeadNames {
        pooler: Some("pooler"),
        sequence: SequenceNames::Pooled { out: "classifier" },
        masked_lm: MaskedLmNames {
            dense: "predictions.dense",
            activation: None,
            norm: "predictions.LayerNorm",
            bias: &["predictions.bias", "predictions.decoder.bias"],
            decoder: "predictions.decoder.weight",
        },
        transform: false,
        spans: SpanNames::Plain("qa_outputs"),
        discriminator: None,
        pairs: Some(PairNames {
            out: "sop_classifier.classifier",
            dropout: true,
        }),
    },
};

fn read(config: &Config) -> Result<EncoderConfig, ModelError> {
    let keys = Keys {
        hidden: ("hidden_size", 4096),
        heads: ("num_attention_heads", 64),
        intermediate: ("intermediate_size", 16384),
        activation: ("hidden_act", "gelu_new"),
        dropout: ("hidden_dropout_prob", 0.0),
        attention_dropout: ("attention_probs_dropout_prob", 0.0),
        classifier_dropout: ("classifier_dropout_prob", Some(0.1)),
        vocab_size: 30000,
        ..Keys::BERT
    };
    let mut read = EncoderConfig::read(config, &keys)?.with_embedding_size(config, 128)?;
    // A set of layers serves as many layers in a row.
    let most = read.num_hidden_layers.max(1);
    read.num_hidden_groups = config.size("num_hidden_groups", Some(1), 1..=most)?;
    read.inner_group_num = config.size("inner_group_num", Some(1), 1..=most)?;
    read.dropout.feed_forward = 0.0;
    Ok(read)
}
