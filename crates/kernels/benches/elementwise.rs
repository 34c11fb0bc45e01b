//! The element-wise kernels: activations, softmax, LayerNorm and the embedding layer, on one thread, in
//! values per second; and a copy of as many bytes, which is the most that memory allows.
//!
//! ```sh
//! cargo bench -p bertha-kernels --bench elementwise
//! BERTHA_ISA=avx2 cargo bench -p bertha-kernels --bench elementwise -- gelu
//! ```
//!
//! Before criterion's figures a table gives each kernel's share of the copy's rate, the two measured in
//! turn; it can exceed 100 % of many rows, since the copy that restores the values leaves the last of them in
//! the cache. 128 rows of 768 (384 KiB, what is in L2 between two products) and 8192 rows (24 MiB).

use std::hint::black_box;
use std::time::{Duration, Instant};

use bertha_kernels::{
    Activation, EmbeddingTables, Exec, activate, add_layer_norm, embedding_layer_norm,
    layer_norm_in_place, softmax,
};
use criterion::{BenchmarkId, Criterion, Throughput};

const WIDTH: usize = 768;
const ROWS: [usize; 2] = [128, 8192];
const VOCABULARY: usize = 4096;

/// What the kernels work on. Values are restored before each pass, since most kernels change them in place.
struct Data {
    exec: Exec,
    /// Copied to `x` first.
    source: Vec<f32>,
    x: Vec<f32>,
    residual: Vec<f32>,
    gamma: Vec<f32>,
    beta: Vec<f32>,
    word: Vec<f32>,
    ids: Vec<u32>,
    positions: Vec<u32>,
}

const KERNELS: [&str; 9] = [
    "relu",
    "gelu_erf",
    "gelu_tanh",
    "silu",
    "tanh",
    "softmax",
    "layer_norm",
    "add_layer_norm",
    "embedding_layer_norm",
];

impl Data {
    fn new(exec: Exec, rows: usize) -> Self {
        let values = |len: usize, step: usize, scale: f32| -> Vec<f32> {
            let value = |i: usize| scale * ((i * step % 10_007) as f32 / 10_007.0 - 0.5);
            (0..len).map(value).collect()
        };
        let source = values(rows * WIDTH, 7919, 8.0);
        Self {
            exec,
            x: source.clone(),
            source,
            residual: values(rows * WIDTH, 6271, 2.0),
            gamma: values(WIDTH, 31, 2.0),
            beta: values(WIDTH, 37, 2.0),
            word: values(VOCABULARY * WIDTH, 4801, 0.1),
            ids: (0..rows).map(|t| (t * 1777 % VOCABULARY) as u32).collect(),
            positions: (0..rows).map(|t| (t % 128) as u32).collect(),
        }
    }

    /// Copies the values, as every pass does first.
    fn restore(&mut self) {
        self.x.copy_from_slice(black_box(&self.source));
    }

    /// Copies the values and runs a kernel on them.
    fn run(&mut self, kernel: &str) {
        self.restore();
        let Self {
            exec,
            x,
            gamma,
            beta,
            ..
        } = self;
        let eps = 1e-12;
        match kernel {
            "relu" => activate(exec, Activation::Relu, x),
            "gelu_erf" => activate(exec, Activation::GeluErf, x),
            "gelu_tanh" => activate(exec, Activation::GeluTanh, x),
            "silu" => activate(exec, Activation::Silu, x),
            "tanh" => activate(exec, Activation::Tanh, x),
            "softmax" => softmax(exec, x, WIDTH),
            "layer_norm" => layer_norm_in_place(exec, x, gamma, beta, eps),
            "add_layer_norm" => add_layer_norm(exec, x, &self.residual, gamma, beta, eps),
            "embedding_layer_norm" => {
                let tables = EmbeddingTables {
                    word: &self.word,
                    position: Some(&self.residual),
                    token_type: Some(&self.residual),
                };
                let (ids, positions) = (&self.ids, &self.positions);
                embedding_layer_norm(exec, tables, ids, positions, None, gamma, beta, eps, x);
            }
            _ => unreachable!("{kernel}"),
        }
        black_box(&mut *x);
    }

    /// Bytes that a kernel must read and write, the embedding tables' rows included.
    fn bytes(&self, kernel: &str) -> usize {
        let streams = match kernel {
            "add_layer_norm" => 3,
            "embedding_layer_norm" => 4,
            _ => 2,
        };
        4 * streams * self.x.len()
    }
}

fn exec() -> Exec {
    match Exec::new(Some(1)) {
        Ok(exec) => exec,
        Err(error) => {
            eprintln!("error: {error}");
            std::process::exit(1);
        }
    }
}

/// Seconds of a run, the best of some.
fn best(data: &mut Data, run: fn(&mut Data, &str), kernel: &str) -> f64 {
    let repeats = (1 << 21) / data.x.len() + 1;
    let mut best = f64::INFINITY;
    for _ in 0..9 {
        let start = Instant::now();
        for _ in 0..repeats {
            run(data, kernel);
        }
        best = best.min(start.elapsed().as_secs_f64() / repeats as f64);
    }
    best
}

/// Each kernel's rate, and its share of a copy's.
fn table() {
    println!("\n{}, 1 thread", exec().isa());
    println!("\n| kernel | rows × {WIDTH} | Gvalues/s | GB/s | % of copy |");
    println!("| --- | ---: | ---: | ---: | ---: |");
    for rows in ROWS {
        let mut data = Data::new(exec(), rows);
        for kernel in KERNELS {
            // The copy that precedes each pass is timed alone, and taken off.
            let copy = best(&mut data, |data, _| data.restore(), kernel);
            let both = best(&mut data, Data::run, kernel);
            let seconds = (both - copy).max(f64::MIN_POSITIVE);
            let rate = data.bytes(kernel) as f64 / seconds;
            let roof = (8 * data.x.len()) as f64 / copy;
            println!(
                "| {kernel} | {rows} | {:.2} | {:.1} | {:.0} |",
                data.x.len() as f64 / seconds / 1e9,
                rate / 1e9,
                100.0 * rate / roof
            );
        }
    }
    println!();
}

fn main() {
    table();
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .sample_size(20)
        .configure_from_args();
    for rows in ROWS {
        let mut data = Data::new(exec(), rows);
        let mut group = criterion.benchmark_group(format!("{rows}x{WIDTH}"));
        group.throughput(Throughput::Elements(data.x.len() as u64));
        group.bench_function("copy", |bencher| bencher.iter(|| data.restore()));
        for kernel in KERNELS {
            let id = BenchmarkId::from_parameter(format!("copy + {kernel}"));
            group.bench_function(id, |bencher| bencher.iter(|| data.run(kernel)));
        }
        group.finish();
    }
    criterion.final_summary();
}
