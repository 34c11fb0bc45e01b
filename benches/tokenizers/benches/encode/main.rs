//! Throughput of bertha's tokenizer beside `tokenizers`, kitoken and tiktoken-rs, by kind of model and text:
//!
//! ```text
//! scripts/fetch-model.sh
//! export BERTHA_VOCABULARIES=… BERTHA_CORPUS=novels.txt
//! cargo bench --manifest-path benches/tokenizers/Cargo.toml            # ends with a table
//! cargo bench --manifest-path benches/tokenizers/Cargo.toml -- gpt2    # of one model
//! ```
//!
//! all-MiniLM-L6-v2 is there after the first command. The others are measured if `BERTHA_VOCABULARIES` names a folder
//! that has `roberta-base/vocab.json` and `merges.txt`, `gpt2/tokenizer.json`, `xlm-roberta-base/unigram.tsv`; text
//! read for the first time if `BERTHA_CORPUS` names a file of at least [`CORPUS`] bytes.

mod peers;
mod table;

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bertha_tokenizer::EncodeOptions;
use criterion::{BatchSize, Criterion, Throughput};
use peers::{Peer, bertha, load};
use serde_json::{Value, json};
use table::Table;

const ENGLISH: &str = include_str!("../../../../crates/tokenizer/tests/data/english.txt");

/// As much of the corpus as is read: more words than any of the engines remembers.
const CORPUS: usize = 4 << 20;

/// Turkish, Spanish, sixty other languages, symbols and diacritics, in equal parts.
fn multilingual() -> String {
    let parts = [
        include_str!("../../../../crates/tokenizer/tests/data/turkish.txt"),
        include_str!("../../../../crates/tokenizer/tests/data/spanish.txt"),
        include_str!("../../../../crates/tokenizer/tests/data/languages.txt"),
        include_str!("../../../../crates/tokenizer/tests/data/umlaut.txt"),
    ];
    let size = parts[0].len();
    let mut text = String::new();
    for part in parts {
        let end = part.floor_char_boundary(size.min(part.len()));
        text.extend(std::iter::repeat_n(&part[..end], size.div_ceil(end)));
    }
    text
}

fn corpus() -> Option<String> {
    let path = PathBuf::from(std::env::var_os("BERTHA_CORPUS")?);
    let text = std::fs::read_to_string(&path);
    let mut text = text.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert!(
        text.len() >= CORPUS,
        "{} is shorter than {CORPUS} bytes",
        path.display()
    );
    text.truncate(text.floor_char_boundary(CORPUS));
    Some(text)
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

fn tokenizer_json(model: Value, pre_tokenizer: Value, decoder: Value) -> String {
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": pre_tokenizer, "post_processor": null, "decoder": decoder, "model": model,
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
    Some(tokenizer_json(model, bytes.clone(), bytes))
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
    Some(tokenizer_json(model, marks.clone(), marks))
}

/// The engines on the lines of one text, again and again, or each time with an engine that has read nothing yet.
fn throughput(
    criterion: &mut Criterion,
    table: &mut Table,
    (model, peers): (&str, &[Peer]),
    (name, text): (&str, &str),
    fresh: bool,
) {
    let lines: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
    let bytes: usize = lines.iter().map(|line| line.len()).sum();
    let group_name = format!("{model}, {name}");
    let mut group = criterion.benchmark_group(&group_name);
    group.throughput(Throughput::Bytes(bytes as u64));
    for peer in peers {
        let run = |engine: &peers::Engine| {
            for line in &lines {
                black_box(engine(line));
            }
        };
        group.bench_function(peer.name, |bencher| {
            if fresh {
                bencher.iter_batched(
                    || (peer.make)(),
                    |engine| run(&engine),
                    BatchSize::PerIteration,
                );
            } else {
                let engine = (peer.make)();
                bencher.iter(|| run(&engine));
            }
        });
        table.add(&group_name, peer.name, bytes);
    }
    group.finish();
}

/// bertha and `tokenizers` on batches, by threads.
fn batches(criterion: &mut Criterion, table: &mut Table, json: &str) {
    let lines: Vec<&str> = ENGLISH.lines().filter(|line| !line.is_empty()).collect();
    let bytes: usize = lines.iter().map(|line| line.len()).sum();
    let (ours, theirs) = (bertha(json), peers::hugging_face(json));
    let options = EncodeOptions::default();
    tokenizers::utils::parallelism::set_parallelism(true);
    let all = std::thread::available_parallelism().map_or(1, usize::from);
    for threads in [1, all] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        let pool = pool.expect("threads start");
        let plural = if threads == 1 { "" } else { "s" };
        let name = format!("all-MiniLM-L6-v2, one batch, {threads} thread{plural}");
        let mut group = criterion.benchmark_group(&name);
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function("bertha, offsets", |bencher| {
            bencher.iter(|| pool.install(|| black_box(ours.encode_batch(&lines, &options))));
        });
        group.bench_function("tokenizers, offsets", |bencher| {
            let encode = || black_box(theirs.encode_batch_char_offsets(lines.clone(), true));
            bencher.iter(|| pool.install(encode));
        });
        table.add(&name, "bertha, offsets", bytes);
        table.add(&name, "tokenizers, offsets", bytes);
        group.finish();
    }
    tokenizers::utils::parallelism::set_parallelism(false);
}

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    tokenizers::utils::parallelism::set_parallelism(false);
    let mut models = vec![("all-MiniLM-L6-v2", Some(minilm()))];
    if let Some(folder) = std::env::var_os("BERTHA_VOCABULARIES").map(PathBuf::from) {
        let gpt2 = std::fs::read_to_string(folder.join("gpt2/tokenizer.json")).ok();
        models.push(("roberta-base", roberta(&folder)));
        models.push(("gpt2", gpt2));
        models.push(("xlm-roberta-base", xlm_roberta(&folder)));
    }
    let (multilingual, corpus) = (multilingual(), corpus());
    let mut table = Table::default();
    for (name, json) in &models {
        let Some(json) = json else {
            eprintln!("{name} is not in BERTHA_VOCABULARIES");
            continue;
        };
        let peers = load(name, json, ENGLISH);
        let model = (*name, &peers[..]);
        throughput(
            &mut criterion,
            &mut table,
            model,
            ("English", ENGLISH),
            false,
        );
        throughput(
            &mut criterion,
            &mut table,
            model,
            ("multilingual", &multilingual),
            false,
        );
        if let Some(corpus) = &corpus {
            throughput(
                &mut criterion,
                &mut table,
                model,
                ("read once", corpus),
                true,
            );
        }
    }
    if let (_, Some(json)) = &models[0] {
        batches(&mut criterion, &mut table, json);
    }
    criterion.final_summary();
    table.print();
}
