//! Where results go: standard output, or a file that appears whole or not at all.

use std::io::{self, BufWriter, IsTerminal, Read, StdoutLock, Write};
use std::path::{Path, PathBuf};

use bertha_tensor::AtomicFile;
use serde::Serialize;

use crate::failure::{Failure, Result};

/// An output that takes lines of JSON, or bytes.
pub struct Output {
    to: To,
}

enum To {
    Stdout(BufWriter<StdoutLock<'static>>),
    File(PathBuf, AtomicFile),
}

impl Output {
    /// Standard output.
    pub fn stdout() -> Self {
        Self {
            to: To::Stdout(BufWriter::with_capacity(1 << 16, io::stdout().lock())),
        }
    }

    /// A file, or standard output where there is none or it is `-`. The file gets its name in
    /// [`finish`](Self::finish); dropped before that, nothing is left of it.
    pub fn open(path: Option<&Path>) -> Result<Self> {
        match path {
            Some(path) if path != Path::new("-") => Ok(Self {
                to: To::File(path.to_path_buf(), AtomicFile::create(path)?),
            }),
            _ => Ok(Self::stdout()),
        }
    }

    /// Whether bytes would land on somebody's screen.
    pub fn is_terminal(&self) -> bool {
        matches!(self.to, To::Stdout(_)) && io::stdout().is_terminal()
    }

    /// Writes a value as one line of JSON.
    pub fn line(&mut self, value: &impl Serialize) -> Result<()> {
        let written = match &mut self.to {
            To::Stdout(writer) => write_line(writer, value),
            To::File(_, file) => write_line(file, value),
        };
        written.map_err(|error| self.failure(&error))
    }

    /// Writes bytes.
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        let written = match &mut self.to {
            To::Stdout(writer) => writer.write_all(bytes),
            To::File(_, file) => file.write_all(bytes),
        };
        written.map_err(|error| self.failure(&error))
    }

    /// Writes all that a file still holds.
    pub fn copy(&mut self, from: &mut impl Read) -> Result<()> {
        let mut piece = vec![0; 1 << 20];
        loop {
            match from.read(&mut piece) {
                Ok(0) => return Ok(()),
                Ok(read) => self.bytes(&piece[..read])?,
                Err(error) => {
                    return Err(Failure::new(format!(
                        "a temporary file: cannot read: {error}"
                    )));
                }
            }
        }
    }

    /// Hands what was written so far to whoever reads it.
    pub fn flush(&mut self) -> Result<()> {
        let flushed = match &mut self.to {
            To::Stdout(writer) => writer.flush(),
            To::File(..) => Ok(()),
        };
        flushed.map_err(|error| self.failure(&error))
    }

    /// Completes the output; a file gets its name now.
    pub fn finish(mut self) -> Result<()> {
        self.flush()?;
        match self.to {
            To::Stdout(_) => Ok(()),
            To::File(_, file) => Ok(file.commit()?),
        }
    }

    fn failure(&self, error: &io::Error) -> Failure {
        match &self.to {
            To::Stdout(_) if error.kind() == io::ErrorKind::BrokenPipe => Failure::OutputClosed,
            To::Stdout(_) => Failure::new(format!("cannot write to standard output: {error}")),
            To::File(path, _) => Failure::io(path, "write", error),
        }
    }
}

fn write_line(writer: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *writer, value)?;
    writer.write_all(b"\n")
}
