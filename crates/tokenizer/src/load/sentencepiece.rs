//! Sentencepiece's models (`*.model`), put together as `transformers` 5 does for each family of models.
//!
//! The file is a `ModelProto` of
//! <https://github.com/google/sentencepiece/blob/master/src/sentencepiece_model.proto>.

use std::path::Path as File;

use super::config::Config;
use super::protobuf::{Value, fields};
use super::{check_id, invalid, look_up, model, name, no_id_left, special_ids};
use crate::added::{AddedToken, AddedTokens};
use crate::decoder::{Decoder, Step as Decode};
use crate::error::TokenizerError;
use crate::model::Model;
use crate::model::bpe::Settings;
use crate::model::vocab::Vocab;
use crate::normalizer::{Normalizer, Precompiled, Step};
use crate::pattern::{Behavior, Pattern};
use crate::pre_tokenizer::Splitter;
use crate::pre_tokenizer::metaspace::{Metaspace, Prepend};
use crate::special::{SpecialNames, SpecialToken};
use crate::template::Template;
use crate::tokenizer::Parts;
use crate::work::Path;

/// The names that such files have in model folders.
pub(super) const FILES: [&str; 4] = [
    "sentencepiece.bpe.model",
    "spiece.model",
    "spm.model",
    "tokenizer.model",
];

/// What a file says.
#[derive(Debug, Default)]
struct Proto {
    pieces: Vec<Piece>,
    is_bpe: bool,
    unk_id: u32,
    byte_fallback: bool,
    charsmap: Vec<u8>,
}

#[derive(Debug, Clone)]
struct Piece {
    text: String,
    score: f32,
    kind: u64,
}

/// Types of pieces.
const NORMAL: u64 = 1;
const CONTROL: u64 = 3;
const USER_DEFINED: u64 = 4;
/// Types of models.
const UNIGRAM: u64 = 1;
const BPE: u64 = 2;

/// A family of models: how ids, normalizer and template differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    XlmRoberta,
    Camembert,
    Albert,
    BigBird,
    Deberta,
    /// The file as it stands, without special tokens around texts.
    Plain,
}

impl Family {
    fn of(config: &Config, file: &File) -> Self {
        let families = [
            ("xlmroberta", Self::XlmRoberta),
            ("camembert", Self::Camembert),
            ("albert", Self::Albert),
            ("bigbird", Self::BigBird),
            ("deberta", Self::Deberta),
        ];
        if let Some((_, family)) = families.into_iter().find(|(name, _)| config.is(name)) {
            return family;
        }
        match file.file_name().and_then(|name| name.to_str()) {
            _ if config.is_named() => Self::Plain,
            Some("sentencepiece.bpe.model") => Self::XlmRoberta,
            Some("spiece.model") => Self::Albert,
            Some("spm.model") => Self::Deberta,
            _ => Self::Plain,
        }
    }

    /// Whether special tokens are written as BERT's are, and not as fairseq's.
    fn brackets(self) -> bool {
        matches!(self, Self::Albert | Self::BigBird | Self::Deberta)
    }
}

impl Proto {
    fn read(bytes: &[u8]) -> Result<Self, String> {
        let mut proto = Self::default();
        for field in fields(bytes) {
            match field? {
                (1, Value::Bytes(piece)) => proto.pieces.push(Piece::read(piece)?),
                (2, Value::Bytes(trainer)) => proto.read_trainer(trainer)?,
                (3, Value::Bytes(normalizer)) => {
                    for field in fields(normalizer) {
                        if let (2, Value::Bytes(map)) = field? {
                            proto.charsmap = map.to_vec();
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(proto)
    }

    fn read_trainer(&mut self, trainer: &[u8]) -> Result<(), String> {
        for field in fields(trainer) {
            match field? {
                (3, Value::Varint(UNIGRAM)) => self.is_bpe = false,
                (3, Value::Varint(BPE)) => self.is_bpe = true,
                (3, Value::Varint(kind)) => {
                    return Err(format!(
                        "a model of type {kind}, expected Unigram (1) or BPE (2)"
                    ));
                }
                (35, Value::Varint(flag)) => self.byte_fallback = flag != 0,
                (40, Value::Varint(id)) => {
                    self.unk_id = u32::try_from(id)
                        .map_err(|_| format!("an unknown token of id {id}, expected 32 bits"))?;
                }
                _ => {}
            }
        }
        Ok(())
    }
}

impl Piece {
    fn read(message: &[u8]) -> Result<Self, String> {
        let mut piece = Self {
            text: String::new(),
            score: 0.0,
            kind: NORMAL,
        };
        for field in fields(message) {
            match field? {
                (1, Value::Bytes(text)) => {
                    piece.text = String::from_utf8(text.to_vec())
                        .map_err(|error| format!("a piece that is not UTF-8: {error}"))?;
                }
                (2, Value::Fixed32(bits)) => piece.score = f32::from_bits(bits),
                (3, Value::Varint(kind)) => piece.kind = kind,
                _ => {}
            }
        }
        Ok(piece)
    }
}

/// Builds the tokenizer of a file.
pub(super) fn build(path: &File, config: Config) -> Result<Parts, TokenizerError> {
    let file = name(path);
    let bytes = std::fs::read(path).map_err(|source| TokenizerError::Read {
        path: path.to_path_buf(),
        source,
    })?;
    let wrong = |problem: String| {
        let problem = format!("found {problem}; expected a sentencepiece model");
        invalid(&file, "protobuf", problem)
    };
    let proto = Proto::read(&bytes).map_err(wrong)?;
    if proto.pieces.is_empty() {
        return Err(wrong("no piece".to_owned()));
    }
    check_id(proto.pieces.len() as u32, "the last", &file, "pieces")?;
    let family = Family::of(&config, path);
    let normalizer = normalizer(family, &proto, &config, &file)?;
    let (tokens, unk) = vocabulary(family, &proto);
    let model = if proto.is_bpe {
        bpe(&tokens, unk, proto.byte_fallback, &file)?
    } else {
        let byte_fallback = proto.byte_fallback && family == Family::Plain;
        Model::Unigram(model::unigram(
            &tokens,
            Some(unk),
            byte_fallback,
            &file,
            "pieces",
        )?)
    };

    let mut names = config.names.clone();
    for role in SpecialToken::ALL {
        let [brackets, fairseq] = role.conventions();
        let order = match family.brackets() {
            true => [brackets, fairseq],
            false => [fairseq, brackets],
        };
        let known = order
            .into_iter()
            .find(|name| model.vocab().id(name).is_some());
        names.suggest(role, known.unwrap_or(order[0]));
    }
    let added = added_tokens(&proto, &config, &names, &model);
    let added = AddedTokens::new(added, model.vocab(), &normalizer)
        .map_err(|token| no_id_left(&file, &token))?;
    let special = special_ids(&names, |token| look_up(&added, &model, token));
    let mark = Metaspace {
        mark: '▁',
        prepend: Prepend::Always,
        split: true,
    };
    let mut splitters = vec![Splitter::Metaspace(mark)];
    match family {
        Family::Deberta if config.split_by_punct == Some(true) => {
            splitters.insert(0, Splitter::Punctuation(Behavior::Isolated));
        }
        Family::XlmRoberta | Family::Camembert | Family::Albert => {
            splitters.insert(0, Splitter::WhitespaceSplit);
        }
        _ => {}
    }
    Ok(Parts {
        memories: crate::work::Memories::default(),
        normalizer,
        path: Path::of(&splitters, &model),
        splitters,
        template: template(family, &special, &names, &file)?,
        model,
        added,
        decoder: Decoder::Steps(vec![Decode::Metaspace(mark)]),
        truncation: None,
        padding: None,
        special,
    })
}

/// Tokens with scores in the order of their ids, and the id of the unknown token.
fn vocabulary(family: Family, proto: &Proto) -> (Vec<(String, f64)>, u32) {
    let scored = |pieces: &[Piece]| -> Vec<(String, f64)> {
        let pieces = pieces.iter();
        pieces
            .map(|piece| (piece.text.clone(), f64::from(piece.score)))
            .collect()
    };
    let own = |tokens: &[(&str, f64)]| -> Vec<(String, f64)> {
        let tokens = tokens.iter();
        tokens
            .map(|(text, score)| ((*text).to_owned(), *score))
            .collect()
    };
    match family {
        // fairseq numbered its special tokens otherwise than sentencepiece.
        Family::XlmRoberta => {
            let mut tokens = own(&[("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]);
            tokens.extend(scored(proto.pieces.get(3..).unwrap_or_default()));
            tokens.push(("<mask>".to_owned(), 0.0));
            (tokens, 3)
        }
        Family::Camembert => {
            let mut tokens = own(&[
                ("<s>NOTUSED", 0.0),
                ("<pad>", 0.0),
                ("</s>NOTUSED", 0.0),
                ("<unk>", 0.0),
                ("<unk>NOTUSED", -100.0),
            ]);
            tokens.extend(scored(&proto.pieces[1..]));
            tokens.push(("<mask>".to_owned(), 0.0));
            (tokens, 3)
        }
        Family::Albert => {
            let mut tokens = scored(&proto.pieces);
            for (text, score) in &mut tokens {
                // A comma behind a digit is a token of its own.
                let mut last = text.chars().rev();
                if last.next() == Some(',') && last.next().is_some_and(|c| c.is_ascii_digit()) {
                    *score -= 100.0;
                }
            }
            (tokens, proto.unk_id)
        }
        Family::BigBird | Family::Deberta | Family::Plain => (scored(&proto.pieces), proto.unk_id),
    }
}

fn normalizer(
    family: Family,
    proto: &Proto,
    config: &Config,
    file: &str,
) -> Result<Normalizer, TokenizerError> {
    let invalid = |problem| invalid(file, "normalizer_spec.precompiled_charsmap", problem);
    let map = match &*proto.charsmap {
        [] => None,
        bytes => Some(Step::Precompiled(Precompiled::new(bytes).map_err(invalid)?)),
    };
    let replace = |text: &str, content: &str| Step::Replace {
        pattern: Pattern::Text(text.to_owned()),
        content: content.to_owned(),
    };
    let strip = Step::Strip {
        left: false,
        right: true,
    };
    let lowercase = config.lowercase.unwrap_or(family == Family::Albert);
    let mut steps = Vec::new();
    match family {
        Family::XlmRoberta | Family::Camembert => steps.extend(map),
        Family::Albert => {
            steps.extend([replace("``", "\""), replace("''", "\"")]);
            if config.keep_accents != Some(true) {
                steps.extend([Step::Nfkd, Step::StripAccents]);
            }
            steps.extend(lowercase.then_some(Step::Lowercase));
            steps.extend(map);
        }
        Family::Deberta => {
            steps.extend(lowercase.then_some(Step::Lowercase));
            let pattern = Pattern::regex(r"\s{2,}|[\n\r\t]").map_err(invalid)?;
            let content = " ".to_owned();
            steps.extend([Step::Replace { pattern, content }, Step::Nfc, strip]);
        }
        Family::BigBird => {}
        Family::Plain => {
            steps.extend(map);
            steps.push(strip);
        }
    }
    if matches!(family, Family::BigBird | Family::Plain) {
        steps.push(Step::Replace {
            pattern: Pattern::Spaces,
            content: "▁".to_owned(),
        });
    }
    Ok(Normalizer::Steps(steps))
}

/// BPE's merges are not in the file: every way to put a piece together of two is one, the likeliest piece first.
fn bpe(
    tokens: &[(String, f64)],
    unk: u32,
    byte_fallback: bool,
    file: &str,
) -> Result<Model, TokenizerError> {
    let ids: Vec<(&str, u32)> = tokens.iter().map(|(text, _)| &**text).zip(0..).collect();
    let vocab = Vocab::new(&ids);
    let unk_token = tokens.get(unk as usize).map(|(text, _)| &**text);
    let mut found: Vec<(f64, usize, usize, u32, u32, u32)> = Vec::new();
    for (id, (text, score)) in (0..).zip(tokens) {
        if text.len() > LONGEST_MERGED {
            continue;
        }
        let first = found.len();
        for (at, _) in text.char_indices().skip(1) {
            let (left, right) = text.split_at(at);
            if let (Some(l), Some(r)) = (vocab.id(left), vocab.id(right)) {
                found.push((
                    *score,
                    left.chars().count(),
                    right.chars().count(),
                    l,
                    r,
                    id,
                ));
            }
        }
        found[first..].sort_by_key(|pair| (pair.3, pair.4));
    }
    // The sort keeps the order of what is equal.
    found.sort_by(|a, b| b.0.total_cmp(&a.0).then((b.1, b.2).cmp(&(a.1, a.2))));
    let settings = Settings {
        merges: found.iter().map(|pair| (pair.3, pair.4, pair.5)).collect(),
        fuse_unk: true,
        byte_fallback,
        ..Settings::default()
    };
    let none: [(&str, &str); 0] = [];
    let bpe = model::bpe(vocab, &none, settings, unk_token, false, file, "pieces")?;
    Ok(Model::Bpe(bpe))
}

/// Longer pieces are not put together of others: a word would hardly ever get there.
const LONGEST_MERGED: usize = 512;

fn added_tokens(
    proto: &Proto,
    config: &Config,
    names: &SpecialNames,
    model: &Model,
) -> Vec<AddedToken> {
    let mut all = config.added.clone();
    let mut add = |token: AddedToken| {
        if !token.content.is_empty() && all.iter().all(|known| known.content != token.content) {
            all.push(token);
        }
    };
    for role in SpecialToken::ALL {
        let content = names.get(role).unwrap_or(role.conventional());
        if model.vocab().id(content).is_some() {
            add(AddedToken {
                // What is masked is a word with the space before it.
                lstrip: role == SpecialToken::Mask,
                ..AddedToken::special(content)
            });
        }
    }
    for piece in &proto.pieces {
        if matches!(piece.kind, CONTROL | USER_DEFINED) && model.vocab().id(&piece.text).is_some() {
            add(AddedToken {
                special: piece.kind == CONTROL,
                ..AddedToken::special(&*piece.text)
            });
        }
    }
    all
}

fn template(
    family: Family,
    special: &[Option<u32>; 5],
    names: &SpecialNames,
    file: &str,
) -> Result<Template, TokenizerError> {
    if family == Family::Plain {
        return Ok(Template::default());
    }
    let id = |role: SpecialToken| {
        special[role as usize].ok_or_else(|| {
            let token = names.get(role).unwrap_or(role.conventional());
            invalid(file, "pieces", format!("{token:?} is not among the pieces"))
        })
    };
    let (cls, sep) = (id(SpecialToken::Cls)?, id(SpecialToken::Sep)?);
    Ok(match family.brackets() {
        true => Template::bert(cls, sep),
        false => Template::roberta(cls, sep),
    })
}
