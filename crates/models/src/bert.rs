//! BERT (Devlin et al. 2018, <https://arxiv.org/abs/1810.04805>), as `BertModel` in `transformers`.

use crate::encoder::{EncoderConfig, EncoderNames, Keys, LayerNames, Widen};
use crate::family::Family;
use crate::heads::{HeadNames, MaskedLmNames, SequenceNames};

pub(crate) const BERT: Family = Family {
    model_type: "bert",
    prefix: "bert",
    config: |config| EncoderConfig::read(config, &Keys::BERT),
    encoder: EncoderNames {
        widen: Widen::No,
        layer_path: |layer, _| format!("encoder.layer.{layer}"),
        layer: LayerNames::BERT,
    },
    heads: HeadNames {
        pooler: Some("pooler.dense"),
        sequence: SequenceNames::Pooled { out: "classifier" },
        masked_lm: MaskedLmNames {
            dense: "cls.predictions.transform.dense",
            activation: None,
            norm: "cls.predictions.transform.LayerNorm",
            bias: &["cls.predictions.bias", "cls.predictions.decoder.bias"],
            decoder: "cls.predictions.decoder.weight",
        },
        discriminator: None,
    },
};
