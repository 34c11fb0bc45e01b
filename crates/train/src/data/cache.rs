//! Tokenized data kept on disk, so that a second run starts at once.
//!
//! A cache file is a safetensors file named by its key; its metadata holds the key and a checksum of all
//! tensors. It is written beside and renamed, read by mapping, and made again when anything about it is
//! wrong. Nothing in it depends on the machine's threads.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use bertha_tensor::{Checkpoint, Tensor, save_safetensors};
use xxhash_rust::xxh3::Xxh3;

use crate::TrainError;

/// Goes into every key: another number makes all caches anew.
const VERSION: u32 = 1;

/// What can be kept in a cache: it is made of named tensors.
pub trait Cacheable: Sized {
    /// What it is, in the file's metadata.
    const KIND: &'static str;

    /// Its tensors.
    fn tensors(&self) -> Vec<(&'static str, Tensor)>;

    /// Makes it of its tensors, which may be anybody's.
    ///
    /// # Errors
    /// When a tensor is missing or does not fit the others.
    fn from_tensors(get: &dyn Fn(&str) -> Option<Tensor>) -> Result<Self, TrainError>;
}

/// What cached data depends on: a hash (XXH3, 128 bits) of everything that went into it.
pub struct CacheKey {
    hash: Xxh3,
}

impl Default for CacheKey {
    fn default() -> Self {
        Self::new()
    }
}

impl CacheKey {
    /// A key of nothing yet.
    pub fn new() -> Self {
        let mut hash = Xxh3::new();
        hash.update(&VERSION.to_le_bytes());
        Self { hash }
    }

    /// Takes a file's contents in.
    ///
    /// # Errors
    /// [`TrainError::Io`] when it cannot be read.
    pub fn file(self, path: impl AsRef<Path>) -> Result<Self, TrainError> {
        let path = path.as_ref();
        let bytes = fs::read(path).map_err(TrainError::io(path, "read the file"))?;
        Ok(self.bytes(&bytes))
    }

    /// Takes the files of a model folder in that make its tokenizer.
    ///
    /// # Errors
    /// [`TrainError::Io`] when one is there and cannot be read.
    pub fn tokenizer_dir(mut self, dir: impl AsRef<Path>) -> Result<Self, TrainError> {
        for name in bertha_tokenizer::TOKENIZER_FILES {
            let path = dir.as_ref().join(name);
            self = match path.is_file() {
                true => self.setting(name, true).file(&path)?,
                false => self.setting(name, false),
            };
        }
        Ok(self)
    }

    /// Takes a setting in, by its name and its `Debug` text.
    #[must_use]
    pub fn setting(self, name: &str, value: impl std::fmt::Debug) -> Self {
        self.bytes(name.as_bytes())
            .bytes(format!("{value:?}").as_bytes())
    }

    /// Takes bytes in; their number too, so that neighbours cannot run together.
    #[must_use]
    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        self.hash.update(&(bytes.len() as u64).to_le_bytes());
        self.hash.update(bytes);
        self
    }

    /// The key as 32 hexadecimal digits.
    pub fn hex(&self) -> String {
        format!("{:032x}", self.hash.digest128())
    }
}

impl std::fmt::Debug for CacheKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CacheKey({})", self.hex())
    }
}

/// How [`Cache::get_or_make`] came by its data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It was in the cache.
    Cached,
    /// It was made: the cache did not have it.
    Made,
    /// It was made again: the cache's file was damaged, and how.
    Remade(String),
}

/// A folder of cached data.
#[derive(Clone, Debug)]
pub struct Cache {
    folder: PathBuf,
}

impl Cache {
    /// A cache in a folder, which is made when something is put there.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
        }
    }

    /// The file of a key.
    pub fn path(&self, key: &CacheKey) -> PathBuf {
        self.folder.join(format!("{}.safetensors", key.hex()))
    }

    /// The data of a key: from the cache, or made and put there. A cache that cannot be written costs
    /// time only, and is logged.
    ///
    /// # Errors
    /// What `make` fails with.
    pub fn get_or_make<T: Cacheable>(
        &self,
        key: &CacheKey,
        make: impl FnOnce() -> Result<T, TrainError>,
    ) -> Result<(T, Origin), TrainError> {
        let path = self.path(key);
        let origin = match path.exists() {
            false => Origin::Made,
            true => match read::<T>(&path, &key.hex()) {
                Ok(data) => return Ok((data, Origin::Cached)),
                Err(problem) => {
                    tracing::warn!("{}: {problem}; the data is tokenized again", path.display());
                    Origin::Remade(problem)
                }
            },
        };
        let data = make()?;
        if let Err(error) = self.write(&path, key, &data) {
            tracing::warn!("tokenized data is not cached: {error}");
        }
        Ok((data, origin))
    }

    fn write<T: Cacheable>(&self, path: &Path, key: &CacheKey, data: &T) -> Result<(), TrainError> {
        fs::create_dir_all(&self.folder)
            .map_err(TrainError::io(&self.folder, "make the folder"))?;
        let tensors = data.tensors();
        let metadata = BTreeMap::from([
            ("kind".to_owned(), T::KIND.to_owned()),
            ("key".to_owned(), key.hex()),
            ("checksum".to_owned(), checksum(&tensors)?),
        ]);
        let named: Vec<(&str, &Tensor)> = tensors.iter().map(|(name, t)| (*name, t)).collect();
        save_safetensors(path, &named, Some(&metadata))?;
        Ok(())
    }
}

/// Reads a cache file; says what is wrong with it.
fn read<T: Cacheable>(path: &Path, key: &str) -> Result<T, String> {
    let file = Checkpoint::open(path).map_err(|error| error.to_string())?;
    for (name, expected) in [("kind", T::KIND), ("key", key)] {
        match file.metadata().get(name) {
            Some(found) if found == expected => {}
            found => return Err(format!("its {name} is {found:?}, expected \"{expected}\"")),
        }
    }
    let names: Vec<String> = file.names().map(str::to_owned).collect();
    let tensors: Vec<(&str, Tensor)> = names
        .iter()
        .map(|name| Ok((name.as_str(), file.get(name)?)))
        .collect::<Result<_, TrainError>>()
        .map_err(|error| error.to_string())?;
    let sum = checksum(&tensors).map_err(|error| error.to_string())?;
    match file.metadata().get("checksum") {
        Some(found) if *found == sum => {}
        found => return Err(format!("its checksum is {found:?}, expected \"{sum}\"")),
    }
    let get = |name: &str| {
        let found = tensors.iter().find(|(other, _)| *other == name);
        found.map(|(_, tensor)| tensor.clone())
    };
    T::from_tensors(&get).map_err(|error| error.to_string())
}

/// A checksum of tensors, whatever their order.
fn checksum(tensors: &[(&str, Tensor)]) -> Result<String, TrainError> {
    let mut sorted: Vec<&(&str, Tensor)> = tensors.iter().collect();
    sorted.sort_by_key(|(name, _)| *name);
    let mut key = CacheKey::new();
    for (name, tensor) in sorted {
        key = key
            .setting(name, (tensor.dtype(), tensor.shape()))
            .bytes(tensor.as_bytes()?);
    }
    Ok(key.hex())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Numbers(Vec<i32>);

    impl Cacheable for Numbers {
        const KIND: &'static str = "numbers";

        fn tensors(&self) -> Vec<(&'static str, Tensor)> {
            let tensor = Tensor::from_slice(&self.0, &[self.0.len()]).unwrap();
            vec![("numbers", tensor)]
        }

        fn from_tensors(get: &dyn Fn(&str) -> Option<Tensor>) -> Result<Self, TrainError> {
            let tensor = get("numbers").ok_or_else(|| TrainError::Labels("none".into()))?;
            Ok(Self(tensor.to_vec()?))
        }
    }

    fn get(cache: &Cache, key: &CacheKey, numbers: &[i32]) -> (Vec<i32>, Origin) {
        let make = || Ok(Numbers(numbers.to_vec()));
        let (numbers, origin) = cache.get_or_make(key, make).unwrap();
        (numbers.0, origin)
    }

    #[test]
    fn data_is_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::new(dir.path().join("cache"));
        let key = CacheKey::new().setting("max_length", 128);
        assert_eq!(get(&cache, &key, &[1, 2]), (vec![1, 2], Origin::Made));
        assert_eq!(get(&cache, &key, &[3]), (vec![1, 2], Origin::Cached));
        let other = CacheKey::new().setting("max_length", 129);
        assert_eq!(get(&cache, &other, &[3]), (vec![3], Origin::Made));
    }

    #[test]
    fn damage_is_found_wherever_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::new(dir.path());
        let key = CacheKey::new();
        get(&cache, &key, &[1, 2, 3]);
        let path = cache.path(&key);
        let whole = fs::read(&path).unwrap();
        let mut caught = 0;
        for at in (0..whole.len()).step_by(5) {
            let mut bytes = whole.clone();
            bytes[at] ^= 4;
            fs::write(&path, &bytes).unwrap();
            let (numbers, origin) = get(&cache, &key, &[1, 2, 3]);
            assert_eq!(numbers, [1, 2, 3], "byte {at}");
            if matches!(origin, Origin::Remade(_)) {
                caught += 1;
                assert_eq!(fs::read(&path).unwrap(), whole);
            }
        }
        // A flip within the padding of the header or the name of an unused key changes nothing.
        let flips = whole.len().div_ceil(5);
        assert!(caught > flips * 3 / 4, "{caught} of {flips}");
        for length in [0, 7, whole.len() - 1] {
            fs::write(&path, &whole[..length]).unwrap();
            let (numbers, origin) = get(&cache, &key, &[1, 2, 3]);
            assert_eq!(numbers, [1, 2, 3]);
            assert!(matches!(origin, Origin::Remade(_)), "{length} bytes");
        }
    }

    #[test]
    fn a_file_of_another_key_or_kind_is_not_taken() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::new(dir.path());
        let (one, two) = (CacheKey::new().bytes(b"1"), CacheKey::new().bytes(b"2"));
        get(&cache, &one, &[1]);
        fs::copy(cache.path(&one), cache.path(&two)).unwrap();
        let (numbers, origin) = get(&cache, &two, &[2]);
        assert_eq!(numbers, [2]);
        assert!(matches!(origin, Origin::Remade(problem) if problem.contains("key")));
    }

    #[test]
    fn neighbours_do_not_run_together() {
        let one = CacheKey::new().bytes(b"ab").bytes(b"c").hex();
        assert_ne!(one, CacheKey::new().bytes(b"a").bytes(b"bc").hex());
        let dir = tempfile::tempdir().unwrap();
        let empty = CacheKey::new().tokenizer_dir(dir.path()).unwrap().hex();
        fs::write(dir.path().join("vocab.txt"), "[UNK]\n").unwrap();
        assert_ne!(
            empty,
            CacheKey::new().tokenizer_dir(dir.path()).unwrap().hex()
        );
    }
}
