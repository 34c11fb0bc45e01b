//! JSON files read key by key, with errors that name file, key, what was found and what was expected.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::TaskError;

/// A JSON object and the file it came from. A key that is null counts as absent.
#[derive(Clone, Debug)]
pub(crate) struct JsonObject {
    file: PathBuf,
    keys: Map<String, Value>,
}

impl JsonObject {
    /// Reads a file; none if there is none.
    pub(crate) fn read_if_present(file: PathBuf) -> Result<Option<Self>, TaskError> {
        Ok(match read_value(&file)? {
            None => None,
            Some(Value::Object(keys)) => Some(Self { file, keys }),
            Some(other) => return Err(not_json(file, "object", format!("found {}", kind(&other)))),
        })
    }

    /// Reads a file; an object without keys if there is none.
    pub(crate) fn read_or_empty(file: PathBuf) -> Result<Self, TaskError> {
        let keys = Map::new();
        Ok(Self::read_if_present(file.clone())?.unwrap_or(Self { file, keys }))
    }

    /// An object that stood inside another file, such as an item of a list.
    pub(crate) fn inside(file: &Path, keys: Map<String, Value>) -> Self {
        let file = file.to_path_buf();
        Self { file, keys }
    }

    pub(crate) fn file(&self) -> &Path {
        &self.file
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Value> {
        self.keys.get(key).filter(|value| !value.is_null())
    }

    pub(crate) fn contains(&self, key: &str) -> bool {
        self.keys.contains_key(key)
    }

    pub(crate) fn text(&self, key: &str) -> Result<Option<&str>, TaskError> {
        let read = |value: &'_ Value| value.as_str().is_some();
        match self.get(key) {
            Some(value) if !read(value) => Err(self.error(key, "a string")),
            value => Ok(value.and_then(Value::as_str)),
        }
    }

    pub(crate) fn flag(&self, key: &str) -> Result<Option<bool>, TaskError> {
        match self.get(key).map(Value::as_bool) {
            Some(None) => Err(self.error(key, "true or false")),
            flag => Ok(flag.flatten()),
        }
    }

    /// A whole number from 1 up.
    pub(crate) fn size(&self, key: &str) -> Result<Option<usize>, TaskError> {
        const MOST: u64 = 1 << 24;
        match self.get(key).map(Value::as_u64) {
            None => Ok(None),
            Some(Some(size @ 1..=MOST)) => Ok(Some(size as usize)),
            Some(_) => Err(self.error(key, format!("a whole number from 1 to {MOST}"))),
        }
    }

    /// The error that says what `key` holds and what it should.
    pub(crate) fn error(&self, key: &str, expected: impl Into<String>) -> TaskError {
        let mut found = match self.keys.get(key) {
            None => "missing".to_owned(),
            Some(value) => value.to_string(),
        };
        if found.chars().count() > 200 {
            found = found.chars().take(200).chain(['…']).collect();
        }
        TaskError::Key {
            file: self.file.clone(),
            key: key.to_owned(),
            found,
            expected: expected.into(),
        }
    }
}

/// Reads a file that holds a JSON list; none if there is none.
pub(crate) fn read_list_if_present(file: &Path) -> Result<Option<Vec<Value>>, TaskError> {
    Ok(match read_value(file)? {
        None => None,
        Some(Value::Array(items)) => Some(items),
        Some(other) => {
            let reason = format!("found {}", kind(&other));
            return Err(not_json(file.to_path_buf(), "list", reason));
        }
    })
}

fn read_value(file: &Path) -> Result<Option<Value>, TaskError> {
    let bytes = match std::fs::read(file) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            let file = file.to_path_buf();
            return Err(TaskError::Read { file, source });
        }
    };
    match serde_json::from_slice(&bytes) {
        Ok(value) => Ok(Some(value)),
        Err(error) => Err(not_json(file.to_path_buf(), "file", error.to_string())),
    }
}

fn not_json(file: PathBuf, expected: &'static str, reason: String) -> TaskError {
    TaskError::NotJson {
        file,
        expected,
        reason,
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
