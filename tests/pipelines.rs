//! The task pipelines against `transformers` (`tests/golden/pipelines/`): scores to 1e-4 where f32 products are of halves, else
//! to 1e-5, all else exactly.

use std::path::{Path, PathBuf};

use bertha::kernels::Isa;
use bertha::tokenizer::{EncodeOptions, OffsetKind};
use bertha::{
    AnswerOptions, ClassifyOptions, FillMask, FillMaskOptions, QuestionAnswerer, TagOptions,
    TextClassifier, TextInput, TokenClassifier,
};
use serde_json::{Value, json};

fn tolerance() -> f64 {
    match Isa::from_env().unwrap().multiplies_halves() {
        true => 1e-4,
        false => 1e-5,
    }
}

fn folder(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    root.join("tests/golden/pipelines").join(name)
}

struct Case {
    input: Value,
    options: Value,
    output: Value,
}

fn cases(name: &str) -> Vec<Case> {
    let json = std::fs::read(folder(name).join("expected.json")).unwrap();
    let cases: Vec<Value> = serde_json::from_slice(&json).unwrap();
    assert!(!cases.is_empty());
    let case = |mut case: Value| Case {
        input: case["input"].take(),
        options: case["options"].take(),
        output: case["output"].take(),
    };
    cases.into_iter().map(case).collect()
}

/// Fails where an option is not one of those that the test passes on.
fn known_options(options: &Value, known: &[&str]) {
    for name in options.as_object().unwrap().keys() {
        assert!(
            known.contains(&name.as_str()),
            "the test does not know option {name}"
        );
    }
}

fn size(options: &Value, name: &str) -> Option<usize> {
    options
        .get(name)
        .map(|value| value.as_u64().unwrap() as usize)
}

fn assert_same(found: Value, case: &Case) {
    let at = format!("{} {}", case.input, case.options);
    compare(&found, &case.output, &at);
}

fn compare(found: &Value, expected: &Value, at: &str) {
    match (found, expected) {
        (Value::Array(found), Value::Array(expected)) => {
            assert_eq!(
                found.len(),
                expected.len(),
                "{at}: {found:?} for {expected:?}"
            );
            for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
                compare(found, expected, &format!("{at}[{i}]"));
            }
        }
        (Value::Object(found), Value::Object(expected)) => {
            let keys = |map: &serde_json::Map<String, Value>| {
                let mut keys: Vec<String> = map.keys().cloned().collect();
                keys.sort_unstable();
                keys
            };
            assert_eq!(keys(found), keys(expected), "{at}: fields");
            for (key, expected) in expected {
                compare(&found[key], expected, &format!("{at}.{key}"));
            }
        }
        (Value::Number(found), Value::Number(expected)) if expected.is_f64() => {
            let (found, expected) = (found.as_f64().unwrap(), expected.as_f64().unwrap());
            let close = (found - expected).abs() <= tolerance() * expected.abs().max(1.0);
            assert!(close, "{at}: {found} for {expected}");
        }
        _ => assert_eq!(found, expected, "{at}"),
    }
}

#[test]
fn fill_mask() {
    let model = FillMask::from_dir(folder("fill_mask")).unwrap();
    assert_eq!(model.mask_token(), "[MASK]");
    for case in cases("fill_mask") {
        known_options(&case.options, &["top_k", "targets"]);
        let text = case.input.as_str().unwrap();
        let mut options = FillMaskOptions::default();
        if let Some(top_k) = size(&case.options, "top_k") {
            options.top_k = top_k;
        }
        if let Some(targets) = case.options.get("targets") {
            options.targets = serde_json::from_value(targets.clone()).unwrap();
        }
        let found = model.fill_batch(&[text], &options).unwrap();
        assert_same(json!(found[0]), &case);
        if options == FillMaskOptions::default() {
            assert_eq!(model.fill(text).unwrap(), found[0]);
        }
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
        let model = TextClassifier::from_dir(folder(name)).unwrap();
        for case in cases(name) {
            known_options(&case.options, &["top_k", "function_to_apply"]);
            let function = case.options.get("function_to_apply");
            let options = ClassifyOptions {
                top_k: case.options["top_k"].as_u64().map(|k| k as usize),
                function: function.map(|name| name.as_str().unwrap().parse().unwrap()),
            };
            let input = match &case.input {
                Value::String(text) => TextInput::from(text),
                pair => {
                    let part = |name: &str| pair[name].as_str().unwrap();
                    TextInput::from((part("text"), part("text_pair")))
                }
            };
            let found = model.classify_batch(&[input], &options).unwrap();
            assert_same(json!(found[0]), &case);
            if options == ClassifyOptions::default() {
                assert_eq!(model.classify(input).unwrap(), found[0]);
            }
        }
    }
}

#[test]
fn tag() {
    let model = TokenClassifier::from_dir(folder("tag")).unwrap();
    for case in cases("tag") {
        known_options(
            &case.options,
            &["aggregation_strategy", "ignore_labels", "stride"],
        );
        let text = case.input.as_str().unwrap();
        let aggregation = case.options["aggregation_strategy"].as_str().unwrap();
        let mut options = TagOptions {
            aggregation: aggregation.parse().unwrap(),
            stride: size(&case.options, "stride"),
            ..TagOptions::default()
        };
        if let Some(labels) = case.options.get("ignore_labels") {
            options.ignore_labels = serde_json::from_value(labels.clone()).unwrap();
        }
        let found = model.tag_batch(&[text], &options).unwrap();
        assert_same(json!(found[0]), &case);
        if options == TagOptions::default() {
            assert_eq!(model.tag(text).unwrap(), found[0]);
        }
    }
}

#[test]
fn answer() {
    let model = QuestionAnswerer::from_dir(folder("answer")).unwrap();
    for case in cases("answer") {
        let mut options = AnswerOptions::default();
        for (name, value) in case.options.as_object().unwrap() {
            let size = || value.as_u64().unwrap() as usize;
            match name.as_str() {
                "top_k" => options.top_k = size(),
                "doc_stride" => options.doc_stride = Some(size()),
                "max_answer_len" => options.max_answer_len = size(),
                "max_seq_len" => options.max_seq_len = Some(size()),
                "handle_impossible_answer" => {
                    options.handle_impossible_answer = value.as_bool().unwrap();
                }
                "align_to_words" => options.align_to_words = value.as_bool().unwrap(),
                _ => panic!("the test does not know option {name}"),
            }
        }
        let part = |name: &str| case.input[name].as_str().unwrap();
        let (question, context) = (part("question"), part("context"));
        let found = model.answer_with(question, context, &options).unwrap();
        assert_same(json!(found), &case);
        if options == AnswerOptions::default() {
            assert_eq!(model.answer(question, context).unwrap(), found);
        }
    }
}

/// The texts of all cases at once, in batches of several sizes: as each alone, in their order.
#[test]
fn batches_answer_as_single_texts_do() {
    let texts = |name: &str| -> Vec<String> {
        let inputs = cases(name).into_iter().map(|case| case.input);
        let mut texts: Vec<String> = inputs
            .filter_map(|input| input.as_str().map(str::to_owned))
            .collect();
        texts.dedup();
        assert!(texts.len() > 3);
        texts
    };
    for batch_tokens in [1, 30, 100, 1 << 20] {
        let model = FillMask::builder(folder("fill_mask")).batch_tokens(batch_tokens);
        let model = model.build().unwrap();
        let inputs = texts("fill_mask");
        let found = model
            .fill_batch(&inputs, &FillMaskOptions::default())
            .unwrap();
        let alone: Vec<_> = inputs
            .iter()
            .map(|text| model.fill(text).unwrap())
            .collect();
        assert_eq!(found, alone);

        let model = TextClassifier::builder(folder("classify_single")).batch_tokens(batch_tokens);
        let model = model.build().unwrap();
        let inputs = texts("classify_single");
        let pairs: Vec<TextInput<'_>> = inputs.iter().map(TextInput::from).collect();
        let found = model
            .classify_batch(&pairs, &ClassifyOptions::default())
            .unwrap();
        let alone: Vec<_> = inputs
            .iter()
            .map(|text| model.classify(text).unwrap())
            .collect();
        assert_eq!(found, alone);

        let model = TokenClassifier::builder(folder("tag")).batch_tokens(batch_tokens);
        let model = model.build().unwrap();
        let inputs = texts("tag");
        for options in [
            TagOptions::default(),
            TagOptions {
                aggregation: bertha::Aggregation::Max,
                stride: Some(7),
                ..TagOptions::default()
            },
        ] {
            let found = model.tag_batch(&inputs, &options).unwrap();
            let tag = |text: &String| model.tag_batch(&[text], &options).unwrap().remove(0);
            assert_eq!(found, inputs.iter().map(tag).collect::<Vec<_>>());
        }
    }
}

/// A text of any length, read in windows, keeps its entities in order and apart.
#[test]
fn windows_cover_a_text_of_any_length() {
    let model = TokenClassifier::from_dir(folder("tag")).unwrap();
    let text = "John Smith lives in London, but he works in Paris! ".repeat(40);
    let options = TagOptions {
        aggregation: bertha::Aggregation::First,
        stride: Some(10),
        ignore_labels: Vec::new(),
    };
    let entities = &model.tag_batch(&[&text], &options).unwrap()[0];
    assert!(entities.windows(2).all(|pair| pair[0].end <= pair[1].start));
    assert_eq!(entities[0].start, 0);
    assert_eq!(
        entities.last().unwrap().end,
        text.trim_end().chars().count()
    );
    let cut = &model
        .tag_batch(
            &[&text],
            &TagOptions {
                stride: None,
                ..options
            },
        )
        .unwrap()[0];
    assert!(
        cut.last().unwrap().end < 200,
        "without a stride the text is cut"
    );
}

/// A question that is too long is cut between tokens, and answered as the shorter one is.
#[test]
fn long_questions_are_cut() {
    let model = QuestionAnswerer::from_dir(folder("answer")).unwrap();
    let context = "John Smith lives in a good old house in London, but he works in Paris.";
    let question = "Où does Zoë work, unbelievably?";
    let options = EncodeOptions::default()
        .special_tokens(false)
        .offsets(OffsetKind::Bytes);
    let encoding = model.tokenizer().encode(question, &options).unwrap();
    assert!(encoding.len() > 10);
    for (i, &(_, end)) in encoding.offsets().iter().enumerate() {
        let limit = |max_question_len| AnswerOptions {
            max_question_len,
            top_k: 3,
            ..AnswerOptions::default()
        };
        let cut = model.answer_with(question, context, &limit(i + 1)).unwrap();
        let shorter = &question[..end as usize];
        let expected = model.answer_with(shorter, context, &limit(64)).unwrap();
        assert_eq!(cut, expected, "{shorter}");
    }
}

#[test]
fn predictions_of_a_mask_are_json_as_in_transformers() {
    let model = FillMask::from_dir(folder("fill_mask")).unwrap();
    let options = FillMaskOptions {
        top_k: 1,
        ..FillMaskOptions::default()
    };
    let found = model.fill_batch(&["The old [MASK]."], &options).unwrap();
    let value = serde_json::to_value(&found[0][0][0]).unwrap();
    let mut expected = json!({"score": 0.0, "token": 0, "token_str": "", "sequence": ""});
    for (key, slot) in expected.as_object_mut().unwrap() {
        *slot = value[key].clone();
    }
    assert_eq!(value, expected);
}
