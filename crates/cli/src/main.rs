//! The `bertha` binary: encoder transformers from the command line.
//!
//! Results are JSON on standard output, one line for each input; everything else (warnings, the
//! progress bar, errors) is on standard error. The exit code is 0, 1 for a failure and 2 for wrong
//! usage. One file of `commands` is one command; what they share is beside this file.
#![forbid(unsafe_code)]

mod args;
mod cache;
mod commands;
mod failure;
mod input;
mod lines;
mod log;
mod output;
mod progress;
mod rows;

use std::process::ExitCode;

use clap::Parser;

use crate::failure::Failure;

fn main() -> ExitCode {
    let cli = args::Cli::parse();
    log::install(&cli.global);
    let result = commands::run(&cli);
    log::finish();
    let (message, code) = match result {
        // Whoever read the output has read enough.
        Ok(()) | Err(Failure::OutputClosed) => return ExitCode::SUCCESS,
        Err(Failure::Usage(message)) => (message, 2),
        Err(Failure::Error(message)) => (message, 1),
    };
    // One line, whatever names and texts are quoted in it.
    let message = message.replace(['\n', '\r'], " ");
    progress::message(&format!("error: {message}\n"));
    ExitCode::from(code)
}
