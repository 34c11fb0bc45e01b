//! ELECTRA (Clark et al. 2020, <https://arxiv.org/abs/2003.10555>): BERT's encoder, its embeddings narrower where the
//! configuration says; trained as a pair of a generator, a small masked LM, and a discriminator, which tells the tokens
//! that the generator replaced.

use bertha_nn::Activation;

use crate::encoder::{EncoderConfig, EncoderNames, Keys, Widen};
use crate::family::Family;
use crate::heads::{HeadNames, MaskedLmNames, SequenceNames, SpanNames};
use crate::{Config, ModelError};

pub(crate) const ELECTRA: Family = Family {
    model_type: "electra",
    prefix: "electra",
    config: read,
    encoder: EncoderNames {
        widen: Widen::WhereNarrower("embeddings_project"),
        ..EncoderNames::BERT
    },
    heads: HeadNames {
        pooler: None,
        sequence: SequenceNames::Own {
            dense: "classifier.dense",
            activation: Some(Activation::GeluErf),
            dropout_first: true,
            out: "classifier.out_proj",
        },
        masked_lm: MaskedLmNames {
            dense: "generator_predictions.dense",
            activation: Some(Activation::GeluErf),
            norm: "generator_predictions.LayerNorm",
            bias: &["generator_lm_head.bias"],
            decoder: "generator_lm_head.weight",
        },
        transform: false,
        spans: SpanNames::Plain("qa_outputs"),
        discriminator: Some([
            "discriminator_predictions.dense",
            "discriminator_predictions.dense_prediction",
        ]),
        pairs: None,
    },
};

fn read(config: &Config) -> Result<EncoderConfig, ModelError> {
    let keys = Keys {
        hidden: ("hidden_size", 256),
        heads: ("num_attention_heads", 4),
        intermediate: ("intermediate_size", 1024),
        ..Keys::BERT
    };
    EncoderConfig::read(config, &keys)?.with_embedding_size(config, 128)
}
