//! `tokenizer.json`, the format of Hugging Face's `tokenizers`.
//!
//! The vocabulary is most of the file, so it is read straight into a list of borrowed tokens.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use super::components::{self, Component};
use super::{check_id, check_object, check_size, invalid, look_up, no_id_left, special_ids};
use crate::added::{AddedToken, AddedTokens};
use crate::error::TokenizerError;
use crate::model::vocab::Vocab;
use crate::model::wordpiece::WordPiece;
use crate::model::{self, Model};
use crate::options::{Padding, Truncation};
use crate::special::{SpecialNames, SpecialToken};
use crate::template::{Part, Template};
use crate::tokenizer::Parts;

/// The names of the post-processors that tokenizer.json may ask for.
const KNOWN_POST_PROCESSORS: &str = "BertProcessing, TemplateProcessing, null";

#[derive(Deserialize)]
struct File<'a> {
    version: Option<String>,
    truncation: Option<Truncation>,
    padding: Option<Padding>,
    #[serde(default)]
    added_tokens: Option<Vec<Added>>,
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    pre_tokenizer: Value,
    #[serde(default)]
    post_processor: Value,
    #[serde(default)]
    decoder: Value,
    #[serde(borrow)]
    model: ModelFields<'a>,
}

/// The id is the one that the token had when the file was written; what counts is the place in the list.
#[derive(Deserialize)]
struct Added {
    #[allow(
        dead_code,
        reason = "checked to be an id, like every field of the format"
    )]
    id: u32,
    content: String,
    single_word: bool,
    lstrip: bool,
    rstrip: bool,
    normalized: bool,
    special: bool,
}

/// Reads a tokenizer from the contents of a file. `names` are special tokens that other files name.
pub(super) fn parse(json: &str, file: &str, names: SpecialNames) -> Result<Parts, TokenizerError> {
    check_size(json, file)?;
    check_object(json, file)?;
    let parsed: File<'_> = serde_json::from_str(json).map_err(|source| TokenizerError::Json {
        file: file.to_owned(),
        source,
    })?;
    if let Some(version) = parsed.version.filter(|version| version != "1.0") {
        return Err(invalid(
            file,
            "version",
            format!("found {version:?}, expected \"1.0\""),
        ));
    }
    let component = |kind: &'static str, value| Component {
        file,
        kind,
        key: kind.to_owned(),
        value,
    };
    let normalizer = components::normalizer(component("normalizer", parsed.normalizer))?;
    let splitters = components::pre_tokenizer(component("pre_tokenizer", parsed.pre_tokenizer))?;
    let decoder = components::decoder(component("decoder", parsed.decoder))?;

    let mut names = names;
    let model = parsed.model.build(file, &mut names)?;
    let tokens = added_tokens(parsed.added_tokens.unwrap_or_default(), file)?;
    let added = AddedTokens::new(tokens, model.vocab(), &normalizer)
        .map_err(|token| no_id_left(file, &token))?;
    let known = |id: u32| {
        added
            .token(id)
            .or_else(|| model.vocab().token(id))
            .is_some()
    };
    let template = template(
        component("post_processor", parsed.post_processor),
        &known,
        &mut names,
    )?;
    if let Some(padding) = &parsed.padding {
        names.suggest(SpecialToken::Pad, &*padding.pad_token);
    }
    let special = special_ids(&names, |token| look_up(&added, &model, token));
    Ok(Parts {
        normalizer,
        splitters,
        model,
        added,
        template,
        decoder,
        truncation: parsed.truncation,
        padding: parsed.padding,
        special,
    })
}

fn added_tokens(tokens: Vec<Added>, file: &str) -> Result<Vec<AddedToken>, TokenizerError> {
    let check = |(i, token): (usize, Added)| {
        let key = |field: &str| format!("added_tokens[{i}].{field}");
        if token.content.is_empty() {
            return Err(invalid(
                file,
                key("content"),
                "found an empty text, expected a token",
            ));
        }
        check_id(token.id, &token.content, file, &key("id"))?;
        Ok(AddedToken {
            content: token.content,
            single_word: token.single_word,
            lstrip: token.lstrip,
            rstrip: token.rstrip,
            normalized: token.normalized,
            special: token.special,
        })
    };
    tokens.into_iter().enumerate().map(check).collect()
}

#[derive(Deserialize)]
struct BertFields {
    sep: (String, u32),
    cls: (String, u32),
}

#[derive(Deserialize)]
struct TemplateFields {
    single: Vec<PieceFields>,
    pair: Vec<PieceFields>,
    special_tokens: HashMap<String, SpecialFields>,
}

#[derive(Deserialize)]
enum PieceFields {
    Sequence { id: Sequence, type_id: u32 },
    SpecialToken { id: String, type_id: u32 },
}

#[derive(Deserialize, Clone, Copy)]
enum Sequence {
    A,
    B,
}

#[derive(Deserialize)]
struct SpecialFields {
    ids: Vec<u32>,
    tokens: Vec<String>,
}

fn template(
    component: Component<'_>,
    known: &dyn Fn(u32) -> bool,
    names: &mut SpecialNames,
) -> Result<Template, TokenizerError> {
    if component.value.is_null() {
        return Ok(Template::default());
    }
    let file = component.file;
    let check = |id: u32, key: String| match known(id) {
        true => Ok(()),
        false => Err(invalid(
            file,
            key,
            format!("token id {id} is not in the vocabulary"),
        )),
    };
    let name = component.name()?;
    match &*name {
        "BertProcessing" => {
            let BertFields { sep, cls } = component.fields()?;
            check(sep.1, "post_processor.sep".to_owned())?;
            check(cls.1, "post_processor.cls".to_owned())?;
            names.suggest(SpecialToken::Cls, cls.0);
            names.suggest(SpecialToken::Sep, sep.0);
            Ok(Template::bert(cls.1, sep.1))
        }
        "TemplateProcessing" => {
            let TemplateFields {
                single,
                pair,
                special_tokens,
            } = component.fields()?;
            for (name, token) in &special_tokens {
                let key = || format!("post_processor.special_tokens.{name}");
                if token.ids.len() != token.tokens.len() {
                    let problem = format!(
                        "found {} ids and {} tokens, expected as many",
                        token.ids.len(),
                        token.tokens.len()
                    );
                    return Err(invalid(file, key(), problem));
                }
                token
                    .ids
                    .iter()
                    .try_for_each(|&id| check(id, format!("{}.ids", key())))?;
            }
            let parts = |key: &str, pieces: Vec<PieceFields>, texts: u8| {
                let part = |(i, piece)| {
                    let key = format!("post_processor.{key}[{i}]");
                    part(piece, texts, &special_tokens)
                        .map_err(|problem| invalid(file, key, problem))
                };
                pieces
                    .into_iter()
                    .enumerate()
                    .map(part)
                    .collect::<Result<Vec<Part>, _>>()
            };
            Ok(Template {
                single: parts("single", single, 1)?,
                pair: parts("pair", pair, 2)?,
            })
        }
        _ => Err(component.unknown(name, KNOWN_POST_PROCESSORS)),
    }
}

fn part(
    piece: PieceFields,
    texts: u8,
    special_tokens: &HashMap<String, SpecialFields>,
) -> Result<Part, String> {
    match piece {
        PieceFields::Sequence {
            id: Sequence::B, ..
        } if texts < 2 => {
            Err("found sequence B in the template of one text, expected A".to_owned())
        }
        PieceFields::Sequence { id, type_id } => Ok(Part::Text {
            text: id as u8,
            type_id,
        }),
        PieceFields::SpecialToken { id, type_id } => match special_tokens.get(&id) {
            Some(token) => Ok(Part::Special {
                ids: token.ids.clone(),
                type_id,
            }),
            None => Err(format!(
                "special token {id:?} is not in post_processor.special_tokens"
            )),
        },
    }
}

/// The fields of a model, as far as the models that are known have them.
#[derive(Deserialize)]
struct ModelFields<'a> {
    #[serde(rename = "type")]
    name: Option<String>,
    unk_token: Option<Value>,
    continuing_subword_prefix: Option<Value>,
    max_input_chars_per_word: Option<Value>,
    merges: Option<IgnoredAny>,
    #[serde(borrow, default)]
    vocab: Option<VocabField<'a>>,
}

/// A vocabulary.
enum VocabField<'a> {
    /// Tokens and ids.
    Map(Vec<(Cow<'a, str>, u32)>),
    /// A list, as Unigram's.
    List,
}

impl ModelFields<'_> {
    fn build(self, file: &str, names: &mut SpecialNames) -> Result<Model, TokenizerError> {
        // Files written before models had a type are told apart as `tokenizers` does.
        let name = self.name.unwrap_or_else(|| {
            let name = match self.vocab {
                _ if self.merges.is_some() => "BPE",
                Some(VocabField::List) => "Unigram",
                _ if self.continuing_subword_prefix.is_some() => "WordPiece",
                _ => "WordLevel",
            };
            name.to_owned()
        });
        if name != "WordPiece" {
            let file = file.to_owned();
            return Err(TokenizerError::UnknownComponent {
                file,
                kind: "model",
                name,
                known: model::KNOWN,
            });
        }
        let unk: String = field(file, "unk_token", self.unk_token)?;
        let prefix: String = field(
            file,
            "continuing_subword_prefix",
            self.continuing_subword_prefix,
        )?;
        let max_chars: usize = field(
            file,
            "max_input_chars_per_word",
            self.max_input_chars_per_word,
        )?;
        let Some(VocabField::Map(tokens)) = self.vocab else {
            return Err(invalid(
                file,
                "model.vocab",
                "expected an object of tokens and their ids",
            ));
        };
        check_ids(&tokens, file)?;
        let vocab = Vocab::new(&tokens);
        let size = vocab.len();
        let model = WordPiece::new(vocab, &unk, &prefix, max_chars).ok_or_else(|| {
            let problem = format!(
                "{unk:?} is not in the vocabulary of {size} tokens; expected it in model.vocab"
            );
            invalid(file, "model.unk_token", problem)
        })?;
        names.suggest(SpecialToken::Unk, unk);
        Ok(Model::WordPiece(model))
    }
}

/// Refuses ids that are too large, and an id that two tokens share: decoding could not tell them apart.
fn check_ids(tokens: &[(Cow<'_, str>, u32)], file: &str) -> Result<(), TokenizerError> {
    for (token, id) in tokens {
        check_id(*id, token, file, "model.vocab")?;
    }
    // Nearly every file lists its tokens in the order of their ids.
    if tokens.is_sorted_by(|a, b| a.1 < b.1) {
        return Ok(());
    }
    let mut sorted: Vec<(u32, &str)> = tokens.iter().map(|(token, id)| (*id, &**token)).collect();
    sorted.sort_unstable();
    // A token that comes twice is one token.
    let shared = sorted
        .windows(2)
        .find(|pair| pair[0].0 == pair[1].0 && pair[0].1 != pair[1].1);
    match shared {
        None => Ok(()),
        Some(pair) => {
            let problem = format!(
                "tokens {:?} and {:?} both have id {}, expected ids of their own",
                pair[0].1, pair[1].1, pair[0].0
            );
            Err(invalid(file, "model.vocab", problem))
        }
    }
}

/// A field that the model must have.
fn field<T: serde::de::DeserializeOwned>(
    file: &str,
    key: &str,
    value: Option<Value>,
) -> Result<T, TokenizerError> {
    let invalid = |problem: String| invalid(file, format!("model.{key}"), problem);
    let value = value.ok_or_else(|| invalid("missing".to_owned()))?;
    serde_json::from_value(value).map_err(|error| invalid(error.to_string()))
}

impl<'de: 'a, 'a> Deserialize<'de> for VocabField<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Tokens;

        impl<'de> Visitor<'de> for Tokens {
            type Value = VocabField<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tokens and their ids")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut tokens = Vec::new();
                while let Some(token) = map.next_key_seed(Token)? {
                    tokens.push((token, map.next_value()?));
                }
                Ok(VocabField::Map(tokens))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                while list.next_element::<IgnoredAny>()?.is_some() {}
                Ok(VocabField::List)
            }
        }

        deserializer.deserialize_any(Tokens)
    }
}

/// A token's text, borrowed from the file where it stands there without escapes.
struct Token;

impl<'de> DeserializeSeed<'de> for Token {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Token {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a token")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text.to_owned()))
    }
}
