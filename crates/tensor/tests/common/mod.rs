//! What several tests need: safetensors files made by hand.
#![allow(dead_code)] // each test uses a part

use std::path::PathBuf;

use bertha_tensor::{Checkpoint, FileError};
use tempfile::TempDir;

/// A safetensors file of this header, as it stands, and this data.
pub fn raw_file(header: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    bytes
}

/// A folder that vanishes, to put files in.
pub struct Folder(TempDir);

impl Folder {
    pub fn new() -> Folder {
        Folder(TempDir::new().unwrap())
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    /// Names of all files, sorted, hidden ones too.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(self.0.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// Opens these bytes as a safetensors file.
    pub fn open(&self, bytes: &[u8]) -> Result<Checkpoint, FileError> {
        Checkpoint::open(self.write("x.safetensors", bytes))
    }
}
