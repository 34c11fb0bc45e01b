//! Reading tokenizers from files.

mod base64;
mod bpe_files;
mod components;
mod config;
mod model;
mod post_processor;
mod protobuf;
mod sentencepiece;
mod tokenizer_json;
mod vocab_txt;

use std::path::Path;

use crate::added::AddedTokens;
use crate::error::TokenizerError;
use crate::options::BertOptions;
use crate::special::SpecialNames;
use crate::tokenizer::Parts;

const JSON: &str = "tokenizer.json";
const VOCAB: &str = "vocab.txt";

/// See [`crate::Tokenizer::from_dir`].
pub(crate) fn from_dir(dir: &Path) -> Result<Parts, TokenizerError> {
    let (json, vocab) = (dir.join(JSON), dir.join(VOCAB));
    if json.exists() {
        let names = config::Config::read(dir)?.names;
        return parse_file(&json, names);
    }
    if vocab.exists() {
        let config = config::Config::read(dir)?;
        return vocab_txt::build(
            &read(&vocab)?,
            &name(&vocab),
            &config.options(),
            &config.added,
        );
    }
    let (vocab, merges) = (dir.join("vocab.json"), dir.join("merges.txt"));
    if vocab.exists() && merges.exists() {
        let mut config = config::Config::read(dir)?;
        config.read_model_type(dir)?;
        return bpe_files::build(&vocab, &merges, config);
    }
    for file in sentencepiece::FILES.map(|file| dir.join(file)) {
        if file.exists() {
            let mut config = config::Config::read(dir)?;
            config.read_model_type(dir)?;
            return sentencepiece::build(&file, config);
        }
    }
    Err(TokenizerError::NoTokenizer {
        path: dir.to_path_buf(),
    })
}

/// See [`crate::Tokenizer::from_file`].
pub(crate) fn from_file(path: &Path) -> Result<Parts, TokenizerError> {
    parse_file(path, SpecialNames::default())
}

fn parse_file(path: &Path, names: SpecialNames) -> Result<Parts, TokenizerError> {
    tokenizer_json::parse(&read(path)?, &name(path), names)
}

/// See [`crate::Tokenizer::from_json`].
pub(crate) fn from_json(json: &[u8]) -> Result<Parts, TokenizerError> {
    tokenizer_json::parse(utf8(json, JSON)?, JSON, SpecialNames::default())
}

/// See [`crate::Tokenizer::from_vocab_file`].
pub(crate) fn from_vocab_file(path: &Path, options: &BertOptions) -> Result<Parts, TokenizerError> {
    vocab_txt::build(&read(path)?, &name(path), options, &[])
}

/// A file's text.
fn read(path: &Path) -> Result<String, TokenizerError> {
    let bytes = std::fs::read(path).map_err(|source| TokenizerError::Read {
        path: path.to_path_buf(),
        source,
    })?;
    String::from_utf8(bytes).or_else(|error| {
        let file = name(path);
        utf8(error.as_bytes(), &file).map(str::to_owned)
    })
}

fn utf8<'a>(bytes: &'a [u8], file: &str) -> Result<&'a str, TokenizerError> {
    std::str::from_utf8(bytes).map_err(|error| {
        let byte = error.valid_up_to();
        let line = 1 + bytes[..byte].iter().filter(|&&byte| byte == b'\n').count();
        TokenizerError::NotUtf8 {
            file: file.to_owned(),
            line,
            byte,
        }
    })
}

fn name(path: &Path) -> String {
    path.display().to_string()
}

/// An error about a key of a file.
fn invalid(file: &str, key: impl Into<String>, problem: impl Into<String>) -> TokenizerError {
    TokenizerError::Invalid {
        file: file.to_owned(),
        key: key.into(),
        problem: problem.into(),
    }
}

/// Positions in a vocabulary's text are kept in 32 bits.
fn check_size(text: &str, file: &str) -> Result<(), TokenizerError> {
    match u32::try_from(text.len()) {
        Ok(_) => Ok(()),
        Err(_) => Err(invalid(
            file,
            "size",
            format!(
                "the file has {} bytes, expected less than 4 GiB",
                text.len()
            ),
        )),
    }
}

/// Refuses a file that is not a JSON object: a list would pass for one whose keys come in the order of our fields.
fn check_object(json: &str, file: &str) -> Result<(), TokenizerError> {
    match json.trim_ascii_start().as_bytes().first() {
        Some(b'[' | b'"') => Err(invalid(file, "top level", "expected a JSON object")),
        // Of everything else the parser knows better what is wrong.
        _ => Ok(()),
    }
}

/// The largest id: tables of embeddings are indexed by signed 32 bits in many places.
const LARGEST_ID: u32 = i32::MAX as u32;

/// Refuses ids that no table of embeddings has a row for.
fn check_id(id: u32, token: &str, file: &str, key: &str) -> Result<(), TokenizerError> {
    match id {
        ..=LARGEST_ID => Ok(()),
        _ => {
            let problem = format!("token {token:?} has id {id}, expected at most {LARGEST_ID}");
            Err(invalid(file, key, problem))
        }
    }
}

/// Ids for added tokens, or an error that names the token.
fn no_id_left(file: &str, token: &str) -> TokenizerError {
    invalid(
        file,
        "added_tokens",
        format!("no id is left for {token:?}: ids have 32 bits"),
    )
}

/// The ids of the special tokens, as far as the tokenizer has them.
fn special_ids(names: &SpecialNames, id: impl Fn(&str) -> Option<u32>) -> [Option<u32>; 5] {
    crate::special::SpecialToken::ALL.map(|role| match names.get(role) {
        Some(name) => id(name),
        None => role.conventions().into_iter().find_map(&id),
    })
}

/// Looks tokens up as a tokenizer does.
fn look_up(added: &AddedTokens, model: &crate::model::Model, token: &str) -> Option<u32> {
    added.id(token).or_else(|| model.vocab().id(token))
}
