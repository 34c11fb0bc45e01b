//! The small components of `tokenizer.json`, each chosen by its `type`.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::invalid;
use crate::decoder::{self, Decoder};
use crate::error::TokenizerError;
use crate::normalizer::{self, Bert, Normalizer, Step};
use crate::pre_tokenizer::{self, Behavior, Splitter};

/// A component on its way from JSON.
pub(super) struct Component<'a> {
    pub(super) file: &'a str,
    /// `normalizer`, `pre_tokenizer`, `post_processor` or `decoder`.
    pub(super) kind: &'static str,
    /// Where it is in the file.
    pub(super) key: String,
    pub(super) value: Value,
}

impl Component<'_> {
    /// The component's `type`.
    pub(super) fn name(&self) -> Result<String, TokenizerError> {
        match self.value.get("type") {
            Some(Value::String(name)) => Ok(name.clone()),
            _ => {
                let problem = "expected an object with a \"type\" that is a string, or null";
                Err(invalid(self.file, &*self.key, problem))
            }
        }
    }

    pub(super) fn unknown(&self, name: String, known: &'static str) -> TokenizerError {
        TokenizerError::UnknownComponent {
            file: self.file.to_owned(),
            kind: self.kind,
            name,
            known,
        }
    }

    /// The component's fields.
    pub(super) fn fields<T: DeserializeOwned>(self) -> Result<T, TokenizerError> {
        let Self {
            file, key, value, ..
        } = self;
        serde_json::from_value(value).map_err(|error| invalid(file, key, error.to_string()))
    }

    /// The components of a sequence.
    fn children(self, list: &str) -> Result<Vec<Self>, TokenizerError> {
        let Self {
            file,
            kind,
            key,
            mut value,
        } = self;
        let key = format!("{key}.{list}");
        let Some(Value::Array(children)) = value.get_mut(list).map(Value::take) else {
            return Err(invalid(file, key, "expected a list"));
        };
        let child = |(i, value)| Self {
            file,
            kind,
            key: format!("{key}[{i}]"),
            value,
        };
        Ok(children.into_iter().enumerate().map(child).collect())
    }
}

#[derive(Deserialize)]
struct BertFields {
    clean_text: bool,
    handle_chinese_chars: bool,
    strip_accents: Option<bool>,
    lowercase: bool,
}

#[derive(Deserialize)]
struct StripFields {
    strip_left: bool,
    strip_right: bool,
}

#[derive(Deserialize)]
struct PunctuationFields {
    #[serde(default)]
    behavior: Behavior,
}

#[derive(Deserialize)]
struct WordPieceFields {
    prefix: String,
    cleanup: bool,
}

pub(super) fn normalizer(component: Component<'_>) -> Result<Normalizer, TokenizerError> {
    let mut steps = Vec::new();
    if !component.value.is_null() {
        add_steps(component, &mut steps)?;
    }
    Ok(match *steps {
        [Step::Bert(bert)] => Normalizer::Bert(bert),
        _ => Normalizer::Steps(steps),
    })
}

fn add_steps(component: Component<'_>, steps: &mut Vec<Step>) -> Result<(), TokenizerError> {
    let name = component.name()?;
    steps.push(match &*name {
        "BertNormalizer" => {
            let BertFields {
                clean_text,
                handle_chinese_chars,
                strip_accents,
                lowercase,
            } = component.fields()?;
            let strip_accents = strip_accents.unwrap_or(lowercase);
            Step::Bert(Bert {
                clean_text,
                handle_chinese_chars,
                strip_accents,
                lowercase,
            })
        }
        "NFC" => Step::Nfc,
        "NFD" => Step::Nfd,
        "NFKC" => Step::Nfkc,
        "NFKD" => Step::Nfkd,
        "Lowercase" => Step::Lowercase,
        "StripAccents" => Step::StripAccents,
        "Strip" => {
            let StripFields {
                strip_left: left,
                strip_right: right,
            } = component.fields()?;
            Step::Strip { left, right }
        }
        "Sequence" => {
            let children = component.children("normalizers")?;
            return children
                .into_iter()
                .try_for_each(|child| add_steps(child, steps));
        }
        _ => return Err(component.unknown(name, normalizer::KNOWN)),
    });
    Ok(())
}

pub(super) fn pre_tokenizer(component: Component<'_>) -> Result<Vec<Splitter>, TokenizerError> {
    let mut splitters = Vec::new();
    if !component.value.is_null() {
        add_splitters(component, &mut splitters)?;
    }
    Ok(splitters)
}

fn add_splitters(
    component: Component<'_>,
    splitters: &mut Vec<Splitter>,
) -> Result<(), TokenizerError> {
    let name = component.name()?;
    splitters.push(match &*name {
        "BertPreTokenizer" => Splitter::Bert,
        "Whitespace" => Splitter::Whitespace,
        "WhitespaceSplit" => Splitter::WhitespaceSplit,
        "Punctuation" => Splitter::Punctuation(component.fields::<PunctuationFields>()?.behavior),
        "Sequence" => {
            let children = component.children("pretokenizers")?;
            return children
                .into_iter()
                .try_for_each(|child| add_splitters(child, splitters));
        }
        _ => return Err(component.unknown(name, pre_tokenizer::KNOWN)),
    });
    Ok(())
}

pub(super) fn decoder(component: Component<'_>) -> Result<Decoder, TokenizerError> {
    if component.value.is_null() {
        return Ok(Decoder::Spaces);
    }
    let name = component.name()?;
    match &*name {
        "WordPiece" => {
            let WordPieceFields { prefix, cleanup } = component.fields()?;
            Ok(Decoder::WordPiece { prefix, cleanup })
        }
        _ => Err(component.unknown(name, decoder::KNOWN)),
    }
}
