//! NomicBERT (Nussbaum et al. 2024, <https://arxiv.org/abs/2402.01613>): BERT with rotary positions and gated feed-forward.

use bertha_nn::{Activation, Bias, EmbeddingNames, Pattern};

use crate::encoder::{EncoderConfig, EncoderNames, Keys, LayerKind, LayerNames, Projections, Up};
use crate::family::Family;
use crate::heads::{HeadNames, MaskedLmNames, SequenceNames, SpanNames};
use crate::{Config, ModelError};

pub(crate) const NOMIC_BERT: Family = Family {
    model_type: "nomic_bert",
    prefix: "nomic_bert",
    config: read,
    encoder: EncoderNames {
        embeddings: EmbeddingNames {
            norm: "emb_ln",
            ..EmbeddingNames::BERT
        },
        layer_path: |layer, _| format!("encoder.layers.{layer}"),
        layer: LayerNames {
            projections: Projections::Together("attn.Wqkv"),
            mix: "attn.out_proj",
            attention_norm: "norm1",
            up: Up::GatedPair(["mlp.fc12", "mlp.fc11"]),
            down: "mlp.fc2",
            output_norm: "norm2",
            ..LayerNames::BERT
        },
        ..EncoderNames::BERT
    },
    heads: HeadNames {
        pooler: Some("pooler.dense"),
        sequence: SequenceNames::Pooled { out: "classifier" },
        masked_lm: MaskedLmNames {
            dense: "cls.predictions.transform.dense",
            activation: None,
            norm: "cls.predictions.transform.layer_norm",
            bias: &["cls.predictions.bias", "cls.predictions.decoder.bias"],
            decoder: "cls.predictions.decoder.weight",
        },
        transform: false,
        spans: SpanNames::Plain("qa_outputs"),
        discriminator: None,
        pairs: None,
    },
};

fn read(config: &Config) -> Result<EncoderConfig, ModelError> {
    let bert = Keys {
        activation: ("hidden_act", "silu"),
        max_positions: ("max_position_embeddings", 2048),
        dropout: ("hidden_dropout_prob", 0.0),
        attention_dropout: ("attention_probs_dropout_prob", 0.0),
        vocab_size: 30528,
        ..Keys::BERT
    };
    // The first files have GPT-2's keys.
    let old = config.contains("n_embd");
    let keys = match old {
        false => bert,
        true => Keys {
            hidden: ("n_embd", 768),
            layers: ("n_layer", 12),
            heads: ("n_head", 12),
            intermediate: ("n_inner", 3072),
            activation: ("hidden_act", "silu"),
            eps: ("layer_norm_epsilon", 1e-12),
            max_positions: ("n_positions", 2048),
            dropout: ("resid_pdrop", 0.0),
            attention_dropout: ("attn_pdrop", 0.0),
            ..bert
        },
    };
    let mut read = EncoderConfig::read(config, &keys)?;
    let theta = match old {
        false => {
            fixed(config, "rope_parameters.rope_type", "default")?;
            "rope_parameters.rope_theta"
        }
        true => {
            read_old(config, &mut read)?;
            "rotary_emb_base"
        }
    };
    let width = read.hidden_size / read.num_attention_heads;
    if config.size("head_dim", Some(width), 1..=usize::MAX)? != width {
        let expected = format!("{width}, the width by the number of heads");
        return Err(config.error("head_dim", expected));
    }
    let kind = LayerKind {
        pattern: Pattern::Full,
        rope_theta: Some(config.positive(theta, 1000.0)?),
    };
    let kinds = vec![kind; read.num_hidden_layers];
    read = read.with_rotary(config, keys.heads.0, kinds)?;
    read.biases.projections = Bias::Absent;
    read.biases.attention = Bias::Absent;
    read.biases.feed_forward = Bias::Absent;
    Ok(read)
}

/// What the first files say in other words, or could ask for and never do.
fn read_old(config: &Config, read: &mut EncoderConfig) -> Result<(), ModelError> {
    read.hidden_act = match config.text("activation_function", Some("swiglu"))? {
        "swiglu" => Activation::Silu,
        "geglu" => Activation::GeluErf,
        _ => return Err(config.error("activation_function", "swiglu or geglu".into())),
    };
    read.head.activation = read.hidden_act;
    for key in [
        "prenorm",
        "qkv_proj_bias",
        "mlp_fc1_bias",
        "mlp_fc2_bias",
        "rotary_emb_interleaved",
        "use_rms_norm",
        "parallel_block",
    ] {
        if config.flag(key, false)? {
            return Err(config.error(key, "false".into()));
        }
    }
    if config.positive("rotary_emb_fraction", 1.0)? != 1.0 {
        return Err(config.error("rotary_emb_fraction", "1: heads turn whole".into()));
    }
    if config.contains("rotary_scaling_factor") {
        let expected = "null: positions are not scaled".into();
        return Err(config.error("rotary_scaling_factor", expected));
    }
    if config.size("num_experts", Some(0), 0..=usize::MAX)? > 0 {
        return Err(config.error("num_experts", "0: there is one feed-forward block".into()));
    }
    Ok(())
}

fn fixed(config: &Config, key: &str, only: &str) -> Result<(), ModelError> {
    match config.text(key, Some(only))? == only {
        true => Ok(()),
        false => Err(config.error(key, format!("\"{only}\": positions are not scaled"))),
    }
}
