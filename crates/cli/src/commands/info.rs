//! `bertha info`: what a model is, the memory it takes, and the kernels that run it here.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use bertha_autograd::{Precision, Session};
use bertha_kernels::{Isa, operations};
use bertha_models::{Config, Head, ModelInfo, ProblemType, TrainableModel, load};
use bertha_tasks::{Encoder, Pooling};
use bertha_tensor::Checkpoint;
use bertha_tokenizer::{SpecialToken, Tokenizer, TokenizerError};
use bertha_train::memory::step_memory;
use clap::{Args, ValueEnum};
use indicatif::{BinaryBytes, HumanCount};
use serde::Serialize;

use crate::args::{ModelDir, Precise, positive};
use crate::failure::{Failure, Result};
use crate::output::Output;

/// Describe a model, the memory it takes, and the kernels of this machine
#[derive(Args, Debug)]
#[command(
    long_about = "Describes a model folder: its architecture, parameters and number formats, the memory that it \
takes, its tokenizer and pooling, and which kernels this machine runs for each operation.",
    after_long_help = HELP
)]
pub struct Info {
    #[command(flatten)]
    model: ModelDir,
    /// json: one line; text: for reading
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Thread budget to report; by default one for each physical core that the process may use
    #[arg(long, value_name = "N", value_parser = positive)]
    threads: Option<usize>,
    /// Tokens of a batch, for the memory of its intermediate tensors
    #[arg(long, value_name = "N", default_value_t = 2048, value_parser = positive)]
    batch_tokens: usize,
    /// Also predict the memory of training with AdamW, from two small batches
    #[arg(long)]
    train: bool,
    /// Tokens of a text in training [default: 128, or the model's limit]
    #[arg(long, value_name = "N", value_parser = positive, requires = "train")]
    max_length: Option<usize>,
    /// Training with --activation-checkpointing
    #[arg(long, visible_alias = "gradient-checkpointing", requires = "train")]
    activation_checkpointing: bool,
    #[command(flatten)]
    precise: Precise,
}

const HELP: &str = "\
Examples:
  bertha info --model models/all-MiniLM-L6-v2 --format text
  bertha info --model models/all-MiniLM-L6-v2 | jq .machine
  bertha info --model DIR --precision int8 --format text
  bertha info --model DIR --train --batch-tokens 8192 --max-length 512 --format text
  BERTHA_ISA=avx2 bertha info --model DIR --format text

Output:
  One JSON object on a line (or, with --format text, the same to read), with
    architecture  model_type, the head that the folder was saved with, layers, sizes, labels
    parameters    numbers that were loaded
    weights       files, and how many numbers of each format
    memory        file_bytes on disk; weight_bytes packed for the kernels; activation_bytes of a
                  batch of batch_tokens; total_bytes is the latter two
    training      with --train: bytes of weights (with their packed forms), gradients, optimizer
                  and activations of an update over batch_tokens, and total_bytes; the model keeps
                  its head, and one without learns as a masked LM
    tokenizer     vocabulary and special tokens, or null
    embedding     dimension, pooling, normalisation and length limit of `bertha embed`, or null
    machine       instruction set, threads, and the implementation of each operation";

/// How the description is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// One JSON object
    #[default]
    Json,
    /// Lines to read
    Text,
}

#[derive(Serialize)]
struct Description {
    model: PathBuf,
    architecture: Architecture,
    parameters: usize,
    weights: Weights,
    memory: Memory,
    #[serde(skip_serializing_if = "Option::is_none")]
    training: Option<TrainingMemory>,
    tokenizer: Option<Words>,
    embedding: Option<Embedding>,
    machine: Machine,
}

#[derive(Serialize)]
struct Architecture {
    model_type: &'static str,
    head: &'static str,
    layers: usize,
    hidden_size: usize,
    heads: usize,
    head_size: usize,
    intermediate_size: usize,
    vocab_size: usize,
    max_tokens: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    labels: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem_type: Option<&'static str>,
}

#[derive(Serialize)]
struct Weights {
    files: Vec<WeightFile>,
    tensors: usize,
    dtypes: BTreeMap<String, usize>,
}

#[derive(Serialize)]
struct WeightFile {
    file: PathBuf,
    bytes: u64,
}

#[derive(Serialize)]
struct Memory {
    file_bytes: u64,
    weight_bytes: usize,
    batch_tokens: usize,
    activation_bytes: usize,
    total_bytes: usize,
}

#[derive(Serialize)]
struct TrainingMemory {
    head: &'static str,
    batch_tokens: usize,
    max_length: usize,
    activation_checkpointing: bool,
    precision: &'static str,
    weight_bytes: usize,
    gradient_bytes: usize,
    optimizer_bytes: usize,
    activation_bytes: usize,
    total_bytes: usize,
}

#[derive(Serialize)]
struct Words {
    file: &'static str,
    vocab_size: usize,
    special_tokens: BTreeMap<&'static str, String>,
}

#[derive(Serialize)]
struct Embedding {
    dimension: usize,
    pooling: Vec<&'static str>,
    normalized: bool,
    max_length: usize,
    max_length_source: String,
    truncates: bool,
    prompt: String,
}

#[derive(Serialize)]
struct Machine {
    instruction_set: &'static str,
    available: Vec<&'static str>,
    threads: usize,
    kernels: BTreeMap<&'static str, &'static str>,
}

impl Info {
    /// Runs the command.
    pub fn run(&self) -> Result<()> {
        let dir = self.model.path()?;
        let precision = self.precise.precision;
        if self.train && precision == Precision::Int8 {
            return Err(Failure::usage(
                "--train works in --precision f32 or bf16: int8 is for inference",
            ));
        }
        let session = Session::new(self.threads)?.with_precision(precision);
        let transformer = self.model.transformer()?;
        let info = load(&transformer, &session)?.info().clone();
        let tokenizer = match Tokenizer::from_dir(&transformer) {
            Ok(tokenizer) => Some(tokenizer),
            Err(TokenizerError::NoTokenizer { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        let weights = weights(&transformer)?;
        let description = Description {
            model: dir.to_path_buf(),
            parameters: info.parameters,
            memory: self.memory(&info, &weights),
            training: match self.train {
                true => Some(self.training(&transformer, &session)?),
                false => None,
            },
            weights,
            embedding: embedding(dir, &info, tokenizer.is_some(), &session)?,
            tokenizer: tokenizer.map(|tokenizer| words(&transformer, &tokenizer)),
            machine: machine(&session),
            architecture: architecture(info),
        };
        let mut output = Output::stdout();
        match self.format {
            Format::Json => output.line(&description)?,
            Format::Text => output.bytes(description.text().as_bytes())?,
        }
        output.finish()
    }

    /// What training takes, by a model that could be trained.
    fn training(&self, dir: &Path, session: &Session) -> Result<TrainingMemory> {
        let config = Config::from_file(dir.join("config.json"))?;
        let head = match config.head() {
            Head::Base => Head::MaskedLm,
            head => head,
        };
        let session = session.checkpointing(self.activation_checkpointing);
        let model = TrainableModel::from_dir(dir, config, head, &session, 0)?;
        let limit = model.model.info().max_tokens;
        let max_length = self.max_length.unwrap_or(128).min(limit);
        let found = step_memory(&session, &model, self.batch_tokens, max_length)?;
        Ok(TrainingMemory {
            head: head.name(),
            batch_tokens: self.batch_tokens,
            max_length,
            activation_checkpointing: self.activation_checkpointing,
            precision: session.precision().name(),
            weight_bytes: found.weights,
            gradient_bytes: found.gradients,
            optimizer_bytes: found.optimizer,
            activation_bytes: found.activations,
            total_bytes: found.total(),
        })
    }

    fn memory(&self, info: &ModelInfo, weights: &Weights) -> Memory {
        let activation_bytes = info.activation_bytes(self.batch_tokens);
        Memory {
            file_bytes: weights.files.iter().map(|file| file.bytes).sum(),
            weight_bytes: info.weight_bytes,
            batch_tokens: self.batch_tokens,
            activation_bytes,
            total_bytes: info.weight_bytes.saturating_add(activation_bytes),
        }
    }
}

fn architecture(info: ModelInfo) -> Architecture {
    let classes = matches!(
        info.head,
        Head::SequenceClassification | Head::TokenClassification
    );
    Architecture {
        model_type: info.model_type,
        head: match info.head {
            Head::Base => "none",
            head => head.name(),
        },
        layers: info.layers,
        hidden_size: info.hidden_size,
        heads: info.heads,
        head_size: info.hidden_size / info.heads.max(1),
        intermediate_size: info.intermediate_size,
        vocab_size: info.vocab_size,
        max_tokens: info.max_tokens,
        labels: classes.then_some(info.labels),
        problem_type: info.problem_type.map(|problem| match problem {
            ProblemType::Regression => "regression",
            ProblemType::SingleLabel => "single_label_classification",
            ProblemType::MultiLabel => "multi_label_classification",
        }),
    }
}

fn weights(dir: &Path) -> Result<Weights> {
    let checkpoint = Checkpoint::open_dir(dir)?;
    let mut dtypes = BTreeMap::new();
    let mut paths = BTreeSet::new();
    for name in checkpoint.names() {
        let tensor = checkpoint.info(name)?;
        *dtypes.entry(tensor.dtype.to_string()).or_default() +=
            tensor.shape.iter().product::<usize>();
        paths.extend(checkpoint.file_of(name));
    }
    let size = |path: &Path| match fs::metadata(path) {
        Ok(found) => Ok(WeightFile {
            file: path.strip_prefix(dir).unwrap_or(path).to_path_buf(),
            bytes: found.len(),
        }),
        Err(error) => Err(Failure::io(path, "read", &error)),
    };
    Ok(Weights {
        files: paths.into_iter().map(size).collect::<Result<_>>()?,
        tensors: checkpoint.len(),
        dtypes,
    })
}

fn words(dir: &Path, tokenizer: &Tokenizer) -> Words {
    let roles = [
        ("cls", SpecialToken::Cls),
        ("sep", SpecialToken::Sep),
        ("pad", SpecialToken::Pad),
        ("unk", SpecialToken::Unk),
        ("mask", SpecialToken::Mask),
    ];
    Words {
        file: match dir.join("tokenizer.json").exists() {
            true => "tokenizer.json",
            false => "vocab.txt",
        },
        vocab_size: tokenizer.vocab_size(),
        special_tokens: roles
            .into_iter()
            .filter_map(|(name, role)| Some((name, tokenizer.special_token(role)?.0.to_owned())))
            .collect(),
    }
}

/// How the folder embeds: sentence-transformers folders, and models without a head.
fn embedding(
    dir: &Path,
    info: &ModelInfo,
    has_tokenizer: bool,
    session: &Session,
) -> Result<Option<Embedding>> {
    let has_modules = dir.join("modules.json").exists();
    if !has_modules && (info.head != Head::Base || !has_tokenizer) {
        return Ok(None);
    }
    let mut builder = Encoder::builder(dir).session(session.clone());
    if !has_modules {
        // The default, said so that there is no warning that it is one.
        builder = builder.pooling(Pooling::Mean);
    }
    let encoder = builder.build().map_err(Failure::loading)?;
    Ok(Some(Embedding {
        dimension: encoder.dimension(),
        pooling: encoder.pooling().iter().map(|mode| mode.name()).collect(),
        normalized: encoder.normalizes(),
        max_length: encoder.max_length(),
        max_length_source: encoder.max_length_source(),
        truncates: encoder.truncates(),
        prompt: encoder.prompt().to_owned(),
    }))
}

fn machine(session: &Session) -> Machine {
    let isa = session.exec().isa();
    Machine {
        instruction_set: isa.name(),
        available: Isa::available().into_iter().map(Isa::name).collect(),
        threads: session.exec().threads(),
        kernels: operations(isa).into_iter().collect(),
    }
}

impl Description {
    fn text(&self) -> String {
        let mut lines = Vec::new();
        let mut line = |name: &str, value: String| lines.push(format!("{name:<14}{value}\n"));
        let bytes = |bytes: usize| BinaryBytes(bytes as u64).to_string();
        let count = |number: usize| HumanCount(number as u64).to_string();

        line("model", self.model.display().to_string());
        let a = &self.architecture;
        line(
            "architecture",
            format!("{}, head: {}", a.model_type, a.head),
        );
        line(
            "sizes",
            format!(
                "layers {}, hidden {}, heads {} of {}, feed-forward {}, vocabulary {}, positions {}",
                a.layers,
                a.hidden_size,
                a.heads,
                a.head_size,
                a.intermediate_size,
                count(a.vocab_size),
                a.max_tokens
            ),
        );
        if let Some(labels) = &a.labels {
            line("labels", labels.join(", "));
        }
        line("parameters", count(self.parameters));
        let formats = &self.weights.dtypes;
        let formats = formats
            .iter()
            .map(|(dtype, numbers)| format!("{} {dtype}", count(*numbers)));
        line(
            "weights",
            format!(
                "{} in {} tensors, {}",
                bytes(self.memory.file_bytes as usize),
                self.weights.tensors,
                formats.collect::<Vec<_>>().join(", ")
            ),
        );
        let m = &self.memory;
        line(
            "memory",
            format!(
                "{}: {} of weights, {} for a batch of {} tokens",
                bytes(m.total_bytes),
                bytes(m.weight_bytes),
                bytes(m.activation_bytes),
                count(m.batch_tokens)
            ),
        );
        if let Some(t) = &self.training {
            let again = if t.activation_checkpointing {
                ", layers computed again"
            } else {
                ""
            };
            line(
                "training",
                format!(
                    "{}: {} of weights, {} of gradients, {} of moments, {} for a batch of {} tokens{again}, {} ({} head)",
                    bytes(t.total_bytes),
                    bytes(t.weight_bytes),
                    bytes(t.gradient_bytes),
                    bytes(t.optimizer_bytes),
                    bytes(t.activation_bytes),
                    count(t.batch_tokens),
                    t.precision,
                    t.head
                ),
            );
        }
        line(
            "tokenizer",
            match &self.tokenizer {
                Some(words) => format!("{}, {} tokens", words.file, count(words.vocab_size)),
                None => "none".into(),
            },
        );
        if let Some(e) = &self.embedding {
            let normalized = if e.normalized { ", of length 1" } else { "" };
            let beyond = if e.truncates { "cut" } else { "refused" };
            line(
                "embedding",
                format!(
                    "{} numbers, pooling: {}{normalized}",
                    e.dimension,
                    e.pooling.join(" + ")
                ),
            );
            line(
                "limit",
                format!(
                    "{} tokens ({}); longer texts are {beyond}",
                    e.max_length, e.max_length_source
                ),
            );
            if !e.prompt.is_empty() {
                line("prompt", format!("{:?}", e.prompt));
            }
        }
        let machine = &self.machine;
        line(
            "machine",
            format!(
                "{} (there are {}), threads {}",
                machine.instruction_set,
                machine.available.join(", "),
                machine.threads
            ),
        );
        let kernels = machine.kernels.iter();
        let kernels = kernels.map(|(operation, kernel)| format!("{operation}: {kernel}"));
        line("kernels", kernels.collect::<Vec<_>>().join(", "));
        lines.concat()
    }
}
