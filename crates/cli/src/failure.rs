//! Why a command ended early, in words for the person at the terminal.

use std::error::Error;
use std::fmt::Display;
use std::io;
use std::path::Path;

use bertha_tasks::TaskError;
use bertha_tokenizer::TokenizerError;

/// Why a command ended early.
#[derive(Debug)]
pub enum Failure {
    /// The command line asks for something that cannot be: exit code 2.
    Usage(String),
    /// Something went wrong: exit code 1.
    Error(String),
    /// The reader of standard output has closed it (`bertha … | head`): nothing went wrong.
    OutputClosed,
}

/// What commands return.
pub type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    /// A failure with this message.
    pub fn new(message: impl Into<String>) -> Self {
        Self::Error(message.into())
    }

    /// Wrong usage with this message.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::Usage(message.into())
    }

    /// `path: cannot action: reason`.
    pub fn io(path: &Path, action: &str, error: &io::Error) -> Self {
        Self::new(format!("{}: cannot {action}: {error}", path.display()))
    }

    /// The error of a task that could not be loaded.
    pub fn loading(error: TaskError) -> Self {
        Self::task(error, |index| format!("text {index}"))
    }

    /// A task's error in the words of the command line: options by their flags, and texts by `place`,
    /// which gets their index.
    pub fn task(error: TaskError, place: impl Fn(usize) -> String) -> Self {
        match &error {
            TaskError::TooLong {
                index,
                tokens,
                limit,
                source_of_limit,
                ..
            } => Self::new(format!(
                "{} has {tokens} tokens, more than the limit of {limit} ({}): split it, or have it cut with \
                 --truncate",
                place(*index),
                in_flags(source_of_limit)
            )),
            TaskError::InvalidOption {
                option,
                found,
                expected,
            } => {
                let flag = option.replace('_', "-");
                Self::usage(format!("--{flag} is {found}, expected {expected}"))
            }
            TaskError::QuestionTooLong { tokens, limit } => Self::new(format!(
                "the question has {tokens} tokens, which leaves no room for the context within {limit} tokens: \
                 shorten it, or lower --max-question-len"
            )),
            TaskError::Tokenizer(error) => Self::tokenizer(error),
            // The others begin with the text, or name it in passing.
            _ => match (error.text_index(), Self::from(error)) {
                (Some(index), Self::Error(message)) => {
                    Self::new(message.replacen(&format!("text {index}"), &place(index), 1))
                }
                (_, failure) => failure,
            },
        }
    }

    /// A tokenizer's error in the words of the command line.
    pub fn tokenizer(error: &TokenizerError) -> Self {
        match error {
            TokenizerError::LimitTooSmall {
                max_length,
                special,
            } => Self::usage(format!(
                "--max-length is {max_length}, which leaves no room for the {special} special tokens"
            )),
            _ => Self::from(error),
        }
    }

    /// The same failure, its message preceded by where it happened.
    pub fn within(self, place: impl Display) -> Self {
        match self {
            Self::Usage(message) => Self::Usage(format!("{place}: {message}")),
            Self::Error(message) => Self::Error(format!("{place}: {message}")),
            Self::OutputClosed => Self::OutputClosed,
        }
    }
}

/// A limit's source as the libraries tell it, the option by its flag.
pub fn in_flags(source: &str) -> String {
    source.replace("`max_length`, as asked", "--max-length")
}

/// An error of any library crate, with the causes that its own message leaves out.
impl<E: Error> From<E> for Failure {
    fn from(error: E) -> Self {
        let mut message = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            let text = error.to_string();
            if !message.contains(&text) {
                message.push_str(": ");
                message.push_str(&text);
            }
            cause = error.source();
        }
        Self::Error(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Layered(&'static str, Option<Box<Layered>>);

    impl Display for Layered {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str(self.0)
        }
    }

    impl Error for Layered {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            self.1.as_deref().map(|cause| cause as _)
        }
    }

    #[test]
    fn causes_are_joined_and_not_repeated() {
        let cause = Layered("disk full", None);
        let middle = Layered("cannot write: disk full", Some(Box::new(cause)));
        let Failure::Error(message) = Failure::from(Layered("saving x", Some(Box::new(middle))))
        else {
            panic!("an error becomes an error");
        };
        assert_eq!(message, "saving x: cannot write: disk full");
    }
}
