//! Writes safetensors files. The format is described in the reader's module, `header`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::header::METADATA_KEY;
use crate::{AtomicFile, FileError, Tensor};

/// Writes named tensors of any layout to a safetensors file, which appears under its name only when complete.
///
/// The same input gives the same bytes: tensors are ordered by falling element size, then by name, which keeps every
/// one aligned to its elements. `metadata` is stored as `__metadata__`, with `"format": "pt"` (without which
/// `transformers` refuses a file) unless it has a `format` itself.
///
/// # Errors
/// [`FileError`] if a name occurs twice or is `__metadata__`, or the file cannot be written; the target is then as it
/// was before.
pub fn save_safetensors<N: AsRef<str>>(
    path: impl AsRef<Path>,
    tensors: &[(N, &Tensor)],
    metadata: Option<&BTreeMap<String, String>>,
) -> Result<(), FileError> {
    let path = path.as_ref();
    let mut names = BTreeSet::new();
    for name in tensors.iter().map(|(name, _)| name.as_ref()) {
        if name == METADATA_KEY || !names.insert(name) {
            return Err(FileError::MalformedTensor {
                path: path.to_path_buf(),
                tensor: name.to_string(),
                problem: "the name is given twice or is reserved".into(),
                remedy: "give every tensor a name of its own",
            });
        }
    }
    let mut ordered: Vec<(&str, &Tensor)> = tensors
        .iter()
        .map(|(name, tensor)| (name.as_ref(), *tensor))
        .collect();
    ordered.sort_by_key(|&(name, tensor)| (std::cmp::Reverse(tensor.dtype().size()), name));

    let mut file = AtomicFile::create(path)?;
    let header = header(&ordered, metadata);
    let write = |file: &mut AtomicFile, bytes: &[u8]| {
        file.write_all(bytes).map_err(FileError::io(path, "write"))
    };
    write(&mut file, &(header.len() as u64).to_le_bytes())?;
    write(&mut file, &header)?;
    for (name, tensor) in ordered {
        let row_major = tensor.contiguous();
        let bytes = row_major.as_bytes().map_err(|source| FileError::Tensor {
            path: path.to_path_buf(),
            tensor: name.to_string(),
            source,
        })?;
        write(&mut file, bytes)?;
    }
    file.commit()
}

/// The JSON header, padded with spaces to a multiple of 8 so that the data starts aligned.
fn header(ordered: &[(&str, &Tensor)], metadata: Option<&BTreeMap<String, String>>) -> Vec<u8> {
    let mut strings: Map<String, Value> = Map::new();
    strings.insert("format".into(), "pt".into());
    for (key, value) in metadata.into_iter().flatten() {
        strings.insert(key.clone(), value.as_str().into());
    }
    let mut entries = Map::new();
    entries.insert(METADATA_KEY.into(), strings.into());
    let mut start = 0;
    for (name, tensor) in ordered {
        let end = start + tensor.size_in_bytes();
        let entry = json!({
            "dtype": tensor.dtype().safetensors_name(),
            "shape": tensor.shape(),
            "data_offsets": [start, end],
        });
        entries.insert((*name).to_string(), entry);
        start = end;
    }
    let mut bytes = Value::Object(entries).to_string().into_bytes();
    bytes.resize(bytes.len().next_multiple_of(8), b' ');
    bytes
}
