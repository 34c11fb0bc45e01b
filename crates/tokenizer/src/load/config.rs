//! `tokenizer_config.json`, `special_tokens_map.json` and `added_tokens.json`, as `transformers` writes them.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::{check_object, invalid, name, read};
use crate::added::AddedToken;
use crate::error::TokenizerError;
use crate::options::BertOptions;
use crate::special::{SpecialNames, SpecialToken};

/// What the files beside the vocabulary say.
#[derive(Debug, Default)]
pub(super) struct Config {
    pub(super) lowercase: Option<bool>,
    strip_accents: Option<bool>,
    chinese: Option<bool>,
    pub(super) add_prefix_space: Option<bool>,
    pub(super) keep_accents: Option<bool>,
    pub(super) split_by_punct: Option<bool>,
    /// What kind of tokenizer or model this is, in small letters without punctuation.
    kind: Option<String>,
    /// The texts of the special tokens.
    pub(super) names: SpecialNames,
    /// Added tokens in the order of their ids.
    pub(super) added: Vec<AddedToken>,
}

/// A token as these files write it: its text, or its text with flags.
#[derive(Deserialize)]
#[serde(untagged)]
enum Token {
    Text(String),
    Flags(Flags),
}

#[derive(Deserialize)]
struct Flags {
    content: String,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    normalized: Option<bool>,
    special: Option<bool>,
}

impl Flags {
    fn added(self, special: bool) -> AddedToken {
        let special = self.special.unwrap_or(special);
        AddedToken {
            content: self.content,
            single_word: self.single_word,
            lstrip: self.lstrip,
            rstrip: self.rstrip,
            normalized: self.normalized.unwrap_or(!special),
            special,
        }
    }
}

impl Token {
    fn content(&self) -> &str {
        match self {
            Self::Text(content) | Self::Flags(Flags { content, .. }) => content,
        }
    }

    fn added_special(self) -> AddedToken {
        match self {
            Self::Text(content) => AddedToken::special(content),
            Self::Flags(flags) => flags.added(true),
        }
    }
}

/// The keys that the first two files share; `null` is as good as nothing.
#[derive(Deserialize, Default)]
#[serde(default)]
struct File {
    tokenizer_class: Option<String>,
    do_lower_case: Option<bool>,
    add_prefix_space: Option<bool>,
    keep_accents: Option<bool>,
    split_by_punct: Option<bool>,
    strip_accents: Option<bool>,
    tokenize_chinese_chars: Option<bool>,
    cls_token: Option<Token>,
    sep_token: Option<Token>,
    pad_token: Option<Token>,
    unk_token: Option<Token>,
    mask_token: Option<Token>,
    additional_special_tokens: Option<Vec<Token>>,
    added_tokens_decoder: Option<BTreeMap<String, Flags>>,
}

impl Config {
    /// Reads what is there.
    pub(super) fn read(dir: &Path) -> Result<Self, TokenizerError> {
        let mut config = Self::default();
        // Tokens with an id of their own, and those without.
        let mut by_id = BTreeMap::new();
        let mut further = Vec::new();
        for file in ["tokenizer_config.json", "special_tokens_map.json"] {
            let path = dir.join(file);
            let Some(file) = parse::<File>(&path)? else {
                continue;
            };
            config.lowercase = config.lowercase.or(file.do_lower_case);
            config.strip_accents = config.strip_accents.or(file.strip_accents);
            config.chinese = config.chinese.or(file.tokenize_chinese_chars);
            config.add_prefix_space = config.add_prefix_space.or(file.add_prefix_space);
            config.keep_accents = config.keep_accents.or(file.keep_accents);
            config.split_by_punct = config.split_by_punct.or(file.split_by_punct);
            config.kind = config.kind.or(file.tokenizer_class.as_deref().map(plain));
            let tokens = [
                (SpecialToken::Cls, file.cls_token),
                (SpecialToken::Sep, file.sep_token),
                (SpecialToken::Pad, file.pad_token),
                (SpecialToken::Unk, file.unk_token),
                (SpecialToken::Mask, file.mask_token),
            ];
            for (role, token) in tokens {
                if let Some(token) = token {
                    config.names.suggest(role, token.content());
                    // An object has flags, such as the `lstrip` of many mask tokens.
                    if matches!(token, Token::Flags(_)) {
                        further.push(token.added_special());
                    }
                }
            }
            for (id, flags) in file.added_tokens_decoder.into_iter().flatten() {
                let number: u32 = id.parse().map_err(|_| {
                    let key = format!("added_tokens_decoder.{id}");
                    invalid(
                        &name(&path),
                        key,
                        format!("found {id:?}, expected a token id"),
                    )
                })?;
                by_id.entry(number).or_insert_with(|| flags.added(false));
            }
            let special = file.additional_special_tokens.into_iter().flatten();
            further.extend(special.map(Token::added_special));
        }
        for (content, id) in parse::<BTreeMap<String, u32>>(&dir.join("added_tokens.json"))?
            .into_iter()
            .flatten()
        {
            by_id
                .entry(id)
                .or_insert_with(|| AddedToken::plain(content));
        }
        config.added.extend(by_id.into_values());
        for token in further {
            if config
                .added
                .iter()
                .all(|known| known.content != token.content)
            {
                config.added.push(token);
            }
        }
        Ok(config)
    }

    /// Reads what kind of model `config.json` describes, if the tokenizer's own files do not say.
    pub(super) fn read_model_type(&mut self, dir: &Path) -> Result<(), TokenizerError> {
        #[derive(Deserialize)]
        struct ModelConfig {
            model_type: Option<String>,
        }
        // This class is said of any tokenizer.json, whatever the model.
        if self.kind.as_deref() == Some("pretrainedtokenizerfast") {
            self.kind = None;
        }
        if self.kind.is_none()
            && let Some(config) = parse::<ModelConfig>(&dir.join("config.json"))?
        {
            self.kind = config.model_type.as_deref().map(plain);
        }
        Ok(())
    }

    /// Whether this is a tokenizer or a model of a kind, which is given in small letters without punctuation.
    pub(super) fn is(&self, kind: &str) -> bool {
        self.kind
            .as_ref()
            .is_some_and(|name| name.starts_with(kind))
    }

    /// Whether any file says what kind this is.
    pub(super) fn is_named(&self) -> bool {
        self.kind.is_some()
    }

    /// What these files leave open is as in `bert-base-uncased`.
    pub(super) fn options(&self) -> BertOptions {
        let defaults = BertOptions::default();
        let token = |role| {
            self.names
                .get(role)
                .unwrap_or(role.conventional())
                .to_owned()
        };
        BertOptions {
            lowercase: self.lowercase.unwrap_or(defaults.lowercase),
            strip_accents: self.strip_accents,
            tokenize_chinese_chars: self.chinese.unwrap_or(defaults.tokenize_chinese_chars),
            unk_token: token(SpecialToken::Unk),
            sep_token: token(SpecialToken::Sep),
            pad_token: token(SpecialToken::Pad),
            cls_token: token(SpecialToken::Cls),
            mask_token: token(SpecialToken::Mask),
            ..defaults
        }
    }
}

/// A name in small letters, without punctuation: `XLMRobertaTokenizer` and `xlm-roberta` begin alike.
fn plain(name: &str) -> String {
    let letters = name.chars().filter(|c| c.is_alphanumeric());
    letters.map(|c| c.to_ascii_lowercase()).collect()
}

/// Parses a file, if it is there.
fn parse<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, TokenizerError> {
    if !path.exists() {
        return Ok(None);
    }
    let json = read(path)?;
    check_object(&json, &name(path))?;
    let parsed = serde_json::from_str(&json);
    parsed.map(Some).map_err(|source| TokenizerError::Json {
        file: name(path),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(files: &[(&str, &str)]) -> Result<Config, TokenizerError> {
        let dir = tempfile::tempdir().unwrap();
        for (file, json) in files {
            std::fs::write(dir.path().join(file), json).unwrap();
        }
        Config::read(dir.path())
    }

    #[test]
    fn tokens_are_texts_or_objects() {
        let config = config(&[
            (
                "tokenizer_config.json",
                r#"{"do_lower_case": false, "cls_token": "<c>", "strip_accents": null, "model_max_length": 1e30,
                    "mask_token": {"__type": "AddedToken", "content": "<m>", "lstrip": true}, "sep_token": null,
                    "added_tokens_decoder": {"7": {"content": "<x>", "special": true}, "10": {"content": "<y>"},
                        "9": {"content": "<m>", "lstrip": true, "normalized": false, "special": true}}}"#,
            ),
            ("special_tokens_map.json", r#"{"cls_token": "<other>", "sep_token": {"content": "<s>"},
                "additional_special_tokens": ["<x>", "<z>"]}"#),
            ("added_tokens.json", r#"{"<w>": 11, "<x>": 7}"#),
        ])
        .unwrap();
        let options = config.options();
        assert!(!options.lowercase && options.tokenize_chinese_chars);
        assert_eq!(
            [&*options.cls_token, &options.sep_token, &options.mask_token],
            ["<c>", "<s>", "<m>"]
        );
        let contents: Vec<&str> = config.added.iter().map(|token| &*token.content).collect();
        assert_eq!(contents, ["<x>", "<m>", "<y>", "<w>", "<s>", "<z>"]);
        assert!(config.added[1].lstrip && config.added[1].special && !config.added[1].normalized);
        assert!(!config.added[2].special && config.added[2].normalized);
    }

    #[test]
    fn errors_name_the_file() {
        let error =
            config(&[("tokenizer_config.json", r#"{"do_lower_case": "yes"}"#)]).unwrap_err();
        assert!(
            error.to_string().contains("tokenizer_config.json"),
            "{error}"
        );
        let error = config(&[(
            "tokenizer_config.json",
            r#"{"added_tokens_decoder": {"x": {"content": ""}}}"#,
        )]);
        assert!(
            error
                .unwrap_err()
                .to_string()
                .contains("added_tokens_decoder.x")
        );
        let error = config(&[("added_tokens.json", r#"{"a": 4294967296}"#)]).unwrap_err();
        assert!(error.to_string().contains("added_tokens.json"), "{error}");
        assert!(config(&[]).unwrap().added.is_empty());
    }
}
