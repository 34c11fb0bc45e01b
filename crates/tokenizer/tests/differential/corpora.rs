//! Whole corpora, and random text by the million, through the vocabularies of models in use. `BERTHA_VOCABULARIES` is as in
//! `real_vocabularies.rs`; `BERTHA_CORPORA` names a folder of text files, best one a language.
//!
//! ```text
//! export BERTHA_VOCABULARIES=… BERTHA_CORPORA=…
//! cargo test --release -p bertha-tokenizer --test differential -- --ignored --nocapture corpora
//! ```

use std::path::PathBuf;

use proptest::prelude::*;
use rayon::prelude::*;

use crate::harness::Both;
use crate::models::marked_text;
use crate::random::decode;
use crate::real_vocabularies::{bert, modern_bert, roberta_base, xlm_roberta_base};
use crate::soak::runner;
use crate::texts::{plain_options, text, truncating_options};

/// Runs `check` on each of the tokenizers, as many at a time as there are cores.
fn on_each(check: impl Fn(&Both) + Sync) {
    let makers: [fn() -> Both; 5] = [
        || bert("bert-base-uncased", true),
        || bert("bert-base-cased", false),
        roberta_base,
        modern_bert,
        xlm_roberta_base,
    ];
    makers.par_iter().for_each(|make| check(&make()));
}

/// The texts of the folder, by name.
fn corpora() -> Vec<(String, String)> {
    let folder = std::env::var_os("BERTHA_CORPORA").map(PathBuf::from);
    let folder = folder.expect("BERTHA_CORPORA names a folder: see the head of this file");
    let entries = std::fs::read_dir(&folder).expect("the folder can be read");
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.expect("an entry").path())
        .collect();
    paths.sort();
    assert!(!paths.is_empty(), "{} is empty", folder.display());
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path);
        let name = path.display().to_string();
        (
            name.clone(),
            text.unwrap_or_else(|error| panic!("{name}: {error}")),
        )
    };
    paths.into_iter().map(read).collect()
}

#[test]
#[ignore = "runs for minutes: see the head of this file"]
fn every_line() {
    let corpora = corpora();
    on_each(|both| {
        let mut total = (0, 0, 0);
        for (name, text) in &corpora {
            let tokens: usize = text
                .lines()
                .map(|line| both.check_ids_and_offsets(line))
                .sum();
            println!(
                "{}: {name}: {} bytes, {tokens} tokens",
                both.name,
                text.len()
            );
            total = (
                total.0 + text.len(),
                total.1 + text.lines().count(),
                total.2 + tokens,
            );
        }
        println!(
            "{}: all: {} bytes, {} lines, {} tokens",
            both.name, total.0, total.1, total.2
        );
    });
}

#[test]
#[ignore = "runs for an hour unless BERTHA_SOAK_CASES says less"]
fn random_strings() {
    on_each(|both| {
        let options = prop_oneof![plain_options(), truncating_options()];
        let case = (prop_oneof![text(20), marked_text(12)], options);
        let result = runner(1).run(&case, |(text, options)| {
            both.check(&text, &options);
            decode(both, &text);
            Ok(())
        });
        result.unwrap_or_else(|error| panic!("{}: {error}", both.name));
        println!("{}: done", both.name);
    });
}
