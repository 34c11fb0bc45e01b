//! Fine-tuning with the trainer:
//! `cargo run --release -p bertha-train --example finetune -- MODEL_DIR TRAIN.tsv DEV.tsv RUN_DIR`
//!
//! The tables have a column `sentence` and a column `label`. Run again after Ctrl-C, it goes on.

use std::error::Error;

use bertha_autograd::Session;
use bertha_models::{Config, TrainableModel};
use bertha_tokenizer::Tokenizer;
use bertha_train::data::{
    Examples, Format, LabelMap, Table, TextColumns, class_labels, text_examples,
};
use bertha_train::trainer::{Observer, Progress, Scores, Signal, Task, TrainOptions, Trainer};

/// Reads a table; the labels' numbers are those of `known`, or of the labels that occur.
fn read(
    path: &str,
    tokenizer: &Tokenizer,
    known: Option<&LabelMap>,
) -> Result<(Examples, LabelMap), Box<dyn Error>> {
    let table = Table::read(path, Format::Tsv { header: true })?;
    let columns = TextColumns {
        text: "sentence".into(),
        pair: None,
    };
    let examples = text_examples(tokenizer, &columns.inputs(&table)?, 128)?;
    let (labels, map) = class_labels(&table, "label", known)?;
    Ok((examples.with_labels(labels)?, map))
}

struct Print;

impl Observer for Print {
    fn step(&mut self, progress: &Progress) -> Signal {
        if progress.step.is_multiple_of(50) {
            println!(
                "update {} of {}: loss {:.4}",
                progress.step, progress.steps, progress.loss
            );
        }
        Signal::Continue
    }

    fn evaluated(&mut self, step: u64, scores: &Scores, best: bool) {
        println!(
            "after update {step}: {scores:?}{}",
            if best { ", the best" } else { "" }
        );
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [dir, train, dev, run] = &arguments[..] else {
        return Err("usage: finetune MODEL_DIR TRAIN.tsv DEV.tsv RUN_DIR".into());
    };
    let (session, task) = (Session::new(None)?, Task::Classify);
    let tokenizer = Tokenizer::from_dir(dir)?;
    let (train, labels) = read(train, &tokenizer, None)?;
    let (dev, _) = read(dev, &tokenizer, Some(&labels))?;
    let mut config = Config::from_file(format!("{dir}/config.json"))?;
    task.configure(&mut config, Some(&labels));
    let model = TrainableModel::from_dir(dir, config, task.head(), &session, 42)?;
    let outcome = Trainer::new(session, model, task, train, TrainOptions::default())
        .evaluation(dev)
        .output(run, dir)
        .resume(true)
        .observer(Print)
        .run()?;
    println!("{:?}", outcome.summary);
    Ok(())
}
