//! Quantization-aware training: passes see what will be packed, gradients are those of the estimators, and it helps.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bertha_autograd::{Gradients, Parameter, Session, ops};
use bertha_compress::{Estimator, Method, QuantizationAware, Settings, with_rounded_inputs};
use bertha_kernels::{CodeBook, GroupRange};
use bertha_models::{Config, ForwardOptions, Head, Model, TrainableModel, load};
use bertha_nn::{Batch, InputEstimator, InputRounding, WeightFormat};
use bertha_tensor::Tensor;
use bertha_tokenizer::{Input, Tokenizer};
use bertha_train::data::{Examples, text_examples};
use bertha_train::trainer::{End, Every, Length, Observer, Progress, Signal, Task};
use bertha_train::trainer::{TrainOptions, Trainer, WeightRounding};

const FOLDER: &str = "pipelines/classify_single";

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/golden")
        .join(FOLDER)
}

fn model(session: &Session) -> TrainableModel {
    let config = Config::from_file(golden().join("config.json")).unwrap();
    TrainableModel::from_dir(golden(), config, Head::SequenceClassification, session, 1).unwrap()
}

fn format(book: CodeBook) -> WeightFormat {
    WeightFormat::Codes { book, group: 8 }
}

fn logits(model: &dyn Model, session: &Session) -> Vec<f32> {
    let batch = Batch::from_sequences(&[vec![3u32, 5, 7, 2], vec![4], vec![9, 8, 7]]).unwrap();
    let outputs = model.forward(&session.no_grad(), &batch, &ForwardOptions::default());
    let logits = outputs.unwrap().logits.unwrap();
    logits.as_slice().unwrap().to_vec()
}

/// Puts the rounded values in place of the parameters'.
fn round(aware: &QuantizationAware, model: &TrainableModel) {
    for parameter in &model.parameters {
        if let Some(value) = aware.round(parameter).unwrap() {
            parameter.set(value).unwrap();
        }
    }
}

#[test]
fn what_is_packed_is_what_passes_saw() {
    let session = Session::new(Some(2)).unwrap();
    for (book, estimator) in [
        (CodeBook::Symmetric(4), Estimator::StraightThrough),
        (CodeBook::Symmetric(2), Estimator::LearnedSteps),
        (CodeBook::Asymmetric(3), Estimator::StraightThrough),
        (CodeBook::Nf4, Estimator::StraightThrough),
    ] {
        let mut model = model(&session);
        let settings = Settings {
            embeddings: Some(format(CodeBook::Symmetric(4))),
            ..Settings::new(format(book))
        };
        let plain = logits(&*model.model, &session);
        let aware = QuantizationAware::new(&session, &mut model, &settings, estimator).unwrap();
        let packed = aware.pack(&model).unwrap();
        assert!(packed.layers.len() >= 6, "{}", packed.layers.len());
        let dir = tempfile::tempdir().unwrap();
        packed.save(dir.path()).unwrap();
        let loaded = logits(&*load(dir.path(), &session).unwrap(), &session);
        round(&aware, &model);
        let seen = logits(&*model.model, &session);
        assert_ne!(seen, plain);
        for (seen, loaded) in seen.iter().zip(&loaded) {
            assert!(
                (seen - loaded).abs() < 1e-5,
                "{book:?}: {seen} and {loaded}"
            );
        }
    }
}

/// Inputs on levels too, by steps that begin with the first pass and learn.
#[test]
fn rounded_inputs_are_packed_as_passes_saw_them() {
    let session = Session::new(Some(2)).unwrap();
    let dir = tempfile::tempdir().unwrap();
    for (bits, estimator) in [
        (4, InputEstimator::LearnedSteps),
        (8, InputEstimator::LearnedSteps),
        (3, InputEstimator::Clip),
    ] {
        let config = Config::from_file(golden().join("config.json")).unwrap();
        let config = with_rounded_inputs(&config, InputRounding { bits, estimator });
        let head = Head::SequenceClassification;
        let mut model = TrainableModel::from_dir(golden(), config, head, &session, 1).unwrap();
        let settings = Settings::new(format(CodeBook::Symmetric(4)));
        let rule = Estimator::StraightThrough;
        let aware = QuantizationAware::new(&session, &mut model, &settings, rule).unwrap();
        let levels: Vec<&Parameter> = (model.parameters.iter())
            .filter(|parameter| parameter.name().ends_with("input_level"))
            .collect();
        // Of queries, keys and values together, the mixing layer, up and down, in each layer; and of the pooler.
        let layers = model.model.info().layers;
        assert_eq!(levels.len(), 4 * layers + 1);
        let training = session.training(1, 0);
        let batch = Batch::from_sequences(&[vec![3u32, 5, 7, 2], vec![9, 8, 7]]).unwrap();
        let outputs = (model.model).forward(&training, &batch, &ForwardOptions::default());
        let logits_of = outputs.unwrap().logits.unwrap();
        let square = ops::mul(&training, &logits_of, &logits_of).unwrap();
        let loss = ops::sum_all(&training, &square).unwrap();
        let mut gradients = Gradients::new();
        loss.backward(&training, &mut gradients).unwrap();
        let mut learning = 0;
        for level in levels {
            assert!(
                level.value().item::<f32>().unwrap() > 0.0,
                "{}",
                level.name()
            );
            let gradient = gradients.get(level).unwrap().item::<f32>().unwrap();
            assert!(gradient.is_finite());
            learning += usize::from(gradient != 0.0);
        }
        // Nothing is cut at first where values are only cut.
        assert_eq!(learning > 0, estimator == InputEstimator::LearnedSteps);
        aware.pack(&model).unwrap().save(dir.path()).unwrap();
        let loaded = logits(&*load(dir.path(), &session).unwrap(), &session);
        round(&aware, &model);
        let seen = logits(&*model.model, &session);
        for (seen, loaded) in seen.iter().zip(&loaded) {
            assert!((seen - loaded).abs() < 1e-4, "{bits}: {seen} and {loaded}");
        }
    }
}

/// The gradients of `w` and of its steps where what it is rounded to has the gradient `upstream`.
fn estimated(
    w: &[f32],
    step: Option<f32>,
    range: GroupRange,
    upstream: &[f32],
) -> (Vec<f32>, Option<Vec<f32>>) {
    let session = Session::new(Some(1)).unwrap();
    let mut model = model(&session);
    let name = "encoder.layer.0.attention.output.dense.weight";
    let weight = model.parameters.iter().find(|p| p.name().ends_with(name));
    let weight = weight.unwrap().clone();
    let (rows, columns) = (weight.shape()[0], weight.shape()[1]);
    let mut values = vec![0.1f32; rows * columns];
    values[..w.len()].copy_from_slice(w);
    weight
        .set(Tensor::from_vec(values, &[rows, columns]).unwrap())
        .unwrap();
    let group = w.len();
    let book = CodeBook::Symmetric(3);
    let settings = Settings {
        method: Method::Round(range),
        ..Settings::new(WeightFormat::Codes { book, group })
    };
    let estimator = match step {
        Some(_) => Estimator::LearnedSteps,
        None => Estimator::StraightThrough,
    };
    let aware = QuantizationAware::new(&session, &mut model, &settings, estimator).unwrap();
    let steps = format!("{}_step", weight.name());
    let steps: Option<Parameter> = (model.parameters.iter())
        .find(|parameter| parameter.name() == steps)
        .cloned();
    if let (Some(step), Some(steps)) = (step, &steps) {
        steps.update(|values: &mut [f32]| values[0] = step).unwrap();
    }
    let mut dw = vec![0.0f32; rows * columns];
    dw[..upstream.len()].copy_from_slice(upstream);
    let mut gradients = Gradients::new();
    let dw = Tensor::from_vec(dw, &[rows, columns]).unwrap();
    gradients.set(&weight, dw).unwrap();
    aware.estimate(&session, &mut gradients).unwrap();
    let values = |of: &Parameter, len: usize| {
        let gradient = gradients.get(of).unwrap();
        gradient.as_slice::<f32>().unwrap()[..len].to_vec()
    };
    let of_steps = steps.as_ref().map(|steps| values(steps, 1));
    (values(&weight, group), of_steps)
}

#[test]
fn learned_steps_have_the_gradients_of_lsq() {
    // In steps of 0.5: 1.2 rounds to 1, -0.6 to -1, 4 is beyond 3, -7 beyond -3.
    let w = [0.6, -0.3, 2.0, -3.5];
    let upstream = [1.0, 10.0, 100.0, 1000.0];
    let (dw, steps) = estimated(&w, Some(0.5), GroupRange::MinMax, &upstream);
    assert_eq!(dw, [1.0, 10.0, 0.0, 0.0]);
    let expected = (1.0 * (1.0 - 1.2) + 10.0 * (-1.0 + 0.6) + 100.0 * 3.0 - 1000.0 * 3.0)
        / (4.0f64 * 3.0).sqrt();
    let found = f64::from(steps.unwrap()[0]);
    assert!((found - expected).abs() < 1e-3, "{found} for {expected}");
}

#[test]
fn gradients_pass_inside_of_the_window() {
    // 9 values at 1 and one of 8: the range that a percentile leaves ends far below 8.
    let mut w = [1.0f32; 10];
    w[9] = 8.0;
    let upstream: Vec<f32> = (1..=10).map(|i| i as f32).collect();
    let (dw, _) = estimated(&w, None, GroupRange::Percentile(80.0), &upstream);
    assert_eq!(dw[..9], upstream[..9]);
    assert_eq!(dw[9], 0.0);
    let (dw, _) = estimated(&w, None, GroupRange::MinMax, &upstream);
    assert_eq!(dw, upstream);
}

/// Texts of three words whose class is whether the first two are of one kind.
fn examples() -> Examples {
    let tokenizer = Tokenizer::from_dir(golden()).unwrap();
    let vocabulary = std::fs::read_to_string(golden().join("vocab.txt")).unwrap();
    let words: Vec<&str> = vocabulary
        .lines()
        .filter(|word| word.len() > 2 && word.chars().all(char::is_alphabetic))
        .collect();
    let word = |i: usize| words[i % words.len()];
    let text = |i: usize| format!("{} {} {}", word(i % 8), word(8 + i / 8 % 8), word(11 * i));
    let texts: Vec<String> = (0..64).map(text).collect();
    let inputs: Vec<Input> = texts.iter().map(|text| Input::Single(text)).collect();
    let classes: Vec<u32> = (0..64)
        .map(|i| u32::from((i % 8 > 3) == (i / 8 % 8 > 3)))
        .collect();
    let examples = text_examples(&tokenizer, &inputs, 16).unwrap();
    examples.with_classes(&classes).unwrap()
}

fn options(steps: u64, learning_rate: f64) -> TrainOptions {
    TrainOptions {
        length: Length::Steps(steps),
        learning_rate,
        checkpoint_every: Every::Never,
        ..TrainOptions::default()
    }
}

fn train(
    session: &Session,
    model: TrainableModel,
    aware: Option<&Arc<QuantizationAware>>,
    options: TrainOptions,
) -> (TrainableModel, f64) {
    let (session, task) = (session.clone(), Task::Classify);
    let mut trainer = Trainer::new(session, model, task, examples(), options);
    if let Some(aware) = aware {
        trainer = trainer.rounding(Arc::clone(aware));
    }
    let outcome = trainer.evaluation(examples()).run().unwrap();
    (outcome.model, outcome.summary.evaluation["loss"])
}

#[test]
fn training_makes_up_for_two_bits() {
    let session = Session::new(Some(2)).unwrap();
    // A scale for each row.
    let format = WeightFormat::Codes {
        book: CodeBook::Symmetric(2),
        group: 1 << 10,
    };
    let settings = Settings {
        embeddings: Some(format),
        ..Settings::new(format)
    };
    for estimator in [Estimator::StraightThrough, Estimator::LearnedSteps] {
        let (mut trained, whole) = train(&session, model(&session), None, options(150, 1e-2));
        let aware = |model: &mut TrainableModel, estimator| {
            Arc::new(QuantizationAware::new(&session, model, &settings, estimator).unwrap())
        };
        let plain = aware(&mut trained, Estimator::StraightThrough);
        let (mut trained, rounded) = train(&session, trained, Some(&plain), options(1, 0.0));
        let aware = aware(&mut trained, estimator);
        let (_, learned) = train(&session, trained, Some(&aware), options(150, 5e-3));
        assert!(
            rounded > 3.0 * whole && learned < 0.5 * rounded,
            "{estimator:?}: {whole} in f32, {rounded} rounded, {learned} after training"
        );
    }
}

/// Stops after so many updates.
struct Until(u64);

impl Observer for Until {
    fn step(&mut self, progress: &Progress) -> Signal {
        match progress.step == self.0 {
            true => Signal::Stop,
            false => Signal::Continue,
        }
    }
}

#[test]
fn a_run_that_is_resumed_gives_the_same_bytes() {
    let session = Session::new(Some(1)).unwrap();
    let settings = Settings::new(format(CodeBook::Symmetric(4)));
    let root = tempfile::tempdir().unwrap();
    let run = |folder: &str, until: Option<u64>, estimator: Estimator| {
        let mut model = model(&session);
        let aware = QuantizationAware::new(&session, &mut model, &settings, estimator).unwrap();
        let aware = Arc::new(aware);
        let trainer = Trainer::new(
            session.clone(),
            model,
            Task::Classify,
            examples(),
            options(6, 1e-2),
        );
        let outcome = trainer
            .rounding(Arc::clone(&aware))
            .output(root.path().join(folder), golden())
            .resume(true)
            .observer(Until(until.unwrap_or(u64::MAX)))
            .run()?;
        let packed = aware.pack(&outcome.model).unwrap();
        let bytes = (packed.tensors.iter())
            .map(|(name, tensor)| (name.clone(), tensor.as_bytes().unwrap().to_vec()))
            .collect::<Vec<_>>();
        Ok::<_, bertha_train::TrainError>((outcome.summary.end, bytes))
    };
    let lsq = Estimator::LearnedSteps;
    let (_, whole) = run("whole", None, lsq).unwrap();
    let (end, _) = run("parts", Some(3), lsq).unwrap();
    assert_eq!(end, End::Stopped);
    let error = run("parts", None, Estimator::StraightThrough)
        .err()
        .unwrap();
    assert!(error.to_string().contains("rounding"), "{error}");
    let (end, parts) = run("parts", None, lsq).unwrap();
    assert_eq!(end, End::Complete);
    assert!(whole == parts);
}

#[test]
fn what_cannot_be_is_refused() {
    let session = Session::new(Some(1)).unwrap();
    let refused = |settings: Settings, estimator, parts: &[&str]| {
        let result = QuantizationAware::new(&session, &mut model(&session), &settings, estimator);
        let error = result.err().unwrap().to_string();
        for part in parts {
            assert!(error.contains(part), "{error}");
        }
    };
    let nf4 = Settings::new(format(CodeBook::Nf4));
    let lsq = Estimator::LearnedSteps;
    refused(nf4.clone(), lsq, &["nf4", "int2 to int4"]);
    let gptq = Settings {
        method: Method::Gptq { damping: 0.01 },
        ..nf4.clone()
    };
    refused(gptq, Estimator::StraightThrough, &["gptq", "minmax"]);
    let none = Settings {
        keep: vec!["weight".into()],
        ..nf4
    };
    refused(none, Estimator::StraightThrough, &["no weight"]);
}
