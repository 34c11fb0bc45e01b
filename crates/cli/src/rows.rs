//! Rows of f32 as a binary file whose header tells their number: known only at the end, so that the
//! header is written last, into the room that was left for it.

use std::fs::{self, File};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use bertha_tensor::{AtomicFile, DType, npy};
use clap::ValueEnum;
use ndarray::ArrayView2;
use serde_json::json;

use crate::failure::{Failure, Result};
use crate::output::Output;

/// Bytes of a safetensors header here, its length included.
const SAFETENSORS_START: usize = 256;
/// The tensor's name in a safetensors file.
pub const TENSOR: &str = "embeddings";

/// How embeddings are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A JSON object a line
    Jsonl,
    /// A NumPy array [texts, dimension] of float32
    Npy,
    /// The same as tensor `embeddings`
    Safetensors,
}

impl Format {
    /// The format that a file's name asks for, JSON lines where it does not say.
    pub fn of(path: Option<&Path>) -> Self {
        match path
            .and_then(Path::extension)
            .and_then(|name| name.to_str())
        {
            Some("npy") => Self::Npy,
            Some("safetensors") => Self::Safetensors,
            _ => Self::Jsonl,
        }
    }

    /// The bytes before `rows` rows of `width` numbers, of one length for any number of rows.
    fn header(self, rows: usize, width: usize) -> Option<Vec<u8>> {
        match self {
            Self::Jsonl => None,
            Self::Npy => npy::header(DType::F32, &[rows, width]),
            Self::Safetensors => {
                let bytes = rows.checked_mul(width)?.checked_mul(size_of::<f32>())?;
                let entry =
                    json!({"dtype": "F32", "shape": [rows, width], "data_offsets": [0, bytes]});
                let header = json!({"__metadata__": {"format": "pt"}, TENSOR: entry});
                let mut json = header.to_string().into_bytes();
                let room = SAFETENSORS_START - size_of::<u64>();
                json.resize(room.max(json.len()), b' ');
                let mut header = (json.len() as u64).to_le_bytes().to_vec();
                header.extend(json);
                Some(header)
            }
        }
    }
}

/// A binary file of rows in the making.
pub struct RowFile {
    format: Format,
    to: To,
    rows: usize,
    width: usize,
    start: usize,
}

enum To {
    /// The file itself.
    Place(PathBuf, AtomicFile),
    /// A nameless file, to be copied where one cannot go back to the start.
    Aside(BufWriter<File>, Output),
}

impl RowFile {
    /// Starts a file, or what goes to standard output where there is none or it is `-`.
    pub fn create(path: Option<&Path>, format: Format, width: usize) -> Result<Self> {
        let regular = |path: &&Path| {
            *path != Path::new("-") && fs::metadata(path).map_or(true, |found| found.is_file())
        };
        let mut to = match path.filter(regular) {
            Some(path) => To::Place(path.to_path_buf(), AtomicFile::create(path)?),
            None => {
                let output = Output::open(path)?;
                if output.is_terminal() {
                    return Err(Failure::usage(
                        "this format is binary and standard output is a terminal: give --output FILE",
                    ));
                }
                let aside = tempfile::tempfile().map_err(|error| aside(&error))?;
                To::Aside(BufWriter::new(aside), output)
            }
        };
        let header = format.header(0, width).unwrap_or_default();
        to.write(&header)?;
        Ok(Self {
            format,
            to,
            rows: 0,
            width,
            start: header.len(),
        })
    }

    /// Appends rows.
    pub fn push(&mut self, rows: ArrayView2<'_, f32>) -> Result<()> {
        debug_assert_eq!(rows.ncols(), self.width);
        let bytes: Vec<u8> = rows.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.rows += rows.nrows();
        self.to.write(&bytes)
    }

    /// Completes the file, which gets its name now.
    pub fn finish(self) -> Result<()> {
        let header = self.format.header(self.rows, self.width);
        let Some(header) = header.filter(|header| header.len() == self.start) else {
            let (rows, width) = (self.rows, self.width);
            return Err(Failure::new(format!(
                "{rows} rows of {width} numbers do not fit the format: write JSON lines"
            )));
        };
        match self.to {
            To::Place(path, mut file) => {
                let written = file
                    .seek(SeekFrom::Start(0))
                    .and_then(|_| file.write_all(&header));
                written.map_err(|error| Failure::io(&path, "write", &error))?;
                Ok(file.commit()?)
            }
            To::Aside(mut file, mut output) => {
                let rewound = file
                    .seek(SeekFrom::Start(0))
                    .and_then(|_| file.write_all(&header))
                    .and_then(|()| file.seek(SeekFrom::Start(0)));
                rewound.map_err(|error| aside(&error))?;
                output.copy(file.get_mut())?;
                output.finish()
            }
        }
    }
}

impl To {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        match self {
            Self::Place(path, file) => {
                let written = file.write_all(bytes);
                written.map_err(|error| Failure::io(path, "write", &error))
            }
            Self::Aside(file, _) => file.write_all(bytes).map_err(|error| aside(&error)),
        }
    }
}

fn aside(error: &io::Error) -> Failure {
    let folder = std::env::temp_dir();
    Failure::io(
        &folder,
        "keep the rows until their number is known in",
        error,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_of_one_length_for_any_number_of_rows() {
        for format in [Format::Npy, Format::Safetensors] {
            for width in [1, 384, 1 << 20] {
                let start = format.header(0, width).unwrap();
                for rows in [1, 1000, 1 << 40] {
                    let header = format.header(rows, width).unwrap();
                    assert_eq!(header.len(), start.len(), "{format:?} {rows}x{width}");
                    assert_eq!(header.len() % 64, 0);
                }
            }
        }
    }

    #[test]
    fn names_tell_formats() {
        let of = |path: &str| Format::of(Some(Path::new(path)));
        assert_eq!(of("a/b.npy"), Format::Npy);
        assert_eq!(of("b.safetensors"), Format::Safetensors);
        assert_eq!(of("b.jsonl"), Format::Jsonl);
        assert_eq!(of("npy"), Format::Jsonl);
        assert_eq!(Format::of(None), Format::Jsonl);
    }
}
