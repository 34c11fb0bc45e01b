//! Runs on tiny models.

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};

use bertha_autograd::{Gradients, Parameter, Precision, Session, Var, ops};
use bertha_models::{Config, TrainableModel};
use bertha_nn::Batch;
use bertha_tensor::{Checkpoint, Tensor};
use bertha_tokenizer::{Input, Tokenizer};

use super::loss::loss_of;
use super::*;
use crate::collate::{BatchSize, MaskingOptions, Targets, TrainingBatch};
use crate::collective::Threads;
use crate::data::{
    GoldAnswer, LabelMap, Question, QuestionOptions, TagOptions, TaggedSentence, question_examples,
    tag_examples, tag_map, text_examples,
};
use crate::optim::OptimizerConfig;
use crate::schedule::Span;

fn golden(name: &str) -> PathBuf {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR"));
    crates.join("../../tests/golden/pipelines").join(name)
}

fn session(threads: usize) -> Session {
    Session::new(Some(threads)).unwrap()
}

fn tokenizer() -> Tokenizer {
    Tokenizer::from_dir(golden("fill_mask")).unwrap()
}

/// A model of 1 layer and 12 values a token, random from a seed, with dropout or without.
fn model(session: &Session, task: Task, labels: &[&str], dropout: f64) -> TrainableModel {
    let dir = golden("fill_mask");
    let mut config = Config::from_file(dir.join("config.json")).unwrap();
    let labels = LabelMap::discover(labels.iter().copied()).ok();
    task.configure(&mut config, labels.as_ref());
    config.set("hidden_dropout_prob", dropout);
    config.set("attention_probs_dropout_prob", dropout);
    TrainableModel::from_dir(dir, config, task.head(), session, 1).unwrap()
}

/// Sentences of which the class is whether a word is in them.
fn sentences() -> (Vec<String>, Vec<u32>) {
    let words = ["the", "a", "on", "in", "and", "of"];
    (0..48u32)
        .map(|i| {
            let class = i * 7 % 5 % 2;
            let word = |k: u32| words[(i * k + k / 3) as usize % words.len()];
            let key = ["we", "it"][class as usize];
            (format!("{} {} {key} {}", word(1), word(5), word(7)), class)
        })
        .unzip()
}

fn examples() -> Examples {
    let (texts, classes) = sentences();
    let inputs: Vec<Input<'_>> = texts.iter().map(Input::from).collect();
    let examples = text_examples(&tokenizer(), &inputs, 32).unwrap();
    examples.with_classes(&classes).unwrap()
}

fn options(steps: u64) -> TrainOptions {
    TrainOptions {
        length: Length::Steps(steps),
        batch: BatchSize::Examples(5),
        learning_rate: 5e-3,
        warmup: Span::Steps(2),
        log_every: 4,
        ..TrainOptions::default()
    }
}

fn bits(model: &TrainableModel) -> Vec<u32> {
    let values = model.parameters.iter().map(Parameter::value);
    values
        .flat_map(|value| value.to_vec::<f32>().unwrap())
        .map(f32::to_bits)
        .collect()
}

/// Stops a run after some updates.
struct StopAfter(u64);

impl Observer for StopAfter {
    fn step(&mut self, progress: &Progress) -> Signal {
        match progress.step >= self.0 {
            true => Signal::Stop,
            false => Signal::Continue,
        }
    }
}

fn trainer<'a>(threads: usize, options: TrainOptions) -> Trainer<'a> {
    let session = session(threads);
    let model = model(&session, Task::Classify, &["no", "yes"], 0.1);
    Trainer::new(session, model, Task::Classify, examples(), options)
}

#[test]
fn a_resumed_run_is_an_uninterrupted_one_bit_for_bit() {
    for (ema, accumulation, precision) in [
        (None, 1, Precision::F32),
        (Some(0.9), 2, Precision::F32),
        (None, 1, Precision::Bf16),
    ] {
        let options = TrainOptions {
            ema,
            precision,
            accumulation,
            checkpoint_every: Every::Steps(7),
            ..options(20)
        };
        let mut all = Vec::new();
        for threads in [1, 2] {
            let dir = tempfile::tempdir().unwrap();
            let (whole, parts) = (dir.path().join("whole"), dir.path().join("parts"));
            let run = || trainer(threads, options.clone());
            let files = golden("fill_mask");
            let first = run().output(&whole, &files).run().unwrap();
            assert_eq!((first.summary.end, first.summary.step), (End::Complete, 20));
            let stopped = run().output(&parts, &files).observer(StopAfter(10)).run();
            let stopped = stopped.unwrap().summary;
            assert_eq!((stopped.end, stopped.step), (End::Stopped, 10));
            assert!(!parts.join("model.safetensors").exists());
            let second = run().output(&parts, &files).resume(true).run().unwrap();
            assert_eq!(
                (second.summary.end, second.summary.step),
                (End::Complete, 20)
            );
            assert_eq!(bits(&first.model), bits(&second.model));
            // Moments, averaged weights and the place in the data are the same as well.
            for file in ["state.safetensors", "state.json", "model.safetensors"] {
                let read =
                    |run: &Path| fs::read(run.join("checkpoints/step-20").join(file)).unwrap();
                assert!(read(&whole) == read(&parts), "{file}");
            }
            assert!(whole.join("checkpoints/step-14").exists());
            assert!(!whole.join("checkpoints/step-7").exists());
            all.push(bits(&first.model));
        }
        assert_eq!(all[0], all[1], "one thread and two");
    }
}

#[test]
fn other_settings_do_not_resume() {
    let dir = tempfile::tempdir().unwrap();
    let files = golden("fill_mask");
    let run = |options: TrainOptions| trainer(1, options).output(dir.path(), &files);
    run(options(4)).observer(StopAfter(2)).run().unwrap();
    let error = |trainer: Trainer<'_>| trainer.run().err().unwrap().to_string();
    let found = error(run(options(4)));
    assert!(found.contains("resume"), "{found}");
    let other = TrainOptions {
        learning_rate: 1e-4,
        ..options(4)
    };
    let found = error(run(other).resume(true));
    assert!(
        found.contains("`options.learning_rate` was 0.005"),
        "{found}"
    );
    let other = TrainOptions {
        precision: Precision::Bf16,
        ..options(4)
    };
    let found = error(run(other).resume(true));
    assert!(
        found.contains(r#"`options.precision` was "f32""#),
        "{found}"
    );
    let free = TrainOptions {
        log_every: 1,
        ..options(4)
    };
    assert_eq!(run(free).resume(true).run().unwrap().summary.step, 4);
}

#[test]
fn a_classifier_learns_and_its_best_model_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let seen = RefCell::new(Vec::new());
    struct Watch<'w>(&'w RefCell<Vec<(u64, bool)>>);
    impl Observer for Watch<'_> {
        fn evaluated(&mut self, step: u64, _: &Scores, best: bool) {
            self.0.borrow_mut().push((step, best));
        }
    }
    let options = TrainOptions {
        length: Length::Epochs(8.0),
        patience: Some(3),
        metric: Some("loss".into()),
        ..options(0)
    };
    let outcome = trainer(2, options)
        .evaluation(examples())
        .output(dir.path(), golden("fill_mask"))
        .observer(Watch(&seen))
        .run()
        .unwrap();
    let scores = &outcome.summary.evaluation;
    assert!(scores["accuracy"] > 0.95, "{scores:?}");
    let best = outcome.summary.best.unwrap();
    assert!((best.value - scores["loss"]).abs() < 1e-12);
    assert_eq!(seen.borrow()[0], (10, true), "an epoch is 10 batches");
    // The saved model is the one that was judged.
    let saved = Checkpoint::open_dir(dir.path()).unwrap();
    for parameter in &outcome.model.parameters {
        let saved = saved
            .get(parameter.name())
            .unwrap()
            .to_vec::<f32>()
            .unwrap();
        assert_eq!(saved, parameter.value().to_vec::<f32>().unwrap());
    }
    for file in [
        "config.json",
        "vocab.txt",
        "training.json",
        "metrics.jsonl",
        "curve.svg",
    ] {
        assert!(dir.path().join(file).exists(), "{file}");
    }
    let config = fs::read_to_string(dir.path().join("config.json")).unwrap();
    assert!(config.contains("BertForSequenceClassification") && config.contains("\"yes\""));
    let records = crate::record::read_records(dir.path().join("metrics.jsonl")).unwrap();
    assert!(
        records
            .iter()
            .any(|record| record.number("dev_accuracy").is_some())
    );
}

#[test]
fn a_run_that_gets_no_better_ends_early() {
    let dir = tempfile::tempdir().unwrap();
    let options = TrainOptions {
        learning_rate: 0.0,
        patience: Some(2),
        evaluate_every: Every::Steps(1),
        ..options(50)
    };
    let run = || {
        let trainer = trainer(1, options.clone()).evaluation(examples());
        trainer.output(dir.path(), golden("fill_mask"))
    };
    let summary = run().run().unwrap().summary;
    assert_eq!((summary.end, summary.step), (End::Early, 3));
    let again = run().resume(true).run().unwrap().summary;
    assert_eq!((again.end, again.step), (End::Early, 3));
    assert_eq!(again.evaluation, summary.evaluation);
}

/// The largest difference of two models' weights.
fn distance(a: &TrainableModel, b: &TrainableModel) -> f32 {
    let pairs = bits(a).into_iter().zip(bits(b));
    pairs
        .map(|(a, b)| (f32::from_bits(a) - f32::from_bits(b)).abs())
        .fold(0.0, f32::max)
}

/// Without dropout, and with an update that is in proportion to the gradient.
fn plain(batch: usize, accumulation: usize) -> TrainOptions {
    TrainOptions {
        batch: BatchSize::Examples(batch),
        accumulation,
        optimizer: OptimizerConfig::sgd(0.9),
        learning_rate: 0.05,
        ..options(12)
    }
}

fn plain_trainer<'a>(options: TrainOptions) -> Trainer<'a> {
    let session = session(1);
    let model = model(&session, Task::MaskedLm, &[], 0.0);
    let masker = Masker::new(&tokenizer(), MaskingOptions::default()).unwrap();
    Trainer::new(session, model, Task::MaskedLm, examples(), options).masker(masker)
}

#[test]
fn accumulated_batches_are_one_larger_batch() {
    let run = |batch, accumulation| plain_trainer(plain(batch, accumulation)).run().unwrap();
    let (one, many) = (run(12, 1), run(3, 4));
    assert!((one.summary.loss - many.summary.loss).abs() < 1e-5);
    assert!(distance(&one.model, &many.model) < 1e-5);
    // The loss of what a model does not learn would not tell.
    assert!(distance(&one.model, &plain_trainer(plain(12, 1)).model) > 1e-3);
}

#[test]
fn ranks_together_are_one() {
    let alone = plain_trainer(plain(12, 1)).run().unwrap();
    let together: Vec<TrainableModel> = std::thread::scope(|scope| {
        let ranks: Vec<_> = Threads::new(3)
            .into_iter()
            .map(|rank| {
                let run = || plain_trainer(plain(12, 1)).collective(rank).run();
                scope.spawn(|| run().unwrap().model)
            })
            .collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    });
    assert!(distance(&alone.model, &together[0]) < 1e-5);
    assert_eq!(bits(&together[0]), bits(&together[1]));
    assert_eq!(bits(&together[0]), bits(&together[2]));
}

#[test]
fn numbers_that_break_stop_the_run_and_are_named() {
    let broken = trainer(1, options(3));
    let weight = &broken.model.parameters[3];
    weight
        .update(|values: &mut [f32]| values[0] = f32::NAN)
        .unwrap();
    let error = broken.run().err().unwrap().to_string();
    assert!(error.starts_with("update 1: the loss is NaN"), "{error}");
    // A learning rate that no model survives.
    let options = TrainOptions {
        learning_rate: 1e38,
        max_gradient_norm: None,
        warmup: Span::Steps(0),
        optimizer: OptimizerConfig::sgd(0.0),
        ..options(9)
    };
    let error = trainer(1, options).run().err().unwrap().to_string();
    assert!(
        error.starts_with("update 2:") || error.starts_with("update 3:"),
        "{error}"
    );
}

#[test]
fn frozen_parameters_stay() {
    let mut options = options(3);
    options.groups.frozen = vec!["bert.embeddings".into()];
    let session = session(1);
    let before = model(&session, Task::Classify, &["no", "yes"], 0.1);
    let after = trainer(1, options).run().unwrap().model;
    for (a, b) in before.parameters.iter().zip(&after.parameters) {
        let same = a.value().to_vec::<f32>().unwrap() == b.value().to_vec::<f32>().unwrap();
        assert_eq!(
            same,
            a.name().starts_with("bert.embeddings"),
            "{}",
            a.name()
        );
    }
}

/// Trains and evaluates on the same data: whatever the task, the loss falls.
fn learns(task: Task, labels: &[&str], data: EvaluationData, expected: &[&str]) -> Scores {
    let session = session(2);
    let options = TrainOptions {
        length: Length::Epochs(12.0),
        evaluate_every: Every::Epoch,
        ..options(0)
    };
    let seed = crate::random::Seed::new(options.seed);
    let model = model(&session, task, labels, 0.0);
    let masker = Masker::new(&tokenizer(), MaskingOptions::default()).unwrap();
    let masker = task.masks().then_some(masker);
    let (encoder, mask) = (model.model.as_ref(), masker.as_ref());
    let before = evaluate(&session, encoder, task, &data, mask, (64, seed)).unwrap();
    let mut trainer = Trainer::new(session, model, task, data.examples.clone(), options);
    if let Some(masker) = masker {
        trainer = trainer.masker(masker);
    }
    let after = trainer.evaluation(data).run().unwrap().summary.evaluation;
    assert!(after["loss"] < 0.9 * before["loss"], "{before:?} {after:?}");
    for name in expected {
        assert!(after.contains_key(*name), "{name} of {after:?}");
    }
    after
}

#[test]
fn every_task_learns() {
    let (texts, classes) = sentences();
    let inputs: Vec<Input<'_>> = texts.iter().map(Input::from).collect();
    let plain = text_examples(&tokenizer(), &inputs, 32).unwrap();
    learns(
        Task::MaskedLm,
        &[],
        plain.clone().into(),
        &["accuracy", "perplexity"],
    );
    // The class is that of a pair here: whether a word is in the text.
    let pairs = plain.clone().with_classes(&classes).unwrap();
    let scores = learns(
        Task::PreTraining,
        &[],
        pairs.into(),
        &["accuracy", "masked_loss", "pair_loss", "perplexity"],
    );
    assert!(scores["pair_accuracy"] > 0.9, "{scores:?}");
    let sum = scores["masked_loss"] + scores["pair_loss"];
    assert!((scores["loss"] - sum).abs() < 1e-9, "{scores:?}");

    let both: Vec<u8> = classes
        .iter()
        .flat_map(|&c| [c as u8, 1 - c as u8])
        .collect();
    let labels = crate::data::Labels::MultiLabel(Tensor::from_vec(both, &[48, 2]).unwrap());
    let data = plain.clone().with_labels(labels).unwrap();
    let scores = learns(
        Task::MultiLabel,
        &["a", "b"],
        data.into(),
        &["micro_f1", "exact"],
    );
    assert!(scores["exact"] > 0.9, "{scores:?}");

    let numbers: Vec<f32> = classes
        .iter()
        .map(|&class| class as f32 * 2.0 - 1.0)
        .collect();
    let labels = crate::data::Labels::Scores(Tensor::from_vec(numbers, &[48, 1]).unwrap());
    let data = plain.with_labels(labels).unwrap();
    let scores = learns(Task::Regress, &["score"], data.into(), &["spearman"]);
    assert!(scores["pearson"] > 0.9, "{scores:?}");

    let tagged: Vec<TaggedSentence> = texts
        .iter()
        .map(|text| {
            let words: Vec<String> = text.split(' ').map(str::to_owned).collect();
            let tag = |word: &String| match word.as_str() {
                "we" | "it" => "B-KEY".to_owned(),
                _ => "O".to_owned(),
            };
            let tags = words.iter().map(tag).collect();
            TaggedSentence { words, tags }
        })
        .collect();
    let map = tag_map(&tagged).unwrap();
    let data = tag_examples(&tokenizer(), &tagged, &map, TagOptions::new(32)).unwrap();
    let names: Vec<&str> = map.labels().iter().map(String::as_str).collect();
    let scores = learns(
        Task::Tag,
        &names,
        data.examples.into(),
        &["precision", "recall"],
    );
    assert!(scores["f1"] > 0.9, "{scores:?}");

    let questions: Vec<Question> = texts
        .iter()
        .zip(&classes)
        .enumerate()
        .map(|(i, (text, &class))| {
            let answer = ["we", "it"][class as usize];
            let start = text.find(&format!(" {answer} ")).unwrap() + 1;
            Question {
                id: i.to_string(),
                question: "the".into(),
                context: text.clone(),
                answers: vec![GoldAnswer {
                    text: answer.into(),
                    start,
                }],
            }
        })
        .collect();
    let options = QuestionOptions {
        max_length: 32,
        ..QuestionOptions::default()
    };
    let found = question_examples(&tokenizer(), &questions, &options).unwrap();
    let data = EvaluationData {
        examples: found.examples,
        questions,
    };
    let scores = learns(Task::Answer, &[], data, &["exact", "f1"]);
    assert!(scores["exact"] > 80.0, "{scores:?}");
}

/// Against the cross-entropy of one sequence at a time.
#[test]
fn the_loss_of_spans_is_the_mean_over_sequences() {
    let session = session(1);
    let values = |seed: u32, len: usize| -> Vec<f32> {
        (0..len)
            .map(|i| ((i as f32 + 1.3) * (seed as f32 + 0.7)).sin() * 3.0)
            .collect()
    };
    let lengths = [4usize, 1, 6];
    let sequences: Vec<Vec<u32>> = lengths.iter().map(|&len| vec![1; len]).collect();
    let (starts, ends) = (vec![1, 0, 0], vec![3, 0, 5]);
    let batch = TrainingBatch {
        batch: Batch::from_sequences(&sequences).unwrap(),
        targets: Targets::Spans {
            starts: starts.clone(),
            ends: ends.clone(),
        },
        examples: vec![0, 1, 2],
    };
    let total: usize = lengths.iter().sum();
    let parameter = |name, values: Vec<f32>| {
        let len = values.len();
        Parameter::new(name, Tensor::from_vec(values, &[len]).unwrap())
    };
    let start = parameter("start", values(1, total));
    let end = parameter("end", values(2, total));
    let outputs = bertha_models::Outputs {
        last_hidden_state: Var::constant(Tensor::zeros(bertha_tensor::DType::F32, &[1]).unwrap()),
        pooler_output: None,
        logits: None,
        pair_logits: None,
        start_logits: Some(start.var()),
        end_logits: Some(end.var()),
        hidden_states: Vec::new(),
    };
    let loss = loss_of(&session, outputs, &batch, 6.0, 0.0).unwrap();
    let mut gradients = Gradients::new();
    loss.backward(&session, &mut gradients).unwrap();
    let mut expected = 0.0;
    for (parameter, targets) in [(&start, &starts), (&end, &ends)] {
        let found = gradients.get(parameter).unwrap().to_vec::<f32>().unwrap();
        for (sequence, &target) in targets.iter().enumerate() {
            let range = batch.batch.range(sequence);
            let all = parameter.value().to_vec::<f32>().unwrap();
            let row = Tensor::from_slice(&all[range.clone()], &[1, range.len()]).unwrap();
            let row = Parameter::new("row", row);
            let options = ops::CrossEntropyOptions::default();
            let one =
                ops::cross_entropy(&session, row.var(), &[i64::from(target)], &options).unwrap();
            let mut of_one = Gradients::new();
            one.backward(&session, &mut of_one).unwrap();
            let of_one = of_one.get(&row).unwrap().to_vec::<f32>().unwrap();
            for (found, expected) in found[range].iter().zip(of_one) {
                assert!((found - expected / 6.0).abs() < 1e-6);
            }
            expected += f64::from(one.tensor().item::<f32>().unwrap()) / 6.0;
        }
    }
    assert!((loss.value - expected).abs() < 1e-6);
}
