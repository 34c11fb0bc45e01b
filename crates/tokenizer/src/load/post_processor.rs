//! Post-processors of `tokenizer.json`.

use std::collections::HashMap;

use serde::Deserialize;

use super::components::{ByteLevelFields, Component};
use super::invalid;
use crate::error::TokenizerError;
use crate::special::{SpecialNames, SpecialToken};
use crate::template::{Part, Template, Trim};

/// The names of the post-processors that tokenizer.json may ask for.
const KNOWN: &str =
    "BertProcessing, ByteLevel, RobertaProcessing, Sequence, TemplateProcessing, null";

#[derive(Deserialize)]
struct BertFields {
    sep: (String, u32),
    cls: (String, u32),
}

#[derive(Deserialize)]
struct RobertaFields {
    sep: (String, u32),
    cls: (String, u32),
    trim_offsets: bool,
    add_prefix_space: bool,
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

/// What becomes of tokens in the end. `known` says whether a token has an id; special tokens that are told by their place
/// become `names`.
pub(super) fn template(
    component: Component<'_>,
    known: &dyn Fn(u32) -> bool,
    names: &mut SpecialNames,
) -> Result<Template, TokenizerError> {
    let mut found = Found::default();
    if !component.value.is_null() {
        found.add(component, known, names)?;
    }
    Ok(Template {
        trims: found.trims,
        ..found.template.unwrap_or_default()
    })
}

/// What a sequence of post-processors comes to.
#[derive(Default)]
struct Found {
    template: Option<Template>,
    trims: Vec<Trim>,
}

impl Found {
    fn add(
        &mut self,
        component: Component<'_>,
        known: &dyn Fn(u32) -> bool,
        names: &mut SpecialNames,
    ) -> Result<(), TokenizerError> {
        let (file, key) = (component.file, component.key.clone());
        let check = |id: u32, field: &str| match known(id) {
            true => Ok(()),
            false => Err(invalid(
                file,
                format!("{key}.{field}"),
                format!("token id {id} is not in the vocabulary"),
            )),
        };
        let name = component.name()?;
        let template = match &*name {
            "BertProcessing" => {
                let BertFields { sep, cls } = component.fields()?;
                check(sep.1, "sep")?;
                check(cls.1, "cls")?;
                names.suggest(SpecialToken::Cls, cls.0);
                names.suggest(SpecialToken::Sep, sep.0);
                Template::bert(cls.1, sep.1)
            }
            "RobertaProcessing" => {
                let RobertaFields {
                    sep,
                    cls,
                    trim_offsets,
                    add_prefix_space,
                } = component.fields()?;
                check(sep.1, "sep")?;
                check(cls.1, "cls")?;
                names.suggest(SpecialToken::Cls, cls.0);
                names.suggest(SpecialToken::Sep, sep.0);
                if trim_offsets {
                    self.trims.push(Trim { add_prefix_space });
                }
                Template::roberta(cls.1, sep.1)
            }
            "ByteLevel" => {
                let fields: ByteLevelFields = component.fields()?;
                if fields.trim_offsets {
                    let add_prefix_space = fields.add_prefix_space;
                    self.trims.push(Trim { add_prefix_space });
                }
                return Ok(());
            }
            "Sequence" => {
                let children = component.children("processors")?;
                return children
                    .into_iter()
                    .try_for_each(|child| self.add(child, known, names));
            }
            "TemplateProcessing" => template_processing(component.fields()?, &check, names)
                .map_err(|error| match error {
                    Problem::Checked(error) => error,
                    Problem::At(field, problem) => invalid(file, format!("{key}.{field}"), problem),
                })?,
            _ => return Err(component.unknown(name, KNOWN)),
        };
        if self.template.replace(template).is_some() {
            let problem = "found a second post-processor that adds special tokens, expected one";
            return Err(invalid(file, key, problem));
        }
        Ok(())
    }
}

/// What is wrong with a template.
enum Problem {
    Checked(TokenizerError),
    /// The field, and what was found and expected there.
    At(String, String),
}

impl From<TokenizerError> for Problem {
    fn from(error: TokenizerError) -> Self {
        Self::Checked(error)
    }
}

fn template_processing(
    fields: TemplateFields,
    check: &dyn Fn(u32, &str) -> Result<(), TokenizerError>,
    names: &mut SpecialNames,
) -> Result<Template, Problem> {
    let TemplateFields {
        single,
        pair,
        special_tokens,
    } = fields;
    for (name, token) in &special_tokens {
        let field = format!("special_tokens.{name}");
        if token.ids.len() != token.tokens.len() {
            let problem = format!(
                "found {} ids and {} tokens, expected as many",
                token.ids.len(),
                token.tokens.len()
            );
            return Err(Problem::At(field, problem));
        }
        for &id in &token.ids {
            check(id, &format!("{field}.ids"))?;
        }
    }
    // In every model in use the first special token classifies and the one behind the text separates.
    if let [
        PieceFields::SpecialToken { id: cls, .. },
        PieceFields::Sequence { .. },
        PieceFields::SpecialToken { id: sep, .. },
    ] = &*single
    {
        names.suggest(SpecialToken::Cls, &**cls);
        names.suggest(SpecialToken::Sep, &**sep);
    }
    let parts = |key: &str, pieces: Vec<PieceFields>, texts: u8| {
        let part = |(i, piece)| {
            part(piece, texts, &special_tokens)
                .map_err(|problem| Problem::At(format!("{key}[{i}]"), problem))
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
        trims: Vec::new(),
    })
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
