//! Byte-level BPE from a `vocab.json` and a `merges.txt`, as RoBERTa's and Longformer's folders have them.

use std::path::Path as File;

use super::config::Config;
use super::model::{self, VocabField, check_ids, merge_line};
use super::{check_object, check_size, invalid, look_up, name, no_id_left, read, special_ids};
use crate::added::{AddedToken, AddedTokens};
use crate::decoder::{Decoder, Step};
use crate::error::TokenizerError;
use crate::model::Model;
use crate::model::bpe::Settings;
use crate::model::vocab::Vocab;
use crate::normalizer::Normalizer;
use crate::pre_tokenizer::{ByteLevel, Splitter};
use crate::special::SpecialToken;
use crate::template::{Template, Trim};
use crate::tokenizer::Parts;
use crate::work::Path;

/// Builds the tokenizer of two files. Where the folder's configuration says nothing, it is RoBERTa's; GPT-2's, and those
/// whose vocabularies lack RoBERTa's special tokens, get no special tokens around a text.
pub(super) fn build(
    vocab_file: &File,
    merges_file: &File,
    config: Config,
) -> Result<Parts, TokenizerError> {
    let file = name(vocab_file);
    let json = read(vocab_file)?;
    check_size(&json, &file)?;
    check_object(&json, &file)?;
    let parsed: VocabField<'_> =
        serde_json::from_str(&json).map_err(|source| TokenizerError::Json {
            file: file.clone(),
            source,
        })?;
    let VocabField::Map(tokens) = parsed else {
        return Err(invalid(&file, "top level", "expected a JSON object"));
    };
    check_ids(&tokens, &file, "top level")?;
    let vocab = Vocab::new(&tokens);

    let lines = read(merges_file)?;
    let merges_name = name(merges_file);
    let mut merges = Vec::new();
    for (number, line) in lines.lines().enumerate() {
        if line.is_empty() {
            continue;
        }
        let pair = merge_line(line);
        let pair =
            pair.map_err(|problem| invalid(&merges_name, format!("line {}", number + 1), problem))?;
        merges.extend(pair);
    }

    let mut all = config.added.clone();
    let mut names = config.names.clone();
    for role in SpecialToken::ALL {
        let [_, conventional] = role.conventions();
        let content = names.get(role).unwrap_or(conventional).to_owned();
        let described = all.iter().any(|token| token.content == content);
        if !described && vocab.id(&content).is_some() {
            all.push(AddedToken {
                // What is masked is a word with the space before it.
                lstrip: role == SpecialToken::Mask,
                ..AddedToken::special(&*content)
            });
        }
        names.suggest(role, content);
    }
    let normalizer = Normalizer::Steps(Vec::new());
    let added =
        AddedTokens::new(all, &vocab, &normalizer).map_err(|token| no_id_left(&file, &token))?;
    let bpe = model::bpe(
        vocab,
        &merges,
        Settings::default(),
        None,
        true,
        &merges_name,
        "merges",
    )?;
    let model = Model::Bpe(bpe);
    let special = special_ids(&names, |token| look_up(&added, &model, token));

    let add_prefix_space = config.add_prefix_space.unwrap_or(false);
    let cls = special[SpecialToken::Cls as usize];
    let sep = special[SpecialToken::Sep as usize];
    let template = match (cls, sep) {
        (Some(cls), Some(sep)) if !config.is("gpt2") => Template {
            trims: vec![Trim { add_prefix_space }],
            ..Template::roberta(cls, sep)
        },
        _ => Template::default(),
    };
    let splitters = vec![Splitter::ByteLevel(ByteLevel {
        add_prefix_space,
        words: true,
    })];
    Ok(Parts {
        memories: crate::work::Memories::default(),
        normalizer,
        path: Path::of(&splitters, &model),
        splitters,
        model,
        added,
        template,
        decoder: Decoder::Steps(vec![Step::ByteLevel]),
        truncation: None,
        padding: None,
        special,
    })
}
