//! `bertha forward`: token ids in, every tensor of the model out.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bertha_autograd::ops::Reduction;
use bertha_autograd::{Gradients, Precision, Session, Var};
use bertha_models::{
    Config, ForwardOptions, Head, ModelInfo, Outputs, ProblemType, Targets, TrainableModel, load,
    loss,
};
use bertha_nn::Batch;
use bertha_tensor::{Checkpoint, DType, Tensor, save_safetensors};
use clap::Args;
use serde::Serialize;

use crate::args::{ModelDir, Precise, positive};
use crate::failure::{Failure, Result};
use crate::output::Output;

/// Run the model on token ids and save every tensor it yields, for debugging
#[derive(Args, Debug)]
#[command(
    long_about = "Runs the model on token ids and saves every tensor that it yields, under transformers' \
names: for comparing with another implementation, and for finding where two part.",
    after_long_help = HELP
)]
pub struct Forward {
    #[command(flatten)]
    model: ModelDir,
    /// File with `input_ids` and perhaps `attention_mask` and `token_type_ids`
    #[arg(short, long, value_name = "FILE")]
    input: PathBuf,
    /// File to write; it appears only when complete
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Save the output of the embeddings and of every layer too
    #[arg(long)]
    hidden_states: bool,
    /// Read `labels` from the input, and save the loss and the gradient of every parameter too
    #[arg(long)]
    grad: bool,
    /// Threads, at most; by default one for each physical core that the process may use
    #[arg(long, value_name = "N", value_parser = positive)]
    threads: Option<usize>,
    #[command(flatten)]
    precise: Precise,
}

const HELP: &str = "\
Examples:
  bertha forward --model DIR --input in.safetensors --output out.safetensors
  bertha forward --model DIR --input in.safetensors --output out.safetensors --hidden-states
  bertha forward --model DIR --input labelled.safetensors --output out.safetensors --grad

  In Python, before and after:
    inputs = tokenizer(texts, padding=True, return_tensors=\"pt\")
    safetensors.torch.save_file(dict(inputs), \"in.safetensors\")
    outputs = safetensors.torch.load_file(\"out.safetensors\")

Input:
  safetensors with tensors [B,T] of an integer dtype (i64 as transformers makes them, i32, …):
    input_ids       token ids
    attention_mask  1 = token, 0 = padding, on either side; absent: all are tokens
    token_type_ids  absent: all 0
  As in transformers, a token's position is its column, whatever the mask. With --grad also:
    labels          as the head's class in transformers takes them: integers [B,T] for a masked LM
                    or a token classifier (-100: no loss), integers [B] for a classifier, floats
                    [B,C] for one of several labels, floats [B] or [B,C] for a regression
    next_sentence_label (BERT, BigBird), sentence_order_label (ALBERT)
                    beside labels, for pre-training on pairs: integers [B], 0 or 1
    start_positions, end_positions
                    instead, for question answering: integers [B], the columns where answers start
                    and end; the loss is over a sequence's own tokens, not over padding

Output:
  safetensors, f32, under transformers' names, with the head that the folder was saved with:
    last_hidden_state         [B,T,N]
    pooler_output             [B,N], of each sequence's first token that is not padding
    logits                    [B,T,V], [B,C] or [B,T,C], by the head
    prediction_logits         [B,T,V] in its place, for pre-training on pairs, and
    seq_relationship_logits   [B,2] (of ALBERT: sop_logits)
    start_logits, end_logits  [B,T]
    hidden_states.0, .1, …    [B,T,N], with --hidden-states: the embeddings, then each layer
    loss, grad.PARAMETER      with --grad: no dropout; each gradient has its parameter's shape
  Rows of padding are 0. On standard output a line with the shapes:
    {\"output\":\"out.safetensors\",\"tensors\":{\"last_hidden_state\":[2,8,384],\"pooler_output\":[2,384]}}";

const IDS: &str = "input_ids";
const MASK: &str = "attention_mask";
const TYPES: &str = "token_type_ids";
const LABELS: &str = "labels";
const STARTS: &str = "start_positions";
const ENDS: &str = "end_positions";
const PAIRS: [&str; 2] = ["next_sentence_label", "sentence_order_label"];

#[derive(Serialize)]
struct Line<'a> {
    output: &'a Path,
    tensors: BTreeMap<&'a str, &'a [usize]>,
}

impl Forward {
    /// Runs the command.
    pub fn run(&self) -> Result<()> {
        for (flag, path) in [("--input", &self.input), ("--output", &self.output)] {
            if path == Path::new("-") {
                return Err(Failure::usage(format!(
                    "{flag} is a safetensors file: name it"
                )));
            }
        }
        if self.grad && self.precise.precision == Precision::Int8 {
            return Err(Failure::usage(
                "--grad works in --precision f32 or bf16: int8 has no gradients",
            ));
        }
        let file = Checkpoint::open(&self.input)?;
        let (batch, columns) = read(&file, &self.input, self.grad)?;
        let session = Session::new(self.threads)?.with_precision(self.precise.precision);
        let folder = self.model.transformer()?;
        let (model, parameters) = match self.grad {
            false => (load(&folder, &session)?, Vec::new()),
            true => {
                let config = Config::from_file(folder.join("config.json"))?;
                let head = config.head();
                let loaded = TrainableModel::from_dir(&folder, config, head, &session, 0)?;
                if let Some(name) = loaded.fresh.first() {
                    return Err(Failure::new(format!(
                        "{}: parameter `{name}` is not in the checkpoint: its gradient would mean nothing",
                        folder.display()
                    )));
                }
                (loaded.model, loaded.parameters)
            }
        };
        check_ids(&batch, model.info().vocab_size)
            .map_err(|failure| failure.within(self.input.display()))?;
        let options = ForwardOptions {
            hidden_states: self.hidden_states,
            logit_rows: None,
            global_tokens: None,
        };
        let within = |failure: Failure| failure.within(self.input.display());
        let outputs = model.forward(&session, &batch, &options);
        let outputs = outputs.map_err(|error| within(error.into()))?;
        let mut tensors = named(model.info(), &outputs, &batch, columns)?;
        if self.grad {
            let loss = match model.info().head {
                Head::QuestionAnswering => {
                    let places = [(STARTS, file.get(STARTS)?), (ENDS, file.get(ENDS)?)];
                    span_loss(&session, &outputs, &batch, &places)
                }
                Head::PreTraining => {
                    let [_, pairs] = model.info().pair_names();
                    let labels = [(LABELS, file.get(LABELS)?), (pairs, file.get(pairs)?)];
                    pair_loss(&session, &outputs, &batch, &labels)
                }
                _ => head_loss(&session, model.info(), &outputs, &batch, &file.get(LABELS)?),
            };
            let loss = loss.map_err(within)?;
            let mut gradients = Gradients::new();
            loss.backward(&session, &mut gradients)?;
            tensors.push(("loss".to_owned(), loss.into_tensor()));
            for parameter in &parameters {
                if let Some(gradient) = gradients.get(parameter) {
                    tensors.push((format!("grad.{}", parameter.name()), gradient.clone()));
                }
            }
        }
        let named: Vec<(&str, &Tensor)> = tensors.iter().map(|(name, t)| (&**name, t)).collect();
        save_safetensors(&self.output, &named, None)?;
        let mut output = Output::stdout();
        output.line(&Line {
            output: &self.output,
            tensors: named.iter().map(|(name, t)| (*name, t.shape())).collect(),
        })?;
        output.finish()
    }
}

/// The batch of a file, and its columns.
fn read(file: &Checkpoint, path: &Path, labelled: bool) -> Result<(Batch, usize)> {
    for name in file.names() {
        match name {
            IDS | MASK | TYPES => {}
            LABELS | STARTS | ENDS if labelled => {}
            name if labelled && PAIRS.contains(&name) => {}
            "position_ids" | "inputs_embeds" | "head_mask" => {
                return Err(Failure::new(format!(
                    "{}: tensor `{name}` is not supported: expected {IDS}, {MASK} and {TYPES} alone",
                    path.display()
                )));
            }
            _ => tracing::warn!("{}: tensor `{name}` is not used", path.display()),
        }
    }
    let optional = |name| file.contains(name).then(|| file.get(name)).transpose();
    let ids = file.get(IDS)?;
    let (mask, types) = (optional(MASK)?, optional(TYPES)?);
    let batch = Batch::from_padded(&ids, mask.as_ref(), types.as_ref());
    let batch = batch.map_err(|error| Failure::from(error).within(path.display()))?;
    if batch.is_empty() {
        return Err(Failure::new(format!(
            "{}: {IDS} has shape {:?}, expected at least one sequence",
            path.display(),
            ids.shape()
        )));
    }
    Ok((batch, ids.shape()[1]))
}

/// Refuses an id without a row in the word table, naming its place in the file.
fn check_ids(batch: &Batch, vocabulary: usize) -> Result<()> {
    let beyond = |&id: &u32| id as usize >= vocabulary;
    let Some(token) = batch.input_ids().iter().position(beyond) else {
        return Ok(());
    };
    let starts = batch.first_tokens();
    let row = starts.partition_point(|&start| start as usize <= token) - 1;
    Err(Failure::new(format!(
        "{IDS}[{row}, {}] is {}, beyond the model's vocabulary of {vocabulary} tokens (`vocab_size`)",
        batch.positions()[token],
        batch.input_ids()[token]
    )))
}

/// The loss that the head's class in `transformers` takes for these labels.
fn head_loss(
    session: &Session,
    info: &ModelInfo,
    outputs: &Outputs,
    batch: &Batch,
    labels: &Tensor,
) -> Result<Var> {
    let logits = outputs.logits.as_ref().map_or(&[][..], Var::shape);
    let wanted = |expected: String| {
        Failure::new(format!(
            "{LABELS} is {} {:?}, expected {expected}",
            labels.dtype(),
            labels.shape()
        ))
    };
    let mean = Reduction::Mean;
    let loss = match info.head {
        Head::MaskedLm | Head::TokenClassification => {
            let packed = batch
                .pack(labels)
                .map_err(|_| wanted("integers [B,T], as input_ids".into()))?;
            loss(session, info.head, outputs, Targets::Classes(&packed), mean)
        }
        Head::ReplacedTokenDetection => {
            let packed = batch
                .pack(labels)
                .map_err(|_| wanted("0 or 1 for each token [B,T], as input_ids".into()))?;
            let replaced: Vec<f32> = packed.iter().map(|&label| label as f32).collect();
            loss(
                session,
                info.head,
                outputs,
                Targets::MultiLabel(&replaced),
                mean,
            )
        }
        _ if labels.dtype().is_float() => {
            let values = labels.to_dtype(DType::F32)?.to_vec::<f32>()?;
            if values.len() != logits.iter().product::<usize>() {
                return Err(wanted(format!(
                    "one number for each of the logits {logits:?}"
                )));
            }
            let regression =
                info.problem_type == Some(ProblemType::Regression) || logits.last() == Some(&1);
            let targets = match regression {
                true => Targets::Values(&values),
                false => Targets::MultiLabel(&values),
            };
            loss(session, info.head, outputs, targets, mean)
        }
        _ => {
            let classes = labels.to_dtype(DType::I64)?.to_vec::<i64>()?;
            if classes.len() != batch.len() {
                return Err(wanted(format!(
                    "[{}], a class for each sequence",
                    batch.len()
                )));
            }
            loss(
                session,
                info.head,
                outputs,
                Targets::Classes(&classes),
                mean,
            )
        }
    };
    Ok(loss?)
}

/// The loss of masked tokens and of pairs.
fn pair_loss(
    session: &Session,
    outputs: &Outputs,
    batch: &Batch,
    [(name, tokens), (pair_name, pairs)]: &[(&str, Tensor); 2],
) -> Result<Var> {
    let wanted = |name: &str, labels: &Tensor, expected: String| {
        let (dtype, shape) = (labels.dtype(), labels.shape());
        Failure::new(format!("{name} is {dtype} {shape:?}, expected {expected}"))
    };
    let tokens = batch
        .pack(tokens)
        .map_err(|_| wanted(name, tokens, "integers [B,T], as input_ids".into()))?;
    if pairs.dtype().is_float() || pairs.shape() != [batch.len()] {
        let expected = format!("integers [{}]", batch.len());
        return Err(wanted(pair_name, pairs, expected));
    }
    let pairs = pairs.to_dtype(DType::I64)?.to_vec::<i64>()?;
    let mean = Reduction::Mean;
    let targets = Targets::PreTraining {
        tokens: &tokens,
        pairs: &pairs,
        pairs_reduction: mean,
    };
    Ok(loss(session, Head::PreTraining, outputs, targets, mean)?)
}

/// The loss of answers that start and end at given columns.
fn span_loss(
    session: &Session,
    outputs: &Outputs,
    batch: &Batch,
    [starts, ends]: &[(&str, Tensor); 2],
) -> Result<Var> {
    let tokens = |(name, columns): &(&str, Tensor)| -> Result<Vec<u32>> {
        if columns.dtype().is_float() || columns.shape() != [batch.len()] {
            return Err(Failure::new(format!(
                "{name} is {} {:?}, expected integers [{}]",
                columns.dtype(),
                columns.shape(),
                batch.len()
            )));
        }
        let columns = columns.to_dtype(DType::I64)?.to_vec::<i64>()?;
        let token = |(sequence, column): (usize, i64)| {
            let positions = &batch.positions()[batch.range(sequence)];
            let found = positions.iter().position(|&p| i64::from(p) == column);
            found.map(|token| token as u32).ok_or_else(|| {
                Failure::new(format!(
                    "{name}[{sequence}] is {column}, expected the column of one of its tokens"
                ))
            })
        };
        columns.into_iter().enumerate().map(token).collect()
    };
    let (starts, ends) = (tokens(starts)?, tokens(ends)?);
    let targets = Targets::Spans {
        batch,
        starts: &starts,
        ends: &ends,
    };
    let head = Head::QuestionAnswering;
    Ok(loss(session, head, outputs, targets, Reduction::Mean)?)
}

/// Every tensor under its name, tokens' rows padded back.
fn named(
    info: &ModelInfo,
    outputs: &Outputs,
    batch: &Batch,
    columns: usize,
) -> Result<Vec<(String, Tensor)>> {
    let pad = |tensor: &Tensor| batch.pad(tensor, columns);
    let mut tensors = Vec::new();
    let mut add = |name: &str, tensor: Tensor| tensors.push((name.to_owned(), tensor));
    add(
        "last_hidden_state",
        pad(outputs.last_hidden_state.tensor())?,
    );
    if let Some(pooled) = &outputs.pooler_output {
        add("pooler_output", pooled.tensor().clone());
    }
    if let Some(logits) = &outputs.logits {
        let logits = logits.tensor();
        match info.head {
            Head::MaskedLm | Head::TokenClassification | Head::ReplacedTokenDetection => {
                add("logits", pad(logits)?);
            }
            Head::PreTraining => add("prediction_logits", pad(logits)?),
            _ => add("logits", logits.clone()),
        }
    }
    if let Some(logits) = &outputs.pair_logits {
        add(info.pair_names()[0], logits.tensor().clone());
    }
    if let Some(logits) = &outputs.start_logits {
        add("start_logits", pad(logits.tensor())?);
    }
    if let Some(logits) = &outputs.end_logits {
        add("end_logits", pad(logits.tensor())?);
    }
    for (i, state) in outputs.hidden_states.iter().enumerate() {
        add(&format!("hidden_states.{i}"), pad(state.tensor())?);
    }
    Ok(tensors)
}
