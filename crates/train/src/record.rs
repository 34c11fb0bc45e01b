//! What a training run did, a JSON object a line: `metrics.jsonl`.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use bertha_tensor::AtomicFile;
use serde_json::{Map, Value};

use crate::TrainError;

/// One line: the step, and named values.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// The number of updates made.
    pub step: u64,
    /// Everything else.
    pub values: Map<String, Value>,
}

impl Record {
    /// A record of a step without values yet.
    pub fn new(step: u64) -> Self {
        Self {
            step,
            values: Map::new(),
        }
    }

    /// Adds a value. A number that JSON does not have (NaN, infinity) becomes `null`.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.values.insert(name.to_owned(), value.into());
        self
    }

    /// A value as a number.
    pub fn number(&self, name: &str) -> Option<f64> {
        self.values.get(name)?.as_f64()
    }

    fn line(&self) -> String {
        // The step comes first, whatever the order of the map.
        let rest = Value::Object(self.values.clone()).to_string();
        match self.values.is_empty() {
            true => format!("{{\"step\":{}}}\n", self.step),
            false => format!("{{\"step\":{},{}\n", self.step, &rest[1..]),
        }
    }

    fn parse(line: &str) -> Result<Self, String> {
        let value: Value = serde_json::from_str(line).map_err(|error| error.to_string())?;
        let Value::Object(mut values) = value else {
            return Err(format!("{value}"));
        };
        match values.remove("step").and_then(|step| step.as_u64()) {
            Some(step) => Ok(Self { step, values }),
            None => Err("an object without a `step`".into()),
        }
    }
}

/// Writes records, each on the disk before the next.
#[derive(Debug)]
pub struct Recorder {
    path: PathBuf,
    file: File,
}

impl Recorder {
    /// A new, empty file, in place of one that is there.
    ///
    /// # Errors
    /// [`TrainError::Io`] when it cannot be made.
    pub fn create(path: impl AsRef<Path>) -> Result<Self, TrainError> {
        let path = path.as_ref();
        let file = File::create(path).map_err(TrainError::io(path, "create the record"))?;
        Ok(Self {
            path: path.to_path_buf(),
            file,
        })
    }

    /// Goes on with a file after `step` updates: what was written of later steps, and a last line that
    /// was not finished, is dropped. Without a file it starts one.
    ///
    /// # Errors
    /// [`TrainError::Io`] when it cannot be read or written, [`TrainError::Line`] naming a line before
    /// the last that is no record.
    pub fn resume(path: impl AsRef<Path>, step: u64) -> Result<Self, TrainError> {
        let path = path.as_ref();
        if !path.exists() {
            return Self::create(path);
        }
        let kept = read_records(path)?
            .into_iter()
            .filter(|record| record.step <= step);
        let mut file = AtomicFile::create(path)?;
        for record in kept {
            file.write_all(record.line().as_bytes())
                .map_err(TrainError::io(path, "write the record"))?;
        }
        file.commit()?;
        let file = OpenOptions::new()
            .append(true)
            .open(path)
            .map_err(TrainError::io(path, "append to the record"))?;
        Ok(Self {
            path: path.to_path_buf(),
            file,
        })
    }

    /// Appends a line.
    ///
    /// # Errors
    /// [`TrainError::Io`] when it cannot be written.
    pub fn write(&mut self, record: &Record) -> Result<(), TrainError> {
        // One call, so that a reader sees whole lines.
        let line = record.line();
        self.file
            .write_all(line.as_bytes())
            .and_then(|()| self.file.flush())
            .map_err(TrainError::io(&self.path, "append to the record"))
    }
}

/// Reads a file of records. A last line without its end is left out: the run was stopped in it.
///
/// # Errors
/// [`TrainError::Io`] when it cannot be read, [`TrainError::Line`] naming a line that is no record.
pub fn read_records(path: impl AsRef<Path>) -> Result<Vec<Record>, TrainError> {
    let path = path.as_ref();
    let file = File::open(path).map_err(TrainError::io(path, "read the record"))?;
    let mut reader = BufReader::new(file);
    let mut records = Vec::new();
    let mut bytes = Vec::new();
    for line in 1.. {
        bytes.clear();
        let read = reader.read_until(b'\n', &mut bytes);
        read.map_err(TrainError::io(path, "read the record"))?;
        if bytes.last() != Some(&b'\n') {
            break;
        }
        let text = String::from_utf8_lossy(&bytes);
        if !text.trim().is_empty() {
            records.push(Record::parse(&text).map_err(|found| TrainError::Line {
                path: path.to_path_buf(),
                line,
                found,
                expected: "a JSON object with a `step`".into(),
            })?);
        }
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn path() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        (dir, path)
    }

    #[test]
    fn lines_are_there_as_soon_as_written() {
        let (_dir, path) = path();
        let mut recorder = Recorder::create(&path).unwrap();
        recorder
            .write(&Record::new(1).with("a", "b").with("loss", 0.5))
            .unwrap();
        recorder
            .write(&Record::new(2).with("loss", f64::NAN))
            .unwrap();
        recorder.write(&Record::new(3)).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(
            text,
            "{\"step\":1,\"a\":\"b\",\"loss\":0.5}\n{\"step\":2,\"loss\":null}\n{\"step\":3}\n"
        );
        let records = read_records(&path).unwrap();
        assert_eq!(records[0].number("loss"), Some(0.5));
        assert_eq!(records[1].number("loss"), None);
    }

    #[test]
    fn a_resumed_run_forgets_what_it_will_do_again() {
        let (_dir, path) = path();
        let mut recorder = Recorder::create(&path).unwrap();
        for step in 1..=10 {
            recorder.write(&Record::new(step)).unwrap();
        }
        // The run was stopped in the middle of a line.
        let mut text = fs::read_to_string(&path).unwrap();
        text.push_str("{\"step\":11,\"lo");
        fs::write(&path, text).unwrap();
        let mut recorder = Recorder::resume(&path, 6).unwrap();
        recorder.write(&Record::new(7).with("again", true)).unwrap();
        let steps: Vec<u64> = read_records(&path)
            .unwrap()
            .iter()
            .map(|r| r.step)
            .collect();
        assert_eq!(steps, [1, 2, 3, 4, 5, 6, 7]);
        assert!(Recorder::resume(path.with_file_name("new.jsonl"), 3).is_ok());
    }

    #[test]
    fn lines_that_are_no_records_are_named() {
        let (_dir, path) = path();
        fs::write(&path, "{\"step\":1}\n{\"loss\":2}\n").unwrap();
        let error = Recorder::resume(&path, 5).unwrap_err().to_string();
        assert!(error.contains(":2:") && error.contains("step"), "{error}");
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            "{\"step\":1}\n{\"loss\":2}\n"
        );
    }
}
