//! Loads an [`Encoder`]: what the folder says, and what the caller says otherwise.

use std::path::PathBuf;

use bertha_autograd::{Precision, Session};
use bertha_models::{GlobalRule, Head};
use bertha_nn::{Bias, Linear, Pooling, Weights};
use bertha_tensor::Checkpoint;
use bertha_tokenizer::{EncodeOptions, SpecialToken};

use crate::builder::Settings;
use crate::encoder::{Pipeline, Stage};
use crate::engine::Engine;
use crate::sentence_transformers::{DenseConfig, Module, Recipe};
use crate::{Encoder, TaskError};

/// Loads an [`Encoder`] with options; what is not set is as the folder says.
///
/// ```no_run
/// use bertha_tasks::Encoder;
///
/// let encoder = Encoder::builder("models/e5-small")
///     .prompt_name("query")
///     .max_length(128)
///     .threads(2)
///     .build()?;
/// # Ok::<(), bertha_tasks::TaskError>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct EncoderBuilder {
    dir: PathBuf,
    settings: Settings,
    pooling: Option<Pooling>,
    normalize: Option<bool>,
    prompt: Option<String>,
    prompt_name: Option<String>,
}

impl EncoderBuilder {
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self {
            dir,
            settings: Settings::default(),
            pooling: None,
            normalize: None,
            prompt: None,
            prompt_name: None,
        }
    }

    /// What products are computed of (default: the session's, f32 where none is given): [`Precision::Bf16`] and
    /// [`Precision::Int8`] take a half and a quarter of the weights' memory, and less time on machines with instructions for them, at
    /// some loss of accuracy. Weights that the folder holds in few bits stay in those.
    pub fn precision(mut self, precision: Precision) -> Self {
        self.settings.precision = Some(precision);
        self
    }

    /// The thread budget; by default one thread per physical core that the process may use.
    pub fn threads(mut self, threads: usize) -> Self {
        self.settings.threads = Some(threads);
        self
    }

    /// The session to run in, to share threads and buffers with others; by default a new one.
    pub fn session(mut self, session: Session) -> Self {
        self.settings.session = Some(session);
        self
    }

    /// How token vectors become one, in place of the folder's way.
    pub fn pooling(mut self, pooling: Pooling) -> Self {
        self.pooling = Some(pooling);
        self
    }

    /// Whether embeddings have length 1, whatever the folder says.
    pub fn normalize(mut self, normalize: bool) -> Self {
        self.normalize = Some(normalize);
        self
    }

    /// The most tokens to run at a time (default 2048); a longer text runs alone. It bounds memory
    /// and does not change results.
    pub fn batch_tokens(mut self, tokens: usize) -> Self {
        self.settings.batch_tokens = Some(tokens);
        self
    }

    /// Which tokens see all of a text and are seen by all of it, where the architecture has such tokens (Longformer), in
    /// place of what the model folder says.
    pub fn global_tokens(mut self, rule: GlobalRule) -> Self {
        self.settings.global_tokens = Some(rule);
        self
    }

    /// The longest text in tokens, special tokens included, at most the model's positions; by default
    /// `max_seq_length` of the folder's sentence_bert_config.json, else `model_max_length` of its
    /// tokenizer_config.json, else the model's positions.
    pub fn max_length(mut self, tokens: usize) -> Self {
        self.settings.max_length = Some(tokens);
        self
    }

    /// Whether a longer text is cut, with a warning, or refused. By default it is cut where somebody
    /// set a limit (the caller or the folder), and refused where only the model's positions do.
    pub fn truncate(mut self, truncate: bool) -> Self {
        self.settings.truncate = Some(truncate);
        self
    }

    /// A prompt to put before every text, in place of the folder's default one; empty for none.
    pub fn prompt(mut self, prompt: impl Into<String>) -> Self {
        self.prompt = Some(prompt.into());
        self
    }

    /// The name of a prompt of the folder (`config_sentence_transformers.json`) to put before every
    /// text. Ignored where [`EncoderBuilder::prompt`] is given.
    pub fn prompt_name(mut self, name: impl Into<String>) -> Self {
        self.prompt_name = Some(name.into());
        self
    }

    /// Loads the model.
    ///
    /// # Errors
    /// When a file is missing or corrupt, the folder asks for what bertha does not have, or an option
    /// is out of range.
    pub fn build(self) -> Result<Encoder, TaskError> {
        self.settings.check()?;
        let recipe = Recipe::read(&self.dir)?;
        let prompt = match &self.prompt {
            Some(prompt) => prompt.clone(),
            None => recipe.prompts.get(self.prompt_name.as_deref())?.to_owned(),
        };
        let transformer = &recipe.transformer;
        let limit = recipe.limit.clone();
        let engine = Engine::load(transformer, Head::Base, &self.settings, limit)?;
        if !recipe.has_modules && self.pooling.is_none() {
            tracing::warn!(
                "{} has no modules.json: averaging the token vectors{}",
                self.dir.display(),
                match self.normalize {
                    Some(true) => "",
                    _ => ", without normalisation",
                }
            );
        }
        let pipeline = self.pipeline(&recipe, &engine, prompt)?;
        Ok(Encoder::new(engine, pipeline))
    }

    fn pipeline(
        &self,
        recipe: &Recipe,
        engine: &Engine,
        prompt: String,
    ) -> Result<Pipeline, TaskError> {
        let mut pipeline = Pipeline {
            prompt,
            skip: 0,
            lower_case: recipe.lower_case,
            modes: Vec::new(),
            stages: Vec::new(),
            dimension: engine.info().hidden_size,
        };
        for module in &recipe.modules {
            match module {
                Module::Pooling {
                    modes,
                    include_prompt,
                } => {
                    pipeline.modes = match self.pooling {
                        Some(mode) => vec![mode],
                        None => modes.clone(),
                    };
                    pipeline.dimension *= pipeline.modes.len();
                    if !include_prompt && !pipeline.prompt.is_empty() {
                        pipeline.skip = prompt_tokens(engine, &pipeline.prepare(""))?;
                    }
                }
                Module::Dense(dense) => {
                    let layer = load_dense(dense, pipeline.dimension, engine.session())?;
                    pipeline.dimension = dense.outputs;
                    let activation = dense.activation;
                    pipeline.stages.push(Stage::Dense { layer, activation });
                }
                Module::Normalize if self.normalize == Some(false) => {}
                Module::Normalize => pipeline.stages.push(Stage::Normalize),
            }
        }
        let normalized = matches!(pipeline.stages.last(), Some(Stage::Normalize));
        if self.normalize == Some(true) && !normalized {
            pipeline.stages.push(Stage::Normalize);
        }
        Ok(pipeline)
    }
}

/// The tokens at the head of every text that are the prompt's: special tokens before it included,
/// the one behind it not.
fn prompt_tokens(engine: &Engine, prompt: &str) -> Result<usize, TaskError> {
    use SpecialToken::{Cls, Mask, Pad, Sep, Unk};
    let options = EncodeOptions::default()
        .truncation(Some(engine.truncation()))
        .overflow(false);
    let encoding = engine.tokenizer().encode(prompt, &options)?;
    let special = |&id: &u32| {
        let mut roles = [Unk, Sep, Pad, Cls, Mask].into_iter();
        roles.any(|role| {
            engine
                .tokenizer()
                .special_token(role)
                .is_some_and(|s| s.1 == id)
        })
    };
    let closed = encoding.ids().last().is_some_and(special);
    Ok(encoding.len() - usize::from(closed))
}

fn load_dense(dense: &DenseConfig, width: usize, session: &Session) -> Result<Linear, TaskError> {
    if dense.inputs != width {
        return Err(TaskError::Key {
            file: dense.dir.join("config.json"),
            key: "in_features".into(),
            found: dense.inputs.to_string(),
            expected: format!("{width}, the width of the vectors before this layer"),
        });
    }
    let checkpoint = Checkpoint::open_dir(&dense.dir)?;
    let weights = Weights::new(&checkpoint, session);
    let bias = match dense.bias {
        true => Bias::Present,
        false => Bias::Absent,
    };
    Ok(Linear::load(
        &weights.at("linear"),
        dense.inputs,
        dense.outputs,
        bias,
    )?)
}
