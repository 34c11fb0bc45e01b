//! The header of a safetensors file, parsed and checked before any tensor is touched.
//!
//! Layout of the file: 8 bytes little-endian `n`; `n` bytes of JSON, `{"name": {"dtype": "F32", "shape": [2, 3],
//! "data_offsets": [0, 24]}, ..., "__metadata__": {"key": "value"}}`; then the data, to which the offsets are relative
//! and which the tensors must tile without holes or overlap.
//! <https://github.com/huggingface/safetensors#format>
//!
//! Parsed here and not by the `safetensors` crate, whose errors do not say which tensor is wrong and which accepts a
//! name that occurs twice; the tests hold both parsers to the same verdicts.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;
use std::path::Path;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::{Map, Value};

use crate::shape::checked_numel;
use crate::{DType, FileError};

/// Bytes of the length before the header.
pub(crate) const LENGTH_BYTES: usize = 8;
/// The key of the free-form strings.
pub(crate) const METADATA_KEY: &str = "__metadata__";
/// The limit of the reference implementation.
const MAX_HEADER: usize = 100_000_000;

const DAMAGED: &str = "the file is damaged or incomplete: fetch it again";
const NOT_SAFETENSORS: &str = "this is no safetensors file, or a damaged one: fetch it again";

/// One tensor of a file.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) dtype: DType,
    pub(crate) shape: Vec<usize>,
    /// Byte range within the whole file.
    pub(crate) range: Range<usize>,
}

/// What a header says.
#[derive(Debug, Default)]
pub(crate) struct Header {
    pub(crate) entries: BTreeMap<String, Entry>,
    pub(crate) metadata: BTreeMap<String, String>,
}

/// A JSON object as it stands, keys in file order, so that a repeated one is seen.
pub(crate) struct Pairs<V>(pub(crate) Vec<(String, V)>);

impl<'de, V: Deserialize<'de>> Deserialize<'de> for Pairs<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<V>(PhantomData<V>);
        impl<'de, V: Deserialize<'de>> Visitor<'de> for Entries<V> {
            type Value = Pairs<V>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with the names of tensors")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs<V>, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Pairs(entries))
            }
        }
        deserializer.deserialize_map(Entries(PhantomData))
    }
}

/// What the header has under a name.
#[derive(Deserialize)]
#[serde(untagged)]
enum Raw {
    Object(Pairs<Value>),
    Other(Value),
}

impl Raw {
    /// The value, or the key that an object has twice.
    fn unique(self) -> Result<Value, String> {
        let pairs = match self {
            Raw::Object(Pairs(pairs)) => pairs,
            Raw::Other(value) => return Ok(value),
        };
        let mut map = Map::new();
        for (key, value) in pairs {
            if map.contains_key(&key) {
                return Err(key);
            }
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

/// Parses and checks the header of the file at `path` (named in errors only) whose bytes are `file`.
pub(crate) fn parse(path: &Path, file: &[u8]) -> Result<Header, FileError> {
    let malformed = |problem: String, remedy: &'static str| FileError::Malformed {
        path: path.to_path_buf(),
        problem,
        remedy,
    };

    let Some((length, rest)) = file.split_first_chunk::<LENGTH_BYTES>() else {
        return Err(malformed(
            format!(
                "the file has {} bytes, but the length of its header alone takes {LENGTH_BYTES}",
                file.len()
            ),
            DAMAGED,
        ));
    };
    let length = u64::from_le_bytes(*length);
    let header_len = match usize::try_from(length) {
        Ok(len) if len <= MAX_HEADER => len,
        _ => {
            return Err(malformed(
                format!("the header claims {length} bytes, more than the limit of {MAX_HEADER}"),
                NOT_SAFETENSORS,
            ));
        }
    };
    let Some((json, data)) = rest.split_at_checked(header_len) else {
        return Err(malformed(
            format!(
                "the header claims {header_len} bytes, but only {} follow",
                rest.len()
            ),
            DAMAGED,
        ));
    };
    let Pairs(raw): Pairs<Raw> = serde_json::from_slice(json).map_err(|error| {
        malformed(
            format!("the header is no JSON object of tensors: {error}"),
            NOT_SAFETENSORS,
        )
    })?;

    let mut header = Header::default();
    let mut seen_metadata = false;
    for (name, raw) in raw {
        let value = raw.unique().map_err(|key| FileError::MalformedTensor {
            path: path.to_path_buf(),
            tensor: name.clone(),
            problem: format!("the header lists its `{key}` twice"),
            remedy: DAMAGED,
        })?;
        if name == METADATA_KEY {
            if std::mem::replace(&mut seen_metadata, true) {
                return Err(malformed(
                    format!("the header has `{METADATA_KEY}` twice"),
                    DAMAGED,
                ));
            }
            header.metadata = metadata(value).map_err(|problem| malformed(problem, DAMAGED))?;
            continue;
        }
        let entry = entry(path, &name, &value)?;
        if header.entries.contains_key(&name) {
            return Err(FileError::MalformedTensor {
                path: path.to_path_buf(),
                tensor: name,
                problem: "the header lists it twice".into(),
                remedy: DAMAGED,
            });
        }
        header.entries.insert(name, entry);
    }
    check_tiling(path, &header.entries, data.len())?;

    // Offsets are relative to the data; from here on they count from the start of the file.
    let data_start = LENGTH_BYTES + header_len;
    for entry in header.entries.values_mut() {
        entry.range = entry.range.start + data_start..entry.range.end + data_start;
    }
    Ok(header)
}

fn metadata(value: Value) -> Result<BTreeMap<String, String>, String> {
    let map = match value {
        Value::Null => return Ok(BTreeMap::new()),
        Value::Object(map) => map,
        other => {
            return Err(format!(
                "`{METADATA_KEY}` is {}, expected an object of strings",
                shown(&other)
            ));
        }
    };
    map.into_iter()
        .map(|(key, value)| match value {
            Value::String(text) => Ok((key, text)),
            other => Err(format!(
                "`{METADATA_KEY}` key `{key}` is {}, expected a string",
                shown(&other)
            )),
        })
        .collect()
}

/// A value for an error message, cut where it would fill the screen.
pub(crate) fn shown(value: &Value) -> String {
    const MOST: usize = 80;
    let mut text = value.to_string();
    if let Some((cut, _)) = text.char_indices().nth(MOST) {
        text.truncate(cut);
        text.push_str("...");
    }
    text
}

/// One value of the header; the range is still relative to the data.
fn entry(path: &Path, name: &str, value: &Value) -> Result<Entry, FileError> {
    let malformed = |problem: String| FileError::MalformedTensor {
        path: path.to_path_buf(),
        tensor: name.to_string(),
        problem,
        remedy: DAMAGED,
    };
    let sizes = |key: &str| -> Result<Vec<usize>, FileError> {
        let wrong = || match value.get(key) {
            Some(found) => malformed(format!(
                "`{key}` is {}, expected an array of non-negative integers",
                shown(found)
            )),
            None => malformed(format!("`{key}` is missing")),
        };
        let array = value.get(key).and_then(Value::as_array).ok_or_else(wrong)?;
        array
            .iter()
            .map(|n| {
                n.as_u64()
                    .and_then(|n| usize::try_from(n).ok())
                    .ok_or_else(wrong)
            })
            .collect()
    };

    let dtype_name = match value.get("dtype") {
        Some(Value::String(name)) => name,
        Some(found) => {
            let found = shown(found);
            return Err(malformed(format!("`dtype` is {found}, expected a string")));
        }
        None => return Err(malformed("`dtype` is missing".into())),
    };
    let dtype =
        DType::from_safetensors_name(dtype_name).ok_or_else(|| FileError::UnsupportedDType {
            path: path.to_path_buf(),
            tensor: name.to_string(),
            found: dtype_name.clone(),
        })?;
    let shape = sizes("shape")?;
    let [start, end] = sizes("data_offsets")?[..] else {
        return Err(malformed(format!(
            "`data_offsets` is {}, expected two integers",
            shown(&value["data_offsets"])
        )));
    };
    let expected =
        checked_numel(&shape, dtype).map_err(|error| malformed(error.to_string()))? * dtype.size();
    if end.checked_sub(start) != Some(expected) {
        return Err(malformed(format!(
            "shape {shape:?} of {dtype_name} needs {expected} bytes, but `data_offsets` is [{start}, {end}]"
        )));
    }
    Ok(Entry {
        dtype,
        shape,
        range: start..end,
    })
}

/// The tensors must cover the data from its first to its last byte, each byte once.
fn check_tiling(
    path: &Path,
    entries: &BTreeMap<String, Entry>,
    data_len: usize,
) -> Result<(), FileError> {
    let malformed = |tensor: &str, problem: String| FileError::MalformedTensor {
        path: path.to_path_buf(),
        tensor: tensor.to_string(),
        problem,
        remedy: DAMAGED,
    };
    let mut in_order: Vec<(&String, &Entry)> = entries.iter().collect();
    in_order.sort_by_key(|(_, entry)| (entry.range.start, entry.range.end));
    let (mut covered, mut previous) = (0, "");
    for (name, entry) in in_order {
        let Range { start, end } = entry.range;
        if end > data_len {
            let problem = format!(
                "its data ends at byte {end}, but the file has only {data_len} bytes of data"
            );
            return Err(malformed(name, problem));
        }
        if start < covered {
            let problem = format!(
                "its data starts at byte {start}, inside tensor `{previous}`, which ends at {covered}"
            );
            return Err(malformed(name, problem));
        }
        if start > covered {
            let problem = format!(
                "its data starts at byte {start}, but bytes from {covered} on belong to no tensor"
            );
            return Err(malformed(name, problem));
        }
        (covered, previous) = (end, name);
    }
    if covered < data_len {
        return Err(FileError::Malformed {
            path: path.to_path_buf(),
            problem: format!(
                "the tensors cover {covered} bytes, but the file has {data_len} bytes of data"
            ),
            remedy: DAMAGED,
        });
    }
    Ok(())
}
