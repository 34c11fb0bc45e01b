//! The models of `tokenizer.json`.
//!
//! The vocabulary is most of the file, so it is read straight into a list of borrowed tokens.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor,
};
use serde_json::Value;

use super::{check_id, invalid};
use crate::error::TokenizerError;
use crate::model::bpe::{Bpe, Settings};
use crate::model::unigram::Unigram;
use crate::model::vocab::Vocab;
use crate::model::wordlevel::WordLevel;
use crate::model::wordpiece::WordPiece;
use crate::model::{self, Model};
use crate::special::{SpecialNames, SpecialToken};

/// The fields of a model, as far as the models that are known have them. `dropout` is not among them: what it makes of
/// a text is left to chance, and is for training.
#[derive(Deserialize)]
pub(super) struct ModelFields<'a> {
    #[serde(rename = "type")]
    name: Option<String>,
    unk_token: Option<Value>,
    unk_id: Option<Value>,
    continuing_subword_prefix: Option<Value>,
    end_of_word_suffix: Option<Value>,
    max_input_chars_per_word: Option<Value>,
    fuse_unk: Option<Value>,
    byte_fallback: Option<Value>,
    ignore_merges: Option<Value>,
    #[serde(borrow)]
    merges: Option<MergesField<'a>>,
    #[serde(borrow, default)]
    vocab: Option<VocabField<'a>>,
}

/// A vocabulary.
pub(super) enum VocabField<'a> {
    /// Tokens and ids.
    Map(Vec<(Cow<'a, str>, u32)>),
    /// Tokens and scores.
    List(Vec<(Cow<'a, str>, f64)>),
}

/// Pairs of tokens.
struct MergesField<'a>(Vec<Pair<'a>>);

type Pair<'a> = (Cow<'a, str>, Cow<'a, str>);

impl ModelFields<'_> {
    /// Builds the model. If `byte_level`, words come to it from a byte-level pre-tokenizer.
    pub(super) fn build(
        self,
        file: &str,
        names: &mut SpecialNames,
        byte_level: bool,
    ) -> Result<Model, TokenizerError> {
        // Files written before models had a type are told apart as `tokenizers` does.
        let name = match &self.name {
            Some(name) => &**name,
            None => match self.vocab {
                _ if self.merges.is_some() => "BPE",
                Some(VocabField::List(_)) => "Unigram",
                _ if self.continuing_subword_prefix.is_some() => "WordPiece",
                _ => "WordLevel",
            },
        };
        match name {
            "WordPiece" => self.word_piece(file, names),
            "BPE" => self.bpe(file, names, byte_level),
            "Unigram" => self.unigram(file, names),
            "WordLevel" => self.word_level(file, names),
            _ => Err(TokenizerError::UnknownComponent {
                file: file.to_owned(),
                kind: "model",
                name: name.to_owned(),
                known: model::KNOWN,
            }),
        }
    }

    fn word_piece(self, file: &str, names: &mut SpecialNames) -> Result<Model, TokenizerError> {
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
        let vocab = vocabulary(self.vocab, file)?;
        let size = vocab.len();
        let model = WordPiece::new(vocab, &unk, &prefix, max_chars)
            .ok_or_else(|| not_in_vocabulary(file, &unk, size))?;
        names.suggest(SpecialToken::Unk, unk);
        Ok(Model::WordPiece(model))
    }

    fn word_level(self, file: &str, names: &mut SpecialNames) -> Result<Model, TokenizerError> {
        let unk: String = field(file, "unk_token", self.unk_token)?;
        let vocab = vocabulary(self.vocab, file)?;
        let size = vocab.len();
        let model =
            WordLevel::new(vocab, &unk).ok_or_else(|| not_in_vocabulary(file, &unk, size))?;
        names.suggest(SpecialToken::Unk, unk);
        Ok(Model::WordLevel(model))
    }

    fn unigram(self, file: &str, names: &mut SpecialNames) -> Result<Model, TokenizerError> {
        let unk: Option<u32> = optional(file, "unk_id", self.unk_id)?;
        let byte_fallback = optional(file, "byte_fallback", self.byte_fallback)?.unwrap_or(false);
        let Some(VocabField::List(tokens)) = self.vocab else {
            let problem = "expected a list of tokens and their scores";
            return Err(invalid(file, "model.vocab", problem));
        };
        let model = unigram(&tokens, unk, byte_fallback, file, "model")?;
        if let Some(unk) = unk.and_then(|unk| tokens.get(unk as usize)) {
            names.suggest(SpecialToken::Unk, &*unk.0);
        }
        Ok(Model::Unigram(model))
    }

    fn bpe(
        self,
        file: &str,
        names: &mut SpecialNames,
        byte_level: bool,
    ) -> Result<Model, TokenizerError> {
        let flag = |key: &str, value| -> Result<bool, TokenizerError> {
            Ok(optional(file, key, value)?.unwrap_or(false))
        };
        let text = |key: &str, value| -> Result<String, TokenizerError> {
            Ok(optional(file, key, value)?.unwrap_or_default())
        };
        let unk: Option<String> = optional(file, "unk_token", self.unk_token)?;
        let settings = Settings {
            merges: Vec::new(),
            unk: None,
            fuse_unk: flag("fuse_unk", self.fuse_unk)?,
            byte_fallback: flag("byte_fallback", self.byte_fallback)?,
            prefix: text("continuing_subword_prefix", self.continuing_subword_prefix)?,
            suffix: text("end_of_word_suffix", self.end_of_word_suffix)?,
            ignore_merges: flag("ignore_merges", self.ignore_merges)?,
        };
        let vocab = vocabulary(self.vocab, file)?;
        let Some(MergesField(merges)) = self.merges else {
            return Err(invalid(file, "model.merges", "missing"));
        };
        let model = bpe(
            vocab,
            &merges,
            settings,
            unk.as_deref(),
            byte_level,
            file,
            "model",
        )?;
        if let Some(unk) = unk {
            names.suggest(SpecialToken::Unk, unk);
        }
        Ok(Model::Bpe(model))
    }
}

/// Builds a Unigram model of tokens with scores.
pub(super) fn unigram<S: AsRef<str>>(
    tokens: &[(S, f64)],
    unk: Option<u32>,
    byte_fallback: bool,
    file: &str,
    key: &str,
) -> Result<Unigram, TokenizerError> {
    if tokens.is_empty() {
        let problem = "found no token, expected some";
        return Err(invalid(file, format!("{key}.vocab"), problem));
    }
    if let Some(unk) = unk
        && unk as usize >= tokens.len()
    {
        let problem = format!("found {unk}, expected one of the {} tokens", tokens.len());
        return Err(invalid(file, format!("{key}.unk_id"), problem));
    }
    if let Some((token, score)) = tokens.iter().find(|(_, score)| !score.is_finite()) {
        let problem = format!(
            "token {:?} has the score {score}, expected a number",
            token.as_ref()
        );
        return Err(invalid(file, format!("{key}.vocab"), problem));
    }
    Ok(Unigram::new(tokens, unk, byte_fallback))
}

/// Builds a BPE model. `settings` are all but the unknown token and those merges that `merges` adds.
pub(super) fn bpe<S: AsRef<str>>(
    vocab: Vocab,
    merges: &[(S, S)],
    mut settings: Settings,
    unk: Option<&str>,
    byte_level: bool,
    file: &str,
    key: &str,
) -> Result<Bpe, TokenizerError> {
    let mut text = String::new();
    for (rank, (left, right)) in merges.iter().enumerate() {
        let (left, right) = (left.as_ref(), right.as_ref());
        let id = |token: &str| {
            vocab.id(token).ok_or_else(|| {
                let problem = format!(
                    "{token:?} is not in the vocabulary of {} tokens",
                    vocab.len()
                );
                invalid(file, format!("{key}.merges[{rank}]"), problem)
            })
        };
        let (left_id, right_id) = (id(left)?, id(right)?);
        let Some(tail) = right.get(settings.prefix.len()..) else {
            let problem = format!("{right:?} is shorter than the prefix of continuing tokens");
            return Err(invalid(file, format!("{key}.merges[{rank}]"), problem));
        };
        text.clear();
        text.push_str(left);
        text.push_str(tail);
        settings.merges.push((left_id, right_id, id(&text)?));
    }
    settings.unk = unk.and_then(|unk| vocab.id(unk));
    // Prefix and suffix are for characters.
    let plain = settings.prefix.is_empty() && settings.suffix.is_empty();
    let missing = unk.filter(|_| settings.unk.is_none());
    let model = Bpe::new(vocab, settings, byte_level && plain);
    match missing {
        // Bytes are never unknown.
        Some(unk) if !model.is_byte_level() => {
            Err(not_in_vocabulary(file, unk, model.vocab().len()))
        }
        _ => Ok(model),
    }
}

fn not_in_vocabulary(file: &str, unk: &str, size: usize) -> TokenizerError {
    let problem =
        format!("{unk:?} is not in the vocabulary of {size} tokens; expected it in model.vocab");
    invalid(file, "model.unk_token", problem)
}

fn vocabulary(vocab: Option<VocabField<'_>>, file: &str) -> Result<Vocab, TokenizerError> {
    let Some(VocabField::Map(tokens)) = vocab else {
        let problem = "expected an object of tokens and their ids";
        return Err(invalid(file, "model.vocab", problem));
    };
    check_ids(&tokens, file, "model.vocab")?;
    Ok(Vocab::new(&tokens))
}

/// Refuses ids that are too large, and an id that two tokens share: decoding could not tell them apart.
pub(super) fn check_ids(
    tokens: &[(Cow<'_, str>, u32)],
    file: &str,
    key: &str,
) -> Result<(), TokenizerError> {
    for (token, id) in tokens {
        check_id(*id, token, file, key)?;
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
            Err(invalid(file, key, problem))
        }
    }
}

/// A field that the model must have.
fn field<T: DeserializeOwned>(
    file: &str,
    key: &str,
    value: Option<Value>,
) -> Result<T, TokenizerError> {
    let invalid = |problem: String| invalid(file, format!("model.{key}"), problem);
    let value = value.ok_or_else(|| invalid("missing".to_owned()))?;
    serde_json::from_value(value).map_err(|error| invalid(error.to_string()))
}

/// A field that the model may have, and that may be null.
fn optional<T: DeserializeOwned>(
    file: &str,
    key: &str,
    value: Option<Value>,
) -> Result<Option<T>, TokenizerError> {
    match value {
        None | Some(Value::Null) => Ok(None),
        value => field(file, key, value).map(Some),
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for VocabField<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Tokens;

        impl<'de> Visitor<'de> for Tokens {
            type Value = VocabField<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "an object of tokens and their ids, or a list of tokens and their scores",
                )
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut tokens = Vec::new();
                while let Some(token) = map.next_key_seed(Token)? {
                    tokens.push((token, map.next_value()?));
                }
                Ok(VocabField::Map(tokens))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut tokens = Vec::new();
                while let Some(scored) = list.next_element_seed(Scored)? {
                    tokens.push(scored);
                }
                Ok(VocabField::List(tokens))
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

/// A token and its score.
struct Scored;

impl<'de> DeserializeSeed<'de> for Scored {
    type Value = (Cow<'de, str>, f64);

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Scored {
    type Value = (Cow<'de, str>, f64);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a token and its score")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let missing = |at| A::Error::invalid_length(at, &"a token and its score");
        let token = list.next_element_seed(Token)?.ok_or_else(|| missing(0))?;
        let score = list.next_element()?.ok_or_else(|| missing(1))?;
        Ok((token, score))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for MergesField<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Merges;

        impl<'de> Visitor<'de> for Merges {
            type Value = MergesField<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of pairs of tokens")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = list.next_element_seed(MergeSeed)? {
                    // Lists that come from a merges.txt may have its first line.
                    pairs.extend(pair);
                }
                Ok(MergesField(pairs))
            }
        }

        deserializer.deserialize_seq(Merges)
    }
}

/// Two tokens, as a list or as a text with a space between.
struct MergeSeed;

impl<'de> DeserializeSeed<'de> for MergeSeed {
    type Value = Option<Pair<'de>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for MergeSeed {
    type Value = Option<Pair<'de>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("two tokens, as a list or with a space between")
    }

    fn visit_borrowed_str<E: serde::de::Error>(self, line: &'de str) -> Result<Self::Value, E> {
        let pair = merge_line(line).map_err(E::custom)?;
        Ok(pair.map(|(left, right)| (Cow::Borrowed(left), Cow::Borrowed(right))))
    }

    fn visit_str<E: serde::de::Error>(self, line: &str) -> Result<Self::Value, E> {
        let pair = merge_line(line).map_err(E::custom)?;
        Ok(pair.map(|(left, right)| (Cow::Owned(left.to_owned()), Cow::Owned(right.to_owned()))))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let missing = |at| A::Error::invalid_length(at, &"two tokens");
        let left = list.next_element_seed(Token)?.ok_or_else(|| missing(0))?;
        let right = list.next_element_seed(Token)?.ok_or_else(|| missing(1))?;
        Ok(Some((left, right)))
    }
}

/// The two tokens of a line of a merges.txt; none on the line that says its version.
pub(super) fn merge_line(line: &str) -> Result<Option<(&str, &str)>, String> {
    if line.starts_with("#version") {
        return Ok(None);
    }
    match line.split_once(' ') {
        Some((left, right)) if !right.contains(' ') => Ok(Some((left, right))),
        _ => Err(format!(
            "found {line:?}, expected two tokens with a space between"
        )),
    }
}
