//! What training can refuse.

use std::io;
use std::path::{Path, PathBuf};

use bertha_nn::NnError;
use bertha_tensor::{FileError, TensorError};
use bertha_tokenizer::TokenizerError;

/// Why data could not be read, or a part of training not be set up or carried out.
///
/// Lines are counted from 1; examples from 0, in the order of the data.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// The operating system refused.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was being done to it.
        action: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// A file of tensors could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A line of a data file is not what its format demands.
    #[error("{}:{line}: {found}, expected {expected}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// What is there.
        found: String,
        /// What should be.
        expected: String,
    },
    /// A data file as a whole is not what its format demands.
    #[error("{}: {found}, expected {expected}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is there, and where.
        found: String,
        /// What should be.
        expected: String,
    },
    /// A column that a file does not have.
    #[error("{}: there is no column `{column}`; the columns are: {}", path.display(), columns.join(", "))]
    NoColumn {
        /// The file.
        path: PathBuf,
        /// The column asked for.
        column: String,
        /// Those that there are.
        columns: Vec<String>,
    },
    /// A label that is not among those of the task.
    #[error(
        "example {example} has the label `{label}`, expected one of: {}",
        some(labels)
    )]
    UnknownLabel {
        /// The example.
        example: usize,
        /// Its label.
        label: String,
        /// The labels of the task.
        labels: Vec<String>,
    },
    /// An example that cannot be used as it is.
    #[error("example {example}: {found}, expected {expected}")]
    Example {
        /// The example.
        example: usize,
        /// What is there.
        found: String,
        /// What should be.
        expected: String,
    },
    /// Labels that cannot be a task's.
    #[error("the labels are not usable: {0}")]
    Labels(String),
    /// An example that could not be tokenized.
    #[error("example {example}: {source}")]
    Tokenize {
        /// The example.
        example: usize,
        /// The tokenizer's reason.
        source: TokenizerError,
    },
    /// The tokenizer lacks a token that the task needs.
    #[error("the tokenizer has no {token} token, which {task} needs")]
    NoToken {
        /// The token's role.
        token: &'static str,
        /// What needs it.
        task: &'static str,
    },
    /// A setting that is out of range.
    #[error("{setting} is {found}, expected {expected}")]
    Setting {
        /// The setting.
        setting: &'static str,
        /// Its value.
        found: String,
        /// What it may be.
        expected: String,
    },
    /// Lists that must be equally long.
    #[error("{what}: {found} values, expected {expected}")]
    Count {
        /// What was counted.
        what: &'static str,
        /// How many there are.
        found: usize,
        /// How many there should be.
        expected: usize,
    },
    /// A gradient that is infinite or no number.
    #[error("the gradient of `{parameter}` is {value} at element {index}, expected finite numbers")]
    NonFinite {
        /// The parameter.
        parameter: String,
        /// The first such element, in row-major order.
        index: usize,
        /// What it is.
        value: f32,
    },
    /// A parameter that does not fit.
    #[error("parameter `{parameter}`: {found}, expected {expected}")]
    Parameter {
        /// Its name.
        parameter: String,
        /// What is there.
        found: String,
        /// What should be.
        expected: String,
    },
    /// State of an optimizer, saved, that does not fit the parameters.
    #[error("the saved state has {found}, expected {expected}")]
    State {
        /// What is there.
        found: String,
        /// What should be.
        expected: String,
    },
    /// A tensor could not be made or read as asked.
    #[error(transparent)]
    Tensor(#[from] TensorError),
    /// A batch could not be put together.
    #[error(transparent)]
    Nn(#[from] NnError),
    /// Ranks that do not do the same, or one that is gone.
    #[error("rank {rank} of {world}: {problem}")]
    Collective {
        /// The rank that noticed.
        rank: usize,
        /// How many there are.
        world: usize,
        /// What is wrong.
        problem: String,
    },
}

impl TrainError {
    /// For `map_err` on an I/O operation: `action` completes "cannot ...".
    pub(crate) fn io(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> TrainError {
        let path = path.to_path_buf();
        move |source| TrainError::Io {
            path,
            action,
            source,
        }
    }
}

/// The first of a list, and how many more there are.
fn some(labels: &[String]) -> String {
    const SHOWN: usize = 20;
    let first: Vec<&str> = labels.iter().take(SHOWN).map(String::as_str).collect();
    match labels.len().checked_sub(SHOWN) {
        None | Some(0) => first.join(", "),
        Some(more) => format!("{} and {more} more", first.join(", ")),
    }
}
