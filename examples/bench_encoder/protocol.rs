//! The protocol of a benchmark worker, which `benches/peers/run.py` speaks to.
//!
//! A worker prints one line of JSON about itself, then answers each line of standard input,
//! `CASE ITERATIONS` or `CASE:CHUNK ITERATIONS`, by one line
//! `{"case": …, "seconds": […], "checksum": […]}`. With a chunk the case's sequences are sorted by
//! length and run in batches of that many sequences; without, in one batch as they come.
//!
//! Every worker makes the same ids out of the lengths (a linear congruential generator), and gives as
//! checksum one number a sequence, in the case's order: its vectors' sum under fixed weights. The
//! peers' worker in Rust includes this file, the one in Python says the same again.

use std::error::Error;
use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::{Value, json};

/// What a worker's functions return.
pub type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// An engine with a model loaded.
pub trait Engine {
    /// A batch in the engine's own form.
    type Input;
    /// The last hidden states of a batch, fully computed.
    type Output;

    /// What to print about the engine: its name, version, threads and whatever decides its speed.
    fn about(&self) -> Value;

    /// The number of ids.
    fn vocabulary(&self) -> u64;

    /// Makes a batch; not timed.
    fn prepare(&self, sequences: &[&[u32]]) -> Result<Self::Input>;

    /// The timed pass.
    fn forward(&self, input: &Self::Input) -> Result<Self::Output>;

    /// For each sequence the vectors of its tokens, one after another, without those of padding.
    fn vectors(&self, output: &Self::Output, lengths: &[usize]) -> Result<Vec<Vec<f32>>>;
}

/// The command line of a worker.
pub struct Arguments {
    /// The model folder.
    pub model: PathBuf,
    /// `cases.json`.
    pub cases: PathBuf,
    /// The thread budget.
    pub threads: usize,
    /// What products are computed of: `f32`, `bf16` or `int8`.
    pub precision: String,
}

impl Arguments {
    /// Reads `--model DIR --cases FILE --threads N --precision NAME`.
    pub fn parse() -> Result<Self> {
        let (mut model, mut cases, mut threads) = (None, None, None);
        let mut precision = String::from("f32");
        let mut arguments = std::env::args().skip(1);
        while let Some(key) = arguments.next() {
            let value = arguments.next().ok_or(format!("{key} needs a value"))?;
            match &*key {
                "--model" => model = Some(value.into()),
                "--cases" => cases = Some(value.into()),
                "--threads" => threads = Some(value.parse()?),
                "--precision" => precision = value,
                _ => return Err(format!("unknown argument {key}").into()),
            }
        }
        let usage = "expected --model DIR --cases FILE --threads N [--precision NAME]";
        Ok(Self {
            model: model.ok_or(usage)?,
            cases: cases.ok_or(usage)?,
            threads: threads.ok_or(usage)?,
            precision,
        })
    }
}

/// Says what the engine is, then answers requests until standard input ends.
pub fn serve(engine: &impl Engine, cases: &Path) -> Result<()> {
    let cases: Value = serde_json::from_slice(&std::fs::read(cases)?)?;
    answer(&engine.about())?;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let (case, iterations) = line
            .split_once(' ')
            .ok_or(format!("expected `CASE ITERATIONS`, found `{line}`"))?;
        let (name, chunk) = match case.split_once(':') {
            Some((name, chunk)) => (name, Some(chunk.parse()?)),
            None => (case, None),
        };
        let ids = sequences(&lengths(&cases, name)?, engine.vocabulary());
        let (seconds, checksum) = run(engine, &ids, chunk, iterations.parse()?)?;
        answer(&json!({"case": case, "seconds": seconds, "checksum": checksum}))?;
    }
    Ok(())
}

fn answer(value: &Value) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{value}")?;
    Ok(out.flush()?)
}

fn lengths(cases: &Value, name: &str) -> Result<Vec<usize>> {
    let case = cases
        .as_array()
        .and_then(|cases| cases.iter().find(|case| case["name"] == name))
        .ok_or(format!("no case {name}"))?;
    Ok(serde_json::from_value(case["lengths"].clone())?)
}

/// The ids of sequences of these lengths.
fn sequences(lengths: &[usize], vocabulary: u64) -> Vec<Vec<u32>> {
    let mut state = 1u64;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) % vocabulary) as u32
    };
    let mut sequence = |&length: &usize| (0..length).map(|_| next()).collect();
    lengths.iter().map(&mut sequence).collect()
}

/// Seconds of each pass over the sequences, and their checksums.
fn run<E: Engine>(
    engine: &E,
    ids: &[Vec<u32>],
    chunk: Option<usize>,
    iterations: usize,
) -> Result<(Vec<f64>, Vec<f64>)> {
    let mut order: Vec<usize> = (0..ids.len()).collect();
    if chunk.is_some() {
        order.sort_by_key(|&i| ids[i].len());
    }
    let batches: Vec<&[usize]> = order.chunks(chunk.unwrap_or(ids.len())).collect();
    let inputs = batches
        .iter()
        .map(|batch| engine.prepare(&batch.iter().map(|&i| &*ids[i]).collect::<Vec<_>>()))
        .collect::<Result<Vec<_>>>()?;

    let mut seconds = Vec::with_capacity(iterations);
    let mut outputs = Vec::with_capacity(inputs.len());
    for _ in 0..iterations {
        outputs.clear();
        let start = Instant::now();
        for input in &inputs {
            outputs.push(engine.forward(input)?);
        }
        seconds.push(start.elapsed().as_secs_f64());
    }

    let mut checksum = vec![0.0; ids.len()];
    for (batch, output) in batches.iter().zip(&outputs) {
        let lengths: Vec<usize> = batch.iter().map(|&i| ids[i].len()).collect();
        let vectors = engine.vectors(output, &lengths)?;
        for (&i, vectors) in batch.iter().zip(vectors) {
            checksum[i] = weigh(&vectors, ids[i].len());
        }
    }
    Ok((seconds, checksum))
}

/// The sum of `[length, N]` values under weights from −1 to 1 that follow from the place, over the
/// root of their number: about as large as one value, and changed by any wrong one.
fn weigh(values: &[f32], length: usize) -> f64 {
    let width = values.len() / length;
    let sum: f64 = values
        .iter()
        .enumerate()
        .map(|(at, &value)| {
            let place = (at / width * 31 + at % width * 17) % 13;
            f64::from(value) * (place as f64 - 6.0) / 6.0
        })
        .sum();
    sum / (values.len() as f64).sqrt()
}
