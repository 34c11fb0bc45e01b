//! The small components of `tokenizer.json`, each chosen by its `type`.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::base64;
use super::invalid;
use crate::decoder::{self, Decoder};
use crate::error::TokenizerError;
use crate::normalizer::{self, Bert, Normalizer, Precompiled, Step};
use crate::pattern::{Behavior, Pattern};
use crate::pre_tokenizer::metaspace::{Metaspace, Prepend};
use crate::pre_tokenizer::{self, ByteLevel, Splitter};

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
    pub(super) fn children(self, list: &str) -> Result<Vec<Self>, TokenizerError> {
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

#[derive(Deserialize)]
enum PatternField {
    String(String),
    Regex(String),
}

impl PatternField {
    fn pattern(self, file: &str, key: &str) -> Result<Pattern, TokenizerError> {
        let pattern = match self {
            Self::String(text) => Pattern::text(text),
            Self::Regex(regex) => Pattern::regex(&regex),
        };
        pattern.map_err(|problem| invalid(file, format!("{key}.pattern"), problem))
    }
}

#[derive(Deserialize)]
struct ReplaceFields {
    pattern: PatternField,
    content: String,
}

#[derive(Deserialize)]
struct SplitFields {
    pattern: PatternField,
    behavior: Behavior,
    invert: bool,
}

#[derive(Deserialize)]
struct PrependFields {
    prepend: String,
}

#[derive(Deserialize)]
struct PrecompiledFields {
    precompiled_charsmap: String,
}

#[derive(Deserialize)]
struct DigitsFields {
    individual_digits: bool,
}

#[derive(Deserialize)]
struct DelimiterFields {
    delimiter: char,
}

#[derive(Deserialize)]
struct LengthFields {
    #[serde(default = "default_length")]
    length: usize,
}

fn default_length() -> usize {
    5
}

/// The fields of byte-level pre-tokenizers and post-processors.
#[derive(Deserialize)]
pub(super) struct ByteLevelFields {
    pub(super) add_prefix_space: bool,
    pub(super) trim_offsets: bool,
    #[serde(default = "default_true")]
    use_regex: bool,
}

fn default_true() -> bool {
    true
}

/// `prepend_scheme` came in the place of `add_prefix_space`.
#[derive(Deserialize)]
struct MetaspaceFields {
    replacement: char,
    add_prefix_space: Option<bool>,
    #[serde(default)]
    prepend_scheme: Prepend,
    split: Option<bool>,
    #[serde(rename = "str_rep")]
    _str_rep: Option<String>,
}

impl MetaspaceFields {
    fn metaspace(self, file: &str, key: &str) -> Result<Metaspace, TokenizerError> {
        let mut prepend = self.prepend_scheme;
        if self.add_prefix_space == Some(false) {
            if prepend == Prepend::First {
                let problem =
                    "found false, expected true or nothing beside a prepend_scheme of \"first\"";
                return Err(invalid(file, format!("{key}.add_prefix_space"), problem));
            }
            prepend = Prepend::Never;
        }
        Ok(Metaspace {
            mark: self.replacement,
            prepend,
            split: self.split.unwrap_or(true),
        })
    }
}

#[derive(Deserialize)]
struct SuffixFields {
    suffix: String,
}

#[derive(Deserialize)]
struct StripDecoderFields {
    content: char,
    start: usize,
    stop: usize,
}

#[derive(Deserialize)]
struct CtcFields {
    pad_token: String,
    word_delimiter_token: String,
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
        "Replace" => {
            let (file, key) = (component.file, component.key.clone());
            let ReplaceFields { pattern, content } = component.fields()?;
            let pattern = pattern.pattern(file, &key)?;
            Step::Replace { pattern, content }
        }
        "Prepend" => Step::Prepend(component.fields::<PrependFields>()?.prepend),
        "Nmt" => Step::Nmt,
        "Precompiled" => {
            let (file, key) = (
                component.file,
                format!("{}.precompiled_charsmap", component.key),
            );
            let encoded = component
                .fields::<PrecompiledFields>()?
                .precompiled_charsmap;
            let map = base64::decode(&encoded).and_then(|bytes| Precompiled::new(&bytes));
            Step::Precompiled(map.map_err(|problem| invalid(file, key, problem))?)
        }
        "ByteLevel" => Step::ByteLevel,
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
        "Digits" => Splitter::Digits {
            individual: component.fields::<DigitsFields>()?.individual_digits,
        },
        "CharDelimiterSplit" => {
            Splitter::Character(component.fields::<DelimiterFields>()?.delimiter)
        }
        "Split" => {
            let (file, key) = (component.file, component.key.clone());
            let SplitFields {
                pattern,
                behavior,
                invert,
            } = component.fields()?;
            Splitter::Pattern {
                pattern: pattern.pattern(file, &key)?,
                behavior,
                inverted: invert,
            }
        }
        "FixedLength" => {
            let (file, key) = (component.file, format!("{}.length", component.key));
            match component.fields::<LengthFields>()?.length {
                0 => return Err(invalid(file, key, "found 0, expected at least 1")),
                length => Splitter::FixedLength(length),
            }
        }
        "ByteLevel" => {
            let fields: ByteLevelFields = component.fields()?;
            Splitter::ByteLevel(ByteLevel {
                add_prefix_space: fields.add_prefix_space,
                words: fields.use_regex,
            })
        }
        "Metaspace" => {
            let (file, key) = (component.file, component.key.clone());
            let fields: MetaspaceFields = component.fields()?;
            Splitter::Metaspace(fields.metaspace(file, &key)?)
        }
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
    let mut steps = Vec::new();
    add_decoders(component, &mut steps)?;
    Ok(match &mut *steps {
        [decoder::Step::WordPiece { prefix, cleanup }] => Decoder::WordPiece {
            prefix: std::mem::take(prefix),
            cleanup: *cleanup,
        },
        _ => Decoder::Steps(steps),
    })
}

fn add_decoders(
    component: Component<'_>,
    steps: &mut Vec<decoder::Step>,
) -> Result<(), TokenizerError> {
    let name = component.name()?;
    let (file, key) = (component.file, component.key.clone());
    steps.push(match &*name {
        "WordPiece" => {
            let WordPieceFields { prefix, cleanup } = component.fields()?;
            decoder::Step::WordPiece { prefix, cleanup }
        }
        "ByteLevel" => decoder::Step::ByteLevel,
        "Metaspace" => {
            let fields: MetaspaceFields = component.fields()?;
            decoder::Step::Metaspace(fields.metaspace(file, &key)?)
        }
        "BPEDecoder" => decoder::Step::Bpe {
            suffix: component.fields::<SuffixFields>()?.suffix,
        },
        "ByteFallback" => decoder::Step::ByteFallback,
        "Fuse" => decoder::Step::Fuse,
        "Strip" => {
            let StripDecoderFields {
                content,
                start,
                stop,
            } = component.fields()?;
            decoder::Step::Strip {
                content,
                start,
                stop,
            }
        }
        "Replace" => {
            let ReplaceFields { pattern, content } = component.fields()?;
            let pattern = pattern.pattern(file, &key)?;
            decoder::Step::Replace { pattern, content }
        }
        "CTC" => {
            let CtcFields {
                pad_token,
                word_delimiter_token,
                cleanup,
            } = component.fields()?;
            decoder::Step::Ctc {
                pad_token,
                word_delimiter_token,
                cleanup,
            }
        }
        "Sequence" => {
            let children = component.children("decoders")?;
            return children
                .into_iter()
                .try_for_each(|child| add_decoders(child, steps));
        }
        _ => return Err(component.unknown(name, decoder::KNOWN)),
    });
    Ok(())
}
