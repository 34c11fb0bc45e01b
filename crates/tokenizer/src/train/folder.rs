//! The folder of a trained tokenizer, as `transformers` reads it.

use std::path::Path;

use super::atomic;
use super::error::TrainError;
use super::trainer::{TokenizerKind, TrainedTokenizer};

/// The files that hold a tokenizer, in this folder or an older one.
const FILES: [&str; 7] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
];

impl TrainedTokenizer {
    /// Writes `tokenizer.json`, `tokenizer_config.json`, `special_tokens_map.json`, and `vocab.txt` (WordPiece) or
    /// `vocab.json` and `merges.txt` (BPE) into a folder, which is made if it is not there. Files appear under their
    /// names only when all are complete; other files of the folder stay as they are.
    ///
    /// # Errors
    /// When the folder has a tokenizer and `overwrite` does not allow to replace it, or the system refuses to write.
    pub fn save(&self, dir: impl AsRef<Path>, overwrite: bool) -> Result<(), TrainError> {
        let dir = dir.as_ref();
        if !overwrite {
            Self::check_vacant(dir)?;
        }
        self.check_lines()?;
        let files = self.files().map_err(|error| TrainError::Write {
            path: dir.to_path_buf(),
            source: error.into(),
        })?;
        let new = |name: &&str| files.iter().all(|file| file.0 != *name);
        let old: Vec<&str> = FILES.into_iter().filter(new).collect();
        atomic::write_folder(dir, &files, &old)
    }

    /// Checks that a folder has no tokenizer yet, or is not there.
    ///
    /// # Errors
    /// When it has one.
    pub fn check_vacant(dir: impl AsRef<Path>) -> Result<(), TrainError> {
        let dir = dir.as_ref();
        match FILES.into_iter().find(|file| dir.join(file).exists()) {
            None => Ok(()),
            Some(file) => Err(TrainError::Exists {
                path: dir.to_path_buf(),
                file,
            }),
        }
    }

    /// Files of a token a line cannot hold every token that counts of a caller's own may bring.
    fn check_lines(&self) -> Result<(), TrainError> {
        let broken = |token: &&String| match self.kind {
            TokenizerKind::WordPiece => token.contains(['\n', '\r']) || token.trim_end() != *token,
            TokenizerKind::Bpe | TokenizerKind::ByteLevelBpe => token.contains(['\n', '\r', ' ']),
            TokenizerKind::Unigram => false,
        };
        match self.tokens.iter().find(broken) {
            None => Ok(()),
            Some(token) => Err(TrainError::InvalidOption {
                option: "words",
                found: format!("a token {token:?}"),
                expected: "words without white space".to_owned(),
            }),
        }
    }
}
