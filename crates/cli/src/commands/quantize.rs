//! `bertha quantize`: a model in fewer bits.

use std::fs;
use std::path::{Path, PathBuf};

use bertha_autograd::Session;
use bertha_compress::{
    Calibration, Curvature, Method, PowerIteration, Sensitivity, Settings, assign_bits, curvatures,
    layer_of, linear_layers, quantize, sensitivities, spare,
};
use bertha_kernels::{CodeBook, GroupRange};
use bertha_models::{Config, TrainableModel, load_checkpoint};
use bertha_nn::{Batch, WeightFormat};
use bertha_tensor::Checkpoint;
use bertha_tokenizer::{EncodeOptions, TOKENIZER_FILES, Tokenizer, Truncation};
use bertha_train::collate::collate;
use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::args::{ModelDir, TextFile, positive};
use crate::commands::formats::{Format, group_of};
use crate::commands::model_folder::{check_output, copy, copy_sentence_transformers, write};
use crate::commands::task_data::{Reading, TaskName};
use crate::failure::{Failure, Result};
use crate::input::{Fields, Input, InputFormat};
use crate::output::Output;

/// Make a model smaller: its weights in 8, 4 or fewer bits
#[derive(Args, Debug)]
#[command(
    long_about = "Makes a model smaller: the weights of its linear layers, and if asked its tables, in 8, 4 or fewer \
bits. They stay so in the file and in memory; every command runs the new folder as it ran the old.",
    after_long_help = HELP
)]
pub struct Quantize {
    #[command(flatten)]
    model: ModelDir,
    /// Format of the linear layers' weights
    #[arg(long, value_enum, required_unless_present = "average_bits")]
    to: Option<Format>,
    /// Folder to write
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// Replace the model that the folder has
    #[arg(long)]
    overwrite: bool,
    /// Values of a row that share a scale; 0: all of it. int8 always has a scale for each row
    #[arg(long, value_name = "N", default_value_t = 64)]
    group_size: usize,
    /// Also store the scales in 8 bits
    #[arg(long)]
    double_quantization: bool,
    /// Format of the tables of words and positions; without, they stay as they are
    #[arg(long, value_enum, value_name = "FORMAT")]
    embeddings: Option<Format>,
    /// Also quantize the linear layers outside of the encoder: poolers and heads
    #[arg(long)]
    heads: bool,
    /// Leave weights whose names contain this as they are; may be given several times
    #[arg(long, value_name = "PART")]
    keep: Vec<String>,
    /// How values become codes
    #[arg(long, value_enum, default_value_t = Rule::Minmax)]
    method: Rule,
    /// Percentile, for --method percentile
    #[arg(long, value_name = "P", default_value_t = 99.9, value_parser = percent)]
    percentile: f32,
    /// How much of the inputs' range goes to the weights, for --method smoothquant
    #[arg(long, value_name = "S", default_value_t = 0.5, value_parser = share)]
    smoothquant_strength: f32,
    /// Multiply inputs of this magnitude or more as floats, for --to int8: LLM.int8()'s outliers, from 6 on
    /// there
    #[arg(long, value_name = "X", value_parser = magnitude)]
    outlier_threshold: Option<f32>,
    /// Texts as the model will see them: a text a line, or JSON lines with a text
    #[arg(long, value_name = "FILE", help_heading = "Calibration")]
    calibrate: Option<PathBuf>,
    /// Texts to take of them, from the first on
    #[arg(long, value_name = "N", value_parser = positive, default_value_t = 128, help_heading = "Calibration")]
    calibration_texts: usize,
    /// Tokens to take of a text
    #[arg(long, value_name = "N", value_parser = positive, default_value_t = 128, help_heading = "Calibration")]
    calibration_length: usize,
    /// Tell how much each layer alone would change what the model gives on the texts
    #[arg(long, requires = "calibrate", help_heading = "Calibration")]
    sensitivity: bool,
    /// Leave the most sensitive layers as they are until the relative error of what the model gives on
    /// the texts is at most this
    #[arg(long, value_name = "E", requires = "calibrate", value_parser = budget, help_heading = "Calibration")]
    error_budget: Option<f64>,
    /// Bits of a weight in the mean, from 2 to 4: layers along which the loss curves more get one more
    #[arg(long, value_name = "B", value_parser = bits, requires = "train", conflicts_with = "to", help_heading = "Q-BERT")]
    average_bits: Option<f64>,
    /// The task that the model was fine-tuned for
    #[arg(long, value_enum, default_value = "classify", help_heading = "Q-BERT")]
    task: TaskName,
    /// Labelled examples of it, whose loss is looked at
    #[arg(long, value_name = "FILE", help_heading = "Q-BERT")]
    train: Option<PathBuf>,
    /// Examples of a slice; the curvature is taken on several
    #[arg(long, value_name = "N", value_parser = positive, default_value_t = 64, help_heading = "Q-BERT")]
    slice_examples: usize,
    /// Slices
    #[arg(long, value_name = "N", value_parser = positive, default_value_t = 5, help_heading = "Q-BERT")]
    slices: usize,
    #[command(flatten)]
    reading: Reading,
    /// Threads, at most; by default one for each physical core that the process may use
    #[arg(long, value_name = "N", value_parser = positive)]
    threads: Option<usize>,
}

const HELP: &str = "\
Examples:
  bertha quantize --model all-MiniLM-L6-v2 --to int8 --output minilm-int8
  bertha quantize --model all-MiniLM-L6-v2 --to int8 --outlier-threshold 6 --output minilm-llm-int8
  bertha quantize --model all-MiniLM-L6-v2 --to nf4 --double-quantization --embeddings int8 \\
      --output minilm-nf4
  bertha quantize --model my-classifier --to int4 --method gptq --calibrate train.txt \\
      --output my-classifier-int4
  bertha quantize --model my-classifier --to int4 --calibrate train.txt --error-budget 0.05 \\
      --output my-classifier-mixed
  bertha quantize --model my-classifier --method qbert --average-bits 2.5 --train train.tsv \\
      --output my-classifier-2.5

Formats:
  int8            a scale for each row; inputs become 8 bits too, each token by its largest value
  int2 int3 int4  whole numbers about 0, a scale for each group
  uint2 … uint4   whole numbers from a zero point on: for ranges that are not even about 0
  nf4             quantiles of the normal distribution
  fp4, e2m1       4-bit floating point: bitsandbytes', and that of the OCP formats
  sign            1 bit: a sign, and the mean magnitude of its group

Methods:
  minmax, percentile, mse    the nearest level over all of a group's range, a part, or the best part
  twn                        for int2: the scale of what is above 0.7 times the mean magnitude
  smoothquant, awq           inputs and weights rescaled against each other first (--calibrate)
  gptq                       each value makes up for the errors before it (--calibrate)
  qbert                      uint2 to uint4, more bits for layers along which the loss curves more:
                             the largest eigenvalue of its Hessian, on slices of --train

Output:
  DIR has config.json with a quantization_config, model.safetensors and the tokenizer. On standard
  output a line for each weight, then one for all:
    {\"weight\":\"encoder.layer.0.output.dense.weight\",\"format\":\"nf4 64\",\"shape\":[384,1536],
     \"bytes\":331776,\"bytes_before\":2359296,\"weight_error\":0.09}
    {\"output\":\"minilm-nf4\",\"bytes\":…,\"bytes_before\":…,\"weights\":36}
  With --sensitivity first a line for each product: {\"weights\":[…],\"error\":0.01}
  With --method qbert first a line for each layer, and sensitivities.svg in DIR:
    {\"bits\":3,\"layer\":0,\"eigenvalues\":[…],\"omega\":8.1}";

/// A method on the command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Rule {
    Minmax,
    Percentile,
    Mse,
    Twn,
    Smoothquant,
    Gptq,
    Awq,
    Qbert,
}

fn number(text: &str, low: f64, high: f64, what: &str) -> std::result::Result<f64, String> {
    let number: Option<f64> = text.parse().ok();
    number
        .filter(|number| *number >= low && *number <= high)
        .ok_or_else(|| format!("expected {what}"))
}

fn percent(text: &str) -> std::result::Result<f32, String> {
    number(text, 50.0, 100.0, "a number from 50 to 100").map(|number| number as f32)
}

fn share(text: &str) -> std::result::Result<f32, String> {
    number(text, 0.0, 1.0, "a number from 0 to 1").map(|number| number as f32)
}

fn magnitude(text: &str) -> std::result::Result<f32, String> {
    let found = number(text, f64::from(f32::MIN_POSITIVE), 1e30, "a number above 0");
    found.map(|number| number as f32)
}

fn bits(text: &str) -> std::result::Result<f64, String> {
    number(text, 2.0, 4.0, "a number from 2 to 4")
}

fn budget(text: &str) -> std::result::Result<f64, String> {
    number(text, 0.0, 10.0, "a number from 0 to 10")
}

#[derive(Serialize)]
struct Summary<'a> {
    output: &'a Path,
    bytes: usize,
    bytes_before: usize,
    weights: usize,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    spared: Vec<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<f64>,
}

impl Quantize {
    /// Runs the command.
    pub fn run(&self) -> Result<()> {
        let dir = self.model.transformer()?;
        let out = self.output.as_path();
        check_output(&dir, out, self.overwrite)?;
        let mut settings = self.settings()?;
        if settings.method.calibrates() && self.calibrate.is_none() {
            return Err(Failure::usage(format!(
                "--method {} needs --calibrate FILE, texts as the model will see them",
                settings.method.name()
            )));
        }
        let session = Session::new(self.threads)?;
        let config = Config::from_file(dir.join("config.json"))?;
        let checkpoint = Checkpoint::open_dir(&dir)?;
        let model = load_checkpoint(&checkpoint, &config, config.head(), &session)?;
        let batches = match &self.calibrate {
            Some(file) => self.batches(&dir, file, model.info().max_tokens)?,
            None => Vec::new(),
        };
        let calibration = match batches.is_empty() {
            true => None,
            false => Some(Calibration::run(&*model, &session, &batches)?),
        };
        let mut output = Output::stdout();
        let mut error = None;
        if let Some(calibration) = &calibration
            && (self.sensitivity || self.error_budget.is_some())
        {
            let of = (&checkpoint, &config);
            let ranked: Vec<Sensitivity> =
                sensitivities(&session, &*model, of, &settings, calibration, &batches)?;
            if self.sensitivity {
                for layer in &ranked {
                    output.line(layer)?;
                }
            }
            if let Some(budget) = self.error_budget {
                let texts = (calibration, batches.as_slice());
                let within = (ranked.as_slice(), budget);
                let (chosen, found) = spare(&session, &*model, of, &settings, texts, within)?;
                (settings, error) = (chosen, Some(found));
            }
        }
        if let (Some(average), Some(train)) = (self.average_bits, &self.train) {
            let found = self.curvatures(&dir, train, &config, &session)?;
            let omegas: Vec<f64> = found.iter().map(|of_layer| of_layer.omega).collect();
            let chosen = assign_bits(&omegas, average);
            for layer in linear_layers(&*model, &session)? {
                for name in layer {
                    if let Some(&bits) = layer_of(&name).and_then(|layer| chosen.get(layer)) {
                        let book = CodeBook::Asymmetric(bits);
                        let group = group_of(self.group_size);
                        settings
                            .overrides
                            .insert(name, WeightFormat::Codes { book, group });
                    }
                }
            }
            fs::create_dir_all(out).map_err(|error| Failure::io(out, "make the folder", &error))?;
            let picture = out.join("sensitivities.svg");
            write(&picture, draw(&found, &chosen).as_bytes())?;
            for (of_layer, bits) in found.iter().zip(chosen) {
                output.line(&LayerBits {
                    bits,
                    curvature: of_layer,
                })?;
            }
        }
        let quantized = quantize(
            &session,
            &*model,
            &checkpoint,
            &config,
            &settings,
            calibration.as_ref(),
        )?;
        fs::create_dir_all(out).map_err(|error| Failure::io(out, "make the folder", &error))?;
        quantized.save(out)?;
        for name in TOKENIZER_FILES {
            copy(&dir, out, name, |_| Ok(()))?;
        }
        copy(&dir, out, "tokenizer_config.json", |_| Ok(()))?;
        copy_sentence_transformers(&dir, out, None)?;
        for layer in &quantized.layers {
            output.line(layer)?;
        }
        output.line(&Summary {
            output: out,
            bytes: quantized.bytes(),
            bytes_before: checkpoint.total_bytes(),
            weights: quantized.layers.len(),
            spared: settings.spared.iter().map(String::as_str).collect(),
            error,
        })?;
        output.finish()
    }

    fn settings(&self) -> Result<Settings> {
        let qbert = matches!(self.method, Rule::Qbert);
        if qbert != self.average_bits.is_some() {
            return Err(Failure::usage(
                "--method qbert and --average-bits B go together: the one chooses what the other says",
            ));
        }
        // The lower width, of what no layer's bits are chosen for.
        let to = self.to.unwrap_or(Format::Uint2);
        Ok(Settings {
            method: match self.method {
                Rule::Minmax => Method::Round(GroupRange::MinMax),
                Rule::Percentile => Method::Round(GroupRange::Percentile(self.percentile)),
                Rule::Mse => Method::Round(GroupRange::MeanSquare),
                Rule::Twn => Method::Round(GroupRange::Ternary),
                Rule::Smoothquant => Method::SmoothQuant {
                    strength: self.smoothquant_strength,
                },
                Rule::Gptq => Method::Gptq { damping: 0.01 },
                Rule::Awq => Method::Awq,
                Rule::Qbert => Method::Round(GroupRange::MeanSquare),
            },
            double_quantization: self.double_quantization,
            outlier_threshold: self.outlier_threshold,
            embeddings: self
                .embeddings
                .map(|format| format.grouped(self.group_size)),
            heads: self.heads,
            keep: self.keep.clone(),
            ..Settings::new(to.grouped(self.group_size))
        })
    }

    /// How sharply the loss curves along each layer.
    fn curvatures(
        &self,
        dir: &Path,
        train: &Path,
        config: &Config,
        session: &Session,
    ) -> Result<Vec<Curvature>> {
        let task = self.task.task();
        let tokenizer = Tokenizer::from_dir(dir)?;
        let max_length = self.reading.max_length(task, config.max_tokens()?)?;
        let labelled = self
            .reading
            .load(task, train, &tokenizer, max_length, None)?;
        let mut config = config.clone();
        task.configure(&mut config, labelled.labels.as_ref());
        let model = TrainableModel::from_dir(dir, config, task.head(), session, 0)?;
        let examples = &labelled.data.examples;
        let wanted = self.slices * self.slice_examples;
        if examples.len() < wanted {
            return Err(Failure::usage(format!(
                "--slices {} of --slice-examples {} need {wanted} examples, and {} has {}",
                self.slices,
                self.slice_examples,
                train.display(),
                examples.len()
            )));
        }
        let numbers: Vec<u32> = (0..wanted as u32).collect();
        let slices = numbers.chunks(self.slice_examples).map(|slice| {
            let batches = slice.chunks(32);
            let batches = batches.map(|numbers| collate(examples, numbers, None));
            batches.collect::<std::result::Result<Vec<_>, _>>()
        });
        let slices = slices.collect::<std::result::Result<Vec<_>, _>>()?;
        Ok(curvatures(
            session,
            &model,
            &slices,
            PowerIteration::default(),
        )?)
    }

    /// The texts of the calibration, tokenized.
    fn batches(&self, dir: &Path, file: &Path, most: usize) -> Result<Vec<Batch>> {
        let file = TextFile {
            input: Some(file.to_path_buf()),
            input_format: InputFormat::default(),
        };
        let mut input = Input::open_file(&file, Fields::TEXT)?;
        let tokenizer = Tokenizer::from_dir(dir)?;
        let length = self.calibration_length.min(most);
        let options = EncodeOptions::default()
            .truncation(Some(Truncation::new(length)))
            .overflow(false);
        let mut batches = Vec::new();
        let (mut batch, mut texts) = (Batch::new(), 0);
        'all: loop {
            let piece = input.piece()?;
            if piece.is_empty() {
                break;
            }
            for item in &piece {
                let encoding = tokenizer
                    .encode(item.text(), &options)
                    .map_err(|error| Failure::tokenizer(&error).within(input.place(item.number)))?;
                if encoding.is_empty() {
                    continue;
                }
                batch.push(encoding.ids(), None)?;
                if batch.tokens() >= BATCH_TOKENS {
                    batches.push(std::mem::take(&mut batch));
                }
                texts += 1;
                if texts == self.calibration_texts {
                    break 'all;
                }
            }
        }
        input.refuse_empty()?;
        if batch.tokens() > 0 {
            batches.push(batch);
        }
        Ok(batches)
    }
}

/// A layer's curvature and the bits that it got.
#[derive(Serialize)]
struct LayerBits<'a> {
    bits: u8,
    #[serde(flatten)]
    curvature: &'a Curvature,
}

/// A bar for each layer, as high as it is sensitive; darker with more bits.
fn draw(found: &[Curvature], bits: &[u8]) -> String {
    let (width, bottom) = ((60 + 44 * found.len()).max(420), 220.0);
    let most = found.iter().map(|layer| layer.omega).fold(1e-12, f64::max);
    let least = bits.iter().min().copied().unwrap_or(0);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} 270\" font-family=\"sans-serif\" \
         font-size=\"12\"><rect width=\"{width}\" height=\"270\" fill=\"white\"/>\
         <text x=\"20\" y=\"16\">|mean| + deviation of the largest eigenvalue, by layer</text>"
    );
    for (i, (layer, &bits)) in found.iter().zip(bits).enumerate() {
        let height = 180.0 * layer.omega / most;
        let (x, top) = (40 + 44 * i, bottom - height);
        let colour = if bits > least { "#1b4965" } else { "#9cc3d5" };
        svg.push_str(&format!(
            "<rect x=\"{x}\" y=\"{top:.1}\" width=\"32\" height=\"{height:.1}\" fill=\"{colour}\"/>\
             <text x=\"{0}\" y=\"{1:.1}\" text-anchor=\"middle\">{2:.2}</text>\
             <text x=\"{0}\" y=\"238\" text-anchor=\"middle\">{3}</text>\
             <text x=\"{0}\" y=\"256\" text-anchor=\"middle\">{bits} bits</text>",
            x + 16,
            top - 4.0,
            layer.omega,
            layer.layer,
        ));
    }
    svg.push_str("</svg>\n");
    svg
}

/// Tokens that run at a time.
const BATCH_TOKENS: usize = 2048;
