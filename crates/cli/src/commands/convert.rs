//! `bertha convert`: a model of short texts becomes one of long texts.

use std::fs;
use std::path::{Path, PathBuf};

use bertha_models::{Config, LongModel, convert};
use bertha_tokenizer::{SpecialToken, TOKENIZER_FILES, Tokenizer, TokenizerError};
use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::args::{ModelDir, positive};
use crate::commands::model_folder::{check_output, copy, copy_sentence_transformers};
use crate::failure::{Failure, Result};
use crate::output::Output;

/// Make a model of short texts one of long texts
#[derive(Args, Debug)]
#[command(
    long_about = "Makes BERT, RoBERTa, XLM-RoBERTa or CamemBERT a Longformer or a BigBird, as these began: positions \
beyond the old ones repeat them, and the projections of Longformer's global tokens start as copies of the \
others. Until it has been trained on long texts (`bertha pretrain --model`), the new model knows short ones.",
    after_long_help = HELP
)]
pub struct Convert {
    #[command(flatten)]
    model: ModelDir,
    /// What the model becomes
    #[arg(long, value_enum)]
    to: Target,
    /// Longest text of the new model, in tokens
    #[arg(long, value_name = "N", value_parser = positive, default_value_t = 4096)]
    max_length: usize,
    /// Folder to write
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// Replace the model that the folder has
    #[arg(long)]
    overwrite: bool,
    /// Longformer: tokens of the window that a token sees, half to either side
    #[arg(long, value_name = "N", value_parser = positive, default_value_t = 512)]
    attention_window: usize,
    /// BigBird: tokens in a block
    #[arg(long, value_name = "N", value_parser = positive, default_value_t = 64)]
    block_size: usize,
    /// BigBird: random blocks that a block of tokens sees
    #[arg(long, value_name = "N", default_value_t = 3)]
    num_random_blocks: usize,
}

const HELP: &str = "\
Examples:
  bertha convert --model roberta-base --to longformer --max-length 4096 --output roberta-4096
  bertha convert --model bert-base --to big-bird --max-length 4096 --output bert-bigbird
  bertha convert --model trained-longformer --to longformer --output tidied
      gives a Longformer more positions, or none, and its global projections those of the others
      again: training of a masked LM, which has no global tokens, does not reach them

Heads:
  The head comes along where it stays the same function: all of them to Longformer, that of the
  masked LM and for tokens to BigBird. What does not is named on standard error.

What stays the same:
  A text that the old model takes, and that is no longer than half a window (Longformer) or than
  5 + 2·random blocks (BigBird), gives what it gave, where no token is global.

Output:
  DIR has config.json, model.safetensors and the tokenizer, for bertha and for transformers. On
  standard output a line that tells of it:
    {\"output\":\"roberta-4096\",\"model_type\":\"longformer\",\"max_tokens\":4096,\"dropped\":[]}";

/// What a model becomes.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Target {
    /// Each token sees a window; chosen ones see all
    Longformer,
    /// Each token sees blocks: first, last, near and random ones
    BigBird,
}

#[derive(Serialize)]
struct Line<'a> {
    output: &'a Path,
    model_type: &'a str,
    max_tokens: usize,
    dropped: &'a [String],
}

impl Convert {
    /// Runs the command.
    pub fn run(&self) -> Result<()> {
        let dir = self.model.transformer()?;
        let to = match self.to {
            Target::Longformer => LongModel::Longformer {
                window: self.attention_window,
            },
            Target::BigBird => LongModel::BigBird {
                block: self.block_size,
                random: self.num_random_blocks,
            },
        };
        let separator = match Tokenizer::from_dir(&dir) {
            Ok(tokenizer) => tokenizer.special_token(SpecialToken::Sep).map(|(_, id)| id),
            Err(TokenizerError::NoTokenizer { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        let out = self.output.as_path();
        check_output(&dir, out, self.overwrite)?;
        let converted = convert(&dir, to, self.max_length, separator)?;
        fs::create_dir_all(out).map_err(|error| Failure::io(out, "make the folder", &error))?;
        converted.save(out)?;
        for name in TOKENIZER_FILES {
            copy(&dir, out, name, |_| Ok(()))?;
        }
        let old = Config::from_file(dir.join("config.json"))?;
        let class = match old.model_type()? {
            "bert" => "BertTokenizer",
            "xlm-roberta" => "XLMRobertaTokenizer",
            "camembert" => "CamembertTokenizer",
            _ => "RobertaTokenizer",
        };
        // Without its class, `transformers` would take the tokenizer for one of the new architecture's.
        copy(&dir, out, "tokenizer_config.json", |config| {
            config["model_max_length"] = self.max_length.into();
            if config["tokenizer_class"].is_null() {
                config["tokenizer_class"] = class.into();
            }
            Ok(())
        })?;
        copy_sentence_transformers(&dir, out, Some(self.max_length))?;
        for name in &converted.dropped {
            tracing::warn!("{name} has no place in the new model, and is left out");
        }
        let mut output = Output::stdout();
        output.line(&Line {
            output: out,
            model_type: converted.config.model_type()?,
            max_tokens: self.max_length,
            dropped: &converted.dropped,
        })?;
        output.finish()
    }
}
