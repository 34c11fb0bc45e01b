//! The contents of a tokenizer's files.

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};

use super::special;
use super::text::SPACE_MARK;
use super::trainer::{TokenizerKind, TrainedTokenizer, WORD_PIECE_PREFIX};
use crate::special::SpecialToken;

/// Words of more characters are unknown to BERT's tokenizer.
const MAX_CHARS: usize = 100;

/// `tokenizer.json`, its parts in the order in which they work.
#[derive(Serialize)]
struct TokenizerJson<'a> {
    version: &'static str,
    truncation: Option<()>,
    padding: Option<()>,
    added_tokens: Value,
    normalizer: Value,
    pre_tokenizer: Value,
    post_processor: Value,
    decoder: Value,
    model: ModelJson<'a>,
}

/// The model's part of it.
#[derive(Serialize)]
#[serde(tag = "type")]
enum ModelJson<'a> {
    WordPiece {
        unk_token: &'a str,
        continuing_subword_prefix: &'static str,
        max_input_chars_per_word: usize,
        vocab: Vocab<'a>,
    },
    #[serde(rename = "BPE")]
    Bpe {
        dropout: Option<f32>,
        unk_token: Option<&'a str>,
        continuing_subword_prefix: Option<&'a str>,
        end_of_word_suffix: Option<&'a str>,
        fuse_unk: bool,
        byte_fallback: bool,
        ignore_merges: bool,
        vocab: Vocab<'a>,
        merges: Vec<[&'a str; 2]>,
    },
    Unigram {
        unk_id: Option<usize>,
        vocab: Vec<(&'a str, f64)>,
        byte_fallback: bool,
    },
}

/// Tokens and ids, in the order of the ids.
struct Vocab<'a>(&'a [String]);

impl Serialize for Vocab<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (id, token) in self.0.iter().enumerate() {
            map.serialize_entry(token, &id)?;
        }
        map.end()
    }
}

impl TrainedTokenizer {
    /// The files' names and contents.
    ///
    /// # Errors
    /// None that these values can bring: keys are strings.
    pub(super) fn files(&self) -> serde_json::Result<Vec<(&'static str, Vec<u8>)>> {
        let roles = Value::Object(self.roles());
        let mut files = vec![
            ("tokenizer.json", text(&self.tokenizer_json())?),
            ("tokenizer_config.json", text(&self.config())?),
            ("special_tokens_map.json", text(&roles)?),
        ];
        match self.kind {
            TokenizerKind::WordPiece => {
                files.push(("vocab.txt", lines(self.tokens.iter().map(String::as_str))));
            }
            TokenizerKind::Bpe | TokenizerKind::ByteLevelBpe => {
                let header = "#version: 0.2".to_owned();
                let merges = self
                    .merge_texts()
                    .map(|[left, right]| format!("{left} {right}"));
                files.push(("vocab.json", text(&Vocab(&self.tokens))?));
                files.push(("merges.txt", lines([header].into_iter().chain(merges))));
            }
            TokenizerKind::Unigram => {}
        }
        Ok(files)
    }

    fn merge_texts(&self) -> impl Iterator<Item = [&str; 2]> {
        let token = |id: u32| self.tokens[id as usize].as_str();
        self.merges
            .iter()
            .map(move |&(left, right)| [token(left), token(right)])
    }

    fn role(&self, role: SpecialToken) -> Option<(usize, &str)> {
        special::of_role(&self.special_tokens, role)
    }

    fn tokenizer_json(&self) -> TokenizerJson<'_> {
        let unknown = self.role(SpecialToken::Unk);
        let bert = json!({"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
            "strip_accents": null, "lowercase": self.lowercase});
        let lowercase = json!({"type": "Lowercase"});
        let metaspace = json!({"type": "Metaspace", "replacement": SPACE_MARK, "prepend_scheme": "always",
            "split": true});
        let (normalizer, pre_tokenizer, decoder, model);
        match self.kind {
            TokenizerKind::WordPiece => {
                normalizer = bert;
                pre_tokenizer = json!({"type": "BertPreTokenizer"});
                decoder =
                    json!({"type": "WordPiece", "prefix": WORD_PIECE_PREFIX, "cleanup": true});
                model = ModelJson::WordPiece {
                    unk_token: unknown.map_or("", |of| of.1),
                    continuing_subword_prefix: WORD_PIECE_PREFIX,
                    max_input_chars_per_word: MAX_CHARS,
                    vocab: Vocab(&self.tokens),
                };
            }
            TokenizerKind::ByteLevelBpe => {
                normalizer = match self.lowercase {
                    true => lowercase,
                    false => Value::Null,
                };
                pre_tokenizer = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
                    "use_regex": true});
                decoder = json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true,
                    "use_regex": true});
                model = self.bpe(None);
            }
            TokenizerKind::Bpe | TokenizerKind::Unigram => {
                let mut steps = vec![json!({"type": "Nmt"}), json!({"type": "NFKC"})];
                if self.lowercase {
                    steps.push(lowercase);
                }
                steps.push(
                    json!({"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}),
                );
                normalizer = json!({"type": "Sequence", "normalizers": steps});
                pre_tokenizer = metaspace.clone();
                decoder = metaspace;
                model = match self.kind {
                    TokenizerKind::Unigram => ModelJson::Unigram {
                        unk_id: unknown.map(|of| of.0),
                        vocab: self
                            .tokens
                            .iter()
                            .map(String::as_str)
                            .zip(self.scores.iter().copied())
                            .collect(),
                        byte_fallback: false,
                    },
                    _ => self.bpe(unknown.map(|of| of.1)),
                };
            }
        }
        TokenizerJson {
            version: "1.0",
            truncation: None,
            padding: None,
            added_tokens: self.added_tokens(),
            normalizer,
            pre_tokenizer,
            post_processor: self.template(),
            decoder,
            model,
        }
    }

    fn bpe<'a>(&'a self, unk_token: Option<&'a str>) -> ModelJson<'a> {
        ModelJson::Bpe {
            dropout: None,
            unk_token,
            continuing_subword_prefix: None,
            end_of_word_suffix: None,
            fuse_unk: unk_token.is_some(),
            byte_fallback: false,
            ignore_merges: false,
            vocab: Vocab(&self.tokens),
            merges: self.merge_texts().collect(),
        }
    }

    fn added_tokens(&self) -> Value {
        let mask = self.role(SpecialToken::Mask).map(|of| of.0);
        let token = |(id, content)| {
            // As RoBERTa's: the mask takes the space before it, since a word brings its space along.
            let lstrip = self.kind != TokenizerKind::WordPiece && Some(id) == mask;
            json!({"id": id, "content": content, "single_word": false, "lstrip": lstrip, "rstrip": false,
                "normalized": false, "special": true})
        };
        self.special_tokens.iter().enumerate().map(token).collect()
    }

    /// What is added to texts: BERT's `[CLS] A [SEP] B [SEP]` with types 0 and 1, or RoBERTa's `<s> A </s></s> B </s>`
    /// with type 0 throughout. Nothing where one of the two tokens is missing.
    fn template(&self) -> Value {
        let (Some((cls, cls_text)), Some((sep, sep_text))) =
            (self.role(SpecialToken::Cls), self.role(SpecialToken::Sep))
        else {
            return Value::Null;
        };
        let special = |text: &str, of: u8| json!({"SpecialToken": {"id": text, "type_id": of}});
        let sequence = |name: &str, of: u8| json!({"Sequence": {"id": name, "type_id": of}});
        let single = vec![special(cls_text, 0), sequence("A", 0), special(sep_text, 0)];
        let mut pair = single.clone();
        if sep_text == "</s>" {
            pair.extend([special(sep_text, 0), sequence("B", 0), special(sep_text, 0)]);
        } else {
            pair.extend([sequence("B", 1), special(sep_text, 1)]);
        }
        let mut tokens = Map::new();
        for (id, text) in [(cls, cls_text), (sep, sep_text)] {
            let token = json!({"id": text, "ids": [id], "tokens": [text]});
            tokens.insert(text.to_owned(), token);
        }
        json!({"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": tokens})
    }

    /// Special tokens by `transformers`' names.
    fn roles(&self) -> Map<String, Value> {
        let mut roles = Map::new();
        let mut further: Vec<&str> = self.special_tokens.iter().map(String::as_str).collect();
        for role in SpecialToken::ALL {
            if let Some((_, token)) = self.role(role) {
                roles.insert(special::key(role).to_owned(), token.into());
                further.retain(|other| *other != token);
            }
        }
        if !further.is_empty() {
            roles.insert("additional_special_tokens".to_owned(), further.into());
        }
        roles
    }

    fn config(&self) -> Value {
        let mut config = self.roles();
        let mut set = |key: &str, value: Value| drop(config.insert(key.to_owned(), value));
        match self.kind {
            TokenizerKind::WordPiece => {
                set("tokenizer_class", "BertTokenizer".into());
                set("do_lower_case", self.lowercase.into());
                set("strip_accents", Value::Null);
                set("tokenize_chinese_chars", true.into());
            }
            _ => set("tokenizer_class", "PreTrainedTokenizerFast".into()),
        }
        set("clean_up_tokenization_spaces", false.into());
        Value::Object(config)
    }
}

/// JSON with a line end.
fn text(value: &impl Serialize) -> serde_json::Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec_pretty(value)?;
    bytes.push(b'\n');
    Ok(bytes)
}

fn lines(lines: impl Iterator<Item = impl AsRef<str>>) -> Vec<u8> {
    let mut text = String::new();
    for line in lines {
        text.push_str(line.as_ref());
        text.push('\n');
    }
    text.into_bytes()
}
