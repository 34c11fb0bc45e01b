//! Texts from the command line, a file or standard input, read in pieces of bounded size.
//!
//! A file holds a text a line, or JSON lines: objects with the fields that a command takes. Lines end
//! with `\n` or `\r\n`; an empty line of a text file is an empty text, one of JSON lines is skipped. A
//! byte-order mark is no part of a text.

use std::fs::File;
use std::io::{self, BufReader, IsTerminal, Read};
use std::path::{Path, PathBuf};

use bertha_tasks::TextInput;
use clap::ValueEnum;
use serde_json::{Map, Value};

use crate::args::TextFile;
use crate::failure::{Failure, Result};
use crate::lines::{self, Line};

/// About how much text is worked on at a time: enough to sort by length, a few megabytes of tokens.
const PIECE_BYTES: usize = 1 << 20;
/// How many texts are worked on at a time, so that their vectors are bounded too.
const PIECE_TEXTS: usize = 1 << 14;

/// What a file of texts holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum InputFormat {
    // No `///` here: that would be help of six lines for what the option itself says in one.
    #[default]
    Auto,
    Text,
    Jsonl,
}

/// The fields that a command takes from an object of JSON lines.
#[derive(Clone, Copy, Debug)]
pub struct Fields {
    /// The first text's field.
    pub first: &'static str,
    /// The second text's field, for commands that take pairs.
    pub second: Option<&'static str>,
    /// Whether each must be there.
    pub required: [bool; 2],
    /// What a line of plain text is.
    pub plain: Plain,
}

/// What a line of plain text is to a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plain {
    /// The first text.
    First,
    /// The second text.
    Second,
    /// Nothing: both texts are wanted.
    Refused,
}

impl Fields {
    /// One text.
    pub const TEXT: Self = Self {
        first: "text",
        second: None,
        required: [true, false],
        plain: Plain::First,
    };
    /// A text, or a pair of texts.
    pub const PAIR: Self = Self {
        second: Some("text_pair"),
        ..Self::TEXT
    };
}

/// A text, or a pair of texts, and where it stood.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Item {
    /// The line, or the place among the arguments, from 1.
    pub number: usize,
    /// The first text.
    pub first: Option<String>,
    /// The second text.
    pub second: Option<String>,
}

impl Item {
    /// The first text, which a command that requires it always has.
    pub fn text(&self) -> &str {
        self.first.as_deref().unwrap_or_default()
    }

    /// The text alone, or with its second text, or else with `other`.
    pub fn pair<'a>(&'a self, other: Option<&'a str>) -> TextInput<'a> {
        match self.second.as_deref().or(other) {
            Some(second) => TextInput::Pair(self.text(), second),
            None => TextInput::Single(self.text()),
        }
    }
}

/// Reads texts, piece by piece.
pub struct Input {
    from: From,
    fields: Fields,
    /// The items read so far.
    count: usize,
}

enum From {
    Arguments(Vec<String>),
    File {
        reader: BufReader<Box<dyn Read>>,
        /// What errors call it.
        name: String,
        /// The path of a regular file.
        path: Option<PathBuf>,
        /// None until the first line has told.
        json: Option<bool>,
        line: usize,
    },
}

impl Input {
    /// The texts of the command line, else of `--input`, else of standard input if it is no terminal.
    pub fn open(texts: &[String], file: &TextFile, fields: Fields) -> Result<Self> {
        if !texts.is_empty() {
            return Ok(Self {
                from: From::Arguments(texts.to_vec()),
                fields,
                count: 0,
            });
        }
        if file.input.is_none() && io::stdin().is_terminal() {
            return Err(Failure::usage(
                "no text: give it as an argument, in a file with --input FILE, or on standard input",
            ));
        }
        Self::open_file(file, fields)
    }

    /// The texts of `--input`, else of standard input.
    pub fn open_file(file: &TextFile, fields: Fields) -> Result<Self> {
        let stdin = Path::new("-");
        let path = file.input.as_deref().unwrap_or(stdin);
        let (reader, name, regular): (Box<dyn Read>, _, _) = if path == stdin {
            (Box::new(io::stdin()), "standard input".to_owned(), false)
        } else {
            let open = || {
                let opened = File::open(path)?;
                let found = opened.metadata()?;
                match found.is_dir() {
                    true => Err(io::Error::from(io::ErrorKind::IsADirectory)),
                    false => Ok((opened, found.is_file())),
                }
            };
            let (opened, regular) = open().map_err(|error| Failure::io(path, "read", &error))?;
            (Box::new(opened), path.display().to_string(), regular)
        };
        let extension = path.extension().and_then(|extension| extension.to_str());
        let json = match file.input_format {
            _ if fields.plain == Plain::Refused => Some(true),
            InputFormat::Text => Some(false),
            InputFormat::Jsonl => Some(true),
            InputFormat::Auto => match extension {
                Some("jsonl" | "ndjson") => Some(true),
                _ => None,
            },
        };
        Ok(Self {
            from: From::File {
                reader: BufReader::with_capacity(1 << 20, reader),
                name,
                path: regular.then(|| path.to_path_buf()),
                json,
                line: 0,
            },
            fields,
            count: 0,
        })
    }

    /// The next piece of the input; nothing at its end.
    ///
    /// From a file a piece is large; from a pipe it ends where the next line may be long in coming.
    pub fn piece(&mut self) -> Result<Vec<Item>> {
        let mut items: Vec<Item> = Vec::new();
        let mut bytes = 0;
        while items.len() < PIECE_TEXTS && bytes < PIECE_BYTES {
            if !items.is_empty() && self.may_wait() {
                break;
            }
            let Some(item) = self.item()? else {
                break;
            };
            let sizes =
                [&item.first, &item.second].map(|text| text.as_ref().map_or(0, String::len));
            bytes += sizes[0] + sizes[1];
            items.push(item);
        }
        Ok(items)
    }

    /// What to call an item in a message.
    pub fn place(&self, number: usize) -> String {
        match &self.from {
            From::Arguments(texts) if texts.len() == 1 => "the text".into(),
            From::Arguments(_) => format!("text {number} of the command line"),
            From::File { name, .. } => format!("{name}, line {number}"),
        }
    }

    /// What the input is called.
    pub fn name(&self) -> &str {
        match &self.from {
            From::Arguments(_) => "the command line",
            From::File { name, .. } => name,
        }
    }

    /// The failure of an input without any text.
    pub fn refuse_empty(&self) -> Result<()> {
        match &self.from {
            From::File { name, .. } if self.count == 0 => Err(Failure::new(format!(
                "{name} is empty: expected one text a line, or JSON lines"
            ))),
            _ => Ok(()),
        }
    }

    /// Tells how many texts there are, where that can be told without reading standard input or a
    /// pipe. It may read a file once over.
    pub fn counter(&self) -> impl Fn() -> Option<usize> + use<> {
        let known = match &self.from {
            From::Arguments(texts) => Ok(texts.len()),
            From::File { path, .. } => Err(path.clone()),
        };
        move || match &known {
            Ok(total) => Some(*total),
            Err(path) => lines::count(path.as_deref()?),
        }
    }

    fn may_wait(&self) -> bool {
        match &self.from {
            From::Arguments(_) => false,
            From::File { reader, path, .. } => path.is_none() && reader.buffer().is_empty(),
        }
    }

    fn item(&mut self) -> Result<Option<Item>> {
        let fields = self.fields;
        let item = match &mut self.from {
            From::Arguments(texts) => {
                let text = texts.get_mut(self.count).map(std::mem::take);
                text.map(|text| fields.plain(self.count + 1, text))
            }
            From::File {
                reader,
                name,
                path,
                json,
                line,
            } => loop {
                let read = lines::read(reader, *line == 0);
                let read = read.map_err(|error| match path {
                    Some(path) => Failure::io(path, "read", &error),
                    None => Failure::new(format!("{name}: cannot read: {error}")),
                })?;
                *line += 1;
                let text = match read {
                    Line::End => break None,
                    Line::Text(text) => text,
                    Line::Bad(problem) => {
                        return Err(Failure::new(format!("{name}, line {line} {problem}")));
                    }
                };
                let object = match (*json, text.trim().is_empty()) {
                    // Blank lines do not tell what the others are.
                    (Some(false) | None, true) => None,
                    (Some(false), _) => None,
                    (Some(true), true) => continue,
                    (Some(true), false) => Some(parse(&text).map_err(|problem| {
                        let wanted = fields.wanted();
                        Failure::new(format!("{name}, line {line}: {problem}, expected {wanted}"))
                    })?),
                    (None, false) => {
                        let object = parse(&text).ok().filter(|object| fields.are_in(object));
                        *json = Some(object.is_some());
                        object
                    }
                };
                break Some(match object {
                    None => fields.plain(*line, text),
                    Some(object) => fields.take(*line, object).map_err(|problem| {
                        Failure::new(format!("{name}, line {line}: {problem}"))
                    })?,
                });
            },
        };
        self.count += usize::from(item.is_some());
        Ok(item)
    }
}

impl Fields {
    fn plain(&self, number: usize, text: String) -> Item {
        let mut item = Item {
            number,
            ..Item::default()
        };
        *match self.plain {
            Plain::Second => &mut item.second,
            Plain::First | Plain::Refused => &mut item.first,
        } = Some(text);
        item
    }

    fn are_in(&self, object: &Map<String, Value>) -> bool {
        [Some(self.first), self.second]
            .into_iter()
            .flatten()
            .any(|field| object.contains_key(field))
    }

    fn wanted(&self) -> String {
        let required = [Some(self.first), self.second]
            .into_iter()
            .zip(self.required)
            .filter_map(|(field, required)| field.filter(|_| required))
            .map(|field| format!("`{field}`"))
            .collect::<Vec<_>>();
        format!("a JSON object with {}", required.join(" and "))
    }

    fn take(
        &self,
        number: usize,
        mut object: Map<String, Value>,
    ) -> std::result::Result<Item, String> {
        let mut take = |field: &str, required: bool| match object.remove(field) {
            Some(Value::String(text)) => Ok(Some(text)),
            None | Some(Value::Null) if !required => Ok(None),
            None => Err(format!("`{field}` is missing, expected {}", self.wanted())),
            Some(other) => {
                let shown: String = other.to_string().chars().take(60).collect();
                Err(format!("`{field}` is {shown}, expected a string"))
            }
        };
        Ok(Item {
            number,
            first: take(self.first, self.required[0])?,
            second: match self.second {
                Some(field) => take(field, self.required[1])?,
                None => None,
            },
        })
    }
}

/// A line as a JSON object.
fn parse(text: &str) -> std::result::Result<Map<String, Value>, String> {
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err("JSON, but no object".into()),
        Err(error) => {
            // It counts lines of its own, of which there is one.
            let reason = error.to_string();
            let reason = reason.split(" at line ").next().unwrap_or_default();
            Err(format!("not JSON ({reason} at column {})", error.column()))
        }
    }
}

/// A whole file of text.
pub fn read_text(path: &Path) -> Result<String> {
    let bytes = if path == Path::new("-") {
        let mut bytes = Vec::new();
        let read = io::stdin().read_to_end(&mut bytes);
        read.map_err(|error| Failure::new(format!("standard input: cannot read: {error}")))?;
        bytes
    } else {
        std::fs::read(path).map_err(|error| Failure::io(path, "read", &error))?
    };
    let name = match path == Path::new("-") {
        true => "standard input".into(),
        false => path.display().to_string(),
    };
    let start = if bytes.starts_with(lines::BOM) {
        lines::BOM.len()
    } else {
        0
    };
    let text = bytes[start..].to_vec();
    String::from_utf8(text).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = valid.iter().filter(|&&byte| byte == b'\n').count() + 1;
        let start = valid
            .iter()
            .rposition(|&byte| byte == b'\n')
            .map_or(0, |at| at + 1);
        let problem = lines::not_utf8(error.as_bytes()[valid.len()], valid.len() - start);
        Failure::new(format!("{name}, line {line} {problem}"))
    })
}
