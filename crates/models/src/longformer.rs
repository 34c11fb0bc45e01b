//! Longformer (Beltagy et al. 2020, <https://arxiv.org/abs/2004.05150>): RoBERTa whose tokens see a window, and a few global
//! tokens that see all and are seen by all, through projections of their own.

use bertha_nn::Pattern;

use crate::encoder::{EncoderConfig, EncoderNames, Keys, LayerKind, LayerNames, MAX_SIZE};
use crate::family::Family;
use crate::roberta::ROBERTA;
use crate::{Config, GlobalRule, ModelError};

pub(crate) const LONGFORMER: Family = Family {
    model_type: "longformer",
    prefix: "longformer",
    config: read,
    encoder: EncoderNames {
        layer: LayerNames {
            global: Some([
                "attention.self.query_global",
                "attention.self.key_global",
                "attention.self.value_global",
            ]),
            ..LayerNames::BERT
        },
        ..EncoderNames::BERT
    },
    heads: ROBERTA.heads,
};

fn read(config: &Config) -> Result<EncoderConfig, ModelError> {
    let mut read =
        EncoderConfig::read(config, &Keys::BERT)?.with_positions_after_padding(config)?;
    let windows = config.sizes(
        "attention_window",
        512,
        read.num_hidden_layers,
        2..=MAX_SIZE,
    )?;
    if windows.iter().any(|window| !window.is_multiple_of(2)) {
        let expected = "even numbers: as many tokens to either side".into();
        return Err(config.error("attention_window", expected));
    }
    let kind = |window: &usize| LayerKind {
        pattern: Pattern::Window(window / 2),
        rope_theta: None,
    };
    read.layer_kinds = windows.iter().map(kind).collect();
    let last = read.vocab_size - 1;
    read.separator = config.size("sep_token_id", Some(2.min(last)), 0..=last)? as u32;
    read.global_tokens = Some(GlobalRule::read(config)?);
    Ok(read)
}
