//! What the commands' options share. A command's own options stand in its file of `commands`.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use bertha_tasks::{GlobalRule, Precision, transformer_dir};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{ArgAction, Args, Parser};

use crate::commands::Command;
use crate::failure::{Failure, Result};
use crate::input::{Fields, Input, InputFormat};

/// The command line.
#[derive(Debug, Parser)]
#[command(
    name = "bertha",
    version,
    about = "Runs encoder transformers (BERT) on the CPU",
    long_about = "Runs encoder transformers (BERT) on the CPU: embeds and searches texts, fills masks, \
classifies, tags and answers questions, with a model folder as Hugging Face's libraries write it.",
    after_help = "`bertha COMMAND --help` explains a command, with examples.",
    after_long_help = AFTER_HELP,
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Options of every command.
    #[command(flatten)]
    pub global: Global,
}

const AFTER_HELP: &str = "\
`bertha COMMAND --help` explains a command, with examples and its output.

Results are JSON on standard output, one line for each input, in the order of the input; progress,
warnings and errors are on standard error. A file given with --output appears whole or not at all.
Exit codes: 0 done, 1 failed (with a line `error: …`), 2 wrong usage.

BERTHA_ISA=portable|avx2|avx512 forces a lower instruction set than the machine's best.
`bertha info` says which kernels run.";

/// Options of every command.
#[derive(Args, Clone, Copy, Debug)]
pub struct Global {
    /// Say more on standard error (-v, -vv, -vvv)
    #[arg(
        short,
        long,
        global = true,
        action = ArgAction::Count,
        help_heading = "Messages"
    )]
    pub verbose: u8,
    /// Say nothing but errors on standard error
    #[arg(
        short,
        long,
        global = true,
        conflicts_with = "verbose",
        help_heading = "Messages"
    )]
    pub quiet: bool,
}

/// The model folder.
#[derive(Args, Debug)]
pub struct ModelDir {
    /// Model folder as on the Hugging Face Hub: config.json, model.safetensors, tokenizer.json or
    /// vocab.txt
    #[arg(short = 'm', long = "model", value_name = "DIR")]
    dir: PathBuf,
}

impl ModelDir {
    /// The folder that another option names.
    pub fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_path_buf(),
        }
    }

    /// The folder of config.json and the tokenizer: the folder itself, or the one below that its
    /// modules.json names, as older sentence-transformers wrote it.
    pub fn transformer(&self) -> Result<PathBuf> {
        let dir = self.path()?;
        match !dir.join("config.json").exists() && dir.join("modules.json").exists() {
            true => Ok(transformer_dir(dir)?),
            false => Ok(dir.to_path_buf()),
        }
    }

    /// The folder, if it is one.
    pub fn path(&self) -> Result<&Path> {
        let dir = self.dir.as_path();
        let problem = match std::fs::metadata(dir) {
            Ok(found) if found.is_dir() => return Ok(dir),
            Ok(_) => "this is a file".to_owned(),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                "there is no such folder".to_owned()
            }
            Err(error) => format!("cannot open the folder ({error})"),
        };
        Err(Failure::new(format!(
            "{}: {problem}; --model takes a folder with config.json, model.safetensors and a tokenizer",
            dir.display()
        )))
    }
}

/// Which tokens are global.
#[derive(Args, Clone, Copy, Debug)]
pub struct GlobalTokens {
    /// Tokens that see all of a text and are seen by all of it, in place of what config.json says.
    /// by-head: the first to classify, the question's to answer, else none. For Longformer alone
    #[arg(
        long = "global-tokens",
        value_name = "RULE",
        value_parser = PossibleValuesParser::new(GlobalRule::ALL.map(GlobalRule::name))
            .try_map(|name| name.parse::<GlobalRule>()),
        help_heading = "Running"
    )]
    pub rule: Option<GlobalRule>,
}

/// The precision of products.
#[derive(Args, Clone, Copy, Debug)]
pub struct Precise {
    /// What products are computed of: f32 keeps each within 1e-5 (by a matrix unit where there is one),
    /// f32-strict takes f32 instructions alone; bf16 and int8 take a half and a quarter of the weights'
    /// memory, and less time where the machine has instructions for them, at some loss of accuracy
    #[arg(
        long,
        value_name = "PRECISION",
        value_parser = PossibleValuesParser::new(Precision::ALL.map(Precision::name))
            .map(|name| Precision::from_name(&name).unwrap_or_default()),
        default_value = Precision::F32.name(),
        help_heading = "Running"
    )]
    pub precision: Precision,
}

/// How the model runs.
#[derive(Args, Debug)]
pub struct Run {
    /// Threads, at most; by default one for each physical core that the process may use
    #[arg(long, value_name = "N", value_parser = positive, help_heading = "Running")]
    pub threads: Option<usize>,
    /// Longest text in tokens, special tokens included; by default the folder's own limit, at most the
    /// model's positions
    #[arg(long, value_name = "N", value_parser = positive, help_heading = "Running")]
    pub max_length: Option<usize>,
    /// Cut longer texts, with a warning; default where --max-length or the folder sets the limit
    #[arg(long, overrides_with = "no_truncate", help_heading = "Running")]
    truncate: bool,
    /// Refuse longer texts; default where only the model's positions limit them
    #[arg(long, overrides_with = "truncate", help_heading = "Running")]
    no_truncate: bool,
    /// Tokens to run at a time [default: 2048]: bounds memory, never changes a result
    #[arg(long, value_name = "N", value_parser = positive, help_heading = "Running")]
    pub batch_tokens: Option<usize>,
    #[command(flatten)]
    pub precise: Precise,
    #[command(flatten)]
    pub global_tokens: GlobalTokens,
}

impl Run {
    /// Whether longer texts are cut, where that was said.
    pub fn truncate(&self) -> Option<bool> {
        flag(self.truncate, self.no_truncate)
    }
}

/// Sets the options of [`Run`] on an `EncoderBuilder` or a `TaskBuilder`.
macro_rules! with_run {
    ($builder:expr, $run:expr) => {{
        let (mut builder, run): (_, &$crate::args::Run) = ($builder, $run);
        if let Some(threads) = run.threads {
            builder = builder.threads(threads);
        }
        if let Some(tokens) = run.max_length {
            builder = builder.max_length(tokens);
        }
        if let Some(truncate) = run.truncate() {
            builder = builder.truncate(truncate);
        }
        if let Some(tokens) = run.batch_tokens {
            builder = builder.batch_tokens(tokens);
        }
        builder = builder.precision(run.precise.precision);
        if let Some(rule) = run.global_tokens.rule {
            builder = builder.global_tokens(rule);
        }
        builder
    }};
}
pub(crate) use with_run;

/// The texts to work on.
#[derive(Args, Debug)]
pub struct Texts {
    /// Texts; without any, --input is read, else standard input
    #[arg(value_name = "TEXT", conflicts_with = "input")]
    texts: Vec<String>,
    #[command(flatten)]
    file: TextFile,
}

impl Texts {
    /// Starts to read them.
    pub fn open(&self, fields: Fields) -> Result<Input> {
        Input::open(&self.texts, &self.file, fields)
    }
}

/// A file of texts.
#[derive(Args, Debug)]
pub struct TextFile {
    /// Read texts from a file, `-` for standard input: one a line, or JSON lines
    #[arg(short, long, value_name = "FILE")]
    pub input: Option<PathBuf>,
    /// What --input holds: `auto` takes .jsonl, .ndjson and what begins with a JSON object that has a
    /// text for JSON lines, and else a text a line
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    pub input_format: InputFormat,
}

/// Where results go.
#[derive(Args, Debug)]
pub struct OutputFile {
    /// Write to a file in place of standard output; it appears only when complete
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// A pair of flags such as `--normalize` and `--no-normalize`.
pub fn flag(yes: bool, no: bool) -> Option<bool> {
    match (yes, no) {
        (true, _) => Some(true),
        (_, true) => Some(false),
        _ => None,
    }
}

/// A whole number from 1 up.
pub fn positive(text: &str) -> std::result::Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("expected a whole number from 1 up".into()),
        Ok(number) => Ok(number),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_teaches() {
        for command in Cli::command().get_subcommands_mut() {
            let name = command.get_name().to_owned();
            let help = command.render_long_help().to_string();
            for part in ["Examples:", "Output:", "--model"] {
                assert!(help.contains(part), "{part} is not in the help of {name}");
            }
            let examples = help.matches(&format!("bertha {name} ")).count();
            assert!(examples >= 2, "{name} shows {examples} examples");
            let after = command.get_after_long_help().unwrap().to_string();
            let longest = after.lines().map(|line| line.chars().count()).max();
            assert!(longest <= Some(100), "the help of {name} would wrap");
            assert!(command.get_long_about().is_some() && command.get_about().is_some());
        }
    }

    #[test]
    fn the_later_of_two_opposite_flags_counts() {
        let truncate = |flags: &[&str]| {
            let line = ["bertha", "classify", "-m", "x"];
            let cli = Cli::try_parse_from(line.iter().chain(flags)).unwrap();
            match cli.command {
                Command::Classify(classify) => classify.run.truncate(),
                _ => panic!("classify was asked for"),
            }
        };
        assert_eq!(truncate(&[]), None);
        assert_eq!(truncate(&["--truncate"]), Some(true));
        assert_eq!(truncate(&["--truncate", "--no-truncate"]), Some(false));
        assert_eq!(truncate(&["--no-truncate", "--truncate"]), Some(true));
    }
}
