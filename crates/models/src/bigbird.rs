//! BigBird (Zaheer et al. 2020, <https://arxiv.org/abs/2007.14062>): BERT whose tokens see blocks: the first and last, both
//! neighbours, and random ones.

use bertha_nn::{BlockPattern, Pattern};

use crate::encoder::{EncoderConfig, EncoderNames, Keys, LayerKind, MAX_SIZE};
use crate::family::Family;
use crate::heads::{HeadNames, MaskedLmNames, PairNames, SequenceNames, SpanNames};
use crate::{Config, ModelError};

pub(crate) const BIG_BIRD: Family = Family {
    model_type: "big_bird",
    prefix: "bert",
    config: read,
    encoder: EncoderNames::BERT,
    heads: HeadNames {
        pooler: Some("pooler"),
        sequence: SequenceNames::Own {
            dense: "classifier.dense",
            activation: None,
            dropout_first: true,
            out: "classifier.out_proj",
        },
        masked_lm: MaskedLmNames {
            dense: "cls.predictions.transform.dense",
            activation: None,
            norm: "cls.predictions.transform.LayerNorm",
            bias: &["cls.predictions.bias", "cls.predictions.decoder.bias"],
            decoder: "cls.predictions.decoder.weight",
        },
        transform: false,
        spans: SpanNames::Block {
            up: "qa_classifier.intermediate.dense",
            down: "qa_classifier.output.dense",
            norm: "qa_classifier.output.LayerNorm",
            out: "qa_classifier.qa_outputs",
        },
        discriminator: None,
        pairs: Some(PairNames {
            out: "cls.seq_relationship",
            dropout: false,
        }),
    },
};

fn read(config: &Config) -> Result<EncoderConfig, ModelError> {
    let keys = Keys {
        activation: ("hidden_act", "gelu_new"),
        max_positions: ("max_position_embeddings", 4096),
        vocab_size: 50358,
        ..Keys::BERT
    };
    let mut read = EncoderConfig::read(config, &keys)?;
    let block = config.size("block_size", Some(64), 1..=MAX_SIZE)?;
    let random = config.size("num_random_blocks", Some(3), 0..=MAX_SIZE)?;
    let sparse = match config.text("attention_type", Some("block_sparse"))? {
        "block_sparse" => true,
        "original_full" => false,
        _ => {
            let expected = "block_sparse or original_full".into();
            return Err(config.error("attention_type", expected));
        }
    };
    if sparse {
        let kind = |layer| LayerKind {
            pattern: Pattern::Blocks(BlockPattern {
                block,
                random,
                max_tokens: read.max_position_embeddings,
                seed: layer as u32,
            }),
            rope_theta: None,
        };
        read.layer_kinds = (0..read.num_hidden_layers).map(kind).collect();
    }
    if !config.flag("use_bias", true)? {
        read.biases.projections = bertha_nn::Bias::Absent;
    }
    if config.flag("rescale_embeddings", false)? {
        read.embedding_scale = (read.hidden_size as f32).sqrt();
    }
    let last = read.vocab_size - 1;
    read.separator = config.size("sep_token_id", Some(66.min(last)), 0..=last)? as u32;
    read.types_by_question = true;
    read.dropout_before_norm = true;
    read.dropout.answer = read.dropout.embeddings;
    Ok(read)
}
