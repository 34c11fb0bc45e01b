//! Sentence embeddings, as sentence-transformers computes them.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bertha_autograd::{Session, Var};
use bertha_models::ModelInfo;
use bertha_nn::{Activation, Linear, Pooling, l2_normalize, pool};
use bertha_tensor::Tensor;
use bertha_tokenizer::{Input, Tokenizer};
use ndarray::{Array2, ArrayViewMut1};

use crate::engine::{Engine, Ran, Sequence, finite};
use crate::{EncoderBuilder, TaskError};

/// Turns texts into vectors whose cosine says how much alike their meanings are.
///
/// The folder decides how: `modules.json` and what it names (pooling, dense layers, normalisation),
/// prompts and the length limit, as in [sentence-transformers](https://sbert.net). A folder without
/// `modules.json` is averaged over its tokens and not normalised.
///
/// Cheap to clone, `Send + Sync`; clones share the model.
///
/// ```no_run
/// use bertha_tasks::Encoder;
///
/// let encoder = Encoder::from_dir("models/all-MiniLM-L6-v2")?;
/// let embeddings = encoder.embed(&["A cat sits on the mat.", "Where is the cat?"])?;
/// assert_eq!(embeddings.dim(), (2, encoder.dimension()));
/// # Ok::<(), bertha_tasks::TaskError>(())
/// ```
#[derive(Clone)]
pub struct Encoder {
    inner: Arc<Inner>,
}

struct Inner {
    engine: Engine,
    pipeline: Pipeline,
}

/// What becomes of a text before and after the model.
pub(crate) struct Pipeline {
    /// Put before every text.
    pub(crate) prompt: String,
    /// The prompt's tokens that are not pooled.
    pub(crate) skip: usize,
    pub(crate) lower_case: bool,
    pub(crate) modes: Vec<Pooling>,
    pub(crate) stages: Vec<Stage>,
    /// Width of an embedding.
    pub(crate) dimension: usize,
}

/// A step after the pooling.
pub(crate) enum Stage {
    Dense {
        layer: Linear,
        activation: Activation,
    },
    Normalize,
}

impl Encoder {
    /// Loads a model folder with its own settings.
    ///
    /// # Errors
    /// When a file is missing or corrupt, or the folder asks for what bertha does not have.
    pub fn from_dir(dir: impl AsRef<Path>) -> Result<Self, TaskError> {
        Self::builder(dir.as_ref()).build()
    }

    /// Loads a model folder with options.
    pub fn builder(dir: impl Into<PathBuf>) -> EncoderBuilder {
        EncoderBuilder::new(dir.into())
    }

    pub(crate) fn new(engine: Engine, pipeline: Pipeline) -> Self {
        Self {
            inner: Arc::new(Inner { engine, pipeline }),
        }
    }

    /// The embeddings of texts: `[texts, dimension]`, in the order of the texts. A text's embedding
    /// has the same bits whatever the other texts are.
    ///
    /// # Errors
    /// When a text is longer than the limit and may not be cut, or the model gives what is no number.
    pub fn embed<S: AsRef<str> + Sync>(&self, texts: &[S]) -> Result<Array2<f32>, TaskError> {
        self.embed_with(texts, &mut |_| {})
    }

    /// As [`Encoder::embed`], and tells `progress` after each batch how many texts are finished.
    ///
    /// # Errors
    /// As [`Encoder::embed`].
    pub fn embed_with<S: AsRef<str> + Sync>(
        &self,
        texts: &[S],
        progress: &mut dyn FnMut(usize),
    ) -> Result<Array2<f32>, TaskError> {
        let Inner { engine, pipeline } = &*self.inner;
        let mut embeddings = Array2::zeros((texts.len(), pipeline.dimension));
        let (mut done, mut cut) = (0, 0);
        for stretch in engine.stretches(texts.iter().map(|text| text.as_ref().len())) {
            let prepared: Vec<Cow<'_, str>> = texts[stretch.clone()]
                .iter()
                .map(|text| pipeline.prepare(text.as_ref()))
                .collect();
            let inputs: Vec<Input<'_>> = prepared.iter().map(|text| Input::Single(text)).collect();
            let first = stretch.start;
            let encodings = engine.encode_within_limit(&inputs, first, &mut cut)?;
            let mut sequences = Vec::with_capacity(encodings.len());
            for (i, encoding) in encodings.iter().enumerate() {
                let (text, tokens) = (first + i, encoding.len());
                // A text without any tokens at all is the engine's to refuse.
                if tokens > 0 && tokens <= pipeline.skip {
                    return Err(TaskError::OnlyPrompt {
                        index: text,
                        tokens,
                        prompt: pipeline.skip,
                    });
                }
                sequences.push(Sequence { text, encoding });
            }
            engine.run(&sequences, None, |ran| {
                let vectors = pipeline.finish(engine.session(), &ran)?;
                for (&i, vector) in ran
                    .members
                    .iter()
                    .zip(vectors.chunks_exact(pipeline.dimension))
                {
                    let text = sequences[i].text;
                    finite(vector, "embedding", text)?;
                    let mut row: ArrayViewMut1<'_, f32> = embeddings.row_mut(text);
                    row.iter_mut()
                        .zip(vector)
                        .for_each(|(to, &from)| *to = from);
                }
                done += ran.members.len();
                progress(done);
                Ok(())
            })?;
        }
        engine.limit().warn_of(cut, texts.len());
        Ok(embeddings)
    }

    /// Width of an embedding.
    pub fn dimension(&self) -> usize {
        self.inner.pipeline.dimension
    }

    /// The longest text in tokens, prompt and special tokens included.
    pub fn max_length(&self) -> usize {
        self.inner.engine.limit().tokens
    }

    /// Who set [`Encoder::max_length`], in words: a file's key, the model's positions, the caller.
    pub fn max_length_source(&self) -> String {
        self.inner.engine.limit().source.to_string()
    }

    /// Whether a longer text is cut; otherwise it is refused.
    pub fn truncates(&self) -> bool {
        self.inner.engine.limit().truncate
    }

    /// How token vectors become one; the results of several ways stand side by side.
    pub fn pooling(&self) -> &[Pooling] {
        &self.inner.pipeline.modes
    }

    /// Whether embeddings have length 1.
    pub fn normalizes(&self) -> bool {
        matches!(self.inner.pipeline.stages.last(), Some(Stage::Normalize))
    }

    /// The prompt that is put before every text; empty for none.
    pub fn prompt(&self) -> &str {
        &self.inner.pipeline.prompt
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
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encoder")
            .field("folder", &self.inner.engine.dir())
            .field("dimension", &self.dimension())
            .finish_non_exhaustive()
    }
}

impl Pipeline {
    /// The text as the tokenizer gets it.
    pub(crate) fn prepare<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let text = match self.prompt.is_empty() {
            true => Cow::Borrowed(text),
            false => Cow::Owned(format!("{}{text}", self.prompt)),
        };
        match self.lower_case {
            true => Cow::Owned(text.to_lowercase()),
            false => text,
        }
    }

    /// From a batch's token vectors to its embeddings, end to end.
    fn finish(&self, session: &Session, ran: &Ran<'_>) -> Result<Vec<f32>, TaskError> {
        let hidden = ran.outputs.last_hidden_state.as_slice()?;
        let mut vectors = pool(hidden, ran.batch, &self.modes, self.skip)?;
        let rows = ran.members.len();
        for stage in &self.stages {
            match stage {
                Stage::Normalize => {
                    let width = vectors.len() / rows.max(1);
                    l2_normalize(&mut vectors, width);
                }
                Stage::Dense { layer, activation } => {
                    let x = Var::constant(Tensor::from_vec(vectors, &[rows, layer.inputs()])?);
                    let y = layer.forward_with(session, &x, *activation, None)?;
                    vectors = y.into_tensor().to_vec()?;
                }
            }
        }
        Ok(vectors)
    }
}
