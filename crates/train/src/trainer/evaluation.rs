//! How good a model is: its loss and the task's measures on data that it was not trained on.

use std::collections::BTreeMap;

use bertha_autograd::Session;
use bertha_models::{ForwardOptions, Model};

use super::Task;
use super::loss::{Loss, labelled_rows, loss_of, loss_terms, pair_loss};
use crate::TrainError;
use crate::collate::{BatchSize, Masker, Sampler, SamplerOptions, Targets, TrainingBatch, collate};
use crate::data::{Examples, Question, mark};
use crate::metrics::{
    AnswerSearch, Confusion, MultiLabelCounts, Scheme, TokenLoss, WindowLogits, best_answer,
    best_threshold, entity_scores, mean_absolute_error, mean_squared_error, pearson, spearman,
    squad_scores,
};
use crate::random::Seed;

/// Measures by their names.
pub type Scores = BTreeMap<String, f64>;

/// What a model is evaluated on.
#[derive(Clone, Debug)]
pub struct EvaluationData {
    /// The examples, with their labels.
    pub examples: Examples,
    /// The questions that the examples are windows of; only for [`Task::Answer`].
    pub questions: Vec<Question>,
}

impl From<Examples> for EvaluationData {
    fn from(examples: Examples) -> Self {
        Self {
            examples,
            questions: Vec::new(),
        }
    }
}

/// The epoch that evaluation draws its masks as: one that no training reaches.
const MASK_EPOCH: u32 = u32::MAX;

/// Evaluates a model: its mean `loss`, and
///
/// - masked LM: `accuracy`, `perplexity`;
/// - classes: `accuracy`, `macro_f1`, `weighted_f1`, `matthews`; of two classes also `precision`, `recall`
///   and `f1` of the second;
/// - several labels: `micro_f1`, `macro_f1`, `weighted_f1`, `exact` (all labels of a text right), at a
///   threshold of ½;
/// - numbers: `mean_squared_error`, `mean_absolute_error`, `pearson`, `spearman` (of all numbers);
/// - tags: `precision`, `recall`, `f1` of entities and `accuracy` of words, as seqeval counts;
/// - answers: `exact`, `f1`, and where questions without answer are among them `best_f1` and
///   `best_exact` with their thresholds, as SQuAD's official script.
///
/// `masker` is needed by the masked LM alone; its masks are those of `seed`, the same at every call.
///
/// # Errors
/// When the model has another head than the task needs, or labels do not fit it.
pub fn evaluate(
    session: &Session,
    model: &dyn Model,
    task: Task,
    data: &EvaluationData,
    masker: Option<&Masker>,
    (batch_tokens, seed): (usize, Seed),
) -> Result<Scores, TrainError> {
    let examples = &data.examples;
    let session = session.no_grad();
    let options = SamplerOptions {
        batch: BatchSize::Tokens(batch_tokens),
        shuffle: false,
        ..SamplerOptions::default()
    };
    let sampler = Sampler::new(examples.lengths(), options, seed)?;
    let mut found = Found::default();
    let (mut loss, mut terms) = (0.0, 0);
    let (mut pair_sum, mut pairs) = (0.0, 0);
    for numbers in sampler.epoch(0) {
        let masking = masker.map(|masker| (masker, seed, MASK_EPOCH));
        let batch = collate(examples, &numbers, masking)?;
        // Tags are judged at words that may have no label of their own.
        let rows = match batch.targets {
            Targets::Tokens(_) => None,
            _ => labelled_rows(&batch.targets),
        };
        if rows.as_ref().is_some_and(Vec::is_empty) {
            continue;
        }
        let options = ForwardOptions {
            logit_rows: rows.as_deref(),
            global_tokens: None,
            ..ForwardOptions::default()
        };
        let mut outputs = model.forward(&session, &batch.batch, &options)?;
        found.take(&batch, &outputs, examples)?;
        let count = loss_terms(&batch);
        if count == 0 {
            continue;
        }
        if let (Targets::Tokens(_), Some(logits)) = (&batch.targets, &outputs.logits) {
            let rows = labelled_rows(&batch.targets).unwrap_or_default();
            let labelled = bertha_autograd::ops::gather_rows(&session, logits, &rows)?;
            outputs.logits = Some(labelled);
        }
        // Of pairs the mean over all, not over batches.
        let scored = outputs.pair_logits.take();
        if let (Some(scored), Targets::Masked { classes, .. }) = (scored, &batch.targets) {
            let classes = classes.as_deref().unwrap_or_default();
            if !classes.is_empty() {
                let sum = pair_loss(&session, &scored, classes, 0.0, 1.0)?;
                pair_sum += Loss::new(sum)?.value;
                pairs += classes.len();
            }
        }
        loss += loss_of(&session, outputs, &batch, 1.0, 0.0)?.value;
        terms += count;
    }
    let mut scores = found.scores(task, model, data)?;
    let mut mean = loss / terms as f64;
    if task.masks() {
        scores.insert("perplexity".into(), mean.exp());
    }
    if pairs > 0 {
        let pair_loss = pair_sum / pairs as f64;
        scores.insert("masked_loss".into(), mean);
        scores.insert("pair_loss".into(), pair_loss);
        mean += pair_loss;
    }
    scores.insert("loss".into(), mean);
    Ok(scores)
}

/// What a model said, in the order of the examples.
#[derive(Default)]
struct Found {
    /// The best class of each sequence, masked token, or token.
    classes: Vec<u32>,
    /// The logits of each sequence's classes or numbers; or of starts.
    values: Vec<f32>,
    /// Logits of ends.
    ends: Vec<f32>,
    masked: TokenLoss,
    /// Pairs of segments that were told apart.
    pairs: TokenLoss,
    /// The tags at words, by sentence: (gold, predicted).
    tags: BTreeMap<usize, (Vec<i32>, Vec<u32>)>,
}

impl Found {
    fn take(
        &mut self,
        batch: &TrainingBatch,
        outputs: &bertha_models::Outputs,
        examples: &Examples,
    ) -> Result<(), TrainError> {
        let missing = || TrainError::Setting {
            setting: "the model's head",
            found: "one without the outputs of the task".into(),
            expected: "the head of the task".into(),
        };
        let logits = || outputs.logits.as_ref().ok_or_else(missing);
        let best = || {
            let logits = logits()?;
            let classes = logits.shape().last().copied().unwrap_or(0).max(1);
            let rows = logits.as_slice()?.chunks(classes);
            Ok::<Vec<u32>, TrainError>(rows.map(largest).collect())
        };
        match &batch.targets {
            Targets::None => {}
            Targets::Classes(_) => self.classes.extend(best()?),
            Targets::MultiLabel { .. } | Targets::Scores { .. } => {
                self.values.extend(logits()?.as_slice()?);
            }
            Targets::Masked { ids, classes, .. } => {
                if let (Some(scores), Some(classes)) = (&outputs.pair_logits, classes) {
                    let guesses = scores.as_slice()?.chunks(2).map(largest);
                    let right = guesses.zip(classes).filter(|(a, b)| a == *b).count();
                    self.pairs.add(0.0, right as u64, classes.len() as u64);
                }
                let guesses = best()?;
                let right = guesses.iter().zip(ids).filter(|(a, b)| a == b).count();
                self.masked.add(0.0, right as u64, ids.len() as u64);
            }
            Targets::Tokens(labels) => {
                let guesses = best()?;
                for (sequence, &example) in batch.examples.iter().enumerate() {
                    let marks = examples.marks(example as usize);
                    let sentence = examples.source(example as usize);
                    let (gold, predicted) = self.tags.entry(sentence).or_default();
                    for (row, marks) in batch.batch.range(sequence).zip(marks) {
                        if marks & mark::WORD_START != 0 && labels[row] >= 0 {
                            gold.push(labels[row]);
                            predicted.push(guesses[row]);
                        }
                    }
                }
            }
            Targets::Spans { .. } => {
                let starts = outputs.start_logits.as_ref().ok_or_else(missing)?;
                let ends = outputs.end_logits.as_ref().ok_or_else(missing)?;
                self.values.extend(starts.as_slice()?);
                self.ends.extend(ends.as_slice()?);
            }
        }
        Ok(())
    }

    fn scores(
        self,
        task: Task,
        model: &dyn Model,
        data: &EvaluationData,
    ) -> Result<Scores, TrainError> {
        let examples = &data.examples;
        let all = 0..examples.len();
        let named = |scores: &[(&str, f64)]| {
            let pairs = scores.iter();
            pairs
                .map(|(name, value)| ((*name).to_owned(), *value))
                .collect::<Scores>()
        };
        let labels = &model.info().labels;
        Ok(match task {
            Task::MaskedLm => named(&[("accuracy", self.masked.accuracy())]),
            Task::PreTraining => named(&[
                ("accuracy", self.masked.accuracy()),
                ("pair_accuracy", self.pairs.accuracy()),
            ]),
            Task::Classify => {
                let gold: Vec<u32> = all
                    .map(|example| examples.class(example).unwrap_or(0) as u32)
                    .collect();
                let confusion = Confusion::of(&gold, &self.classes, labels.len())?;
                let mut scores = named(&[
                    ("accuracy", confusion.accuracy()),
                    ("macro_f1", confusion.macro_average().f1),
                    ("weighted_f1", confusion.weighted().f1),
                    ("matthews", confusion.matthews()),
                ]);
                if labels.len() == 2 {
                    let second = confusion.class(1);
                    scores.extend(named(&[
                        ("precision", second.precision),
                        ("recall", second.recall),
                        ("f1", second.f1),
                    ]));
                }
                scores
            }
            Task::MultiLabel => {
                let gold = match examples.labels() {
                    crate::data::Labels::MultiLabel(values) => values.as_slice::<u8>()?,
                    _ => &[],
                };
                let gold: Vec<bool> = gold.iter().map(|&value| value > 0).collect();
                let predicted: Vec<bool> = self.values.iter().map(|&x| x > 0.0).collect();
                let counts = MultiLabelCounts::of(&gold, &predicted, labels.len())?;
                named(&[
                    ("micro_f1", counts.micro().f1),
                    ("macro_f1", counts.macro_average().f1),
                    ("weighted_f1", counts.weighted().f1),
                    ("exact", counts.exact()),
                ])
            }
            Task::Regress => {
                let gold = match examples.labels() {
                    crate::data::Labels::Scores(values) => values.as_slice::<f32>()?,
                    _ => &[],
                };
                let wide = |x: &[f32]| x.iter().copied().map(f64::from).collect::<Vec<_>>();
                let (gold, predicted) = (wide(gold), wide(&self.values));
                named(&[
                    ("mean_squared_error", mean_squared_error(&gold, &predicted)?),
                    (
                        "mean_absolute_error",
                        mean_absolute_error(&gold, &predicted)?,
                    ),
                    ("pearson", pearson(&gold, &predicted)?),
                    ("spearman", spearman(&gold, &predicted)?),
                ])
            }
            Task::Tag => {
                let name = |class: usize| labels.get(class).map_or("O", String::as_str);
                let (mut gold, mut predicted) = (Vec::new(), Vec::new());
                for (sentence, guesses) in self.tags.values() {
                    gold.push(sentence.iter().map(|&tag| name(tag as usize)).collect());
                    predicted.push(guesses.iter().map(|&tag| name(tag as usize)).collect());
                }
                let scores = entity_scores(&gold, &predicted, Scheme::default())?;
                named(&[
                    ("precision", scores.micro.precision),
                    ("recall", scores.micro.recall),
                    ("f1", scores.micro.f1),
                    ("accuracy", scores.accuracy),
                ])
            }
            Task::Answer => self.answer_scores(data)?,
        })
    }

    fn answer_scores(&self, data: &EvaluationData) -> Result<Scores, TrainError> {
        let examples = &data.examples;
        let mut windows: Vec<Vec<usize>> = vec![Vec::new(); data.questions.len()];
        for example in 0..examples.len() {
            let question = examples.source(example);
            let of = windows.get_mut(question).ok_or(TrainError::Count {
                what: "questions of the examples",
                found: data.questions.len(),
                expected: question + 1,
            })?;
            of.push(example);
        }
        let (mut predictions, mut gold) = (Vec::new(), Vec::new());
        for (question, windows) in data.questions.iter().zip(windows) {
            let offsets: Vec<_> = windows
                .iter()
                .map(|&window| examples.offsets(window).unwrap_or_default())
                .collect();
            let logits: Vec<WindowLogits<'_>> = windows
                .iter()
                .zip(&offsets)
                .map(|(&window, offsets)| WindowLogits {
                    start: &self.values[examples.range(window)],
                    end: &self.ends[examples.range(window)],
                    offsets,
                })
                .collect();
            predictions.push(best_answer(
                &question.context,
                &logits,
                AnswerSearch::default(),
            )?);
            let answers = question.answers.iter();
            gold.push(
                answers
                    .map(|answer| answer.text.as_str())
                    .collect::<Vec<_>>(),
            );
        }
        let plain = squad_scores(&predictions, &gold, None)?;
        let mut scores = Scores::from([
            ("exact".to_owned(), plain.exact),
            ("f1".to_owned(), plain.f1),
        ]);
        if gold.iter().any(Vec::is_empty) {
            let best = best_threshold(&predictions, &gold)?;
            scores.extend([
                ("best_exact".to_owned(), best.exact),
                ("best_exact_threshold".to_owned(), best.exact_threshold),
                ("best_f1".to_owned(), best.f1),
                ("best_f1_threshold".to_owned(), best.f1_threshold),
            ]);
        }
        Ok(scores)
    }
}

/// The index of the largest value; of equal ones the first.
fn largest(values: &[f32]) -> u32 {
    let mut best = 0;
    for (i, &value) in values.iter().enumerate() {
        if value > values[best] {
            best = i;
        }
    }
    best as u32
}
