//! BERT's tokenizer from a `vocab.txt`.

use super::{check_size, invalid, look_up, no_id_left, special_ids};
use crate::added::{AddedToken, AddedTokens};
use crate::decoder::Decoder;
use crate::error::TokenizerError;
use crate::model::Model;
use crate::model::vocab::Vocab;
use crate::model::wordpiece::WordPiece;
use crate::normalizer::{Bert, Normalizer};
use crate::options::BertOptions;
use crate::pre_tokenizer::Splitter;
use crate::special::{SpecialNames, SpecialToken};
use crate::template::Template;
use crate::tokenizer::Parts;
use crate::work::Path;

const PREFIX: &str = "##";
const MAX_CHARS: usize = 100;

/// Builds the tokenizer of the vocabulary `text`, which has a token per line.
pub(super) fn build(
    text: &str,
    file: &str,
    options: &BertOptions,
    added: &[AddedToken],
) -> Result<Parts, TokenizerError> {
    check_size(text, file)?;
    let tokens: Vec<(&str, u32)> = text.lines().map(str::trim_end).zip(0..).collect();
    let vocab = Vocab::new(&tokens);
    let required = |key: &str, token: &str| {
        let problem = || {
            format!(
                "{token:?} is not in the vocabulary of {} tokens; expected a line with it",
                vocab.len()
            )
        };
        vocab.id(token).ok_or_else(|| invalid(file, key, problem()))
    };
    required("unk_token", &options.unk_token)?;
    let cls = required("cls_token", &options.cls_token)?;
    let sep = required("sep_token", &options.sep_token)?;

    let mut names = SpecialNames::default();
    names.suggest(SpecialToken::Unk, &*options.unk_token);
    names.suggest(SpecialToken::Sep, &*options.sep_token);
    names.suggest(SpecialToken::Pad, &*options.pad_token);
    names.suggest(SpecialToken::Cls, &*options.cls_token);
    names.suggest(SpecialToken::Mask, &*options.mask_token);

    // Tokens that the files describe first: they know the flags.
    let mut all = added.to_vec();
    for role in SpecialToken::ALL {
        let content = names.get(role).unwrap_or(role.conventional());
        let described = all.iter().any(|token| token.content == content);
        if !described && vocab.id(content).is_some() {
            all.push(AddedToken::special(content));
        }
    }
    for content in &options.never_split {
        required("never_split", content)?;
        if all.iter().all(|token| token.content != *content) {
            all.push(AddedToken {
                normalized: false,
                ..AddedToken::plain(&**content)
            });
        }
    }

    let normalizer = Normalizer::Bert(Bert {
        clean_text: options.clean_text,
        handle_chinese_chars: options.tokenize_chinese_chars,
        strip_accents: options.strip_accents.unwrap_or(options.lowercase),
        lowercase: options.lowercase,
    });
    let added =
        AddedTokens::new(all, &vocab, &normalizer).map_err(|token| no_id_left(file, &token))?;
    let model = WordPiece::new(vocab, &options.unk_token, PREFIX, MAX_CHARS)
        .ok_or_else(|| invalid(file, "unk_token", "not in the vocabulary"))?;
    let model = Model::WordPiece(model);
    let special = special_ids(&names, |token| look_up(&added, &model, token));
    Ok(Parts {
        memories: crate::work::Memories::default(),
        normalizer,
        splitters: vec![Splitter::Bert],
        path: Path::Cuts,
        model,
        added,
        template: Template::bert(cls, sep),
        decoder: Decoder::WordPiece {
            prefix: PREFIX.to_owned(),
            cleanup: true,
        },
        truncation: None,
        padding: None,
        special,
    })
}
