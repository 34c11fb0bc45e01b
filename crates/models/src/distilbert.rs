//! DistilBERT (Sanh et al. 2019, <https://arxiv.org/abs/1910.01108>): BERT's encoder without token types and pooler.

use bertha_nn::Activation;

use crate::encoder::{EncoderConfig, EncoderNames, Keys, LayerNames, Projections, Up};
use crate::family::Family;
use crate::heads::{HeadNames, MaskedLmNames, SequenceNames, SpanNames};
use crate::{Config, ModelError};

pub(crate) const DISTILBERT: Family = Family {
    model_type: "distilbert",
    prefix: "distilbert",
    config: read,
    encoder: EncoderNames {
        layer_path: |layer, _| format!("transformer.layer.{layer}"),
        layer: LayerNames {
            projections: Projections::Separate([
                "attention.q_lin",
                "attention.k_lin",
                "attention.v_lin",
            ]),
            mix: "attention.out_lin",
            attention_norm: "sa_layer_norm",
            up: Up::Plain("ffn.lin1"),
            down: "ffn.lin2",
            output_norm: "output_layer_norm",
            ..LayerNames::BERT
        },
        ..EncoderNames::BERT
    },
    heads: HeadNames {
        pooler: None,
        sequence: SequenceNames::Own {
            dense: "pre_classifier",
            activation: Some(Activation::Relu),
            dropout_first: false,
            out: "classifier",
        },
        masked_lm: MaskedLmNames {
            dense: "vocab_transform",
            activation: None,
            norm: "vocab_layer_norm",
            bias: &["vocab_projector.bias"],
            decoder: "vocab_projector.weight",
        },
        transform: false,
        spans: SpanNames::Plain("qa_outputs"),
        discriminator: None,
        pairs: None,
    },
};

fn read(config: &Config) -> Result<EncoderConfig, ModelError> {
    let keys = Keys {
        hidden: ("dim", 768),
        layers: ("n_layers", 6),
        heads: ("n_heads", 12),
        intermediate: ("hidden_dim", 3072),
        activation: ("activation", "gelu"),
        dropout: ("dropout", 0.1),
        attention_dropout: ("attention_dropout", 0.1),
        classifier_dropout: ("seq_classif_dropout", Some(0.2)),
        type_vocab_size: 0,
        ..Keys::BERT
    };
    let mut read = EncoderConfig::read(config, &keys)?;
    // Fixed in `transformers`, whatever a configuration says.
    read.layer_norm_eps = 1e-12;
    read.dropout.attention = 0.0;
    read.dropout.answer = config.probability("qa_dropout", 0.1)?;
    read.dropout.tokens = read.dropout.embeddings;
    Ok(read)
}
