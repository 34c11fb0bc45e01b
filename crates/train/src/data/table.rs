//! Tables of examples: TSV, CSV and JSON lines, with columns by name.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::lines::TextFile;
use crate::TrainError;

/// One cell of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cell {
    /// A text; numbers and truth values of JSON as they are written.
    Text(String),
    /// A list of such texts, of a JSON list.
    List(Vec<String>),
    /// Nothing: an absent key or a `null`.
    Missing,
}

/// A row and the line that it begins at.
#[derive(Clone, Debug)]
pub struct Row {
    line: u64,
    cells: Vec<Cell>,
}

/// Examples in rows, with named columns.
#[derive(Clone, Debug)]
pub struct Table {
    path: PathBuf,
    columns: Vec<String>,
    rows: Vec<Row>,
}

/// What tells a table's kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// Cells between tabs, no quotes (GLUE's files). The first line names the columns if `header`.
    Tsv {
        /// Whether the first line names the columns.
        header: bool,
    },
    /// RFC 4180: cells between commas, in double quotes where needed, then possibly of several lines.
    Csv {
        /// Whether the first line names the columns.
        header: bool,
    },
    /// A JSON object a line; its keys are the columns.
    JsonLines,
}

impl Table {
    /// Reads a table.
    ///
    /// # Errors
    /// [`TrainError::Io`] when the file cannot be read, [`TrainError::Line`] naming the line that is not
    /// UTF-8, has too many or too few cells, or is no JSON object.
    pub fn read(path: impl AsRef<Path>, format: Format) -> Result<Self, TrainError> {
        let path = path.as_ref();
        let file = TextFile::read(path)?;
        match format {
            Format::Tsv { header } => read_tsv(path, &file, header),
            Format::Csv { header } => read_csv(path, &file, header),
            Format::JsonLines => read_json_lines(path, &file),
        }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The columns' names; without a header they are "0", "1" and so on.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The index of a column, by its name or, where no column has that name, by its number from 0.
    ///
    /// # Errors
    /// [`TrainError::NoColumn`], which lists those that there are.
    pub fn column(&self, name: &str) -> Result<usize, TrainError> {
        let by_name = self.columns.iter().position(|column| column == name);
        let by_number = || {
            let number = name.parse::<usize>().ok();
            number.filter(|&number| number < self.columns.len())
        };
        by_name
            .or_else(by_number)
            .ok_or_else(|| TrainError::NoColumn {
                path: self.path.clone(),
                column: name.to_owned(),
                columns: self.columns.clone(),
            })
    }

    /// A cell.
    ///
    /// # Panics
    /// When row or column do not exist.
    pub fn cell(&self, row: usize, column: usize) -> &Cell {
        &self.rows[row].cells[column]
    }

    /// The line that a row begins at, from 1.
    ///
    /// # Panics
    /// When the row does not exist.
    pub fn line(&self, row: usize) -> u64 {
        self.rows[row].line
    }

    /// All texts of a column.
    ///
    /// # Errors
    /// [`TrainError::NoColumn`], or [`TrainError::Line`] naming the first row that has no text there.
    pub fn texts(&self, column: &str) -> Result<Vec<&str>, TrainError> {
        let index = self.column(column)?;
        let text = |row| match self.cell(row, index) {
            Cell::Text(text) => Ok(text.as_str()),
            Cell::List(_) => Err(self.wrong(row, column, "a list", "a text")),
            Cell::Missing => Err(self.wrong(row, column, "missing", "a text")),
        };
        (0..self.len()).map(text).collect()
    }

    /// All numbers of a column.
    ///
    /// # Errors
    /// As [`Table::texts`], for rows that have no finite number there.
    pub fn numbers(&self, column: &str) -> Result<Vec<f32>, TrainError> {
        let texts = self.texts(column)?;
        let number = |(row, text): (usize, &str)| match text.trim().parse::<f32>() {
            Ok(number) if number.is_finite() => Ok(number),
            _ => Err(self.wrong(row, column, &format!("`{text}`"), "a finite number")),
        };
        texts.into_iter().enumerate().map(number).collect()
    }

    /// All lists of a column: JSON lists, or texts split at `separator` (an empty text is an empty list).
    ///
    /// # Errors
    /// As [`Table::texts`], for rows that have nothing there.
    pub fn lists(&self, column: &str, separator: &str) -> Result<Vec<Vec<String>>, TrainError> {
        let index = self.column(column)?;
        let list = |row| match self.cell(row, index) {
            Cell::List(items) => Ok(items.clone()),
            Cell::Text(text) if text.trim().is_empty() => Ok(Vec::new()),
            Cell::Text(text) => Ok(text
                .split(separator)
                .map(|part| part.trim().to_owned())
                .collect()),
            Cell::Missing => Err(self.wrong(row, column, "missing", "a list")),
        };
        (0..self.len()).map(list).collect()
    }

    fn wrong(&self, row: usize, column: &str, found: &str, expected: &str) -> TrainError {
        TrainError::Line {
            path: self.path.clone(),
            line: self.line(row),
            found: format!("`{column}` is {found}"),
            expected: expected.to_owned(),
        }
    }
}

/// Names for columns that have none.
fn numbered(count: usize) -> Vec<String> {
    (0..count).map(|i| i.to_string()).collect()
}

fn cell_count(path: &Path, line: u64, found: usize, expected: usize) -> TrainError {
    TrainError::Line {
        path: path.to_path_buf(),
        line,
        found: format!("{found} cells"),
        expected: format!("{expected}, as in the first line"),
    }
}

fn read_tsv(path: &Path, file: &TextFile, header: bool) -> Result<Table, TrainError> {
    let mut columns: Option<Vec<String>> = None;
    let mut rows = Vec::new();
    for (line, text) in file.lines() {
        if text.is_empty() {
            continue;
        }
        let cells = text.split('\t');
        let width = match &columns {
            None if header => {
                columns = Some(cells.map(str::to_owned).collect());
                continue;
            }
            None => columns.insert(numbered(cells.clone().count())).len(),
            Some(columns) => columns.len(),
        };
        let cells: Vec<Cell> = cells.map(|cell| Cell::Text(cell.to_owned())).collect();
        if cells.len() != width {
            return Err(cell_count(path, line, cells.len(), width));
        }
        rows.push(Row { line, cells });
    }
    Ok(Table {
        path: path.to_path_buf(),
        columns: columns.unwrap_or_default(),
        rows,
    })
}

fn read_csv(path: &Path, file: &TextFile, header: bool) -> Result<Table, TrainError> {
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .from_reader(file.as_str().as_bytes());
    let mut columns: Option<Vec<String>> = None;
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = record.map_err(|error| {
            let line = error.position().map_or(0, csv::Position::line);
            TrainError::Line {
                path: path.to_path_buf(),
                line,
                found: error.to_string(),
                expected: "comma-separated cells".into(),
            }
        })?;
        let line = record.position().map_or(0, csv::Position::line);
        let width = match &columns {
            None if header => {
                columns = Some(record.iter().map(str::to_owned).collect());
                continue;
            }
            None => columns.insert(numbered(record.len())).len(),
            Some(columns) => columns.len(),
        };
        if record.len() != width {
            return Err(cell_count(path, line, record.len(), width));
        }
        let cells = record.iter().map(|cell| Cell::Text(cell.to_owned()));
        rows.push(Row {
            line,
            cells: cells.collect(),
        });
    }
    Ok(Table {
        path: path.to_path_buf(),
        columns: columns.unwrap_or_default(),
        rows,
    })
}

fn read_json_lines(path: &Path, file: &TextFile) -> Result<Table, TrainError> {
    let mut columns: Vec<String> = Vec::new();
    let mut rows: Vec<Row> = Vec::new();
    for (line, text) in file.lines() {
        if text.trim().is_empty() {
            continue;
        }
        let wrong = |found: String, expected: &str| TrainError::Line {
            path: path.to_path_buf(),
            line,
            found,
            expected: expected.to_owned(),
        };
        let value: Value = serde_json::from_str(text)
            .map_err(|error| wrong(error.to_string(), "a JSON object"))?;
        let Value::Object(object) = value else {
            return Err(wrong(format!("{value}"), "a JSON object"));
        };
        let mut cells = vec![Cell::Missing; columns.len()];
        for (key, value) in object {
            let scalar = |value: Value| match value {
                Value::String(text) => Some(text),
                Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
                _ => None,
            };
            let cell = match value {
                Value::Null => Cell::Missing,
                Value::Array(items) => {
                    // A list of anything else is no data of a task; it may stand there all the same.
                    let items: Option<Vec<String>> = items.into_iter().map(scalar).collect();
                    items.map_or(Cell::Missing, Cell::List)
                }
                other => scalar(other).map_or(Cell::Missing, Cell::Text),
            };
            match columns.iter().position(|column| *column == key) {
                Some(index) => cells[index] = cell,
                None => {
                    columns.push(key);
                    cells.push(cell);
                }
            }
        }
        rows.push(Row { line, cells });
    }
    for row in &mut rows {
        row.cells.resize(columns.len(), Cell::Missing);
    }
    Ok(Table {
        path: path.to_path_buf(),
        columns,
        rows,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(text: &str, format: Format) -> Result<Table, TrainError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Table::read(file.path(), format)
    }

    fn error<T: std::fmt::Debug>(result: Result<T, TrainError>, parts: &[&str]) {
        let text = result.unwrap_err().to_string();
        for part in parts {
            assert!(text.contains(part), "{text} lacks {part}");
        }
    }

    #[test]
    fn tsv_has_no_quotes() {
        let text = "sentence\tlabel\nsay \"no\t1\n\nyes\t0\r\n";
        let table = table(text, Format::Tsv { header: true }).unwrap();
        assert_eq!(table.texts("sentence").unwrap(), ["say \"no", "yes"]);
        assert_eq!(table.texts("1").unwrap(), ["1", "0"]);
        assert_eq!(table.numbers("label").unwrap(), [1.0, 0.0]);
        assert_eq!(table.line(1), 4);
        error(table.texts("text"), &["`text`", "sentence, label"]);
        error(table.numbers("sentence"), &[":2:", "say \"no", "number"]);
    }

    #[test]
    fn rows_of_another_width_are_named() {
        let header = Format::Tsv { header: false };
        error(table("a\tb\nc\n", header), &[":2: 1 cells", "expected 2"]);
        let header = Format::Csv { header: true };
        error(
            table("a,b\n1,2\n\"x\ny\",2,3\n", header),
            &[":3: 3 cells", "expected 2"],
        );
    }

    #[test]
    fn csv_cells_may_hold_anything() {
        let text = "text,label\n\"a, \"\"b\"\"\nc\",x\nplain,y\n";
        let table = table(text, Format::Csv { header: true }).unwrap();
        assert_eq!(table.texts("text").unwrap(), ["a, \"b\"\nc", "plain"]);
        assert_eq!(table.texts("label").unwrap(), ["x", "y"]);
        assert_eq!(table.line(1), 4);
    }

    #[test]
    fn without_a_header_columns_are_numbered() {
        let table = table("a,1\nb,2\n", Format::Csv { header: false }).unwrap();
        assert_eq!(table.columns(), ["0", "1"]);
        assert_eq!(table.texts("0").unwrap(), ["a", "b"]);
    }

    #[test]
    fn json_lines_may_differ_in_their_keys() {
        let text = "{\"text\": \"a\", \"label\": 1}\n\n\
                    {\"text\": \"b\", \"labels\": [\"x\", 2], \"label\": null, \"more\": {}}\n";
        let table = table(text, Format::JsonLines).unwrap();
        assert_eq!(table.texts("text").unwrap(), ["a", "b"]);
        error(table.texts("label"), &[":3: `label` is missing"]);
        assert_eq!(
            table.cell(0, table.column("label").unwrap()),
            &Cell::Text("1".into())
        );
        let labels = table.column("labels").unwrap();
        assert_eq!(
            table.cell(1, labels),
            &Cell::List(vec!["x".into(), "2".into()])
        );
        assert_eq!(table.cell(0, labels), &Cell::Missing);
    }

    #[test]
    fn broken_json_lines_are_named() {
        error(
            table("{\"a\": 1}\n{\"a\": \n", Format::JsonLines),
            &[":2:", "JSON object"],
        );
        error(
            table("[1]\n", Format::JsonLines),
            &[":1: [1]", "JSON object"],
        );
    }

    #[test]
    fn lists_come_from_json_or_from_split_texts() {
        let lists = table("a\t3,5\nb\t\n", Format::Tsv { header: false }).unwrap();
        assert_eq!(lists.lists("1", ",").unwrap(), [vec!["3", "5"], vec![]]);
        let lists = table("{\"l\": [\"x\"]}\n", Format::JsonLines).unwrap();
        assert_eq!(lists.lists("l", ",").unwrap(), [["x"]]);
    }
}
