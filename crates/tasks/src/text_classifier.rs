//! Labels for texts, as `transformers`' text-classification pipeline gives them.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use bertha_autograd::Session;
use bertha_models::{Head, ModelInfo, ProblemType};
use bertha_tokenizer::Tokenizer;
use serde::Serialize;

use crate::builder::Task;
use crate::engine::{Engine, Sequence, finite, input_bytes};
use crate::scores::{descending, sigmoid, softmax};
use crate::{TaskBuilder, TaskError, TextInput};

/// Puts texts, or pairs of texts, into classes.
///
/// Cheap to clone, `Send + Sync`; clones share the model.
///
/// ```no_run
/// use bertha_tasks::TextClassifier;
///
/// let classifier = TextClassifier::from_dir("models/sentiment")?;
/// let best = &classifier.classify("What a lovely day!")?[0];
/// println!("{} {:.3}", best.label, best.score);
/// let pair = classifier.classify(("A man sleeps.", "Nobody is awake."))?;
/// # Ok::<(), bertha_tasks::TaskError>(())
/// ```
#[derive(Clone)]
pub struct TextClassifier {
    inner: Arc<Inner>,
}

struct Inner {
    engine: Engine,
    /// What makes scores of logits unless the caller says otherwise.
    function: Function,
}

/// What [`TextClassifier::classify_batch`] gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassifyOptions {
    /// How many labels; the default is the best one, `None` is all.
    pub top_k: Option<usize>,
    /// What makes scores of the logits; `None` (the default) is the model's own: nothing for a
    /// regression, sigmoid for several labels at once or a single one, softmax otherwise.
    pub function: Option<Function>,
}

impl Default for ClassifyOptions {
    fn default() -> Self {
        Self {
            top_k: Some(1),
            function: None,
        }
    }
}

/// What makes scores of logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Function {
    /// Scores of all classes add up to 1.
    Softmax,
    /// Each class has a score from 0 to 1 of its own.
    Sigmoid,
    /// The logits themselves.
    None,
}

impl FromStr for Function {
    type Err = TaskError;

    fn from_str(name: &str) -> Result<Self, TaskError> {
        match name {
            "softmax" => Ok(Self::Softmax),
            "sigmoid" => Ok(Self::Sigmoid),
            "none" => Ok(Self::None),
            _ => Err(TaskError::InvalidOption {
                option: "function",
                found: format!("\"{name}\""),
                expected: "softmax, sigmoid or none".into(),
            }),
        }
    }
}

impl Function {
    fn of(info: &ModelInfo) -> Self {
        match info.problem_type {
            Some(ProblemType::Regression) => Self::None,
            Some(ProblemType::MultiLabel) => Self::Sigmoid,
            _ if info.labels.len() == 1 => Self::Sigmoid,
            _ => Self::Softmax,
        }
    }

    fn scores(self, logits: &[f32]) -> Vec<f64> {
        match self {
            Self::Softmax => softmax(logits),
            Self::Sigmoid => logits.iter().copied().map(sigmoid).collect(),
            Self::None => logits.iter().copied().map(f64::from).collect(),
        }
    }
}

/// A class and its score.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Label {
    /// The class's name (`id2label`).
    pub label: String,
    /// Its score, by the [`Function`].
    pub score: f32,
}

impl Task for TextClassifier {
    const HEAD: Head = Head::SequenceClassification;

    fn from_engine(engine: Engine) -> Result<Self, TaskError> {
        let function = Function::of(engine.info());
        Ok(Self {
            inner: Arc::new(Inner { engine, function }),
        })
    }
}

impl TextClassifier {
    /// Loads a model folder.
    ///
    /// # Errors
    /// When a file is missing or corrupt, or the model has no sequence-classification head.
    pub fn from_dir(dir: impl AsRef<Path>) -> Result<Self, TaskError> {
        Self::builder(dir.as_ref()).build()
    }

    /// Loads a model folder with options.
    pub fn builder(dir: impl Into<PathBuf>) -> TaskBuilder<Self> {
        TaskBuilder::new(dir.into())
    }

    /// The best label of a text, or of a pair of texts.
    ///
    /// # Errors
    /// As [`TextClassifier::classify_batch`].
    pub fn classify<'a>(&self, input: impl Into<TextInput<'a>>) -> Result<Vec<Label>, TaskError> {
        let mut labels = self.classify_batch(&[input.into()], &ClassifyOptions::default())?;
        Ok(labels.pop().unwrap_or_default())
    }

    /// For each text or pair its labels, best first, in the order of the inputs.
    ///
    /// # Errors
    /// When a text is longer than the limit and may not be cut, or an option is out of range.
    pub fn classify_batch(
        &self,
        inputs: &[TextInput<'_>],
        options: &ClassifyOptions,
    ) -> Result<Vec<Vec<Label>>, TaskError> {
        let Inner { engine, function } = &*self.inner;
        if options.top_k == Some(0) {
            return Err(TaskError::InvalidOption {
                option: "top_k",
                found: "0".into(),
                expected: "1 or more".into(),
            });
        }
        let function = options.function.unwrap_or(*function);
        let mut classified = vec![Vec::new(); inputs.len()];
        let mut cut = 0;
        for stretch in engine.stretches(inputs.iter().copied().map(input_bytes)) {
            let first = stretch.start;
            let encodings = engine.encode_within_limit(&inputs[stretch], first, &mut cut)?;
            let sequences: Vec<Sequence<'_>> = encodings
                .iter()
                .zip(first..)
                .map(|(encoding, text)| Sequence { text, encoding })
                .collect();
            engine.run(&sequences, None, |ran| {
                let (logits, classes) = engine.logits(&ran.outputs)?;
                engine.check_classes(classes)?;
                for (&i, row) in ran.members.iter().zip(logits.chunks_exact(classes.max(1))) {
                    let text = sequences[i].text;
                    finite(row, "logits", text)?;
                    classified[text] = self.ranked(&function.scores(row), options.top_k);
                }
                Ok(())
            })?;
        }
        engine.limit().warn_of(cut, inputs.len());
        Ok(classified)
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

    fn ranked(&self, scores: &[f64], count: Option<usize>) -> Vec<Label> {
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|&a, &b| descending(scores[a], scores[b]));
        order.truncate(count.unwrap_or(usize::MAX));
        let labels = &self.info().labels;
        order
            .into_iter()
            .map(|class| Label {
                label: labels[class].clone(),
                score: scores[class] as f32,
            })
            .collect()
    }
}

impl std::fmt::Debug for TextClassifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TextClassifier")
            .field("folder", &self.inner.engine.dir())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_have_names() {
        for (name, function) in [
            ("softmax", Function::Softmax),
            ("sigmoid", Function::Sigmoid),
            ("none", Function::None),
        ] {
            assert_eq!(name.parse::<Function>().unwrap(), function);
        }
        let error = "relu".parse::<Function>().unwrap_err().to_string();
        assert!(
            error.contains("relu") && error.contains("sigmoid"),
            "{error}"
        );
    }

    #[test]
    fn functions_of_known_logits() {
        let logits = [0.0, 3f32.ln()];
        let near = |found: Vec<f64>, expected: [f64; 2]| {
            let close = |(a, b): (&f64, &f64)| (a - b).abs() < 1e-7;
            assert!(found.iter().zip(&expected).all(close), "{found:?}");
        };
        near(Function::Softmax.scores(&logits), [0.25, 0.75]);
        near(Function::Sigmoid.scores(&logits), [0.5, 0.75]);
        near(Function::None.scores(&logits), [0.0, f64::from(logits[1])]);
    }
}
