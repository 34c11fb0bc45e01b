//! The kernels of training beside the forward ones: products in % of the multiply-add peak, attention in milliseconds
//! and as a ratio, the rest in GB/s of what must be read and written.
//!
//! ```sh
//! cargo bench -p bertha-kernels --bench backward           # one thread, then all
//! ```

mod roof;

use std::hint::black_box;
use std::time::Instant;

use bertha_kernels::{
    Activation, Adam, AttentionDropout, AttentionGradients, AttentionInputs, AttentionKept,
    AttentionShape, CrossEntropy, Dropout, Epilogue, Exec, Labels, Mask, Matrix, PackedFormat,
    PackedWeights, Parameter, Segments, Strided, WeightSource, activate, activate_backward, adam,
    attention, attention_backward, column_sums, cross_entropy, default_threads, dropout, gemm,
    gemm_tn, layer_norm_backward, layer_norm_keeping, matmul_in, softmax, squared_norm,
};
use roof::{for_each_budget, print_row, ramp};

/// T, N, K.
const SHAPES: [(usize, usize, usize); 4] = [
    (1024, 3072, 768),
    (1024, 768, 3072),
    (1024, 768, 768),
    (256, 1536, 384),
];

fn products(exec: &Exec) {
    for (t, n, k) in SHAPES {
        let (x, dy, w) = (ramp(t * k, 7), ramp(t * n, 11), ramp(n * k, 13));
        let flops = 2.0 * (t * n * k) as f64;
        let source = [(WeightSource::F32(&w), n)];
        let weights = PackedWeights::pack_stacked(exec, &source, k, PackedFormat::F32);
        let transposed = PackedWeights::pack_transposed(exec, &source, k, PackedFormat::F32);
        let (mut y, mut dx, mut dw) = (vec![0.0; t * n], vec![0.0; t * k], vec![0.0; n * k]);
        let cells = |name| format!("{t} × {n} × {k} | {name}");
        print_row(exec, &cells("Y = X·Wᵀ"), flops, || {
            gemm(exec, t, &x, &weights, Epilogue::default(), &mut y);
        });
        print_row(exec, &cells("dX = dY·W"), flops, || {
            gemm(exec, t, &dy, &transposed, Epilogue::default(), &mut dx);
        });
        print_row(exec, &cells("dW += dYᵀ·X"), flops, || {
            gemm_tn(exec, (t, n, k), &dy, &x, true, &mut dw);
        });
        // Their share is of the f32 peak as well: where the machine multiplies bf16 it can exceed 100 %.
        let half = PackedWeights::pack_stacked(exec, &source, k, PackedFormat::Bf16);
        print_row(exec, &cells("Y, bf16"), flops, || {
            gemm(exec, t, &x, &half, Epilogue::default(), &mut y);
        });
        let (left, right) = (
            Matrix::row_major(&dy, n).transposed(),
            Matrix::row_major(&x, k),
        );
        print_row(exec, &cells("dW, bf16"), flops, || {
            matmul_in(
                exec,
                PackedFormat::Bf16,
                (n, k, t),
                left,
                right,
                true,
                &mut dw,
            );
        });
    }
}

/// Seconds of a run, the best of some.
fn best(mut run: impl FnMut()) -> f64 {
    run();
    let start = Instant::now();
    run();
    let repeats = (0.02 / start.elapsed().as_secs_f64()).clamp(1.0, 1000.0) as usize;
    let mut best = f64::INFINITY;
    for _ in 0..7 {
        let start = Instant::now();
        for _ in 0..repeats {
            run();
        }
        best = best.min(start.elapsed().as_secs_f64() / repeats as f64);
    }
    best
}

fn attentions(exec: &Exec) {
    println!(
        "\n| sequences × tokens | heads × dimension | dropout | precision | forward ms | backward ms | ratio | backward GFLOP/s |"
    );
    println!("| --- | --- | ---: | --- | ---: | ---: | ---: | ---: |");
    for (sequences, tokens, heads, head_dim) in
        [(8, 128, 12, 64), (2, 512, 12, 64), (8, 128, 12, 32)]
    {
        let width = heads * head_dim;
        let rows = sequences * tokens;
        let qkv = ramp(rows * 3 * width, 7);
        let dout = ramp(rows * width, 11);
        let part = |i: usize| Strided {
            data: &qkv[i * width..],
            stride: 3 * width,
        };
        let parts = [part(0), part(1), part(2)];
        let cu_seqlens: Vec<u32> = (0..=sequences).map(|i| (i * tokens) as u32).collect();
        let segments = Segments {
            cu_seqlens: &cu_seqlens,
        };
        let shape = AttentionShape {
            heads,
            head_dim,
            scale: (head_dim as f32).powf(-0.5),
        };
        let (mut out, mut lse) = (vec![0.0; rows * width], vec![0.0; rows * heads]);
        let mut dqkv = vec![0.0; rows * 3 * width];
        let inputs = AttentionInputs::of_sequences(parts, segments, &Mask::Full, shape);
        let precisions = [
            (PackedFormat::F32Strict, "f32"),
            (PackedFormat::Bf16, "bf16"),
        ];
        let each = [0.0, 0.1].map(|probability| precisions.map(|kind| (probability, kind)));
        for (probability, (precision, name)) in each.into_iter().flatten() {
            let dropout = AttentionDropout {
                dropout: some_dropout(probability),
                rows: None,
            };
            let dropout = (probability > 0.0).then_some(&dropout);
            let forward = best(|| {
                let lse = Some(&mut lse[..]);
                attention(exec, precision, inputs, dropout, &mut out, lse);
            });
            let kept = AttentionKept {
                out: &out,
                lse: &lse,
            };
            let backward = best(|| {
                let gradients = AttentionGradients {
                    data: &mut dqkv,
                    stride: 3 * width,
                    q: 0,
                    k: width,
                    v: 2 * width,
                };
                attention_backward(exec, precision, inputs, dropout, kept, &dout, gradients);
            });
            let flops = 10.0 * (rows * tokens * width) as f64;
            println!(
                "| {sequences} × {tokens} | {heads} × {head_dim} | {probability} | {name} | {:.2} | {:.2} | {:.2} | {:.1} |",
                forward * 1e3,
                backward * 1e3,
                backward / forward,
                flops / backward / 1e9,
            );
        }
    }
}

fn some_dropout(probability: f32) -> Dropout {
    Dropout {
        probability,
        seed: 1,
        stream: 2,
        site: 3,
        step: 4,
    }
}

/// Kernels that are bound by memory, with the bytes that each must move.
fn streams(exec: &Exec) {
    const N: usize = 768;
    let rows = 4096;
    let len = rows * N;
    let (x, g) = (ramp(len, 7), ramp(len, 11));
    let (gamma, beta) = (ramp(N, 3), ramp(N, 5));
    let (mut y, mut m, mut v) = (x.clone(), vec![0.0; len], vec![0.0; len]);
    let (mut mean, mut r) = (vec![0.0; rows], vec![0.0; rows]);
    let (mut dgamma, mut dbeta) = (vec![0.0; N], vec![0.0; N]);
    let mut copy = vec![Default::default(); len];
    println!("\n| kernel, {rows} × {N} | ms | Gvalues/s | GB/s |");
    println!("| --- | ---: | ---: | ---: |");
    let row = |name: &str, bytes: usize, seconds: f64| {
        let values = len as f64 / seconds / 1e9;
        println!(
            "| {name} | {:.2} | {values:.2} | {:.1} |",
            seconds * 1e3,
            values * bytes as f64
        );
    };
    row("copy", 8, best(|| y.copy_from_slice(black_box(&x))));
    row(
        "GELU",
        8,
        best(|| activate(exec, Activation::GeluErf, &mut y)),
    );
    row(
        "GELU, backward",
        12,
        best(|| activate_backward(exec, Activation::GeluErf, &x, &mut y)),
    );
    y.copy_from_slice(&g);
    row(
        "LayerNorm",
        8,
        best(|| layer_norm_keeping(exec, &x, &gamma, &beta, 1e-12, &mut y, &mut mean, &mut r)),
    );
    y.copy_from_slice(&g);
    row(
        "LayerNorm, backward",
        12,
        best(|| {
            layer_norm_backward(
                exec,
                &x,
                &mean,
                &r,
                &gamma,
                &mut y,
                false,
                &mut dgamma,
                &mut dbeta,
            );
        }),
    );
    y.copy_from_slice(&g);
    row(
        "dropout",
        8,
        best(|| dropout(exec, &mut y, N, None, &some_dropout(0.1))),
    );
    y.copy_from_slice(&g);
    row("softmax", 8, best(|| softmax(exec, &mut y, N)));
    y.copy_from_slice(&g);
    let labels: Vec<i32> = (0..rows as i32).map(|row| row % N as i32).collect();
    let mut losses = vec![0.0; rows];
    row(
        "cross-entropy with gradient",
        8,
        best(|| {
            let settings = CrossEntropy::default();
            cross_entropy(
                exec,
                &mut y,
                N,
                Labels::I32(&labels),
                &settings,
                1.0,
                &mut losses,
            );
        }),
    );
    row(
        "column sums",
        4,
        best(|| column_sums(exec, &x, false, &mut dbeta)),
    );
    row(
        "squared norm",
        4,
        best(|| {
            black_box(squared_norm(exec, &x));
        }),
    );
    y.copy_from_slice(&x);
    for with_copy in [false, true] {
        let (name, bytes) = if with_copy {
            ("AdamW with a bf16 copy", 30)
        } else {
            ("AdamW", 28)
        };
        row(
            name,
            bytes,
            best(|| {
                let parameter = Parameter {
                    weight: &mut y,
                    gradient: &g,
                    gradient_scale: 1.0,
                    bf16: with_copy.then_some(&mut copy[..]),
                };
                adam(exec, &Adam::default(), parameter, &mut m, &mut v);
            }),
        );
    }
}

fn main() {
    for_each_budget(&["T × N × K", "product"], products);
    let mut budgets = vec![1, default_threads()];
    budgets.dedup();
    for threads in budgets {
        match Exec::new(Some(threads)) {
            Ok(exec) => {
                println!("\n{}, {threads} thread(s)", exec.isa());
                attentions(&exec);
                streams(&exec);
            }
            Err(error) => {
                eprintln!("error: {error}");
                std::process::exit(1);
            }
        }
    }
}
