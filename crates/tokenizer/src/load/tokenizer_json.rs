//! `tokenizer.json`, the format of Hugging Face's `tokenizers`.
//!
//! The vocabulary is most of the file, so it is read straight into a list of borrowed tokens.

use serde::Deserialize;
use serde_json::Value;

use super::components::{self, Component};
use super::model::ModelFields;
use super::post_processor;
use super::{check_id, check_object, check_size, invalid, look_up, no_id_left, special_ids};
use crate::added::{AddedToken, AddedTokens};
use crate::error::TokenizerError;
use crate::options::{Padding, Truncation};
use crate::special::{SpecialNames, SpecialToken};
use crate::tokenizer::Parts;
use crate::work::Path;

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
    let byte_level = Path::is_byte_level(&splitters);
    let model = parsed.model.build(file, &mut names, byte_level)?;
    let tokens = added_tokens(parsed.added_tokens.unwrap_or_default(), file)?;
    let added = AddedTokens::new(tokens, model.vocab(), &normalizer)
        .map_err(|token| no_id_left(file, &token))?;
    let known = |id: u32| {
        added
            .token(id)
            .or_else(|| model.vocab().token(id))
            .is_some()
    };
    let template = post_processor::template(
        component("post_processor", parsed.post_processor),
        &known,
        &mut names,
    )?;
    if let Some(padding) = &parsed.padding {
        names.suggest(SpecialToken::Pad, &*padding.pad_token);
    }
    let special = special_ids(&names, |token| look_up(&added, &model, token));
    Ok(Parts {
        memories: crate::work::Memories::default(),
        normalizer,
        path: Path::of(&splitters, &model),
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
