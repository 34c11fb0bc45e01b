//! Labelled data for a task, from files.

use std::path::Path;

use bertha_tokenizer::Tokenizer;
use bertha_train::collate::{Masker, MaskingOptions};
use bertha_train::data::{
    ConllColumns, Format, LabelMap, QuestionOptions, Table, TagOptions, TextColumns, class_labels,
    multi_labels, question_examples, read_conll, read_lines, read_squad, scores, tag_examples,
    tag_map, text_examples,
};
use bertha_train::trainer::{EvaluationData, Task};
use clap::{Args, ValueEnum};

use crate::args::positive;
use crate::failure::{Failure, Result};

/// The tasks by their names on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TaskName {
    /// One class of several for each text, or pair of texts
    Classify,
    /// Any number of classes for each text
    MultiLabel,
    /// A number, or several, for each text
    Regress,
    /// A tag for each word (names, places, …)
    Tag,
    /// The answer to a question in a text (SQuAD)
    Answer,
}

impl TaskName {
    pub fn task(self) -> Task {
        match self {
            Self::Classify => Task::Classify,
            Self::MultiLabel => Task::MultiLabel,
            Self::Regress => Task::Regress,
            Self::Tag => Task::Tag,
            Self::Answer => Task::Answer,
        }
    }
}

/// How files are read.
#[derive(Args, Debug)]
pub struct Reading {
    /// Kind of the files [default: by their names: .tsv, .csv, .jsonl]
    #[arg(long, value_enum, help_heading = "Data")]
    format: Option<TableFormat>,
    /// The first line of a table is an example, not names: columns are numbered from 0
    #[arg(long, help_heading = "Data")]
    no_header: bool,
    /// Column of texts, by name or number [default: text, sentence, sentence1, premise or question1]
    #[arg(long, value_name = "NAME", help_heading = "Data")]
    text_column: Option<String>,
    /// Column of second texts [default: sentence2, hypothesis or question2 beside their firsts]
    #[arg(long, value_name = "NAME", help_heading = "Data")]
    text_pair_column: Option<String>,
    /// Column of labels; of tags, the number of their column in CoNLL files [default: label, labels or
    /// score; the last]. regress takes several (comma-separated)
    #[arg(long, value_name = "NAME", help_heading = "Data")]
    label_column: Option<String>,
    /// What parts the labels of a text in tables; JSON has lists
    #[arg(long, value_name = "TEXT", default_value = ",", help_heading = "Data")]
    label_separator: String,
    /// Longest example in tokens; longer texts are cut, sentences and contexts split [default: 128; tag
    /// 256; answer 384; at most the model's positions]
    #[arg(long, value_name = "N", visible_alias = "max-seq-length", value_parser = positive, help_heading = "Data")]
    max_length: Option<usize>,
    /// Tokens that neighbouring windows of a long context share (answer) [default: 128, at most half]
    #[arg(
        long,
        value_name = "N",
        visible_alias = "doc-stride",
        help_heading = "Data"
    )]
    stride: Option<usize>,
}

/// Kinds of tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum TableFormat {
    /// Cells between tabs, without quotes
    Tsv,
    /// Cells between commas, quoted where needed
    Csv,
    /// A JSON object a line
    Jsonl,
}

/// Names that columns have, and those of the second texts beside them.
const TEXTS: [(&str, &str); 5] = [
    ("text", "text_pair"),
    ("sentence", "sentence2"),
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
];

/// Examples, and what their labels are called.
pub struct Labelled {
    pub data: EvaluationData,
    pub labels: Option<LabelMap>,
}

impl Reading {
    /// The longest example, for a model of so many positions.
    pub fn max_length(&self, task: Task, positions: usize) -> Result<usize> {
        let usual = match task {
            Task::Answer => 384,
            Task::Tag => 256,
            _ => 128,
        };
        match self.max_length {
            Some(length) if length > positions => Err(Failure::usage(format!(
                "--max-length is {length}, but the model has {positions} positions"
            ))),
            Some(length) => Ok(length),
            None => Ok(usual.min(positions)),
        }
    }

    /// Reads and tokenizes a file. Labels are those given, or where none are those that occur.
    pub fn load(
        &self,
        task: Task,
        path: &Path,
        tokenizer: &Tokenizer,
        max_length: usize,
        labels: Option<&LabelMap>,
    ) -> Result<Labelled> {
        let labelled = match task {
            Task::Tag => self.tags(path, tokenizer, max_length, labels)?,
            Task::Answer => self.questions(path, tokenizer, max_length, labels.is_none())?,
            _ => self.texts(task, path, tokenizer, max_length, labels)?,
        };
        if labelled.data.examples.is_empty() {
            return Err(Failure::new(format!(
                "{}: there is no example",
                path.display()
            )));
        }
        Ok(labelled)
    }

    fn tags(
        &self,
        path: &Path,
        tokenizer: &Tokenizer,
        max_length: usize,
        labels: Option<&LabelMap>,
    ) -> Result<Labelled> {
        let column = |name: &Option<String>, flag: &str| match name.as_deref().map(str::parse) {
            None => Ok(None),
            Some(Ok(number)) => Ok(Some(number)),
            Some(Err(_)) => Err(Failure::usage(format!(
                "{flag} is a number for tag: the column in the CoNLL file, from 0"
            ))),
        };
        let columns = ConllColumns {
            word: column(&self.text_column, "--text-column")?.unwrap_or(0),
            tag: column(&self.label_column, "--label-column")?,
        };
        let sentences = read_conll(path, columns)?;
        if sentences.is_empty() {
            return Err(Failure::new(format!(
                "{}: there is no sentence",
                path.display()
            )));
        }
        let map = match labels {
            Some(labels) => labels.clone(),
            None => tag_map(&sentences)?,
        };
        let found = tag_examples(tokenizer, &sentences, &map, TagOptions::new(max_length));
        Ok(Labelled {
            data: found.map_err(|error| within(path, &error))?.examples.into(),
            labels: Some(map),
        })
    }

    fn questions(
        &self,
        path: &Path,
        tokenizer: &Tokenizer,
        max_length: usize,
        drop_misplaced: bool,
    ) -> Result<Labelled> {
        let questions = read_squad(path)?;
        let options = QuestionOptions {
            max_length,
            stride: self.stride,
            drop_misplaced,
            ..QuestionOptions::default()
        };
        let found = question_examples(tokenizer, &questions, &options);
        let found = found.map_err(|error| within(path, &error))?;
        if found.dropped > 0 {
            tracing::warn!(
                "{}: {} questions left out: their answer is not where the file says",
                path.display(),
                found.dropped
            );
        }
        Ok(Labelled {
            data: EvaluationData {
                examples: found.examples,
                questions,
            },
            labels: None,
        })
    }

    fn texts(
        &self,
        task: Task,
        path: &Path,
        tokenizer: &Tokenizer,
        max_length: usize,
        labels: Option<&LabelMap>,
    ) -> Result<Labelled> {
        let table = Table::read(path, self.table_format(path)?)?;
        if table.is_empty() {
            return Err(Failure::new(format!(
                "{}: there is no example",
                path.display()
            )));
        }
        let columns = self.text_columns(&table)?;
        let inputs = columns.inputs(&table)?;
        let examples = text_examples(tokenizer, &inputs, max_length);
        let examples = examples.map_err(|error| within(path, &error))?;
        let usual: &[&str] = match task {
            Task::Regress => &["score", "label", "labels"],
            _ => &["label", "labels", "score"],
        };
        let label = self.column(&table, &self.label_column, usual, "--label-column", "1")?;
        let (found, map) = match task {
            Task::Regress => {
                let names: Vec<&str> = label.split(',').map(str::trim).collect();
                let map = match labels {
                    Some(labels) => labels.clone(),
                    None => LabelMap::new(names.iter().map(|&name| name.to_owned()).collect())?,
                };
                if map.len() != names.len() {
                    return Err(Failure::usage(format!(
                        "--label-column names {} columns, but the model says {} numbers",
                        names.len(),
                        map.len()
                    )));
                }
                (scores(&table, &names)?, map)
            }
            Task::MultiLabel => multi_labels(&table, &label, &self.label_separator, labels)
                .map_err(|error| within(path, &error))?,
            _ => class_labels(&table, &label, labels).map_err(|error| within(path, &error))?,
        };
        Ok(Labelled {
            data: examples.with_labels(found)?.into(),
            labels: Some(map),
        })
    }

    fn table_format(&self, path: &Path) -> Result<Format> {
        let extension = path.extension().and_then(|extension| extension.to_str());
        let format = match (self.format, extension) {
            (Some(format), _) => format,
            (_, Some("tsv" | "txt")) => TableFormat::Tsv,
            (_, Some("csv")) => TableFormat::Csv,
            (_, Some("jsonl" | "ndjson" | "json")) => TableFormat::Jsonl,
            _ => {
                return Err(Failure::usage(format!(
                    "{}: the name does not say what the file holds: give --format tsv, csv or jsonl",
                    path.display()
                )));
            }
        };
        let header = !self.no_header;
        Ok(match format {
            TableFormat::Tsv => Format::Tsv { header },
            TableFormat::Csv => Format::Csv { header },
            TableFormat::Jsonl => Format::JsonLines,
        })
    }

    fn text_columns(&self, table: &Table) -> Result<TextColumns> {
        let firsts = TEXTS.map(|(first, _)| first);
        let text = self.column(table, &self.text_column, &firsts, "--text-column", "0")?;
        let has = |name: &str| table.columns().iter().any(|column| column == name);
        let beside = TEXTS
            .iter()
            .find(|(first, second)| self.text_column.is_none() && *first == text && has(second));
        let pair = self.text_pair_column.clone();
        Ok(TextColumns {
            text,
            pair: pair.or_else(|| beside.map(|(_, second)| (*second).to_owned())),
        })
    }

    /// A column as asked for, or the first of the usual names that there is.
    fn column(
        &self,
        table: &Table,
        asked: &Option<String>,
        usual: &[&str],
        flag: &str,
        number: &str,
    ) -> Result<String> {
        if let Some(name) = asked {
            return Ok(name.clone());
        }
        if self.no_header {
            return Ok(number.to_owned());
        }
        let has = |name: &&&str| table.columns().iter().any(|column| column == **name);
        let found = usual.iter().find(has).map(|name| (*name).to_owned());
        found.ok_or_else(|| {
            Failure::usage(format!(
                "{}: none of the columns is called {}; name one of these with {flag}: {}",
                table.path().display(),
                usual.join(" or "),
                table.columns().join(", ")
            ))
        })
    }
}

/// Lines of text for a masked language model, and what masks them.
pub fn masked_lines(
    path: &Path,
    tokenizer: &Tokenizer,
    max_length: usize,
) -> Result<(EvaluationData, Masker)> {
    let lines = read_lines(path)?;
    let inputs: Vec<_> = lines.iter().map(Into::into).collect();
    let examples = text_examples(tokenizer, &inputs, max_length);
    let examples = examples.map_err(|error| within(path, &error))?;
    let masker = Masker::new(tokenizer, MaskingOptions::default())?;
    Ok((examples.into(), masker))
}

/// An error about examples, after the file that they are of.
pub fn within(path: &Path, error: &bertha_train::TrainError) -> Failure {
    match Failure::from(error) {
        failure if error.to_string().contains(&*path.to_string_lossy()) => failure,
        failure => failure.within(path.display()),
    }
}
