//! BERT (Devlin et al. 2018, <https://arxiv.org/abs/1810.04805>), as `BertModel` in `transformers`.

use crate::encoder::{EncoderConfig, EncoderNames, Keys};
use crate::family::Family;
use crate::heads::{HeadNames, MaskedLmNames, PairNames, SequenceNames, SpanNames};

pub(crate) const BERT: Family = Family {
    model_type: "bert",
    prefix: "bert",
    config: |config| EncoderConfig::read(config, &Keys::BERT),
    encoder: EncoderNames::BERT,
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
        transform: false,
        spans: SpanNames::Plain("qa_outputs"),
        discriminator: None,
        pairs: Some(PairNames {
            out: "cls.seq_relationship",
            dropout: false,
        }),
    },
};
