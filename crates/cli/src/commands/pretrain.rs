//! `bertha pretrain`: a language model from plain text.

use std::path::{Path, PathBuf};

use bertha_autograd::Session;
use bertha_models::{Config, TrainableModel};
use bertha_tokenizer::{SpecialToken, Tokenizer};
use bertha_train::collate::{
    BatchSize, Masker, MaskingOptions, PackOptions, PairObjective, PairOptions, Selection,
    pack_blocks, sentence_pairs,
};
use bertha_train::data::{Corpus, Examples, read_documents};
use bertha_train::random::Seed;
use bertha_train::trainer::{Task, Trainer};
use clap::{Args, ValueEnum};
use serde_json::json;

use crate::args::{Global, positive};
use crate::commands::task_data::within;
use crate::commands::training::{Defaults, Training, limit_threads};
use crate::failure::{Failure, Result};

/// Train a language model on plain text
#[derive(Args, Debug)]
#[command(
    long_about = "Trains a BERT on plain text by masked language modelling: from random weights (--config), or on from \
an existing model (--model), which adapts it to the texts of a field. Texts are cut into blocks of full \
length, and other tokens are masked in every epoch. With --pairs a text is two segments, and the model also learns to \
tell whether they belong together, as BERT and ALBERT did.",
    after_long_help = HELP
)]
pub struct Pretrain {
    /// A size (bert-tiny, bert-mini, bert-small, bert-medium, bert-base), or a config.json
    #[arg(
        long,
        value_name = "NAME|FILE",
        required_unless_present = "model",
        conflicts_with = "model"
    )]
    config: Option<String>,
    /// Go on from this model folder, in place of --config
    #[arg(short, long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// Folder with the tokenizer (tokenizer.json or vocab.txt) [default: that of --model]
    #[arg(long, value_name = "DIR", required_unless_present = "model")]
    tokenizer: Option<PathBuf>,
    /// Text files: a sentence or paragraph a line, blank lines between documents
    #[arg(long, value_name = "FILE", num_args = 1.., required = true)]
    data: Vec<PathBuf>,
    /// Text files to judge by: the model with the least loss on them is kept
    #[arg(long, value_name = "FILE", num_args = 1..)]
    dev: Vec<PathBuf>,
    /// Tokens of a block, special tokens included [default: 128, at most the model's positions]
    #[arg(long, value_name = "N", visible_alias = "max-seq-length", value_parser = positive, help_heading = "Data")]
    max_length: Option<usize>,
    /// Let blocks go on into the next document, so that all are full
    #[arg(long, help_heading = "Data", conflicts_with = "pairs")]
    cross_documents: bool,
    /// Make pairs of segments in place of blocks, and have the model tell them apart too
    #[arg(long, value_enum, value_name = "OBJECTIVE", help_heading = "Data")]
    pairs: Option<Pairs>,
    /// Probability that a token is to be guessed
    #[arg(
        long,
        value_name = "P",
        visible_alias = "mlm-probability",
        default_value_t = 0.15,
        help_heading = "Data"
    )]
    mask_probability: f64,
    /// Mask whole words, not single tokens
    #[arg(long, help_heading = "Data")]
    whole_word_masking: bool,
    #[command(flatten)]
    training: Training,
}

/// What the second segment of a pair is told apart by.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Pairs {
    /// Whether it follows the first or is from another document (BERT)
    NextSentence,
    /// Whether the two are in order or swapped (ALBERT)
    SentenceOrder,
}

const HELP: &str = "\
Examples:
  bertha pretrain --config bert-mini --tokenizer bert-base --data books.txt --output mini
  bertha pretrain --config bert-tiny --tokenizer bert-base --data a.txt b.txt --dev held-out.txt \\
      --steps 20000 --batch-tokens 8192 --learning-rate 5e-4 --warmup-ratio 0.05 --output tiny
  bertha pretrain --model bert-base --data clinical-notes.txt --epochs 3 --output clinical-bert
  bertha pretrain --config bert-mini --tokenizer bert-base --data books.txt \\
      --pairs next-sentence --output mini       --data has a sentence a line
  bertha pretrain … --resume        goes on after Ctrl-C or a crash, to the same model

Defaults:
  1 epoch, batches of 4096 tokens, learning rate 1e-4 after a warm-up of a tenth of all updates.

Output:
  One line when it is done; the measures on --dev go to standard error as they come.
    {\"output\":\"mini\",\"parameters\":…,\"step\":…,\"loss\":…,\"tokens_per_second\":…,
     \"best\":{\"step\":…,\"metric\":\"loss\",\"value\":…},\"evaluation\":{…},…}
  (on one line). The folder holds the model, its record and picture, and checkpoints.";

/// Layers, width and heads of the sizes (Turc et al. 2019, <https://arxiv.org/abs/1908.08962>).
const SIZES: [(&str, usize, usize, usize); 5] = [
    ("bert-tiny", 2, 128, 2),
    ("bert-mini", 4, 256, 4),
    ("bert-small", 4, 512, 8),
    ("bert-medium", 8, 512, 8),
    ("bert-base", 12, 768, 12),
];

impl Pretrain {
    /// Runs the command.
    pub fn run(&self, global: &Global) -> Result<()> {
        let training = &self.training;
        limit_threads(training.threads);
        let folder = self.tokenizer.as_deref().or(self.model.as_deref());
        // clap requires one of the two.
        let folder = folder.ok_or_else(|| Failure::usage("--tokenizer is missing"))?;
        let tokenizer = Tokenizer::from_dir(folder)?;
        let config = self.model_config(&tokenizer)?;
        let positions = config.max_tokens()?;
        let vocabulary = config.size("vocab_size", Some(30522), 1..=1 << 24)?;
        if vocabulary < tokenizer.vocab_size() {
            return Err(config
                .error(
                    "vocab_size",
                    format!("at least the tokenizer's {}", tokenizer.vocab_size()),
                )
                .into());
        }
        let max_length = match self.max_length {
            Some(length) if length > positions => {
                return Err(Failure::usage(format!(
                    "--max-length is {length}, but the model has {positions} positions"
                )));
            }
            Some(length) => length,
            None => positions.min(128),
        };
        let train = self.examples(&tokenizer, &self.data, max_length)?;
        let dev = match self.dev.is_empty() {
            true => None,
            false => Some(self.examples(&tokenizer, &self.dev, max_length)?),
        };
        let rate = self.mask_probability;
        let selection = match self.whole_word_masking {
            true => Selection::WholeWord {
                rate,
                largest: max_length,
            },
            false => Selection::Dynamic { rate },
        };
        let masker = Masker::new(&tokenizer, MaskingOptions::new(selection))?;
        let session = Session::new(training.threads)?;
        let task = match self.pairs {
            None => Task::MaskedLm,
            Some(_) => Task::PreTraining,
        };
        let (head, seed) = (task.head(), training.seed);
        let model = match &self.model {
            Some(dir) => TrainableModel::from_dir(dir, config, head, &session, seed)?,
            None => TrainableModel::new(config, head, &session, seed)?,
        };
        let options = training.options(&Defaults {
            epochs: 1.0,
            batch: BatchSize::Tokens(4096),
            learning_rate: 1e-4,
            warmup_ratio: 0.1,
        });
        let mut trainer = Trainer::new(session, model, task, train, options).masker(masker);
        if let Some(dev) = dev {
            trainer = trainer.evaluation(dev);
        }
        training.run(global, trainer, folder)?;
        Ok(())
    }

    fn model_config(&self, tokenizer: &Tokenizer) -> Result<Config> {
        if let Some(dir) = &self.model {
            return Ok(Config::from_file(dir.join("config.json"))?);
        }
        let name = self.config.as_deref().unwrap_or_default();
        let Some(&(_, layers, width, heads)) = SIZES.iter().find(|size| size.0 == name) else {
            if !Path::new(name).exists() {
                let names = SIZES.map(|size| size.0).join(", ");
                return Err(Failure::usage(format!(
                    "--config {name}: there is no such file, and no such size; the sizes are {names}"
                )));
            }
            return Ok(Config::from_file(name)?);
        };
        let padding = tokenizer.special_token(SpecialToken::Pad);
        let config = json!({
            "model_type": "bert",
            "architectures": ["BertForMaskedLM"],
            "vocab_size": tokenizer.vocab_size(),
            "hidden_size": width,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "intermediate_size": 4 * width,
            "hidden_act": "gelu",
            "hidden_dropout_prob": 0.1,
            "attention_probs_dropout_prob": 0.1,
            "max_position_embeddings": 512,
            "type_vocab_size": 2,
            "initializer_range": 0.02,
            "layer_norm_eps": 1e-12,
            "pad_token_id": padding.map_or(0, |(_, id)| id),
            "position_embedding_type": "absolute",
            "tie_word_embeddings": true,
        });
        Ok(Config::from_json(config.to_string().as_bytes(), name)?)
    }

    /// The texts of files as blocks, or as pairs.
    fn examples(
        &self,
        tokenizer: &Tokenizer,
        files: &[PathBuf],
        max_length: usize,
    ) -> Result<Examples> {
        let mut documents = Vec::new();
        for file in files {
            documents.extend(read_documents(file)?);
        }
        let first = files.first().map_or(Path::new(""), PathBuf::as_path);
        let corpus = Corpus::from_documents(tokenizer, &documents);
        let corpus = corpus.map_err(|error| within(first, &error))?;
        let examples = match self.pairs {
            None => {
                let options = PackOptions {
                    cross_documents: self.cross_documents,
                    ..PackOptions::new(max_length)
                };
                pack_blocks(tokenizer, &corpus, &options)
            }
            Some(pairs) => {
                let objective = match pairs {
                    Pairs::NextSentence => PairObjective::NextSentence,
                    Pairs::SentenceOrder => PairObjective::SentenceOrder,
                };
                let options = PairOptions::new(max_length, objective);
                let seed = Seed::new(self.training.seed);
                sentence_pairs(tokenizer, &corpus, &options, seed, 0)
            }
        };
        let examples = examples.map_err(|error| within(first, &error))?;
        match examples.is_empty() {
            true => Err(Failure::new(format!(
                "{}: there is no text",
                first.display()
            ))),
            false => Ok(examples),
        }
    }
}
