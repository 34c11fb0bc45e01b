//! The linear layers of a BERT-base layer by the format of their weights: microseconds, and how many times faster than f32.
//! All formats of a shape run in turn, and the median of the rounds counts.
//!
//! ```sh
//! cargo bench -p bertha-kernels --bench formats            # all threads
//! cargo bench -p bertha-kernels --bench formats -- 1       # one
//! ```

use std::time::Instant;

use bertha_kernels::{
    BinaryWeights, CodeBook, Epilogue, Exec, Group, GroupRange, Int8Weights, Isa, LowBitSource,
    LowBitWeights, PackedFormat, PackedWeights, WeightSource, default_threads, encode_group,
    fit_group, gemm, gemm_binary, gemm_int8, gemm_low_bit, pack_codes, packed_len,
    quantize_row_int8,
};

/// Outputs and inputs of a layer's products: queries, keys and values; mix; up; down.
const LAYER: [(usize, usize); 4] = [(2304, 768), (768, 768), (3072, 768), (768, 3072)];
const ROWS: [usize; 4] = [1, 16, 128, 4096];
const GROUP: usize = 64;

enum Weight {
    Float(PackedWeights),
    Int8(Int8Weights),
    LowBit(LowBitWeights),
    Binary(BinaryWeights),
}

impl Weight {
    fn product(&self, exec: &Exec, rows: usize, x: &[f32], y: &mut [f32]) {
        let epilogue = Epilogue::default();
        match self {
            Self::Float(w) => gemm(exec, rows, x, w, epilogue, y),
            Self::Int8(w) => gemm_int8(exec, rows, x, w, epilogue, y),
            Self::LowBit(w) => gemm_low_bit(exec, rows, x, w, epilogue, y),
            Self::Binary(w) => gemm_binary(exec, rows, x, w, epilogue, y),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Float(w) => w.bytes(),
            Self::Int8(w) => w.bytes(),
            Self::LowBit(w) => w.bytes(),
            Self::Binary(w) => w.bytes(),
        }
    }
}

fn values(len: usize) -> Vec<f32> {
    let mut state = 1u64;
    (0..len)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}

fn low_bit(
    exec: &Exec,
    w: &[f32],
    (n, k): (usize, usize),
    book: CodeBook,
    format: PackedFormat,
) -> Weight {
    let len = packed_len(book.bits(), k);
    let (mut bytes, mut scales) = (vec![0; n * len], Vec::new());
    let mut zeros = Vec::new();
    let mut codes = vec![0; k];
    for (row, bytes) in w.chunks_exact(k).zip(bytes.chunks_exact_mut(len)) {
        for (x, codes) in row.chunks(GROUP).zip(codes.chunks_mut(GROUP)) {
            let group: Group = fit_group(book, x, GroupRange::MinMax, None);
            encode_group(book, x, group, codes);
            scales.push(group.scale);
            zeros.push(group.zero);
        }
        pack_codes(book.bits(), &codes, bytes);
    }
    let source = LowBitSource {
        codes: &bytes,
        scales: &scales,
        zeros: book.has_zero_points().then_some(&zeros),
        rows: n,
    };
    let sizes = (GROUP, k);
    Weight::LowBit(LowBitWeights::pack_stacked(
        exec,
        &[source],
        book,
        sizes,
        format,
    ))
}

fn made(exec: &Exec, n: usize, k: usize) -> Vec<(&'static str, Weight)> {
    let w = values(n * k);
    let mut q = vec![0i8; n * k];
    let rows = w.chunks_exact(k).zip(q.chunks_exact_mut(k));
    let scales: Vec<f32> = rows.map(|(w, q)| quantize_row_int8(w, q)).collect();
    let mut bits = Vec::new();
    for row in w.chunks_exact(k) {
        let codes: Vec<u8> = row.iter().map(|&w| u8::from(w >= 0.0)).collect();
        let mut bytes = vec![0; packed_len(1, k)];
        pack_codes(1, &codes, &mut bytes);
        bits.extend(bytes);
    }
    let few = |book, format| low_bit(exec, &w, (n, k), book, format);
    vec![
        (
            "f32",
            Weight::Float(PackedWeights::pack(exec, WeightSource::F32(&w), n, k)),
        ),
        (
            "bf16",
            Weight::Float(PackedWeights::pack_stacked(
                exec,
                &[(WeightSource::F32(&w), n)],
                k,
                PackedFormat::Bf16,
            )),
        ),
        (
            "int8",
            Weight::Int8(Int8Weights::pack_stacked(exec, &[(&q, &scales)], k)),
        ),
        ("int4", few(CodeBook::Symmetric(4), PackedFormat::F32)),
        (
            "int4, bf16",
            few(CodeBook::Symmetric(4), PackedFormat::Bf16),
        ),
        ("nf4", few(CodeBook::Nf4, PackedFormat::F32)),
        ("int2", few(CodeBook::Symmetric(2), PackedFormat::F32)),
        ("sign", few(CodeBook::Sign, PackedFormat::F32)),
        (
            "binary",
            Weight::Binary(BinaryWeights::pack_stacked(exec, &[(&bits, &scales)], k)),
        ),
    ]
}

fn main() {
    let threads = std::env::args().skip(1).find_map(|word| word.parse().ok());
    let threads = threads.unwrap_or_else(default_threads);
    let isa = Isa::from_env().unwrap_or_else(|_| Isa::best());
    let exec = Exec::with_isa(isa, threads);
    println!("{isa}, {threads} threads; a layer's four products, µs (times faster than f32)");
    let layers: Vec<Vec<(&str, Weight)>> = LAYER.iter().map(|&(n, k)| made(&exec, n, k)).collect();
    let formats = layers[0].len();
    let names: Vec<&str> = layers[0].iter().map(|&(name, _)| name).collect();
    let bytes = |f: usize| layers.iter().map(|layer| layer[f].1.bytes()).sum::<usize>();
    for (f, name) in names.iter().enumerate() {
        println!(
            "{name:>7}: {:.2} MiB a layer",
            bytes(f) as f64 / f64::from(1 << 20)
        );
    }
    for rows in ROWS {
        let rounds = if rows > 1000 { 3 } else { 31 };
        let x: Vec<Vec<f32>> = LAYER.iter().map(|&(_, k)| values(rows * k)).collect();
        let mut y: Vec<Vec<f32>> = LAYER.iter().map(|&(n, _)| vec![0.0; rows * n]).collect();
        let mut times = vec![Vec::new(); formats];
        for round in 0..=rounds {
            for (f, times) in times.iter_mut().enumerate() {
                let started = Instant::now();
                for (layer, (x, y)) in layers.iter().zip(x.iter().zip(&mut y)) {
                    layer[f].1.product(&exec, rows, x, y);
                }
                if round > 0 {
                    times.push(started.elapsed().as_secs_f64() * 1e6);
                }
            }
        }
        let medians: Vec<f64> = times
            .iter_mut()
            .map(|times| {
                times.sort_by(f64::total_cmp);
                times[times.len() / 2]
            })
            .collect();
        let cells: Vec<String> = names
            .iter()
            .zip(&medians)
            .map(|(name, time)| format!("{name} {time:.0} ({:.2})", medians[0] / time))
            .collect();
        println!("{rows:>5} rows: {}", cells.join(", "));
    }
}
