//! CoNLL files: a word and its tags a line, blank lines between sentences.

use std::path::Path;

use super::lines::TextFile;
use crate::TrainError;

/// A sentence, as words with a tag each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaggedSentence {
    /// The words.
    pub words: Vec<String>,
    /// Their tags.
    pub tags: Vec<String>,
}

/// Which columns to read; by default the first and the last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConllColumns {
    /// The column of words.
    pub word: usize,
    /// The column of tags; `None` is the last of each line.
    pub tag: Option<usize>,
}

/// Reads sentences. Columns are parted by a tab if a line has one, otherwise by blanks. `-DOCSTART-`
/// lines part sentences and are left out.
///
/// # Errors
/// [`TrainError::Io`] when the file cannot be read, [`TrainError::Line`] when a line is not UTF-8 or has
/// too few columns.
pub fn read_conll(
    path: impl AsRef<Path>,
    columns: ConllColumns,
) -> Result<Vec<TaggedSentence>, TrainError> {
    let path = path.as_ref();
    let file = TextFile::read(path)?;
    let mut sentences = Vec::new();
    let mut sentence = TaggedSentence::default();
    for (line, text) in file.lines() {
        let mut cells: Vec<&str> = match text.contains('\t') {
            true => text.split('\t').map(str::trim).collect(),
            false => text.split_whitespace().collect(),
        };
        if cells.iter().all(|cell| cell.is_empty()) || cells[0] == "-DOCSTART-" {
            if !sentence.words.is_empty() {
                sentences.push(std::mem::take(&mut sentence));
            }
            continue;
        }
        while cells.len() > 1 && cells.last().is_some_and(|cell| cell.is_empty()) {
            cells.pop();
        }
        let tag = columns.tag.unwrap_or(cells.len() - 1);
        let cell = |column: usize| cells.get(column).filter(|cell| !cell.is_empty());
        let (Some(word), Some(tag)) = (cell(columns.word), cell(tag)) else {
            return Err(too_few(path, line, &cells, columns));
        };
        if columns.tag.is_none() && cells.len() - 1 == columns.word {
            return Err(too_few(path, line, &cells, columns));
        }
        sentence.words.push((*word).to_owned());
        sentence.tags.push((*tag).to_owned());
    }
    if !sentence.words.is_empty() {
        sentences.push(sentence);
    }
    Ok(sentences)
}

fn too_few(path: &Path, line: u64, cells: &[&str], columns: ConllColumns) -> TrainError {
    let tag = match columns.tag {
        Some(column) => format!("in column {column}"),
        None => "in the last of at least two columns".into(),
    };
    TrainError::Line {
        path: path.to_path_buf(),
        line,
        found: format!("{} columns ({})", cells.len(), cells.join(" | ")),
        expected: format!("a word in column {} and its tag {tag}", columns.word),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, columns: ConllColumns) -> Result<Vec<TaggedSentence>, TrainError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        read_conll(file.path(), columns)
    }

    #[test]
    fn sentences_end_at_blank_lines() {
        let text = "-DOCSTART- -X- O O\n\nEU NNP B-NP B-ORG\nrejects VBZ B-VP O\n\t\nPeter\tNNP\tB-NP\tB-PER\n";
        let sentences = read(text, ConllColumns::default()).unwrap();
        assert_eq!(sentences.len(), 2);
        assert_eq!(sentences[0].words, ["EU", "rejects"]);
        assert_eq!(sentences[0].tags, ["B-ORG", "O"]);
        assert_eq!(sentences[1].tags, ["B-PER"]);
        let columns = ConllColumns {
            word: 0,
            tag: Some(1),
        };
        assert_eq!(read(text, columns).unwrap()[0].tags, ["NNP", "VBZ"]);
    }

    #[test]
    fn lines_without_a_tag_are_named() {
        let error = read("a O\nb\n", ConllColumns::default())
            .unwrap_err()
            .to_string();
        assert!(error.contains(":2: 1 columns (b)"), "{error}");
        let columns = ConllColumns {
            word: 0,
            tag: Some(7),
        };
        let error = read("a O\n", columns).unwrap_err().to_string();
        assert!(error.contains("column 7"), "{error}");
    }
}
