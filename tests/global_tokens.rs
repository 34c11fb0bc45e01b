//! Which tokens are global: by the caller, by config.json, by the head.

mod support;

use std::path::{Path, PathBuf};

use bertha::autograd::Session;
use bertha::models::{Config, ForwardOptions, GlobalRule, load_configured};
use support::{named, read_batch, relative_difference};

fn golden(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden/families")
        .join(folder)
}

/// The last vectors of a fixture under a rule, or where a caller names the tokens.
fn last(folder: &str, rule: GlobalRule, places: Option<&[Vec<u32>]>) -> bertha::tensor::Tensor {
    let folder = golden(folder);
    let mut config = Config::from_file(folder.join("config.json")).unwrap();
    config.set_global_tokens(rule);
    let session = Session::new(Some(1)).unwrap();
    let model = load_configured(&folder, &config, config.head(), &session).unwrap();
    let (batch, columns) = read_batch(&folder);
    let options = ForwardOptions {
        global_tokens: places,
        ..ForwardOptions::default()
    };
    let outputs = model.forward(&session, &batch, &options).unwrap();
    named(model.info(), &outputs, &batch, columns).remove(0).1
}

#[test]
fn a_rule_names_the_tokens_that_a_caller_could() {
    let first = vec![vec![0]; 3];
    for (folder, rule, places) in [
        ("longformer_token", GlobalRule::First, first.clone()),
        ("longformer_token", GlobalRule::None, vec![vec![]; 3]),
        ("longformer_token", GlobalRule::ByHead, vec![vec![]; 3]),
        ("longformer_sequence", GlobalRule::ByHead, first.clone()),
        // Three tokens, and the separator.
        (
            "longformer_question",
            GlobalRule::ByHead,
            vec![vec![0, 1, 2]; 3],
        ),
        (
            "longformer_question",
            GlobalRule::Question,
            vec![vec![0, 1, 2]; 3],
        ),
        // Where there is no separator, the first token.
        ("longformer_masked_lm", GlobalRule::Question, first.clone()),
    ] {
        let by_rule = last(folder, rule, None);
        let by_caller = last(folder, GlobalRule::None, Some(&places));
        let (a, b) = (by_rule.as_bytes().unwrap(), by_caller.as_bytes().unwrap());
        assert!(a == b, "{folder}: {rule:?}");
    }
    let (none, some) = (
        last("longformer_token", GlobalRule::None, None),
        last("longformer_token", GlobalRule::First, None),
    );
    assert!(
        relative_difference(&some, &none) > 1e-3,
        "globals change nothing"
    );
}

#[test]
fn models_without_global_tokens_refuse_a_choice() {
    let folder = golden("roberta_base");
    let mut config = Config::from_file(folder.join("config.json")).unwrap();
    config.set_global_tokens(GlobalRule::First);
    let session = Session::new(Some(1)).unwrap();
    let refused = load_configured(&folder, &config, config.head(), &session);
    let error = refused.err().unwrap().to_string();
    assert!(
        error.contains("roberta models have no global tokens"),
        "{error}"
    );

    let folder = golden("longformer_base");
    config = Config::from_file(folder.join("config.json")).unwrap();
    config.set("global_tokens", "all");
    let refused = load_configured(&folder, &config, config.head(), &session);
    let error = refused.err().unwrap().to_string();
    assert!(error.contains("by-head, none, first, question"), "{error}");

    let model = bertha::models::load(&folder, &session).unwrap();
    let (batch, _) = read_batch(&folder);
    let beyond = [vec![1], vec![], vec![]];
    let options = ForwardOptions {
        global_tokens: Some(&beyond),
        ..ForwardOptions::default()
    };
    let error = model
        .forward(&session, &batch, &options)
        .unwrap_err()
        .to_string();
    assert!(error.contains("token 1 of sequence 0"), "{error}");
}
