//! `bertha bench`: how fast a model runs on this machine.

use std::collections::BTreeMap;
use std::path::Path;
use std::str::FromStr;
use std::time::Instant;

use bertha_autograd::{Precision, Session};
use bertha_kernels::{Exec, Operands, default_threads, peak_operations};
use bertha_models::{ForwardOptions, Model, load};
use bertha_nn::Batch;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::args::{ModelDir, positive};
use crate::failure::{Failure, Result};
use crate::output::Output;

/// Measure how fast a model runs on this machine
#[derive(Args, Debug)]
#[command(
    long_about = "Measures how fast a model runs on this machine: tokens a second by precision, batch and number of \
threads, the part of the machine's peak that its linear layers reach, and which kernels ran.",
    after_long_help = HELP
)]
pub struct Bench {
    #[command(flatten)]
    model: ModelDir,
    /// Precisions to compare, measured in turn
    #[arg(
        long,
        value_name = "PRECISION,…",
        value_delimiter = ',',
        value_parser = PossibleValuesParser::new(Precision::ALL.map(Precision::name))
            .map(|name| Precision::from_name(&name).unwrap_or_default()),
        default_value = "f32,bf16,int8"
    )]
    precision: Vec<Precision>,
    /// Batches: texts x tokens of each, or `ragged`, 64 texts of 8 to 128 tokens; those beyond the model's
    /// longest text are left out unless named
    #[arg(long, value_name = "BxS,…", value_delimiter = ',')]
    shapes: Vec<Shape>,
    /// Numbers of threads [default: one, and one for each physical core that the process may use]
    #[arg(long, value_name = "N,…", value_delimiter = ',', value_parser = positive)]
    threads: Vec<usize>,
    /// Seconds for each line, at least three passes
    #[arg(long, value_name = "S", default_value_t = 1.0, value_parser = seconds)]
    seconds: f64,
    /// text: a table; json: a line
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

const HELP: &str = "\
Examples:
  bertha bench --model models/all-MiniLM-L6-v2
  bertha bench --model DIR --precision bf16 --shapes 1x16,8x512 --threads 1
  bertha bench --model DIR --format json > speed.json
  BERTHA_ISA=avx2 bertha bench --model DIR

Output:
  A line for each precision, batch and number of threads: the median pass in milliseconds, tokens a
  second, billions of operations a second of the linear layers alone (two for a multiply-add), and
  their share of the machine's peak, which is measured before and after. The peak is that of the
  instructions that multiply the precision's operands; where a sum of bytes takes several there is
  none. Precisions are measured in turn, pass by pass. Ids are random, and nothing is padded.
  Below it the kernels that ran, counted in a pass. With --format json one object on a line:
    {\"model\":\"DIR\",\"instruction_set\":\"avx512\",\"lines\":[{\"precision\":\"f32\",
     \"shape\":\"1x16\",\"threads\":1,\"tokens\":16,\"milliseconds\":…,\"tokens_per_second\":…,
     \"operations_per_second\":…,\"peak\":…,\"share_of_peak\":…},…],
     \"kernels\":{\"f32\":[{\"operation\":\"linear\",\"kernel\":\"avx512\",\"calls\":24},…]}}";

/// How the table is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A table to read
    #[default]
    Text,
    /// One JSON object
    Json,
}

/// The lengths of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Shape {
    name: String,
    lengths: Vec<usize>,
}

impl FromStr for Shape {
    type Err = String;

    fn from_str(name: &str) -> std::result::Result<Self, String> {
        let shape = |lengths| Self {
            name: name.to_owned(),
            lengths,
        };
        if name == "ragged" {
            // Spread evenly from 8 to 128, in mixed order.
            return Ok(shape((0..64).map(|i| 8 + i * 37 % 64 * 120 / 63).collect()));
        }
        let sizes = name.split_once('x').and_then(|(texts, tokens)| {
            let (texts, tokens) = (texts.parse().ok()?, tokens.parse().ok()?);
            Some((texts, tokens)).filter(|&(texts, tokens)| texts > 0 && tokens > 0)
        });
        let (texts, tokens) = sizes.ok_or("expected texts x tokens, such as 8x128, or `ragged`")?;
        Ok(shape(vec![tokens; texts]))
    }
}

/// Seconds to measure for.
fn seconds(text: &str) -> std::result::Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.0..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("expected a number of seconds from 0 to 3600".into()),
    }
}

const SHAPES: [&str; 6] = ["1x16", "1x128", "8x128", "32x128", "8x512", "ragged"];

#[derive(Serialize)]
struct Report<'a> {
    model: &'a Path,
    instruction_set: &'static str,
    lines: Vec<Line>,
    kernels: BTreeMap<&'static str, Vec<Kernel>>,
}

#[derive(Serialize)]
struct Line {
    precision: &'static str,
    shape: String,
    threads: usize,
    tokens: usize,
    milliseconds: f64,
    tokens_per_second: f64,
    operations_per_second: f64,
    peak: Option<f64>,
    share_of_peak: Option<f64>,
}

#[derive(Serialize)]
struct Kernel {
    operation: &'static str,
    kernel: &'static str,
    calls: u64,
}

/// A model in a precision.
struct Loaded {
    precision: Precision,
    model: Box<dyn Model>,
}

impl Bench {
    /// Runs the command.
    pub fn run(&self) -> Result<()> {
        let folder = self.model.transformer()?;
        let first = Session::new(None)?;
        let mut models = Vec::new();
        for &precision in &self.precision {
            let model = load(&folder, &first.with_precision(precision))?;
            models.push(Loaded { precision, model });
        }
        let Some(info) = models.first().map(|loaded| loaded.model.info().clone()) else {
            return Err(Failure::usage("--precision names none"));
        };
        let shapes = self.shapes(&folder, info.max_tokens)?;
        let threads = match self.threads.is_empty() {
            true => vec![1, default_threads()],
            false => self.threads.clone(),
        };
        let mut lines = Vec::new();
        let mut kernels = BTreeMap::new();
        let mut known = Vec::new();
        for threads in threads {
            if known.contains(&threads) {
                continue;
            }
            known.push(threads);
            let session = Session::new(Some(threads))?.no_grad();
            for shape in &shapes {
                let batch = batch(shape, info.vocab_size)?;
                lines.extend(self.measure(&session, &models, shape, &batch, &mut kernels)?);
            }
        }
        let report = Report {
            model: self.model.path()?,
            instruction_set: first.exec().isa().name(),
            lines,
            kernels,
        };
        let mut output = Output::stdout();
        match self.format {
            Format::Json => output.line(&report)?,
            Format::Text => output.bytes(report.text().as_bytes())?,
        }
        output.finish()
    }

    /// The batches to run: those asked for, or those that the model can take.
    fn shapes(&self, folder: &Path, limit: usize) -> Result<Vec<Shape>> {
        let longest = |shape: &Shape| shape.lengths.iter().copied().max().unwrap_or(0);
        if self.shapes.is_empty() {
            let known = SHAPES.iter().filter_map(|name| name.parse().ok());
            return Ok(known.filter(|shape| longest(shape) <= limit).collect());
        }
        match self.shapes.iter().find(|shape| longest(shape) > limit) {
            None => Ok(self.shapes.clone()),
            Some(shape) => Err(Failure::usage(format!(
                "--shapes {} has texts of {} tokens, and {} takes {limit} at most",
                shape.name,
                longest(shape),
                folder.display()
            ))),
        }
    }

    /// A line for each precision: passes in turn until the time is over.
    fn measure(
        &self,
        session: &Session,
        models: &[Loaded],
        shape: &Shape,
        batch: &Batch,
        kernels: &mut BTreeMap<&'static str, Vec<Kernel>>,
    ) -> Result<Vec<Line>> {
        let options = ForwardOptions::default();
        let mut operations = Vec::new();
        for Loaded { precision, model } in models {
            // The first pass of each is not timed: it finds buffers, and tells what runs.
            let (session, explanation) = session.with_precision(*precision).explaining();
            model.forward(&session, batch, &options)?;
            let ran = explanation.ran();
            operations.push(2 * ran.iter().map(|(_, _, ran)| ran.multiply_adds).sum::<u64>());
            let of = |&(operation, kernel, ran): &(_, _, bertha_autograd::Ran)| Kernel {
                operation,
                kernel,
                calls: ran.calls,
            };
            let name = precision.name();
            kernels
                .entry(name)
                .or_insert_with(|| ran.iter().map(of).collect());
        }
        let peaks = || -> Vec<Option<f64>> {
            let of = |loaded: &Loaded| peak(session.exec(), loaded.precision);
            models.iter().map(of).collect()
        };
        let before = peaks();
        let mut times = vec![Vec::new(); models.len()];
        let started = Instant::now();
        let whole = self.seconds * models.len() as f64;
        while times[0].len() < 3 || started.elapsed().as_secs_f64() < whole {
            for (Loaded { precision, model }, times) in models.iter().zip(&mut times) {
                let session = session.with_precision(*precision);
                let start = Instant::now();
                model.forward(&session, batch, &options)?;
                times.push(start.elapsed().as_secs_f64());
            }
        }
        // The better of two: others on the machine lower what is found, nothing raises it.
        let best = |(a, b): (Option<f64>, Option<f64>)| a.zip(b).map(|(a, b)| a.max(b));
        let peaks = before.into_iter().zip(peaks()).map(best);
        let lines = models.iter().zip(times).zip(operations).zip(peaks);
        let line = |(((loaded, mut times), operations), peak): (((&Loaded, Vec<f64>), u64), _)| {
            times.sort_by(f64::total_cmp);
            let median = times[times.len() / 2];
            let rate = operations as f64 / median;
            Line {
                precision: loaded.precision.name(),
                shape: shape.name.clone(),
                threads: session.exec().threads(),
                tokens: batch.tokens(),
                milliseconds: median * 1e3,
                tokens_per_second: batch.tokens() as f64 / median,
                operations_per_second: rate,
                peak,
                share_of_peak: peak.map(|peak: f64| rate / peak),
            }
        };
        Ok(lines.map(line).collect())
    }
}

/// The machine's peak for products of a precision.
fn peak(exec: &Exec, precision: Precision) -> Option<f64> {
    let operands = match precision {
        Precision::F32 => Operands::F32,
        Precision::F32Strict => Operands::F32Strict,
        Precision::Bf16 => Operands::Bf16,
        Precision::Int8 => Operands::Int8,
    };
    peak_operations(exec, operands)
}

/// Random ids (a linear congruential generator) of a batch's lengths.
fn batch(shape: &Shape, vocabulary: usize) -> Result<Batch> {
    let mut state = 1u64;
    let mut id = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % vocabulary.max(1)
    };
    let sequence = |&len: &usize| (0..len).map(|_| id() as u32).collect::<Vec<_>>();
    let sequences: Vec<Vec<u32>> = shape.lengths.iter().map(sequence).collect();
    let sequences: Vec<&[u32]> = sequences.iter().map(Vec::as_slice).collect();
    Ok(Batch::from_sequences(&sequences)?)
}

impl Report<'_> {
    fn text(&self) -> String {
        let mut text = format!(
            "{} on {}\n\n{:<10}{:<10}{:>8}{:>10}{:>12}{:>14}{:>10}\n",
            self.model.display(),
            self.instruction_set,
            "batch",
            "precision",
            "threads",
            "ms",
            "tokens/s",
            "Goperations/s",
            "of peak"
        );
        for line in &self.lines {
            let share = line
                .share_of_peak
                .map(|share| format!("{:.0} %", 100.0 * share));
            text += &format!(
                "{:<10}{:<10}{:>8}{:>10.2}{:>12.0}{:>14.1}{:>10}\n",
                line.shape,
                line.precision,
                line.threads,
                line.milliseconds,
                line.tokens_per_second,
                line.operations_per_second / 1e9,
                share.as_deref().unwrap_or("-")
            );
        }
        text.push('\n');
        for (precision, kernels) in &self.kernels {
            let kernels = kernels
                .iter()
                .map(|k| format!("{} x {}: {}", k.calls, k.operation, k.kernel));
            text += &format!(
                "{precision:<10}{}\n",
                kernels.collect::<Vec<_>>().join(", ")
            );
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_read_and_others_refused() {
        let shape: Shape = "3x7".parse().unwrap();
        assert_eq!(shape.lengths, [7, 7, 7]);
        let ragged: Shape = "ragged".parse().unwrap();
        let lengths = &ragged.lengths;
        assert_eq!(lengths.len(), 64);
        assert_eq!(
            (lengths.iter().min(), lengths.iter().max()),
            (Some(&8), Some(&128))
        );
        for wrong in ["", "8", "8x", "x8", "0x8", "8x0", "8x8x8", "-1x8"] {
            assert!(wrong.parse::<Shape>().is_err(), "{wrong}");
        }
        for wrong in ["-1", "nan", "inf", "x"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}
