//! Embeddings of a corpus kept in a file beside it.
//!
//! The file is safetensors: one tensor `embeddings` [texts, dimension], and in its metadata a `key`
//! over all that the numbers depend on and a `sum` over the numbers. A file whose key or sum is not
//! the expected one is never used.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use bertha_tensor::{Checkpoint, Tensor, save_safetensors};
use ndarray::{Array2, Ix2};
use xxhash_rust::xxh3::Xxh3;

use crate::failure::{Failure, Result};
use crate::rows::TENSOR;

/// What cache files end in. Only such a file is replaced when it cannot be read.
const EXTENSION: &str = "bertha-cache";
/// Tells these files from other safetensors.
const MARK: (&str, &str) = ("bertha", "search cache 1");

/// A hash over parts, each told from the next.
#[derive(Clone, Default)]
pub struct Key(Xxh3);

impl Key {
    /// Adds a part.
    pub fn add(&mut self, part: &[u8]) {
        self.0.update(&(part.len() as u64).to_le_bytes());
        self.0.update(part);
    }

    /// Adds the files of a model folder that its embeddings can depend on: every configuration,
    /// vocabulary and weight, by content.
    pub fn add_model(&mut self, dir: &Path) -> Result<()> {
        for path in model_files(dir).map_err(|error| Failure::io(dir, "read", &error))? {
            let name = path.strip_prefix(dir).unwrap_or(&path);
            self.add(name.to_string_lossy().as_bytes());
            let size = self.add_file(&path);
            let size = size.map_err(|error| Failure::io(&path, "read", &error))?;
            self.0.update(&size.to_le_bytes());
        }
        Ok(())
    }

    fn add_file(&mut self, path: &Path) -> io::Result<u64> {
        let mut file = File::open(path)?;
        let mut buffer = vec![0; 1 << 20];
        let mut size = 0;
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(size),
                read => {
                    self.0.update(&buffer[..read]);
                    size += read as u64;
                }
            }
        }
    }

    fn hex(&self) -> String {
        format!("{:032x}", self.0.digest128())
    }
}

/// The files of a model folder and of its modules' folders, in order.
fn model_files(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![dir.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            // Follows links, which is how a hub's download cache keeps its files. One that leads nowhere
            // is no file of the model.
            let Ok(found) = fs::metadata(&path) else {
                continue;
            };
            let extension = path.extension().and_then(|extension| extension.to_str());
            if found.is_dir() && folder == dir {
                folders.push(path);
            } else if found.is_file() && matches!(extension, Some("json" | "txt" | "safetensors")) {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

/// Where the cache of a corpus is unless told otherwise.
pub fn beside(corpus: &Path) -> PathBuf {
    let mut name = corpus.as_os_str().to_owned();
    name.push(".");
    name.push(EXTENSION);
    name.into()
}

/// The embeddings `[rows, width]` that a file keeps under a key, if it does.
///
/// # Errors
/// When something else stands in the cache's place.
pub fn load(path: &Path, key: &Key, rows: usize, width: usize) -> Result<Option<Array2<f32>>> {
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Failure::io(path, "read the cache", &error)),
        Ok(found) if !found.is_file() => return Err(foreign(path)),
        Ok(_) => {}
    }
    let ours = path.extension().is_some_and(|name| name == EXTENSION);
    let problem = match Checkpoint::open(path) {
        Err(error) => error.to_string(),
        Ok(file) => {
            let metadata = |name| file.metadata().get(name).map(String::as_str);
            if metadata(MARK.0) != Some(MARK.1) {
                return match ours {
                    true => Ok(damaged(path, "it is no cache of this version")),
                    false => Err(foreign(path)),
                };
            }
            if metadata("key") != Some(&key.hex()) {
                tracing::info!(
                    "{}: the corpus, the model or an option is another: embedding anew",
                    path.display()
                );
                return Ok(None);
            }
            match read(&file, metadata("sum"), rows, width) {
                Ok(embeddings) => return Ok(Some(embeddings)),
                Err(problem) => problem,
            }
        }
    };
    match ours {
        true => Ok(damaged(path, &problem)),
        false => Err(foreign(path)),
    }
}

fn read(
    file: &Checkpoint,
    sum: Option<&str>,
    rows: usize,
    width: usize,
) -> std::result::Result<Array2<f32>, String> {
    let tensor = file.get(TENSOR).map_err(|error| error.to_string())?;
    if tensor.shape() != [rows, width] {
        let shape = tensor.shape();
        return Err(format!(
            "its shape is {shape:?}, expected {:?}",
            [rows, width]
        ));
    }
    // Copied first: what is checked is what is used, whatever becomes of the file.
    let array = tensor
        .to_ndarray::<f32>()
        .map_err(|error| error.to_string())?;
    let array = array.into_dimensionality::<Ix2>();
    let array = array.map_err(|error| error.to_string())?;
    match sum == Some(&sum_of(&array)) {
        true => Ok(array),
        false => Err("its numbers do not add up to its sum".into()),
    }
}

fn sum_of(array: &Array2<f32>) -> String {
    let mut key = Key::default();
    for row in array.rows() {
        let bytes: Vec<u8> = row.iter().flat_map(|value| value.to_le_bytes()).collect();
        key.0.update(&bytes);
    }
    key.hex()
}

fn damaged(path: &Path, problem: &str) -> Option<Array2<f32>> {
    tracing::warn!(
        "the cache is damaged and made anew: {}: {problem}",
        path.display()
    );
    None
}

fn foreign(path: &Path) -> Failure {
    Failure::new(format!(
        "{}: this is no cache of bertha, and is left alone: name another file with --cache=FILE, or remove it",
        path.display()
    ))
}

/// Keeps embeddings in a file. A search is not lost for a cache that cannot be written.
pub fn store(path: &Path, key: &Key, embeddings: &Array2<f32>) {
    let metadata = BTreeMap::from([
        (MARK.0.to_owned(), MARK.1.to_owned()),
        ("key".to_owned(), key.hex()),
        ("sum".to_owned(), sum_of(embeddings)),
    ]);
    let stored = Tensor::from_ndarray(embeddings.view())
        .map_err(Failure::from)
        .and_then(|tensor| {
            Ok(save_safetensors(
                path,
                &[(TENSOR, &tensor)],
                Some(&metadata),
            )?)
        });
    if let Err(Failure::Error(problem)) = stored {
        tracing::warn!("the embeddings are not cached: {problem}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(parts: &[&str]) -> Key {
        let mut key = Key::default();
        parts.iter().for_each(|part| key.add(part.as_bytes()));
        key
    }

    #[test]
    fn parts_are_told_apart() {
        assert_eq!(key(&["ab", "c"]).hex(), key(&["ab", "c"]).hex());
        assert_ne!(key(&["ab", "c"]).hex(), key(&["a", "bc"]).hex());
        assert_ne!(key(&["a"]).hex(), key(&["a", ""]).hex());
    }

    #[test]
    fn every_file_of_the_model_counts() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, content: &str| {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        };
        let hash = || {
            let mut key = Key::default();
            key.add_model(dir.path()).unwrap();
            key.hex()
        };
        write("config.json", "{}");
        write("1_Pooling/config.json", "{}");
        write("model.safetensors", "weights");
        let first = hash();
        assert_eq!(hash(), first);
        write("README.md", "not read by anything");
        assert_eq!(hash(), first);
        for name in ["1_Pooling/config.json", "model.safetensors", "vocab.txt"] {
            let before = hash();
            write(name, "other");
            assert_ne!(hash(), before, "{name}");
        }
    }

    #[test]
    fn what_was_stored_is_found_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("corpus.bertha-cache");
        let embeddings = Array2::from_shape_fn((3, 4), |(i, j)| i as f32 - j as f32 / 3.0);
        let found = |parts: &[&str]| load(&path, &key(parts), 3, 4).unwrap();
        assert_eq!(found(&["a"]), None);
        store(&path, &key(&["a"]), &embeddings);
        assert_eq!(found(&["a"]), Some(embeddings.clone()));
        assert_eq!(found(&["b"]), None);
        assert_eq!(load(&path, &key(&["a"]), 4, 3).unwrap(), None);

        let whole = fs::read(&path).unwrap();
        for at in [0, 20, whole.len() - 1] {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            fs::write(&path, bytes).unwrap();
            assert_eq!(found(&["a"]), None, "byte {at}");
        }
        fs::write(&path, &whole[..whole.len() - 4]).unwrap();
        assert_eq!(found(&["a"]), None);
    }

    #[test]
    fn what_is_no_cache_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notes.txt");
        fs::write(&path, "somebody's notes").unwrap();
        assert!(load(&path, &key(&["a"]), 1, 1).is_err());
        let tensor = Tensor::zeros(bertha_tensor::DType::F32, &[2]).unwrap();
        save_safetensors(&path, &[("weight", &tensor)], None).unwrap();
        assert!(load(&path, &key(&["a"]), 1, 1).is_err());
        assert!(load(dir.path(), &key(&["a"]), 1, 1).is_err());
    }
}
