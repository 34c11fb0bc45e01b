//! What can be chosen when a task is loaded.

use std::marker::PhantomData;
use std::path::PathBuf;

use bertha_autograd::{Precision, Session};
use bertha_models::{GlobalRule, Head};

use crate::TaskError;
use crate::engine::Engine;
use crate::limit::tokenizer_limit;

/// Tokens of a batch unless told otherwise: enough rows for every thread's share of a product, and
/// few enough for the layers' outputs to stay in the processor's caches.
const BATCH_TOKENS: usize = 2048;

/// What every task lets its user choose.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    pub(crate) precision: Option<Precision>,
    pub(crate) threads: Option<usize>,
    pub(crate) session: Option<Session>,
    pub(crate) batch_tokens: Option<usize>,
    pub(crate) max_length: Option<usize>,
    pub(crate) truncate: Option<bool>,
    pub(crate) global_tokens: Option<GlobalRule>,
}

impl Settings {
    /// Refuses what cannot be, before any file is read.
    pub(crate) fn check(&self) -> Result<(), TaskError> {
        let refuse = |option, found: String, expected: &str| {
            let expected = expected.to_owned();
            Err(TaskError::InvalidOption {
                option,
                found,
                expected,
            })
        };
        match self {
            Self {
                threads: Some(threads),
                session: Some(_),
                ..
            } => refuse(
                "threads",
                threads.to_string(),
                "nothing where a `session` is given, which has threads of its own",
            ),
            Self {
                batch_tokens: Some(0),
                ..
            } => refuse("batch_tokens", "0".into(), "1 or more"),
            _ => Ok(()),
        }
    }

    /// The session that was given, or a new one.
    pub(crate) fn session(&self) -> Result<Session, TaskError> {
        let session = match &self.session {
            Some(session) => session.clone(),
            None => Session::new(self.threads)?,
        };
        Ok(match self.precision {
            Some(precision) => session.with_precision(precision),
            None => session,
        })
    }

    pub(crate) fn batch_tokens(&self) -> usize {
        self.batch_tokens.unwrap_or(BATCH_TOKENS)
    }
}

/// A task that [`TaskBuilder`] can load.
pub trait Task: Sized {
    /// The head that the task needs.
    #[doc(hidden)]
    const HEAD: Head;

    /// The task over a loaded model.
    #[doc(hidden)]
    fn from_engine(engine: Engine) -> Result<Self, TaskError>;
}

/// Loads a [`FillMask`](crate::FillMask), [`TextClassifier`](crate::TextClassifier),
/// [`TokenClassifier`](crate::TokenClassifier) or [`QuestionAnswerer`](crate::QuestionAnswerer) with
/// options.
///
/// ```no_run
/// use bertha_tasks::TextClassifier;
///
/// let classifier = TextClassifier::builder("models/sentiment").threads(2).build()?;
/// # Ok::<(), bertha_tasks::TaskError>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct TaskBuilder<T> {
    dir: PathBuf,
    settings: Settings,
    task: PhantomData<fn() -> T>,
}

impl<T: Task> TaskBuilder<T> {
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self {
            dir,
            settings: Settings::default(),
            task: PhantomData,
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
    /// `model_max_length` of the folder's tokenizer_config.json, else the model's positions.
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

    /// Loads the model.
    ///
    /// # Errors
    /// When a file is missing or corrupt, the model has no head for the task, or an option is out of
    /// range.
    pub fn build(self) -> Result<T, TaskError> {
        self.settings.check()?;
        let configured = tokenizer_limit(&self.dir)?;
        T::from_engine(Engine::load(
            &self.dir,
            T::HEAD,
            &self.settings,
            configured,
        )?)
    }
}
