//! Weights by name from safetensors: one file, or shards with their index. Mapped, not read.
//!
//! A folder is `model.safetensors`, or else `model.safetensors.index.json`
//! (`{"metadata": {...}, "weight_map": {"tensor": "model-00001-of-00002.safetensors", ...}}`) and the shards it names,
//! as `transformers` writes them. Everything is checked when it is opened; no tensor data is touched before it is used.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

use crate::header::{self, Entry, Header, Pairs, shown};
use crate::map::MappedFile;
use crate::storage::Mapped;
use crate::{Buffer, DType, FileError, Tensor};

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
const PICKLES: [&str; 2] = ["pytorch_model.bin", "pytorch_model.bin.index.json"];

/// Named tensors of a safetensors file or of a folder of shards.
///
/// Cloning is cheap. Tensors keep their file mapped, so they may outlive the checkpoint.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// The file, or the folder of the shards: what errors name.
    path: PathBuf,
    files: Vec<WeightFile>,
    /// For each tensor the index of its file; none where it is in memory.
    names: BTreeMap<String, Option<usize>>,
    memory: BTreeMap<String, Tensor>,
    metadata: BTreeMap<String, String>,
}

#[derive(Debug)]
struct WeightFile {
    path: PathBuf,
    map: Arc<MappedFile>,
    entries: BTreeMap<String, Entry>,
    metadata: BTreeMap<String, String>,
}

/// Dtype and shape of a tensor in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// The element type.
    pub dtype: DType,
    /// Size of each dimension.
    pub shape: Vec<usize>,
}

impl WeightFile {
    fn open(path: &Path) -> Result<WeightFile, FileError> {
        let is_file = fs::metadata(path)
            .map_err(FileError::io(path, "open the weights"))?
            .is_file();
        if !is_file {
            return Err(FileError::Malformed {
                path: path.to_path_buf(),
                problem: "this is not a regular file, expected a safetensors file".into(),
                remedy: "name the weights' file or the model's folder",
            });
        }
        let map =
            MappedFile::open(path).map_err(FileError::io(path, "map the weights into memory"))?;
        let Header { entries, metadata } = header::parse(path, map.bytes())?;
        Ok(WeightFile {
            path: path.to_path_buf(),
            map: Arc::new(map),
            entries,
            metadata,
        })
    }

    fn tensor(&self, entry: &Entry) -> Tensor {
        let range = entry.range.clone();
        if entry.dtype == DType::Bool {
            // A file may hold any byte; a bool may not. Nonzero is true, as for a cast from u8.
            let mut buffer = Buffer::zeroed(range.len());
            for (to, &from) in buffer
                .as_bytes_mut()
                .iter_mut()
                .zip(&self.map.bytes()[range])
            {
                *to = u8::from(from != 0);
            }
            return Tensor::from_buffer(buffer, DType::Bool, &entry.shape)
                .expect("the header's check made sure that the size fits the shape");
        }
        Tensor::from_mapped(
            Mapped::new(Arc::clone(&self.map), range),
            entry.dtype,
            &entry.shape,
        )
    }
}

impl Checkpoint {
    /// Opens a safetensors file, an index file (`*.index.json`) with its shards, or a folder as
    /// [`open_dir`](Self::open_dir) does.
    ///
    /// # Errors
    /// [`FileError`] naming file and tensor for whatever is missing or malformed.
    pub fn open(path: impl AsRef<Path>) -> Result<Checkpoint, FileError> {
        let path = path.as_ref();
        if path.is_dir() {
            return Checkpoint::open_dir(path);
        }
        if path.to_string_lossy().ends_with(".index.json") {
            return Checkpoint::open_index(path);
        }
        let file = WeightFile::open(path)?;
        let names = file
            .entries
            .keys()
            .map(|name| (name.clone(), Some(0)))
            .collect();
        let metadata = file.metadata.clone();
        Ok(Checkpoint {
            inner: Arc::new(Inner {
                path: path.to_path_buf(),
                files: vec![file],
                names,
                memory: BTreeMap::new(),
                metadata,
            }),
        })
    }

    /// Opens the weights of a model folder: `model.safetensors`, or else `model.safetensors.index.json` and its shards.
    ///
    /// # Errors
    /// [`FileError::PickleOnly`] if there is only `pytorch_model.bin`, [`FileError::NoWeights`] if there is nothing,
    /// and whatever [`open`](Self::open) can find wrong.
    pub fn open_dir(dir: impl AsRef<Path>) -> Result<Checkpoint, FileError> {
        let dir = dir.as_ref();
        // A folder that is missing or not readable is another error than one without weights.
        fs::read_dir(dir).map_err(FileError::io(dir, "open the model folder"))?;
        let single = dir.join(SINGLE);
        if single.exists() {
            return Checkpoint::open(single);
        }
        let index = dir.join(INDEX);
        if index.exists() {
            return Checkpoint::open_index(&index);
        }
        match PICKLES.iter().find(|name| dir.join(name).exists()) {
            Some(found) => Err(FileError::PickleOnly {
                path: dir.to_path_buf(),
                found: (*found).to_string(),
            }),
            None => Err(FileError::NoWeights {
                path: dir.to_path_buf(),
            }),
        }
    }

    /// Tensors in memory under the name of what they were made from, which errors give.
    pub fn from_tensors(
        path: impl Into<PathBuf>,
        tensors: BTreeMap<String, Tensor>,
        metadata: BTreeMap<String, String>,
    ) -> Checkpoint {
        let names = tensors.keys().map(|name| (name.clone(), None)).collect();
        Checkpoint {
            inner: Arc::new(Inner {
                path: path.into(),
                files: Vec::new(),
                names,
                memory: tensors,
                metadata,
            }),
        }
    }

    fn open_index(index: &Path) -> Result<Checkpoint, FileError> {
        let dir = index.parent().unwrap_or(Path::new(""));
        let (shards, metadata) = read_index(index)?;
        let mut files = Vec::with_capacity(shards.len());
        let mut names = BTreeMap::new();
        for (shard, tensors) in shards {
            let path = dir.join(&shard);
            if !path.exists() {
                let mut tensors = tensors.into_iter();
                let tensor = tensors.next().unwrap_or_default();
                return Err(FileError::MissingShard {
                    index: index.to_path_buf(),
                    shard,
                    tensor,
                    others: tensors.len(),
                });
            }
            let file = WeightFile::open(&path)?;
            for name in tensors {
                if !file.entries.contains_key(&name) {
                    return Err(FileError::MalformedTensor {
                        path: index.to_path_buf(),
                        tensor: name,
                        problem: format!(
                            "the index says that it is in `{shard}`, but that file does not have it"
                        ),
                        remedy: "index and shards are not of one model, or damaged: fetch them again",
                    });
                }
                names.insert(name, Some(files.len()));
            }
            files.push(file);
        }
        Ok(Checkpoint {
            inner: Arc::new(Inner {
                path: dir.to_path_buf(),
                files,
                names,
                memory: BTreeMap::new(),
                metadata,
            }),
        })
    }

    /// The file, or the folder of the shards.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// All names, sorted.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.inner.names.keys().map(String::as_str)
    }

    /// Number of tensors.
    pub fn len(&self) -> usize {
        self.inner.names.len()
    }

    /// Whether there are no tensors.
    pub fn is_empty(&self) -> bool {
        self.inner.names.is_empty()
    }

    /// Whether there is a tensor of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.inner.names.contains_key(name)
    }

    fn find(&self, name: &str) -> Option<(&WeightFile, &Entry)> {
        let file = &self.inner.files[(*self.inner.names.get(name)?)?];
        Some((file, file.entries.get(name)?))
    }

    /// The tensor of this name, mapped: no data is read before it is used. (A `BOOL` tensor is copied, since a file may
    /// hold bytes that are no `bool`: nonzero is true.)
    ///
    /// # Errors
    /// [`FileError::NoTensor`] if there is none.
    pub fn get(&self, name: &str) -> Result<Tensor, FileError> {
        if let Some(tensor) = self.inner.memory.get(name) {
            return Ok(tensor.clone());
        }
        let (file, entry) = self.find(name).ok_or_else(|| self.no_tensor(name))?;
        Ok(file.tensor(entry))
    }

    /// Dtype and shape of a tensor.
    ///
    /// # Errors
    /// [`FileError::NoTensor`] if there is none of this name.
    pub fn info(&self, name: &str) -> Result<TensorInfo, FileError> {
        if let Some(tensor) = self.inner.memory.get(name) {
            return Ok(TensorInfo {
                dtype: tensor.dtype(),
                shape: tensor.shape().to_vec(),
            });
        }
        let (_, entry) = self.find(name).ok_or_else(|| self.no_tensor(name))?;
        Ok(TensorInfo {
            dtype: entry.dtype,
            shape: entry.shape.clone(),
        })
    }

    /// The file that holds a tensor.
    pub fn file_of(&self, name: &str) -> Option<&Path> {
        self.find(name).map(|(file, _)| file.path.as_path())
    }

    /// The strings of `__metadata__`: of the file, or of the index (its numbers as text).
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.inner.metadata
    }

    /// Bytes of all tensors together.
    pub fn total_bytes(&self) -> usize {
        let of_files = self
            .names()
            .filter_map(|name| self.find(name))
            .map(|(_, entry)| entry.range.len());
        let of_memory = self.inner.memory.values().map(Tensor::size_in_bytes);
        of_files.chain(of_memory).sum()
    }

    /// Lets the pages of one tensor leave memory, for use once it is packed. They are read from the file again when
    /// touched again. Nothing happens for an unknown name.
    pub fn release_pages(&self, name: &str) {
        if let Some((file, entry)) = self.find(name) {
            file.map.release(entry.range.clone());
        }
    }

    /// Lets the pages of all tensors leave memory, as [`release_pages`](Self::release_pages).
    pub fn release_all_pages(&self) {
        for file in &self.inner.files {
            file.map.release(0..file.map.bytes().len());
        }
    }

    fn no_tensor(&self, name: &str) -> FileError {
        FileError::NoTensor {
            path: self.inner.path.clone(),
            tensor: name.to_string(),
            count: self.len(),
            similar: similar(name, self.names()),
        }
    }
}

/// Up to three names that end as `name` does, in at least its last part; those that share the most parts first.
fn similar<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let shared = |other: &str| {
        name.rsplit('.')
            .zip(other.rsplit('.'))
            .take_while(|(a, b)| a == b)
            .count()
    };
    let least = 2.min(name.split('.').count());
    let mut close: Vec<(usize, &str)> = names
        .map(|other| (shared(other), other))
        .filter(|(n, _)| *n >= least)
        .collect();
    close.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(b.1)));
    close
        .into_iter()
        .take(3)
        .map(|(_, other)| other.to_string())
        .collect()
}

/// An index: for each shard its tensors, and the metadata.
type Index = (BTreeMap<String, Vec<String>>, BTreeMap<String, String>);

#[derive(Deserialize)]
struct IndexFile {
    weight_map: Pairs<Value>,
    #[serde(default)]
    metadata: Value,
}

fn read_index(path: &Path) -> Result<Index, FileError> {
    let malformed = |problem: String| FileError::Malformed {
        path: path.to_path_buf(),
        problem,
        remedy: "the index is damaged: fetch it again",
    };
    let text = fs::read(path).map_err(FileError::io(path, "read the index"))?;
    let index: IndexFile = serde_json::from_slice(&text)
        .map_err(|error| malformed(format!("this is no index of tensors: {error}")))?;
    let Pairs(weight_map) = index.weight_map;
    if weight_map.is_empty() {
        return Err(malformed("`weight_map` names no tensor".into()));
    }
    let mut seen = BTreeSet::new();
    let mut shards: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (tensor, shard) in weight_map {
        let Value::String(shard) = shard else {
            return Err(malformed(format!(
                "`weight_map` key `{tensor}` is {}, expected a file name",
                shown(&shard)
            )));
        };
        if !stays_inside(&shard) {
            return Err(FileError::ShardOutside {
                index: path.to_path_buf(),
                tensor,
                shard,
            });
        }
        if !seen.insert(tensor.clone()) {
            return Err(malformed(format!("`weight_map` lists `{tensor}` twice")));
        }
        shards.entry(shard).or_default().push(tensor);
    }
    let mut metadata = BTreeMap::new();
    if let Value::Object(map) = index.metadata {
        for (key, value) in map {
            let text = match value {
                Value::String(text) => text,
                other => other.to_string(),
            };
            metadata.insert(key, text);
        }
    }
    Ok((shards, metadata))
}

/// Whether a file name of an index can only mean a file below the index's folder, on any system.
fn stays_inside(name: &str) -> bool {
    let mut parts = Path::new(name).components().peekable();
    parts.peek().is_some()
        && parts.all(|part| matches!(part, Component::Normal(_)))
        && !name.contains(['\\', ':', '\0'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_below_the_folder_stay_inside() {
        for inside in [
            "model-00001-of-00002.safetensors",
            "part/one.safetensors",
            "..model",
            "a..b",
        ] {
            assert!(stays_inside(inside), "{inside}");
        }
        for outside in [
            "../x",
            "a/../../x",
            "/etc/x",
            "",
            ".",
            "./..",
            "C:\\x",
            "..\\x",
            "a\0b",
        ] {
            assert!(!stays_inside(outside), "{outside:?}");
        }
    }

    #[test]
    fn similar_names_share_the_longest_end() {
        let names = [
            "bert.encoder.weight",
            "encoder.bias",
            "x.encoder.weight",
            "pooler.weight",
        ];
        assert_eq!(
            similar("encoder.weight", names.into_iter()),
            ["bert.encoder.weight", "x.encoder.weight"]
        );
        assert!(similar("nothing.alike", names.into_iter()).is_empty());
    }
}
