//! Throughput beside Hugging Face's `tokenizers`, one thread, for every kind of model: ids alone, and ids with offsets,
//! word ids and all the rest.
//!
//! ```text
//! scripts/fetch-model.sh
//! cargo bench -p bertha-tokenizer --bench encode
//! ```
//!
//! all-MiniLM-L6-v2 is there after the first command. The others are measured if `BERTHA_VOCABULARIES` names a folder
//! that has `roberta-base/vocab.json` and `merges.txt`, `gpt2/tokenizer.json`, `xlm-roberta-base/unigram.tsv`.

#![allow(
    missing_docs,
    reason = "criterion's macros make public functions without documentation"
)]

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bertha_tokenizer::{EncodeOptions, Tokenizer};
use criterion::{Criterion, Throughput};
use serde_json::{Value, json};

const ENGLISH: &str = include_str!("../tests/data/english.txt");

/// Turkish, Spanish, sixty other languages, symbols and diacritics, in equal parts.
fn multilingual() -> String {
    let parts = [
        include_str!("../tests/data/turkish.txt"),
        include_str!("../tests/data/spanish.txt"),
        include_str!("../tests/data/languages.txt"),
        include_str!("../tests/data/umlaut.txt"),
    ];
    let size = parts[0].len();
    let mut text = String::new();
    for part in parts {
        let end = (0..=size.min(part.len()))
            .rfind(|&end| part.is_char_boundary(end))
            .unwrap_or(0);
        text.extend(std::iter::repeat_n(&part[..end], size.div_ceil(end)));
    }
    text
}

/// all-MiniLM-L6-v2's tokenizer.json.
fn minilm() -> String {
    let models = std::env::var_os("BERTHA_MODELS").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../models")),
        PathBuf::from,
    );
    let file = models.join("all-MiniLM-L6-v2/tokenizer.json");
    std::fs::read_to_string(&file).unwrap_or_else(|error| {
        panic!(
            "{}: {error}: run scripts/fetch-model.sh once (84 MB)",
            file.display()
        )
    })
}

fn tokenizer_json(model: Value, pre_tokenizer: Value) -> String {
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": pre_tokenizer, "post_processor": null, "decoder": null, "model": model,
    })
    .to_string()
}

/// Byte-level BPE of RoBERTa.
fn roberta(folder: &Path) -> Option<String> {
    let read = |name: &str| std::fs::read_to_string(folder.join("roberta-base").join(name)).ok();
    let vocab: Value = serde_json::from_str(&read("vocab.json")?).ok()?;
    let merges = read("merges.txt")?;
    let merges: Vec<&str> = merges
        .lines()
        .filter(|line| !line.starts_with("#version") && !line.is_empty())
        .collect();
    let model = json!({"type": "BPE", "vocab": vocab, "merges": merges});
    let bytes = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    Some(tokenizer_json(model, bytes))
}

/// Unigram of XLM-R.
fn xlm_roberta(folder: &Path) -> Option<String> {
    let list = std::fs::read_to_string(folder.join("xlm-roberta-base/unigram.tsv")).ok()?;
    let mut vocab = vec![json!(["<s>", 0.0])];
    for line in list.lines() {
        let mut fields = line.split('\t').skip(1);
        if let (Some(piece), Some(score)) = (fields.next(), fields.next())
            && let Ok(score) = score.parse::<f64>()
        {
            vocab.push(json!([piece, score]));
        }
    }
    let model = json!({"type": "Unigram", "unk_id": 3, "vocab": vocab});
    let marks =
        json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true});
    Some(tokenizer_json(model, marks))
}

fn throughput(criterion: &mut Criterion, name: &str, json: &str) {
    let ours = Tokenizer::from_json(json).expect("bertha loads the file");
    let mut theirs: tokenizers::Tokenizer = json.parse().expect("tokenizers loads the file");
    theirs
        .with_padding(None)
        .with_truncation(None)
        .expect("no truncation is a valid one");
    let options = EncodeOptions::default();
    for (language, text) in [
        ("english", ENGLISH.to_owned()),
        ("multilingual", multilingual()),
    ] {
        let lines: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
        let bytes = lines.iter().map(|line| line.len() as u64).sum();
        let mut group = criterion.benchmark_group(format!("{name}/{language}"));
        group.throughput(Throughput::Bytes(bytes));
        group.bench_function("ids, bertha", |bencher| {
            bencher.iter(|| {
                for line in &lines {
                    black_box(ours.encode_ids(*line, &options).expect("any text encodes"));
                }
            });
        });
        group.bench_function("ids, tokenizers", |bencher| {
            bencher.iter(|| {
                for line in &lines {
                    black_box(theirs.encode_fast(*line, true).expect("any text encodes"));
                }
            });
        });
        group.bench_function("offsets, bertha", |bencher| {
            bencher.iter(|| {
                for line in &lines {
                    black_box(ours.encode(*line, &options).expect("any text encodes"));
                }
            });
        });
        group.bench_function("offsets, tokenizers", |bencher| {
            bencher.iter(|| {
                for line in &lines {
                    black_box(
                        theirs
                            .encode_char_offsets(*line, true)
                            .expect("any text encodes"),
                    );
                }
            });
        });
        group.finish();
    }
}

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    tokenizers::utils::parallelism::set_parallelism(false);
    throughput(&mut criterion, "all-MiniLM-L6-v2", &minilm());
    if let Some(folder) = std::env::var_os("BERTHA_VOCABULARIES").map(PathBuf::from) {
        let gpt2 = std::fs::read_to_string(folder.join("gpt2/tokenizer.json")).ok();
        for (name, json) in [
            ("roberta-base", roberta(&folder)),
            ("gpt2", gpt2),
            ("xlm-roberta-base", xlm_roberta(&folder)),
        ] {
            match json {
                Some(json) => throughput(&mut criterion, name, &json),
                None => eprintln!("{name} is not in {}", folder.display()),
            }
        }
    }
    criterion.final_summary();
}
