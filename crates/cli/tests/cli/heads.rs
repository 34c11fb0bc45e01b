//! `fill-mask`, `classify`, `tag` and `answer` against `transformers`' pipelines.

use serde_json::{Value, json};

use crate::run::{Desk, assert_same, bertha, bertha_reads, golden};

struct Case {
    model: String,
    input: Value,
    options: Value,
    output: Value,
}

fn cases(name: &str) -> Vec<Case> {
    let folder = golden("pipelines").join(name);
    let json = std::fs::read(folder.join("expected.json")).unwrap();
    let cases: Vec<Value> = serde_json::from_slice(&json).unwrap();
    assert!(!cases.is_empty());
    let case = |mut case: Value| Case {
        model: folder.to_str().unwrap().to_owned(),
        input: case["input"].take(),
        options: case["options"].take(),
        output: case["output"].take(),
    };
    cases.into_iter().map(case).collect()
}

impl Case {
    /// Runs a command with flags for the options, and one line of JSON for the input.
    fn run(&self, command: &str, flag: impl Fn(&str, &Value) -> Vec<String>) -> Value {
        let mut words = vec![
            command.to_owned(),
            "-q".into(),
            "-m".into(),
            self.model.clone(),
        ];
        words.extend([
            "-i".into(),
            "-".into(),
            "--input-format".into(),
            "jsonl".into(),
        ]);
        for (name, value) in self.options.as_object().unwrap() {
            words.extend(flag(name, value));
        }
        let line = match &self.input {
            Value::String(text) => json!({"text": text}),
            object => object.clone(),
        };
        let mut lines = bertha_reads(&words, line.to_string().as_bytes()).lines();
        assert_eq!(lines.len(), 1);
        assert_eq!(lines[0]["index"], 0);
        lines.remove(0)
    }

    #[track_caller]
    fn check(&self, found: &Value) {
        assert_same(
            found,
            &self.output,
            &format!("{} {}", self.input, self.options),
        );
    }
}

fn words(name: &str, value: &Value) -> Vec<String> {
    let list = |values: &Vec<Value>| {
        let texts = values.iter().map(|value| value.as_str().unwrap());
        texts.collect::<Vec<_>>().join(",")
    };
    let value = match value {
        Value::Array(values) => list(values),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    vec![format!("--{}={value}", name.replace('_', "-"))]
}

#[test]
fn fill_mask() {
    for case in cases("fill_mask") {
        case.check(&case.run("fill-mask", words)["masks"]);
    }
}

#[test]
fn classify() {
    for name in [
        "classify_single",
        "classify_multi",
        "classify_one_label",
        "regression",
    ] {
        for case in cases(name) {
            let found = case.run("classify", |name, value| match (name, value) {
                ("top_k", Value::Null) => vec!["--top-k=all".into()],
                ("function_to_apply", value) => words("function", value),
                _ => words(name, value),
            });
            case.check(&found["labels"]);
        }
    }
}

#[test]
fn tag() {
    for case in cases("tag") {
        let found = case.run("tag", |name, value| match (name, value) {
            ("aggregation_strategy", value) => words("aggregation", value),
            ("ignore_labels", Value::Array(none)) if none.is_empty() => {
                vec!["--ignore-labels=".into()]
            }
            _ => words(name, value),
        });
        case.check(&found["entities"]);
    }
}

#[test]
fn answer() {
    for case in cases("answer") {
        let found = case.run("answer", |name, value| match (name, value) {
            ("handle_impossible_answer", Value::Bool(true)) => vec!["--impossible".into()],
            ("align_to_words", Value::Bool(false)) => vec!["--no-align-to-words".into()],
            ("handle_impossible_answer" | "align_to_words", _) => Vec::new(),
            _ => words(name, value),
        });
        case.check(&found["answers"]);
    }
}

#[test]
fn questions_and_contexts_come_in_several_ways() {
    let desk = Desk::new();
    let (question, context) = (
        "Where does John work?",
        "John lives in London, but he works in Paris.",
    );
    let file = desk.write("context.txt", context);
    let questions = desk.write(
        "questions.txt",
        format!("{question}\nWho lives in London?\n"),
    );
    let contexts = desk.write("contexts.txt", format!("{context}\nThe river is old.\n"));
    let model = golden("pipelines/answer");
    let answer = |more: &[&str]| {
        bertha(&[&["answer", "-m", model.to_str().unwrap()], more].concat()).lines()
    };
    let direct = answer(&["--question", question, "--context", context]);
    assert_eq!(direct.len(), 1);
    assert_eq!(
        answer(&["--question", question, "--context-file", &file]),
        direct
    );
    let several = answer(&["--context-file", &file, "-i", &questions]);
    assert_eq!(
        (several.len(), &several[0], &several[1]["index"]),
        (2, &direct[0], &json!(1))
    );
    let several = answer(&["--question", question, "-i", &contexts]);
    assert_eq!((several.len(), &several[0]), (2, &direct[0]));
    let both = json!({"question": question, "context": context}).to_string();
    let both = desk.write("both.txt", both);
    assert_eq!(answer(&["-i", &both]), direct);
}

#[test]
fn a_warning_about_an_option_is_given_once() {
    let desk = Desk::new();
    // More texts than are worked on at a time.
    let file = desk.write("texts.txt", "the [MASK]\n".repeat(1500));
    let model = golden("pipelines/fill_mask");
    let model = model.to_str().unwrap();
    let ran = bertha(&[
        "fill-mask",
        "-m",
        model,
        "-i",
        &file,
        "--targets",
        "rivermouth,river",
    ]);
    assert_eq!(ran.err.lines().count(), 1, "{}", ran.err);
    assert!(
        ran.err.starts_with("warning: \"rivermouth\" is not in"),
        "{}",
        ran.err
    );
    assert_eq!(ran.lines_beside_warnings().len(), 1500);
}

#[test]
fn lines_are_in_the_order_of_the_input() {
    let desk = Desk::new();
    let texts = [
        "The old river went to a new city.",
        "What is it?",
        "John Smith lives in London.",
    ];
    let file = desk.write("texts.txt", texts.join("\n"));
    let model = golden("pipelines/classify_single");
    let model = model.to_str().unwrap();
    let together = bertha(&["classify", "-m", model, "-i", &file]).lines();
    assert_eq!(together.len(), 3);
    for (i, text) in texts.iter().enumerate() {
        let mut alone = bertha(&["classify", "-m", model, text]).lines().remove(0);
        alone["index"] = json!(i);
        assert_eq!(together[i], alone);
    }
}
