//! MPNet (Song et al. 2020, <https://arxiv.org/abs/2004.09297>): BERT's encoder without token types, with a bias by distance
//! that its layers share.

use bertha_nn::Activation;

use crate::encoder::{
    EncoderConfig, EncoderNames, Keys, LayerNames, MAX_SIZE, Positions, Projections,
};
use crate::family::Family;
use crate::heads::{HeadNames, MaskedLmNames, SequenceNames, SpanNames};
use crate::{Config, ModelError};

pub(crate) const MPNET: Family = Family {
    model_type: "mpnet",
    prefix: "mpnet",
    config: read,
    encoder: EncoderNames {
        layer: LayerNames {
            projections: Projections::Separate([
                "attention.attn.q",
                "attention.attn.k",
                "attention.attn.v",
            ]),
            mix: "attention.attn.o",
            attention_norm: "attention.LayerNorm",
            ..LayerNames::BERT
        },
        relative_bias: Some("encoder.relative_attention_bias"),
        ..EncoderNames::BERT
    },
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
};

/// The id of padding, fixed in `transformers`, whatever a configuration says.
const PADDING: u32 = 1;

fn read(config: &Config) -> Result<EncoderConfig, ModelError> {
    let keys = Keys {
        vocab_size: 30527,
        type_vocab_size: 0,
        ..Keys::BERT
    };
    let mut read = EncoderConfig::read(config, &keys)?;
    if read.max_position_embeddings < 3 {
        let expected = "at least 3: tokens are numbered from 2".into();
        return Err(config.error("max_position_embeddings", expected));
    }
    read.positions = Positions::AfterPadding(PADDING);
    // Distances beyond the 32nd bucket do not occur: it is fixed, too, how many are used.
    read.relative_buckets =
        config.size("relative_attention_num_buckets", Some(32), 32..=MAX_SIZE)?;
    read.dropout.classifier = read.dropout.embeddings;
    read.dropout.tokens = read.dropout.embeddings;
    Ok(read)
}
