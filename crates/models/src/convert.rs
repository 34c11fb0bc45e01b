//! From a model of short texts to one of long texts, as the long ones began: Longformer from RoBERTa (Beltagy et al. 2020,
//! <https://arxiv.org/abs/2004.05150>, section 5), BigBird likewise.
//!
//! Positions beyond the old ones repeat them. Global projections begin as the local ones. On a text that the old model
//! takes whole, and that a window (or full attention by blocks) covers, the new one gives the same.

use std::collections::BTreeMap;
use std::path::Path;

use bertha_tensor::{Checkpoint, DType, Tensor};
use serde_json::Value;

use crate::encoder::Positions;
use crate::training::write_folder;
use crate::{Config, Head, ModelError, architecture};

/// What a model becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LongModel {
    /// Tokens see a window.
    Longformer {
        /// Tokens of it, half to either side; even.
        window: usize,
    },
    /// Tokens see blocks.
    BigBird {
        /// Tokens in a block.
        block: usize,
        /// Random blocks that a block of queries sees.
        random: usize,
    },
}

/// A converted model, to be saved.
#[derive(Debug)]
pub struct Converted {
    /// Its configuration.
    pub config: Config,
    /// Its weights, by name.
    pub tensors: BTreeMap<String, Tensor>,
    /// Weights of the old model that the new one has no place for.
    pub dropped: Vec<String>,
}

/// What the weights of a head are called in the old model and in the new one: the same function of the same numbers.
type Renames = &'static [(&'static str, &'static str)];

const BERT_MASKED_LM: Renames = &[
    ("cls.predictions.transform.dense", "lm_head.dense"),
    ("cls.predictions.transform.LayerNorm", "lm_head.layer_norm"),
    ("cls.predictions.decoder.bias", "lm_head.decoder.bias"),
    ("cls.predictions.decoder.weight", "lm_head.decoder.weight"),
    ("cls.predictions.bias", "lm_head.bias"),
];
const ROBERTA_MASKED_LM: Renames = &[
    ("lm_head.dense", "cls.predictions.transform.dense"),
    ("lm_head.layer_norm", "cls.predictions.transform.LayerNorm"),
    ("lm_head.decoder", "cls.predictions.decoder"),
    ("lm_head.bias", "cls.predictions.bias"),
];

impl Converted {
    /// Writes `config.json` and `model.safetensors` into a folder that exists: each appears whole or not at all.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn save(&self, dir: impl AsRef<Path>) -> Result<(), ModelError> {
        let tensors = self.tensors.iter();
        let tensors: Vec<_> = tensors.map(|(name, tensor)| (&**name, tensor)).collect();
        write_folder(dir.as_ref(), &self.config, &tensors, None)
    }
}

/// Converts the BERT, RoBERTa, XLM-RoBERTa or CamemBERT in a folder, or gives a Longformer there more positions and global
/// projections like its local ones. `separator` is the id that ends a question, for models whose configuration does not say.
///
/// # Errors
/// When a file is missing or corrupt, the architecture is another, the new model would not be longer, or an option does
/// not fit.
pub fn convert(
    dir: impl AsRef<Path>,
    to: LongModel,
    max_tokens: usize,
    separator: Option<u32>,
) -> Result<Converted, ModelError> {
    let dir = dir.as_ref();
    let config = Config::from_file(dir.join("config.json"))?;
    let checkpoint = Checkpoint::open_dir(dir)?;
    let old = Old::read(&config, &checkpoint)?;
    let refuse = |what: String, expected: String| ModelError::Conversion { what, expected };
    let longest = old.max_tokens;
    if max_tokens < longest || max_tokens > 1 << 24 {
        let expected = format!("from {longest}, which the model has, to {}", 1 << 24);
        return Err(refuse(format!("{max_tokens} tokens"), expected));
    }
    let (prefix, model_type, class) = match to {
        LongModel::Longformer { window } => {
            if window < 2 || !window.is_multiple_of(2) {
                let expected = "an even number, half to either side".into();
                return Err(refuse(format!("a window of {window} tokens"), expected));
            }
            ("longformer", "longformer", "Longformer")
        }
        LongModel::BigBird { block, random } => {
            if block == 0 || block.saturating_mul(5 + 2 * random) > max_tokens {
                let what = format!("{random} random blocks of {block} tokens");
                let expected = format!("5 + 2·random blocks within {max_tokens} tokens");
                return Err(refuse(what, expected));
            }
            ("bert", "big_bird", "BigBird")
        }
    };
    let longformer = matches!(to, LongModel::Longformer { .. });
    if old.is_longformer && !longformer {
        let expected = "bert, roberta, xlm-roberta or camembert".into();
        return Err(refuse("a longformer for BigBird".into(), expected));
    }

    let mut tensors = BTreeMap::new();
    let mut dropped = Vec::new();
    let new_head = old.new_head(longformer);
    for name in checkpoint.names() {
        let Some(renamed) = old.rename(name, prefix, longformer, new_head) else {
            // Positions 0, 1, …, which old files store: no weights.
            if !name.ends_with("embeddings.position_ids") {
                dropped.push(name.to_owned());
            }
            continue;
        };
        let mut tensor = checkpoint.get(name)?;
        if renamed.ends_with("embeddings.position_embeddings.weight") {
            let offset = match longformer {
                true => old.pad as usize + 1,
                false => 0,
            };
            tensor = extended(&tensor, old.offset, longest, offset, max_tokens)?;
        }
        if longformer
            && let Some((layer, part)) = renamed.split_once(".attention.self.")
            && !part.contains("_global")
            && let Some((projection, kind)) = part.split_once('.')
        {
            let global = format!("{layer}.attention.self.{projection}_global.{kind}");
            tensors.insert(global, tensor.clone());
        }
        // A Longformer's own global projections give way to its local ones.
        if !renamed.contains("_global.") {
            tensors.insert(renamed, tensor);
        }
    }

    let mut new = config.clone();
    new.set("model_type", model_type);
    new.set("architectures", vec![new_head.class(class)]);
    for key in ["position_embedding_type", "auto_map", "_name_or_path"] {
        new.remove(key);
    }
    let layers = config.size("num_hidden_layers", Some(12), 0..=10_000)?;
    match to {
        LongModel::Longformer { window } => {
            new.set("attention_window", vec![window; layers]);
            new.set("max_position_embeddings", max_tokens + old.pad as usize + 1);
        }
        LongModel::BigBird { block, random } => {
            new.set("attention_type", "block_sparse");
            new.set("block_size", block);
            new.set("num_random_blocks", random);
            new.set("max_position_embeddings", max_tokens);
            new.set("use_bias", true);
            new.set("rescale_embeddings", false);
        }
    }
    new.set("pad_token_id", old.pad);
    // The defaults of the old architecture may be others than the new one's.
    for (key, default) in old.defaults {
        if !new.contains(key) {
            new.set(key, default);
        }
    }
    if let Some(separator) = separator.filter(|_| !config.contains("sep_token_id")) {
        new.set("sep_token_id", separator);
    }
    Ok(Converted {
        config: new,
        tensors,
        dropped,
    })
}

/// The model that is converted.
struct Old {
    is_longformer: bool,
    head: Head,
    /// What the encoder's names begin with, with its dot.
    prefix: String,
    /// The names of the masked LM are BERT's.
    of_bert: bool,
    pad: u32,
    /// The row of the position table that a sequence's first token has.
    offset: usize,
    max_tokens: usize,
    defaults: Vec<(&'static str, Value)>,
}

impl Old {
    fn read(config: &Config, checkpoint: &Checkpoint) -> Result<Self, ModelError> {
        let model_type = config.model_type()?;
        let (of_bert, prefix) = match model_type {
            "bert" => (true, "bert."),
            "roberta" | "xlm-roberta" | "camembert" => (false, "roberta."),
            "longformer" => (false, "longformer."),
            _ => {
                let expected =
                    "\"bert\", \"roberta\", \"xlm-roberta\", \"camembert\" or \"longformer\"";
                return Err(config.error("model_type", expected.into()));
            }
        };
        let sizes = (architecture(config)?.encoder)(config)?;
        let (pad, offset) = match sizes.positions {
            Positions::AfterPadding(pad) => (pad, pad as usize + 1),
            _ => (
                config.size("pad_token_id", Some(0), 0..=sizes.vocab_size)? as u32,
                0,
            ),
        };
        let head = config.head();
        if head == Head::MaskedLm && config.text("hidden_act", Some("gelu"))? != "gelu" && of_bert {
            let expected = "\"gelu\", which the long models' masked-LM heads have".into();
            return Err(config.error("hidden_act", expected));
        }
        let probe = format!("{prefix}embeddings.word_embeddings.weight");
        Ok(Self {
            is_longformer: model_type == "longformer",
            head,
            prefix: match checkpoint.contains(&probe) {
                true => prefix.to_owned(),
                false => String::new(),
            },
            of_bert,
            pad,
            offset,
            max_tokens: sizes.max_tokens(),
            defaults: vec![
                ("vocab_size", sizes.vocab_size.into()),
                ("type_vocab_size", sizes.type_vocab_size.into()),
                ("layer_norm_eps", f64::from(sizes.layer_norm_eps).into()),
                ("hidden_act", "gelu".into()),
            ],
        })
    }

    /// The head of the new model: the old one's where it can be the same function.
    fn new_head(&self, longformer: bool) -> Head {
        match self.head {
            Head::SequenceClassification | Head::QuestionAnswering if !longformer => Head::Base,
            head => head,
        }
    }

    /// What a weight is called in the new model; `None` where it has no place there.
    fn rename(&self, name: &str, prefix: &str, longformer: bool, head: Head) -> Option<String> {
        // A bare encoder is saved without a prefix.
        let prefix = match head {
            Head::Base => String::new(),
            _ => format!("{prefix}."),
        };
        if let Some(rest) = name.strip_prefix(&self.prefix)
            && ["embeddings.", "encoder.", "pooler."]
                .iter()
                .any(|part| rest.starts_with(part))
        {
            if rest == "embeddings.position_ids" {
                return None;
            }
            let Some(pooler) = rest.strip_prefix("pooler.dense.") else {
                return Some(format!("{prefix}{rest}"));
            };
            return match (longformer, head) {
                // BERT's classifier reads the pooler, the long ones' a layer of its own, which does the same.
                (true, Head::SequenceClassification) => Some(format!("classifier.dense.{pooler}")),
                (true, Head::Base) => Some(format!("{prefix}pooler.dense.{pooler}")),
                (false, Head::Base) => Some(format!("{prefix}pooler.{pooler}")),
                _ => None,
            };
        }
        match head {
            Head::MaskedLm => {
                let renames = match (self.of_bert, longformer) {
                    (true, true) => BERT_MASKED_LM,
                    (false, false) => ROBERTA_MASKED_LM,
                    (true, false) => &[("cls.predictions", "cls.predictions")],
                    (false, true) => &[("lm_head", "lm_head")],
                };
                renames.iter().find_map(|(old, new)| {
                    let rest = name.strip_prefix(old)?;
                    (rest.is_empty() || rest.starts_with('.')).then(|| format!("{new}{rest}"))
                })
            }
            Head::SequenceClassification if self.of_bert => {
                let rest = name.strip_prefix("classifier.")?;
                Some(format!("classifier.out_proj.{rest}"))
            }
            Head::SequenceClassification | Head::TokenClassification => {
                name.starts_with("classifier.").then(|| name.to_owned())
            }
            Head::QuestionAnswering => name.starts_with("qa_outputs.").then(|| name.to_owned()),
            _ => None,
        }
    }
}

/// A position table of `tokens` rows from row `offset` on that repeat the `old_tokens` rows from `old_offset` on. The
/// rows before are the old ones' first, which padding has.
fn extended(
    old: &Tensor,
    old_offset: usize,
    old_tokens: usize,
    offset: usize,
    tokens: usize,
) -> Result<Tensor, ModelError> {
    let dtype = old.dtype();
    let width = old.shape().get(1).copied().unwrap_or(0);
    let old = old.to_dtype(DType::F32)?.contiguous();
    let rows = old.as_slice::<f32>()?;
    let row = |index: usize| rows.get(index * width..(index + 1) * width).unwrap_or(&[]);
    let mut new = Vec::with_capacity((offset + tokens) * width);
    for index in 0..offset {
        new.extend_from_slice(row(index.min(old_offset.max(1) - 1)));
    }
    for token in 0..tokens {
        new.extend_from_slice(row(old_offset + token % old_tokens.max(1)));
    }
    Ok(Tensor::from_vec(new, &[offset + tokens, width])?.to_dtype(dtype)?)
}
