//! Entities in texts, as `transformers`' token-classification pipeline gives them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bertha_autograd::Session;
use bertha_models::{Head, ModelInfo};
use bertha_tokenizer::{EncodeOptions, Encoding, Input, SpecialToken, Tokenizer};
use serde::ser::{Serialize, SerializeStruct, Serializer};

use crate::builder::Task;
use crate::chars::Chars;
use crate::engine::{Engine, Sequence, finite};
use crate::scores::softmax;
use crate::words::{Aggregation, Span, Token, aggregate, without_overlaps};
use crate::{TaskBuilder, TaskError};

/// Labels the tokens of a text, or the entities that they make up: names, places, parts of speech.
///
/// Cheap to clone, `Send + Sync`; clones share the model.
///
/// ```no_run
/// use bertha_tasks::{Aggregation, TagOptions, TokenClassifier};
///
/// let tagger = TokenClassifier::from_dir("models/bert-base-NER")?;
/// let options = TagOptions { aggregation: Aggregation::First, ..TagOptions::default() };
/// for entity in &tagger.tag_batch(&["Ada Lovelace lived in London."], &options)?[0] {
///     println!("{} {} {:.3}", entity.word, entity.label, entity.score);
/// }
/// # Ok::<(), bertha_tasks::TaskError>(())
/// ```
#[derive(Clone)]
pub struct TokenClassifier {
    inner: Arc<Inner>,
}

struct Inner {
    engine: Engine,
    unknown: Option<u32>,
}

/// What [`TokenClassifier::tag_batch`] gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagOptions {
    /// How tokens become entities; by default every token stands alone.
    pub aggregation: Aggregation,
    /// Labels that are left out; `O` by default.
    pub ignore_labels: Vec<String>,
    /// Reads a text beyond the limit in windows that overlap by this many tokens, instead of cutting
    /// it. Needs an aggregation, and a limit that is larger.
    pub stride: Option<usize>,
}

impl Default for TagOptions {
    fn default() -> Self {
        Self {
            aggregation: Aggregation::None,
            ignore_labels: vec!["O".to_owned()],
            stride: None,
        }
    }
}

/// A labelled token, or an entity of several.
///
/// Serialised as `transformers` names the fields: `entity` and `index` for a token, `entity_group`
/// for an entity.
#[derive(Clone, Debug, PartialEq)]
pub struct Entity {
    /// The label; without its `B-` or `I-` where tokens were aggregated.
    pub label: String,
    /// Its probability; the mean where tokens were aggregated.
    pub score: f32,
    /// The token's place among the text's tokens, special tokens counted; none where tokens were
    /// aggregated.
    pub index: Option<usize>,
    /// The token, or the tokens as the tokenizer joins them. The text itself is between `start` and
    /// `end`.
    pub word: String,
    /// Where it starts in the text, in characters.
    pub start: usize,
    /// Where it ends in the text, in characters.
    pub end: usize,
}

impl Serialize for Entity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let fields = 5 + usize::from(self.index.is_some());
        let mut entity = serializer.serialize_struct("Entity", fields)?;
        let label = match self.index {
            Some(_) => "entity",
            None => "entity_group",
        };
        entity.serialize_field(label, &self.label)?;
        entity.serialize_field("score", &self.score)?;
        match &self.index {
            Some(index) => entity.serialize_field("index", index)?,
            None => entity.skip_field("index")?,
        }
        entity.serialize_field("word", &self.word)?;
        entity.serialize_field("start", &self.start)?;
        entity.serialize_field("end", &self.end)?;
        entity.end()
    }
}

impl Task for TokenClassifier {
    const HEAD: Head = Head::TokenClassification;

    fn from_engine(engine: Engine) -> Result<Self, TaskError> {
        let unknown = engine.tokenizer().special_token(SpecialToken::Unk);
        let unknown = unknown.map(|(_, id)| id);
        Ok(Self {
            inner: Arc::new(Inner { engine, unknown }),
        })
    }
}

impl TokenClassifier {
    /// Loads a model folder.
    ///
    /// # Errors
    /// When a file is missing or corrupt, or the model has no token-classification head.
    pub fn from_dir(dir: impl AsRef<Path>) -> Result<Self, TaskError> {
        Self::builder(dir.as_ref()).build()
    }

    /// Loads a model folder with options.
    pub fn builder(dir: impl Into<PathBuf>) -> TaskBuilder<Self> {
        TaskBuilder::new(dir.into())
    }

    /// The labelled tokens of a text, those labelled `O` left out.
    ///
    /// # Errors
    /// As [`TokenClassifier::tag_batch`].
    pub fn tag(&self, text: &str) -> Result<Vec<Entity>, TaskError> {
        let mut tagged = self.tag_batch(&[text], &TagOptions::default())?;
        Ok(tagged.pop().unwrap_or_default())
    }

    /// For each text its entities, in the order of the text.
    ///
    /// # Errors
    /// When a text is longer than the limit and may not be cut, or an option is out of range.
    pub fn tag_batch<S: AsRef<str>>(
        &self,
        texts: &[S],
        options: &TagOptions,
    ) -> Result<Vec<Vec<Entity>>, TaskError> {
        let engine = &self.inner.engine;
        self.check(options)?;
        let mut tagged = Vec::with_capacity(texts.len());
        let mut cut = 0;
        for stretch in engine.stretches(texts.iter().map(|text| text.as_ref().len())) {
            let first = stretch.start;
            let texts = &texts[stretch];
            let inputs: Vec<Input<'_>> = texts
                .iter()
                .map(|text| Input::Single(text.as_ref()))
                .collect();
            let encodings = match options.stride {
                None => engine.encode_within_limit(&inputs, first, &mut cut)?,
                Some(stride) => {
                    let windows = engine.truncation().stride(stride);
                    let options = EncodeOptions::default().truncation(Some(windows));
                    engine.encode(&inputs, &options)?
                }
            };
            let mut sequences = Vec::with_capacity(encodings.len());
            for (encoding, text) in encodings.iter().zip(first..) {
                sequences.push(Sequence { text, encoding });
                if options.stride.is_some() {
                    let more = encoding.overflowing().iter();
                    sequences.extend(more.map(|encoding| Sequence { text, encoding }));
                }
            }
            let logits = self.logits(&sequences)?;
            // The windows of a text stand next to each other.
            let mut windows = sequences
                .iter()
                .zip(&logits)
                .collect::<Vec<_>>()
                .into_iter()
                .peekable();
            for (text, index) in texts.iter().zip(first..) {
                let chars = Chars::new(text.as_ref());
                let mut spans = Vec::new();
                let mut count = 0;
                while let Some((sequence, logits)) =
                    windows.next_if(|(sequence, _)| sequence.text == index)
                {
                    let tokens = self.tokens(sequence.encoding, logits, &chars);
                    let labels = &engine.info().labels;
                    let found = aggregate(&tokens, labels, options.aggregation, &join);
                    let kept = |span: &Span| !options.ignore_labels.contains(&span.label);
                    spans.extend(found.into_iter().filter(kept));
                    count += 1;
                }
                if count > 1 {
                    spans = without_overlaps(spans);
                }
                tagged.push(spans.into_iter().map(Entity::from).collect());
            }
        }
        engine.limit().warn_of(cut, texts.len());
        Ok(tagged)
    }

    /// The folder's tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        self.inner.engine.tokenizer()
    }

    /// The session that the model runs in.
    pub fn session(&self) -> &Session {
        self.inner.engine.session()
    }

    /// The facts of the model; its `labels` are the classes.
    pub fn info(&self) -> &ModelInfo {
        self.inner.engine.info()
    }

    fn check(&self, options: &TagOptions) -> Result<(), TaskError> {
        let Some(stride) = options.stride else {
            return Ok(());
        };
        let engine = &self.inner.engine;
        let special = engine.tokenizer().num_special_tokens(false);
        let room = engine.limit().tokens.saturating_sub(special);
        let expected = if options.aggregation == Aggregation::None {
            "an aggregation other than none beside it: windows overlap in entities, not in tokens"
                .into()
        } else if stride >= room {
            format!("less than {room}, the tokens of text in a window")
        } else {
            return Ok(());
        };
        Err(TaskError::InvalidOption {
            option: "stride",
            found: stride.to_string(),
            expected,
        })
    }

    /// The logits of each sequence, `[tokens, classes]`.
    fn logits(&self, sequences: &[Sequence<'_>]) -> Result<Vec<Vec<f32>>, TaskError> {
        let engine = &self.inner.engine;
        let mut all = vec![Vec::new(); sequences.len()];
        engine.run(sequences, None, |ran| {
            let (logits, classes) = engine.logits(&ran.outputs)?;
            engine.check_classes(classes)?;
            for (place, &i) in ran.members.iter().enumerate() {
                let rows = ran.batch.range(place);
                let logits = &logits[rows.start * classes..rows.end * classes];
                finite(logits, "logits", sequences[i].text)?;
                all[i] = logits.to_vec();
            }
            Ok(())
        })?;
        Ok(all)
    }

    /// The tokens of the text itself, with their probabilities.
    fn tokens(&self, encoding: &Encoding, logits: &[f32], text: &Chars<'_>) -> Vec<Token> {
        let tokenizer = self.tokenizer();
        let classes = self.info().labels.len().max(1);
        let mut tokens = Vec::with_capacity(encoding.len());
        for (index, row) in logits.chunks_exact(classes).enumerate() {
            if encoding.special_tokens_mask()[index] {
                continue;
            }
            let id = encoding.ids()[index];
            let (start, end) = encoding.offsets()[index];
            let (start, end) = (start as usize, end as usize);
            let surface = text.slice(start..end);
            let unknown = self.inner.unknown == Some(id);
            let word = match unknown {
                true => surface,
                false => tokenizer.id_to_token(id).unwrap_or(surface),
            };
            tokens.push(Token {
                // As in `transformers`: a piece has its "##" that the text has not, so that their
                // lengths differ. A word that normalisation shortened passes for a piece, too.
                continues: !unknown && word.chars().count() != end - start,
                word: word.to_owned(),
                scores: softmax(row),
                index,
                start,
                end,
            });
        }
        tokens
    }
}

impl From<Span> for Entity {
    fn from(span: Span) -> Self {
        Self {
            label: span.label,
            score: span.score as f32,
            index: span.index,
            word: span.word,
            start: span.start,
            end: span.end,
        }
    }
}

impl std::fmt::Debug for TokenClassifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenClassifier")
            .field("folder", &self.inner.engine.dir())
            .finish_non_exhaustive()
    }
}

/// Tokens as one text, the way a WordPiece decoder joins them: pieces to their words, and no space
/// before closing punctuation.
fn join(tokens: &[&str]) -> String {
    let mut text = String::new();
    for (i, token) in tokens.iter().enumerate() {
        match token.strip_prefix("##") {
            Some(piece) if i > 0 => text.push_str(piece),
            _ if i == 0 || matches!(*token, "." | "?" | "!" | ",") => text.push_str(token),
            _ => {
                text.push(' ');
                text.push_str(token);
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entity(index: Option<usize>) -> Entity {
        Entity {
            label: "PER".into(),
            score: 0.5,
            index,
            word: "ann".into(),
            start: 0,
            end: 3,
        }
    }

    #[test]
    fn fields_are_named_as_in_transformers() {
        let json = serde_json::to_string(&entity(Some(1))).unwrap();
        let expected = r#"{"entity":"PER","score":0.5,"index":1,"word":"ann","start":0,"end":3}"#;
        assert_eq!(json, expected);
        let json = serde_json::to_string(&entity(None)).unwrap();
        let expected = r#"{"entity_group":"PER","score":0.5,"word":"ann","start":0,"end":3}"#;
        assert_eq!(json, expected);
    }

    #[test]
    fn tokens_join_as_a_decoder_joins_them() {
        assert_eq!(
            join(&["##e", "in", "ca", "##fe", ",", "\"", "yes", "!"]),
            "##e in cafe, \" yes!"
        );
        assert_eq!(join(&[]), "");
    }
}
