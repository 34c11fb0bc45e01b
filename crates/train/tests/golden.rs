//! Schedules and metrics against numbers of transformers, scikit-learn, scipy and seqeval
//! (tests/golden/make_golden.py).

use bertha_train::metrics::{
    Confusion, MultiLabelCounts, Prf, Scheme, average_precision, entity_scores,
    mean_absolute_error, mean_squared_error, pearson, roc_auc, roc_auc_macro, spearman,
};
use bertha_train::schedule::{Decay, Schedule, Span, Tail};
use serde::Deserialize;
use serde_json::Value;

fn golden(part: &str) -> Value {
    let all: Value = serde_json::from_str(include_str!("golden/golden.json")).unwrap();
    all[part].clone()
}

/// A part of the golden numbers as a type.
fn read<T: for<'de> Deserialize<'de>>(value: &Value) -> T {
    serde_json::from_value(value.clone()).unwrap()
}

fn near(found: f64, expected: f64, what: &str) {
    assert!(
        (found - expected).abs() < 1e-12,
        "{what}: {found}, expected {expected}"
    );
}

fn near_prf(found: Prf, expected: &Value, what: &str) {
    let expected: [f64; 3] = read(expected);
    let found = [found.precision, found.recall, found.f1];
    for (found, expected) in found.into_iter().zip(expected) {
        near(found, expected, what);
    }
}

#[test]
fn schedules_are_those_of_transformers() {
    let schedules = golden("schedules");
    let wsd = |tail| Decay::WarmupStableDecay {
        decay: Span::Steps(20),
        tail,
        floor: 0.05,
    };
    let cosine = |floor| Decay::Cosine { floor, cycles: 0.5 };
    let polynomial = Decay::Polynomial {
        power: 2.0,
        floor: 0.01,
    };
    let shapes = [
        ("constant", Decay::Constant),
        ("linear", Decay::Linear),
        ("cosine", cosine(0.0)),
        ("cosine floor", cosine(0.1)),
        ("polynomial", polynomial),
        ("inverse sqrt", Decay::InverseSqrt { timescale: None }),
        ("wsd linear", wsd(Tail::Linear)),
        ("wsd 1-sqrt", wsd(Tail::OneMinusSqrt)),
        ("wsd cosine", wsd(Tail::Cosine)),
    ];
    for (name, decay) in shapes {
        for warmup in [0, 10] {
            let schedule = Schedule::new(2.0, 100, Span::Steps(warmup), decay).unwrap();
            let name = format!("{name} {warmup}");
            let expected: Vec<f64> = read(&schedules[&name]);
            assert_eq!(expected.len(), 105);
            for (step, expected) in expected.into_iter().enumerate() {
                // Beyond the end a cosine rises again in transformers, and so here.
                near(
                    schedule.factor(step as u64),
                    expected,
                    &format!("{name} at {step}"),
                );
                near(schedule.lr(step as u64), 2.0 * expected, &name);
            }
        }
    }
}

#[test]
fn classification_as_scikit_learn() {
    let expected = golden("classification");
    let (gold, predicted): (Vec<u32>, Vec<u32>) =
        (read(&expected["gold"]), read(&expected["predicted"]));
    let found = Confusion::of(&gold, &predicted, 6).unwrap();
    near(found.accuracy(), read(&expected["accuracy"]), "accuracy");
    near(found.matthews(), read(&expected["matthews"]), "matthews");
    let averages = &expected["averages"];
    near_prf(found.micro(), &averages["micro"], "micro");
    near_prf(found.macro_average(), &averages["macro"], "macro");
    near_prf(found.weighted(), &averages["weighted"], "weighted");
    for class in 0..6 {
        near_prf(found.class(class), &expected["each"][class], "a class");
    }
    let binary = |classes: &[u32]| classes.iter().map(|class| class % 2).collect::<Vec<_>>();
    let found = Confusion::of(&binary(&gold), &binary(&predicted), 2).unwrap();
    near(
        found.matthews(),
        read(&expected["matthews_binary"]),
        "binary matthews",
    );
}

#[test]
fn several_labels_as_scikit_learn() {
    let expected = golden("multi_label");
    let rows = |name: &str| read::<Vec<Vec<bool>>>(&expected[name]).concat();
    let found = MultiLabelCounts::of(&rows("gold"), &rows("predicted"), 4).unwrap();
    let averages = &expected["averages"];
    near_prf(found.micro(), &averages["micro"], "micro");
    near_prf(found.macro_average(), &averages["macro"], "macro");
    near_prf(found.weighted(), &averages["weighted"], "weighted");
    near(found.exact(), read(&expected["exact"]), "exact");
}

#[test]
fn numbers_as_scipy_and_scikit_learn() {
    let expected = golden("numbers");
    let list = |name: &str| read::<Vec<f64>>(&expected[name]);
    let value = |name: &str| read::<f64>(&expected[name]);
    let (x, y) = (list("x"), list("y"));
    near(pearson(&x, &y).unwrap(), value("pearson"), "pearson");
    near(spearman(&x, &y).unwrap(), value("spearman"), "spearman");
    near(mean_squared_error(&x, &y).unwrap(), value("mse"), "mse");
    near(mean_absolute_error(&x, &y).unwrap(), value("mae"), "mae");
    let (positive, scores): (Vec<bool>, Vec<f64>) = (read(&expected["positive"]), list("scores"));
    near(roc_auc(&positive, &scores).unwrap(), value("auc"), "auc");
    let found = average_precision(&positive, &scores).unwrap();
    near(found, value("average_precision"), "average precision");
    let rows = read::<Vec<Vec<f64>>>(&expected["rows"]).concat();
    let found = roc_auc_macro(&read::<Vec<u32>>(&expected["gold"]), &rows, 3).unwrap();
    near(found, value("auc_macro"), "macro auc");
}

#[test]
fn entities_as_seqeval() {
    let expected = golden("entities");
    let gold: Vec<Vec<String>> = read(&expected["gold"]);
    let predicted: Vec<Vec<String>> = read(&expected["predicted"]);
    fn texts(sentences: &[Vec<String>]) -> Vec<Vec<&str>> {
        sentences
            .iter()
            .map(|tags| tags.iter().map(String::as_str).collect())
            .collect()
    }
    for (name, scheme) in [("lenient", Scheme::Lenient), ("strict", Scheme::StrictIob2)] {
        let found = entity_scores(&texts(&gold), &texts(&predicted), scheme).unwrap();
        let expected_scores = &expected[name];
        near_prf(found.micro, &expected_scores["micro"], name);
        near_prf(found.macro_average, &expected_scores["macro"], name);
        near_prf(found.weighted, &expected_scores["weighted"], name);
        near(found.accuracy, read(&expected["accuracy"]), "accuracy");
    }
}
