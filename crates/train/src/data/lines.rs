//! Text files by line: what every other reader here starts from.

use std::fs;
use std::path::Path;

use crate::TrainError;

/// A text file in memory, checked to be UTF-8.
#[derive(Debug)]
pub(crate) struct TextFile {
    text: String,
}

impl TextFile {
    /// Reads a file. A byte-order mark at its start is dropped.
    pub(crate) fn read(path: &Path) -> Result<Self, TrainError> {
        let bytes = fs::read(path).map_err(TrainError::io(path, "read the data"))?;
        match String::from_utf8(bytes) {
            Ok(mut text) => {
                if text.starts_with('\u{feff}') {
                    text.drain(..'\u{feff}'.len_utf8());
                }
                Ok(Self { text })
            }
            Err(error) => {
                let valid = error.utf8_error().valid_up_to();
                let bytes = error.as_bytes();
                let line = bytes[..valid].iter().filter(|&&byte| byte == b'\n').count() + 1;
                Err(TrainError::Line {
                    path: path.to_path_buf(),
                    line: line as u64,
                    found: format!("byte 0x{:02x}, which is not UTF-8", bytes[valid]),
                    expected: "UTF-8 text: convert the file first".into(),
                })
            }
        }
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// The lines with their numbers from 1, without line ends (`\n` or `\r\n`).
    pub(crate) fn lines(&self) -> impl Iterator<Item = (u64, &str)> {
        (1..).zip(self.text.lines())
    }
}

/// The lines of a text file that are not blank, one example each.
///
/// # Errors
/// [`TrainError::Io`] when the file cannot be read, [`TrainError::Line`] when it is not UTF-8.
pub fn read_lines(path: impl AsRef<Path>) -> Result<Vec<String>, TrainError> {
    let file = TextFile::read(path.as_ref())?;
    let lines = file.lines().map(|(_, line)| line);
    let lines = lines.filter(|line| !line.trim().is_empty());
    Ok(lines.map(str::to_owned).collect())
}

/// The documents of a text file, which blank lines part: each the list of its lines, as the original
/// BERT's data is (a sentence a line).
///
/// # Errors
/// As [`read_lines`].
pub fn read_documents(path: impl AsRef<Path>) -> Result<Vec<Vec<String>>, TrainError> {
    let file = TextFile::read(path.as_ref())?;
    let mut documents = Vec::new();
    let mut document = Vec::new();
    for (_, line) in file.lines() {
        if !line.trim().is_empty() {
            document.push(line.to_owned());
        } else if !document.is_empty() {
            documents.push(std::mem::take(&mut document));
        }
    }
    if !document.is_empty() {
        documents.push(document);
    }
    Ok(documents)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(bytes: &[u8]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), bytes).unwrap();
        file
    }

    #[test]
    fn blank_lines_part_documents() {
        let file = file("\u{feff}one\r\ntwo \n \n\n\nthree\n\n".as_bytes());
        let documents = read_documents(file.path()).unwrap();
        assert_eq!(documents, [vec!["one", "two "], vec!["three"]]);
        assert_eq!(read_lines(file.path()).unwrap(), ["one", "two ", "three"]);
    }

    #[test]
    fn an_empty_file_has_nothing() {
        let file = file(b"");
        assert!(read_documents(file.path()).unwrap().is_empty());
        assert!(read_lines(file.path()).unwrap().is_empty());
    }

    #[test]
    fn bytes_that_are_no_text_are_named_by_line() {
        let file = file(b"fine\nalso fine\nna\xefve\n");
        let error = read_lines(file.path()).unwrap_err().to_string();
        assert!(error.contains(":3: byte 0xef"), "{error}");
        let error = read_lines("no/such/file").unwrap_err().to_string();
        assert!(error.contains("no/such/file"), "{error}");
    }
}
