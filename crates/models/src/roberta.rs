//! RoBERTa (Liu et al. 2019, <https://arxiv.org/abs/1907.11692>) and the models that share its code in
//! `transformers`: XLM-RoBERTa (<https://arxiv.org/abs/1911.02116>) and CamemBERT (<https://arxiv.org/abs/1911.03894>).
//!
//! BERT's encoder with positions counted from one after the id of padding on.

use bertha_nn::Activation;

use crate::encoder::{EncoderConfig, EncoderNames, Keys};
use crate::family::Family;
use crate::heads::{HeadNames, MaskedLmNames, SequenceNames, SpanNames};
use crate::{Config, ModelError};

pub(crate) const ROBERTA: Family = family("roberta", |config| read(config, 50265));
pub(crate) const XLM_ROBERTA: Family = family("xlm-roberta", |config| read(config, 30522));
pub(crate) const CAMEMBERT: Family = family("camembert", |config| read(config, 30522));

fn read(config: &Config, vocab_size: usize) -> Result<EncoderConfig, ModelError> {
    let keys = Keys {
        vocab_size,
        ..Keys::BERT
    };
    EncoderConfig::read(config, &keys)?.with_positions_after_padding(config)
}

const fn family(
    model_type: &'static str,
    config: fn(&Config) -> Result<EncoderConfig, ModelError>,
) -> Family {
    Family {
        model_type,
        prefix: "roberta",
        config,
        encoder: EncoderNames::BERT,
        heads: HeadNames {
            pooler: Some("pooler.dense"),
            sequence: SequenceNames::Own {
                dense: "classifier.dense",
                activation: Some(Activation::Tanh),
                dropout_first: true,
                out: "classifier.out_proj",
            },
            masked_lm: MaskedLmNames {
                dense: "lm_head.dense",
                activation: Some(Activation::GeluErf),
                norm: "lm_head.layer_norm",
                bias: &["lm_head.bias", "lm_head.decoder.bias"],
                decoder: "lm_head.decoder.weight",
            },
            transform: false,
            spans: SpanNames::Plain("qa_outputs"),
            discriminator: None,
            pairs: None,
        },
    }
}
