//! Throughput of `encode` beside Hugging Face's `tokenizers`, one thread, ids with offsets.
//!
//! ```text
//! scripts/fetch-model.sh
//! cargo bench -p bertha-tokenizer --bench encode
//! ```

#![allow(
    missing_docs,
    reason = "criterion's macros make public functions without documentation"
)]

use std::hint::black_box;
use std::path::PathBuf;
use std::time::Duration;

use bertha_tokenizer::{EncodeOptions, Tokenizer};
use criterion::{Criterion, Throughput};

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

fn model_file() -> PathBuf {
    let models = std::env::var_os("BERTHA_MODELS").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../models")),
        PathBuf::from,
    );
    let file = models.join("all-MiniLM-L6-v2/tokenizer.json");
    assert!(
        file.is_file(),
        "{} is missing: run scripts/fetch-model.sh once (84 MB)",
        file.display()
    );
    file
}

fn throughput(criterion: &mut Criterion) {
    let file = model_file();
    let ours = Tokenizer::from_file(&file).expect("bertha loads the file");
    let mut theirs = tokenizers::Tokenizer::from_file(&file).expect("tokenizers loads the file");
    theirs
        .with_padding(None)
        .with_truncation(None)
        .expect("no truncation is a valid one");
    tokenizers::utils::parallelism::set_parallelism(false);
    let one_thread = rayon::ThreadPoolBuilder::new()
        .num_threads(1)
        .build()
        .expect("one thread starts");
    let options = EncodeOptions::default();

    for (name, text) in [
        ("english", ENGLISH.to_owned()),
        ("multilingual", multilingual()),
    ] {
        let lines: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
        let bytes = lines.iter().map(|line| line.len() as u64).sum();

        let mut group = criterion.benchmark_group(format!("{name}/one by one"));
        group.throughput(Throughput::Bytes(bytes));
        group.bench_function("bertha", |bencher| {
            bencher.iter(|| {
                for line in &lines {
                    black_box(ours.encode(*line, &options).expect("any text encodes"));
                }
            });
        });
        group.bench_function("tokenizers", |bencher| {
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

        let mut group = criterion.benchmark_group(format!("{name}/batch"));
        group.throughput(Throughput::Bytes(bytes));
        group.bench_function("bertha", |bencher| {
            one_thread.install(|| {
                bencher.iter(|| {
                    black_box(
                        ours.encode_batch(&lines, &options)
                            .expect("any text encodes"),
                    )
                });
            });
        });
        group.bench_function("tokenizers", |bencher| {
            bencher.iter(|| {
                black_box(
                    theirs
                        .encode_batch_char_offsets(lines.clone(), true)
                        .expect("any text encodes"),
                )
            });
        });
        group.finish();

        let mut group = criterion.benchmark_group(format!("{name}/one long text"));
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function("bertha", |bencher| {
            bencher.iter(|| {
                black_box(
                    ours.encode(text.as_str(), &options)
                        .expect("any text encodes"),
                )
            });
        });
        group.bench_function("tokenizers", |bencher| {
            bencher.iter(|| {
                black_box(
                    theirs
                        .encode_char_offsets(text.as_str(), true)
                        .expect("any text encodes"),
                )
            });
        });
        group.finish();
    }
}

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(3))
        .configure_from_args();
    throughput(&mut criterion);
    criterion.final_summary();
}
