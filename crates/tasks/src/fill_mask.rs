//! Words for the masks of a text, as `transformers`' fill-mask pipeline gives them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bertha_autograd::Session;
use bertha_models::{Head, ModelInfo};
use bertha_tokenizer::{EncodeOptions, Encoding, Input, SpecialToken, Tokenizer};
use serde::Serialize;

use crate::builder::Task;
use crate::engine::{Engine, Sequence, finite};
use crate::scores::{descending, softmax};
use crate::{TaskBuilder, TaskError};

/// Says which words may stand where a text has its mask token.
///
/// Cheap to clone, `Send + Sync`; clones share the model.
///
/// ```no_run
/// use bertha_tasks::FillMask;
///
/// let model = FillMask::from_dir("models/bert-base-uncased")?;
/// for guess in &model.fill("Paris is the [MASK] of France.")?[0] {
///     println!("{:.3} {}", guess.score, guess.sequence);
/// }
/// # Ok::<(), bertha_tasks::TaskError>(())
/// ```
#[derive(Clone)]
pub struct FillMask {
    inner: Arc<Inner>,
}

struct Inner {
    engine: Engine,
    mask: (String, u32),
    pad: Option<u32>,
}

/// What [`FillMask::fill_batch`] gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FillMaskOptions {
    /// Words for each mask; default 5.
    pub top_k: usize,
    /// The words to choose from; empty (the default) for the whole vocabulary. Of a word that is not
    /// in the vocabulary the first piece counts.
    pub targets: Vec<String>,
}

impl Default for FillMaskOptions {
    fn default() -> Self {
        Self {
            top_k: 5,
            targets: Vec::new(),
        }
    }
}

/// A word for a mask.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MaskPrediction {
    /// Its probability among all words of the vocabulary.
    pub score: f32,
    /// Its token's id.
    pub token: u32,
    /// Its token as text.
    pub token_str: String,
    /// The text with the word in the mask's place, as the tokenizer decodes it; with special tokens
    /// where the text has further masks.
    pub sequence: String,
}

impl Task for FillMask {
    const HEAD: Head = Head::MaskedLm;

    fn from_engine(engine: Engine) -> Result<Self, TaskError> {
        let special = |role| engine.tokenizer().special_token(role);
        let Some((token, id)) = special(SpecialToken::Mask) else {
            return Err(TaskError::NoMaskToken {
                folder: engine.dir().to_path_buf(),
            });
        };
        let mask = (token.to_owned(), id);
        let pad = special(SpecialToken::Pad).map(|(_, id)| id);
        Ok(Self {
            inner: Arc::new(Inner { engine, mask, pad }),
        })
    }
}

impl FillMask {
    /// Loads a model folder.
    ///
    /// # Errors
    /// When a file is missing or corrupt, or the model has no masked-LM head or no mask token.
    pub fn from_dir(dir: impl AsRef<Path>) -> Result<Self, TaskError> {
        Self::builder(dir.as_ref()).build()
    }

    /// Loads a model folder with options.
    pub fn builder(dir: impl Into<PathBuf>) -> TaskBuilder<Self> {
        TaskBuilder::new(dir.into())
    }

    /// The five best words for each mask of a text, best first.
    ///
    /// # Errors
    /// As [`FillMask::fill_batch`].
    pub fn fill(&self, text: &str) -> Result<Vec<Vec<MaskPrediction>>, TaskError> {
        let mut filled = self.fill_batch(&[text], &FillMaskOptions::default())?;
        Ok(filled.pop().unwrap_or_default())
    }

    /// For each text, for each of its masks, the best words, best first.
    ///
    /// # Errors
    /// When a text has no mask, is longer than the limit and may not be cut, no target has a token,
    /// or an option is out of range.
    pub fn fill_batch<S: AsRef<str>>(
        &self,
        texts: &[S],
        options: &FillMaskOptions,
    ) -> Result<Vec<Vec<Vec<MaskPrediction>>>, TaskError> {
        let engine = &self.inner.engine;
        if options.top_k == 0 {
            return Err(TaskError::InvalidOption {
                option: "top_k",
                found: "0".into(),
                expected: "1 or more".into(),
            });
        }
        let targets = match options.targets.is_empty() {
            true => None,
            false => Some(self.target_ids(&options.targets)?),
        };
        let mut filled = vec![Vec::new(); texts.len()];
        let mut cut = 0;
        for stretch in engine.stretches(texts.iter().map(|text| text.as_ref().len())) {
            let first = stretch.start;
            let inputs: Vec<Input<'_>> = texts[stretch]
                .iter()
                .map(|text| Input::Single(text.as_ref()))
                .collect();
            let encodings = engine.encode_within_limit(&inputs, first, &mut cut)?;
            let mut sequences = Vec::with_capacity(encodings.len());
            let mut masks = Vec::with_capacity(encodings.len());
            for (i, encoding) in encodings.iter().enumerate() {
                let text = first + i;
                masks.push(self.masks(encoding, text)?);
                sequences.push(Sequence { text, encoding });
            }
            engine.run(&sequences, Some(&|i| masks[i].clone()), |ran| {
                let (logits, words) = engine.logits(&ran.outputs)?;
                let mut rows = logits.chunks_exact(words.max(1));
                for &i in ran.members {
                    let Sequence { text, encoding } = sequences[i];
                    // One row of logits for each mask, in their order.
                    let masks = &masks[i];
                    for (&mask, row) in masks.iter().zip(rows.by_ref()) {
                        finite(row, "logits", text)?;
                        let best = best_words(row, targets.as_deref(), options.top_k);
                        let single = masks.len() == 1;
                        let predictions = best.into_iter().map(|(token, score)| {
                            self.prediction(encoding, mask as usize, token, score, single)
                        });
                        filled[text].push(predictions.collect::<Result<_, _>>()?);
                    }
                }
                Ok(())
            })?;
        }
        engine.limit().warn_of(cut, texts.len());
        Ok(filled)
    }

    /// The text of the mask token, such as `[MASK]`.
    pub fn mask_token(&self) -> &str {
        &self.inner.mask.0
    }

    /// The folder's tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        self.inner.engine.tokenizer()
    }

    /// The session that the model runs in.
    pub fn session(&self) -> &Session {
        self.inner.engine.session()
    }

    /// The facts of the model.
    pub fn info(&self) -> &ModelInfo {
        self.inner.engine.info()
    }

    /// The places of the masks.
    fn masks(&self, encoding: &Encoding, text: usize) -> Result<Vec<u32>, TaskError> {
        let ids = encoding.ids().iter().zip(0u32..);
        let masks: Vec<u32> = ids
            .filter(|&(&id, _)| id == self.inner.mask.1)
            .map(|(_, place)| place)
            .collect();
        if masks.is_empty() {
            let cut = !encoding.overflowing().is_empty();
            return Err(TaskError::NoMask {
                index: text,
                mask: self.mask_token().to_owned(),
                hint: if cut {
                    " within the limit that it was cut to"
                } else {
                    ""
                },
            });
        }
        Ok(masks)
    }

    /// The ids of the targets, each once.
    fn target_ids(&self, targets: &[String]) -> Result<Vec<u32>, TaskError> {
        let tokenizer = self.tokenizer();
        let mut ids = Vec::new();
        for target in targets {
            let id = match tokenizer.token_to_id(target) {
                Some(id) => Some(id),
                None => {
                    let options = EncodeOptions::default().special_tokens(false);
                    let encoding = tokenizer.encode(target, &options)?;
                    let first = encoding.ids().first().copied();
                    let piece = first.and_then(|id| tokenizer.id_to_token(id));
                    match piece {
                        Some(piece) => tracing::warn!(
                            "\"{target}\" is not in the vocabulary: \"{piece}\" stands for it"
                        ),
                        None => tracing::warn!("\"{target}\" has no token: ignored"),
                    }
                    first
                }
            };
            // A tokenizer may know words that the model does not.
            let known = |id: &u32| (*id as usize) < self.info().vocab_size;
            ids.extend(id.filter(known).filter(|id| !ids.contains(id)));
        }
        match ids.is_empty() {
            false => Ok(ids),
            true => Err(TaskError::NoTarget {
                targets: targets.to_vec(),
            }),
        }
    }

    fn prediction(
        &self,
        encoding: &Encoding,
        mask: usize,
        token: u32,
        score: f64,
        single: bool,
    ) -> Result<MaskPrediction, TaskError> {
        let mut ids = encoding.ids().to_vec();
        ids[mask] = token;
        ids.retain(|&id| Some(id) != self.inner.pad);
        Ok(MaskPrediction {
            score: score as f32,
            token,
            token_str: self.decode(vec![token], false)?,
            // Skipping the special tokens would take the other masks out of sight.
            sequence: self.decode(ids, single)?,
        })
    }

    /// Decodes; ids that only the model has give no text.
    fn decode(&self, mut ids: Vec<u32>, skip_special_tokens: bool) -> Result<String, TaskError> {
        let tokenizer = self.tokenizer();
        ids.retain(|&id| tokenizer.id_to_token(id).is_some());
        Ok(tokenizer.decode(&ids, skip_special_tokens)?)
    }
}

impl std::fmt::Debug for FillMask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FillMask")
            .field("folder", &self.inner.engine.dir())
            .finish_non_exhaustive()
    }
}

/// The most probable words of a row of logits, or of the targets among them, best first; of equal
/// ones the lower id first.
fn best_words(logits: &[f32], targets: Option<&[u32]>, count: usize) -> Vec<(u32, f64)> {
    let probabilities = softmax(logits);
    let scored = |id: u32| probabilities.get(id as usize).map(|&score| (id, score));
    let mut words: Vec<(u32, f64)> = match targets {
        Some(targets) => targets.iter().copied().filter_map(scored).collect(),
        None => (0..logits.len() as u32).filter_map(scored).collect(),
    };
    let by_rank = |a: &(u32, f64), b: &(u32, f64)| descending(a.1, b.1).then(a.0.cmp(&b.0));
    if count < words.len() {
        words.select_nth_unstable_by(count, by_rank);
        words.truncate(count);
    }
    words.sort_unstable_by(by_rank);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(words: Vec<(u32, f64)>) -> Vec<u32> {
        words.into_iter().map(|(id, _)| id).collect()
    }

    #[test]
    fn the_best_words_come_first_and_ties_by_id() {
        let logits = [0.0, 3.0, -1.0, 3.0, 2.0];
        assert_eq!(ids(best_words(&logits, None, 3)), [1, 3, 4]);
        assert_eq!(ids(best_words(&logits, None, 99)), [1, 3, 4, 0, 2]);
        assert_eq!(ids(best_words(&logits, Some(&[2, 4, 0]), 2)), [4, 0]);
        let all = best_words(&logits, None, 5);
        assert!((all.iter().map(|word| word.1).sum::<f64>() - 1.0).abs() < 1e-12);
        // Targets are weighed against the whole vocabulary, not against each other.
        assert_eq!(best_words(&logits, Some(&[4]), 1)[0], all[2]);
    }
}
