//! Binarized models: what is trained is what is packed, gradients are those of the estimators, and directions are matched.

use std::path::{Path, PathBuf};

use bertha_autograd::{Gradients, Parameter, Session, Var, ops};
use bertha_compress::{
    Distillation, binarized_config, direction_loss, pack_binarized, similarity_losses,
};
use bertha_kernels::{Exec, Isa};
use bertha_models::{Config, ForwardOptions, Head, Model, TrainableModel, load, load_checkpoint};
use bertha_nn::{Batch, Binarization, estimators};
use bertha_tensor::{Checkpoint, Tensor};
use bertha_train::collate::{Targets, TrainingBatch};
use bertha_train::trainer::Objective;

fn golden(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/golden")
        .join(folder)
}

fn batch() -> Batch {
    let sequences = [vec![3u32, 5, 7, 2], vec![4], vec![9, 8, 7, 6, 5, 4, 3]];
    Batch::from_sequences(&sequences).unwrap()
}

fn student(folder: &str, binarization: Binarization, session: &Session) -> TrainableModel {
    let dir = golden(folder);
    let config = Config::from_file(dir.join("config.json")).unwrap();
    let config = binarized_config(&config, binarization);
    let head = config.head();
    TrainableModel::from_dir(dir, config, head, session, 1).unwrap()
}

fn outputs(model: &dyn Model, session: &Session) -> Vec<f32> {
    let outputs = model.forward(session, &batch(), &ForwardOptions::default());
    let outputs = outputs.unwrap();
    let all = [Some(outputs.last_hidden_state), outputs.logits];
    let values = all.iter().flatten();
    values
        .flat_map(|values| values.as_slice().unwrap().to_vec())
        .collect()
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let pairs = a.iter().zip(b);
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn packed_models_give_what_training_evaluates() {
    let dir = tempfile::tempdir().unwrap();
    for folder in [
        "bert/sequence_classification",
        "families/roberta_sequence",
        "families/distilbert_token",
    ] {
        let bit = Binarization::Bit { bits: 1 };
        for binarization in [Binarization::Naive, Binarization::BiBert, bit] {
            for isa in Isa::available() {
                let session = Session::from_exec(Exec::with_isa(isa, 2));
                let model = student(folder, binarization, &session);
                // Levels begin with a pass of training; shifts are learned.
                outputs(&*model.model, &session.training(1, 0));
                disturb(&model);
                let trained = outputs(&*model.model, &session.no_grad());
                let packed = pack_binarized(&session, &model).unwrap();
                packed.save(dir.path()).unwrap();
                let loaded = load(dir.path(), &session).unwrap();
                let found = outputs(&*loaded, &session);
                let error = largest_difference(&trained, &found);
                assert!(error < 1e-5, "{folder} {binarization:?} {isa}: {error}");
                // The latent weights run as bits too, as those of a checkpoint would.
                model.save(dir.path()).unwrap();
                let latent = load(dir.path(), &session).unwrap();
                assert_eq!(outputs(&*latent, &session), found, "{folder} {isa}");
                // And the pass that learns has the same values, but for rounding that may turn a sign.
                let learning = outputs(&*model.model, &session);
                let turned = trained.iter().zip(&learning);
                let turned = turned.filter(|(a, b)| (*a - *b).abs() > 1e-4).count();
                assert!(
                    turned * 3 < trained.len(),
                    "{folder} {binarization:?} {isa}: {turned} of {} differ",
                    trained.len()
                );
            }
        }
    }
}

/// As an update would: each shift of inputs becomes something else than 0.
fn disturb(model: &TrainableModel) {
    let shifts = model.parameters.iter();
    for parameter in shifts.filter(|parameter| parameter.name().ends_with("input_shift")) {
        let values = (0..parameter.numel()).map(|i| (i as f32 * 0.7).sin() * 0.05);
        let values = Tensor::from_vec(values.collect::<Vec<f32>>(), parameter.shape());
        parameter.set(values.unwrap()).unwrap();
    }
}

fn parameter<'a>(model: &'a TrainableModel, end: &str) -> &'a Parameter {
    let mut parameters = model.parameters.iter();
    let found = parameters.find(|parameter| parameter.name().ends_with(end));
    found.unwrap_or_else(|| panic!("no parameter {end}"))
}

#[test]
fn levels_begin_with_what_comes_in_and_learn() {
    let session = Session::new(Some(2)).unwrap();
    let folder = "bert/sequence_classification";
    for bits in [1, 2, 4] {
        let model = student(folder, Binarization::Bit { bits }, &session);
        let names = [
            "layer.0.attention.self.query.input_level",
            "layer.0.output.dense.input_ceiling",
            "layer.0.attention.weight_ceiling",
            "layer.0.attention.value_level",
        ];
        let levels = || names.map(|name| parameter(&model, name).value().item::<f32>().unwrap());
        assert_eq!(levels(), [0.0; 4], "not yet");
        // Neither evaluation nor looking for layers decides them.
        outputs(&*model.model, &session.no_grad());
        assert_eq!(levels(), [0.0; 4]);
        let training = session.training(1, 0);
        let found = model
            .model
            .forward(&training, &batch(), &ForwardOptions::default());
        let found = found.unwrap();
        let first = levels();
        assert!(first.iter().all(|&level| level > 0.0), "{first:?}");
        let square = ops::mul(
            &training,
            &found.last_hidden_state,
            &found.last_hidden_state,
        );
        let loss = ops::sum_all(&training, &square.unwrap()).unwrap();
        let mut gradients = Gradients::new();
        loss.backward(&training, &mut gradients).unwrap();
        for name in names {
            let gradient = gradients.get(parameter(&model, name)).unwrap();
            let gradient = gradient.item::<f32>().unwrap();
            assert!(gradient.is_finite() && gradient != 0.0, "{bits} {name}");
        }
        outputs(&*model.model, &session.training(2, 1));
        assert_eq!(levels(), first, "only once");
    }
}

/// More than one bit runs as floats, from the same folder, and is not packed.
#[test]
fn a_step_on_the_way_runs_from_its_folder() {
    let dir = tempfile::tempdir().unwrap();
    let session = Session::new(Some(2)).unwrap();
    let model = student(
        "bert/sequence_classification",
        Binarization::Bit { bits: 2 },
        &session,
    );
    outputs(&*model.model, &session.training(1, 0));
    disturb(&model);
    model.save(dir.path()).unwrap();
    let loaded = load(dir.path(), &session).unwrap();
    let (trained, found) = (
        outputs(&*model.model, &session.no_grad()),
        outputs(&*loaded, &session),
    );
    let same = trained.iter().zip(&found);
    let same = same.filter(|(a, b)| (*a - *b).abs() < 1e-4).count();
    // A sum that is rounded otherwise may fall on the other side of a level's edge.
    assert!(same * 4 > trained.len() * 3, "{same} of {}", trained.len());
    let refused = pack_binarized(&session, &model).err().unwrap().to_string();
    assert!(refused.contains("inputs of 2 bits"), "{refused}");
}

fn gradient(session: &Session, parameter: &Parameter, loss: &Var) -> Vec<f32> {
    let mut gradients = Gradients::new();
    loss.backward(session, &mut gradients).unwrap();
    let gradient = gradients.get(parameter).unwrap();
    gradient.contiguous().as_slice::<f32>().unwrap().to_vec()
}

/// Row `[0.3, −0.1, 0.4, 0]`: mean 0.15, scale 0.2, and of a gradient its mean is taken.
#[test]
fn rows_are_binarized_about_their_means() {
    let session = Session::new(Some(1)).unwrap();
    let w = Tensor::from_vec(vec![0.3f32, -0.1, 0.4, 0.0], &[1, 4]).unwrap();
    let w = Parameter::new("w", w);
    let binary = estimators::binarize_rows(&session, &w.var()).unwrap();
    for (found, expected) in binary
        .as_slice()
        .unwrap()
        .iter()
        .zip([0.2, -0.2, 0.2, -0.2])
    {
        assert!((found - expected).abs() < 1e-7);
    }
    let upstream = Tensor::from_vec(vec![1.0f32, 2.0, 3.0, 4.0], &[1, 4]).unwrap();
    let weighted = ops::mul(&session, &binary, &Var::constant(upstream)).unwrap();
    let loss = ops::sum_all(&session, &weighted).unwrap();
    let found = gradient(&session, &w, &loss);
    for (found, expected) in found.iter().zip([-1.5, -0.5, 0.5, 1.5]) {
        assert!((found - expected).abs() < 1e-6, "{found} {expected}");
    }
}

#[test]
fn signs_learn_within_their_window() {
    let session = Session::new(Some(1)).unwrap();
    let x = Tensor::from_vec(vec![-2.0f32, -0.5, 0.0, 0.5, 2.0], &[1, 5]).unwrap();
    let x = Parameter::new("x", x);
    let signs = estimators::sign(&session, &x.var()).unwrap();
    assert_eq!(signs.as_slice().unwrap(), [-1.0, -1.0, 1.0, 1.0, 1.0]);
    let loss = ops::sum_all(&session, &signs).unwrap();
    assert_eq!(gradient(&session, &x, &loss), [0.0, 1.0, 1.0, 1.0, 0.0]);
    let above = estimators::above_zero(&session, &x.var()).unwrap();
    assert_eq!(above.as_slice().unwrap(), [0.0, 0.0, 0.0, 1.0, 1.0]);
}

fn constant(values: &[f32], shape: &[usize]) -> Var {
    Var::constant(Tensor::from_vec(values.to_vec(), shape).unwrap())
}

#[test]
fn directions_have_no_length() {
    let session = Session::new(Some(1)).unwrap();
    let loss = |a: &[f32], b: &[f32]| {
        let (a, b) = (constant(a, &[1, 2]), constant(b, &[1, 2]));
        direction_loss(&session, &a, &b)
            .unwrap()
            .tensor()
            .item::<f32>()
            .unwrap()
    };
    assert!(loss(&[1.0, 2.0], &[3.0, 6.0]) < 1e-3);
    assert!((loss(&[1.0, 0.0], &[0.0, 5.0]) - 2.0f32.sqrt()).abs() < 1e-3);
    assert!((loss(&[1.0, 1.0], &[-2.0, -2.0]) - 2.0).abs() < 1e-3);
}

/// The similarities computed outright, and their gradient by differences.
#[test]
fn similarities_are_matched_without_being_computed() {
    let session = Session::new(Some(1)).unwrap();
    let (heads, dim, cu_seqlens) = (2, 3, [0u32, 4, 5, 8]);
    let width = 3 * heads * dim;
    let values = |seed: f32| -> Vec<f32> {
        (0..8 * width)
            .map(|i| ((i as f32 + seed) * 1.7).sin())
            .collect()
    };
    let (a, b) = (values(0.3), values(5.1));
    for part in 0..3 {
        let similarities = |x: &[f32]| -> Vec<f64> {
            let mut all = Vec::new();
            for ends in cu_seqlens.windows(2) {
                for head in 0..heads {
                    for i in ends[0]..ends[1] {
                        for j in ends[0]..ends[1] {
                            let at = |t: u32, d: usize| {
                                let first = t as usize * width + part * heads * dim + head * dim;
                                f64::from(x[first + d])
                            };
                            all.push((0..dim).map(|d| at(i, d) * at(j, d)).sum());
                        }
                    }
                }
            }
            all
        };
        let outright = |a: &[f32]| {
            let (p, q) = (similarities(a), similarities(&b));
            let norm = |x: &[f64]| x.iter().map(|x| x * x).sum::<f64>().sqrt();
            let (of_p, of_q) = (norm(&p), norm(&q));
            let pairs = p.iter().zip(&q);
            norm(&pairs.map(|(p, q)| p / of_p - q / of_q).collect::<Vec<_>>())
        };
        let parameter = Parameter::new("a", Tensor::from_vec(a.clone(), &[8, width]).unwrap());
        let teacher = constant(&b, &[8, width]);
        let losses =
            similarity_losses(&session, &parameter.var(), &teacher, &cu_seqlens, heads).unwrap();
        let loss = &losses[part];
        let found = f64::from(loss.tensor().item::<f32>().unwrap());
        assert!(
            (found - outright(&a)).abs() < 1e-4,
            "{found} {}",
            outright(&a)
        );
        let gradient = gradient(&session, &parameter, loss);
        for i in (0..a.len()).step_by(11) {
            let shifted = |by: f32| {
                let mut a = a.clone();
                a[i] += by;
                outright(&a)
            };
            let expected = (shifted(1e-3) - shifted(-1e-3)) / 2e-3;
            assert!(
                (f64::from(gradient[i]) - expected).abs() < 1e-3,
                "{part} {i}"
            );
        }
    }
}

#[test]
fn a_student_learns_from_its_teacher() {
    let session = Session::new(Some(2)).unwrap();
    let folder = "bert/sequence_classification";
    let dir = golden(folder);
    let config = Config::from_file(dir.join("config.json")).unwrap();
    let checkpoint = Checkpoint::open_dir(&dir).unwrap();
    let head = Head::SequenceClassification;
    let teacher = load_checkpoint(&checkpoint, &config, head, &session).unwrap();
    let objective = Distillation::new(teacher).matching_directions();
    let model = student(folder, Binarization::BiBert, &session);
    let batch = TrainingBatch {
        batch: batch(),
        targets: Targets::Classes(vec![0, 1, 1]),
        examples: vec![0, 1, 2],
    };
    let loss = |step| {
        let session = session.training(3, step);
        let loss = objective.loss(&session, &*model.model, &batch, 3.0, 0.0);
        loss.unwrap().unwrap()
    };
    let before = loss(0);
    let mut gradients = Gradients::new();
    before.backward(&session, &mut gradients).unwrap();
    let mut reached = 0;
    for parameter in &model.parameters {
        let Some(gradient) = gradients.get(parameter) else {
            continue;
        };
        let gradient = gradient.contiguous();
        let values = gradient.as_slice::<f32>().unwrap();
        assert!(
            values.iter().all(|value| value.is_finite()),
            "{}",
            parameter.name()
        );
        reached += usize::from(values.iter().any(|&value| value != 0.0));
    }
    assert!(reached + 3 >= model.parameters.len(), "{reached} learn");

    // Tapped values of a layer that is computed anew would lead to no gradient.
    let session = session.checkpointing(true).training(3, 0);
    let refused = objective.loss(&session, &*model.model, &batch, 3.0, 0.0);
    let message = refused.unwrap_err().to_string();
    assert!(message.contains("activation checkpointing"), "{message}");
}

#[test]
fn windows_are_not_dropped_in_silence() {
    let session = Session::new(Some(1)).unwrap();
    for folder in ["families/longformer_sequence", "families/mpnet_sequence"] {
        let model = student(folder, Binarization::BiBert, &session);
        let found = model
            .model
            .forward(&session.no_grad(), &batch(), &ForwardOptions::default());
        let message = found.err().unwrap().to_string();
        assert!(
            message.contains("cannot be binarized"),
            "{folder}: {message}"
        );
    }
}
