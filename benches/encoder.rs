//! Forward passes of BERT-base and MiniLM shapes with random weights, in real tokens per second.
//!
//! ```sh
//! cargo bench --bench encoder              # all cases
//! cargo bench --bench encoder -- minilm    # one shape
//! ```
//!
//! Beside candle and PyTorch: `benches/peers/run.sh`.

use std::path::Path;

use bertha::autograd::Session;
use bertha::models::{ForwardOptions, load};
use bertha::nn::Batch;
use bertha::tensor::{Tensor, save_safetensors};
use criterion::{BenchmarkId, Criterion, Throughput};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Layers, width, heads, inner width.
const SHAPES: [(&str, [usize; 4]); 2] = [
    ("minilm", [6, 384, 12, 1536]),
    ("base", [12, 768, 12, 3072]),
];
const VOCABULARY: usize = 30522;

fn encoder(criterion: &mut Criterion) {
    let cases: [(&str, Vec<usize>); 4] = [
        ("1x16", vec![16]),
        ("1x128", vec![128]),
        ("8x128", vec![128; 8]),
        ("ragged64", (0..64).map(|i| 8 + i * 37 % 121).collect()),
    ];
    for (shape, sizes) in SHAPES {
        let folder = tempfile::tempdir().expect("a temporary folder");
        write_random_bert(folder.path(), sizes);
        let session = Session::new(None).expect("BERTHA_ISA names a tier of this machine");
        let model = load(folder.path(), &session).expect("the folder just written loads");
        let mut group = criterion.benchmark_group(shape);
        group.sample_size(10);
        for (name, lengths) in &cases {
            let batch = random_batch(lengths);
            group.throughput(Throughput::Elements(batch.tokens() as u64));
            group.bench_with_input(
                BenchmarkId::from_parameter(name),
                &batch,
                |bencher, batch| {
                    bencher.iter(|| model.forward(&session, batch, &ForwardOptions::default()));
                },
            );
        }
        group.finish();
    }
}

fn random_batch(lengths: &[usize]) -> Batch {
    let mut random = StdRng::seed_from_u64(1);
    let sequences: Vec<Vec<u32>> = lengths
        .iter()
        .map(|&length| {
            (0..length)
                .map(|_| random.random_range(0..VOCABULARY as u32))
                .collect()
        })
        .collect();
    Batch::from_sequences(&sequences).expect("no sequence is empty")
}

fn write_random_bert(folder: &Path, [layers, hidden, heads, inner]: [usize; 4]) {
    let config = serde_json::json!({
        "model_type": "bert", "vocab_size": VOCABULARY, "hidden_size": hidden,
        "num_hidden_layers": layers, "num_attention_heads": heads, "intermediate_size": inner,
    });
    std::fs::write(folder.join("config.json"), config.to_string()).expect("config.json is written");

    let mut random = StdRng::seed_from_u64(0);
    let mut tensors: Vec<(String, Tensor)> = Vec::new();
    let mut add = |name: String, shape: &[usize], centre: f32| {
        let count = shape.iter().product();
        let values: Vec<f32> = (0..count)
            .map(|_| centre + random.random_range(-0.03..0.03))
            .collect();
        tensors.push((
            name,
            Tensor::from_vec(values, shape).expect("as many values as asked"),
        ));
    };
    let norm = |add: &mut dyn FnMut(String, &[usize], f32), at: String| {
        add(format!("{at}.weight"), &[hidden], 1.0);
        add(format!("{at}.bias"), &[hidden], 0.0);
    };
    for (table, rows) in [("word", VOCABULARY), ("position", 512), ("token_type", 2)] {
        add(
            format!("embeddings.{table}_embeddings.weight"),
            &[rows, hidden],
            0.0,
        );
    }
    norm(&mut add, "embeddings.LayerNorm".into());
    for i in 0..layers {
        let layer = format!("encoder.layer.{i}");
        for (name, outputs, inputs) in [
            ("attention.self.query", hidden, hidden),
            ("attention.self.key", hidden, hidden),
            ("attention.self.value", hidden, hidden),
            ("attention.output.dense", hidden, hidden),
            ("intermediate.dense", inner, hidden),
            ("output.dense", hidden, inner),
        ] {
            add(format!("{layer}.{name}.weight"), &[outputs, inputs], 0.0);
            add(format!("{layer}.{name}.bias"), &[outputs], 0.0);
        }
        norm(&mut add, format!("{layer}.attention.output.LayerNorm"));
        norm(&mut add, format!("{layer}.output.LayerNorm"));
    }
    let named: Vec<(&str, &Tensor)> = tensors.iter().map(|(name, t)| (&**name, t)).collect();
    save_safetensors(folder.join("model.safetensors"), &named, None).expect("weights are written");
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    encoder(&mut criterion);
    criterion.final_summary();
}
