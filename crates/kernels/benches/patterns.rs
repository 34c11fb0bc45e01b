//! Attention of long sequences, forward and backward, by the pattern of what queries see: nanoseconds a token, which do
//! not grow with the length but for `Full`. Twelve heads of 64.
//!
//! ```sh
//! cargo bench -p bertha-kernels --bench patterns                     # all threads
//! cargo bench -p bertha-kernels --bench patterns -- 'blocks' 4096    # lines that have these words
//! ```

#[expect(dead_code, reason = "no share of the peak here")]
mod roof;

use std::sync::Arc;
use std::time::Instant;

use bertha_kernels::{
    AttentionDropout, AttentionGradients, AttentionInputs, AttentionKept, AttentionShape,
    BlockPlan, Dropout, Exec, Mask, PackedFormat, Segments, Strided, attention, attention_backward,
    default_threads,
};
use roof::ramp;

const LENGTHS: [usize; 6] = [512, 1024, 2048, 4096, 8192, 16384];

/// The longest sequence whose every pair is computed.
const LONGEST_FULL: usize = 4096;

const SHAPE: AttentionShape = AttentionShape {
    heads: 12,
    head_dim: 64,
    scale: 0.125,
};

/// Keys that a query sees at most, and the mask of one sequence.
type Pattern = (&'static str, f32, fn(usize) -> Mask);

const PATTERNS: [Pattern; 6] = [
    ("full", 0.0, |_| Mask::Full),
    ("window 64", 0.0, |_| Mask::Window {
        left: 64,
        right: 64,
    }),
    ("window 256, 1 global", 0.0, longformer),
    ("window 256, 1 global, dropout", 0.1, longformer),
    ("blocks of 64, 3 random", 0.0, |len| big_bird(len, true)),
    ("blocks of 64, inference", 0.0, |len| big_bird(len, false)),
];

fn longformer(_: usize) -> Mask {
    Mask::Global {
        left: 256,
        right: 256,
        tokens: Arc::new([vec![0]]),
    }
}

/// The first and last block, both neighbours, and three more blocks: some or other ones, or each the first.
fn big_bird(len: usize, drawn: bool) -> Mask {
    let blocks = len / 64;
    let rows = |head: usize| {
        let row = |b: usize| {
            let key = |i: usize| match drawn {
                true => ((b * 7 + head * 3 + i * 5) % blocks) as u32,
                false => 0,
            };
            (0..3).map(key).collect()
        };
        (1..blocks - 1).map(row).collect()
    };
    let random: Vec<Vec<Vec<u32>>> = (0..SHAPE.heads).map(rows).collect();
    let plan = BlockPlan::first_last_random(64, blocks, &random);
    Mask::Blocks(Arc::new([Arc::new(plan)]))
}

fn precision_name(precision: PackedFormat) -> &'static str {
    match precision {
        PackedFormat::Bf16 => "bf16",
        PackedFormat::F32 | PackedFormat::F32Strict => "f32",
    }
}

/// Seconds of a run, the best of some.
fn best(mut run: impl FnMut()) -> f64 {
    run();
    let (mut best, start) = (f64::INFINITY, Instant::now());
    for round in 0..20 {
        let begun = Instant::now();
        run();
        best = best.min(begun.elapsed().as_secs_f64());
        if round >= 2 && start.elapsed().as_secs_f64() > 0.3 {
            break;
        }
    }
    best
}

fn row(
    exec: &Exec,
    (name, precision): (&str, PackedFormat),
    probability: f32,
    mask: &Mask,
    tokens: usize,
) {
    let width = SHAPE.heads * SHAPE.head_dim;
    let (qkv, dout) = (ramp(tokens * 3 * width, 7), ramp(tokens * width, 11));
    let parts = [0, 1, 2].map(|i| Strided {
        data: &qkv[i * width..],
        stride: 3 * width,
    });
    let cu_seqlens = [0, tokens as u32];
    let segments = Segments {
        cu_seqlens: &cu_seqlens,
    };
    let dropout = AttentionDropout {
        dropout: Dropout {
            probability,
            seed: 1,
            stream: 2,
            site: 3,
            step: 4,
        },
        rows: None,
    };
    let dropout = (probability > 0.0).then_some(&dropout);
    let (mut out, mut lse) = (vec![0.0; dout.len()], vec![0.0; tokens * SHAPE.heads]);
    let mut dqkv = vec![0.0; qkv.len()];
    let inputs = AttentionInputs::of_sequences(parts, segments, mask, SHAPE);
    let forward = best(|| {
        let lse = Some(&mut lse[..]);
        attention(exec, precision, inputs, dropout, &mut out, lse);
    });
    let kept = AttentionKept {
        out: &out,
        lse: &lse,
    };
    let backward = best(|| {
        let to = AttentionGradients {
            data: &mut dqkv,
            stride: 3 * width,
            q: 0,
            k: width,
            v: 2 * width,
        };
        attention_backward(exec, precision, inputs, dropout, kept, &dout, to);
    });
    let each = |seconds: f64| seconds * 1e9 / tokens as f64;
    println!(
        "| {name} | {tokens} | {} | {:.2} | {:.2} | {:.0} | {:.0} |",
        precision_name(precision),
        forward * 1e3,
        backward * 1e3,
        each(forward),
        each(backward)
    );
}

fn main() {
    let exec = match Exec::new(Some(default_threads())) {
        Ok(exec) => exec,
        Err(error) => {
            eprintln!("error: {error}");
            std::process::exit(1);
        }
    };
    println!("{}, {} thread(s)\n", exec.isa(), exec.threads());
    println!(
        "| pattern | tokens | precision | forward ms | backward ms | forward ns/token | backward ns/token |"
    );
    println!("| --- | ---: | --- | ---: | ---: | ---: | ---: |");
    for (name, probability, mask) in PATTERNS {
        for tokens in LENGTHS {
            for precision in [PackedFormat::F32Strict, PackedFormat::Bf16] {
                let line = format!("{name} {tokens} {}", precision_name(precision));
                let words = std::env::args().skip(1);
                let mut words = words.filter(|word| !word.starts_with("--"));
                let asked = words.all(|word| line.contains(&word));
                if asked && (name != "full" || tokens <= LONGEST_FULL) {
                    let named = (name, precision);
                    row(&exec, named, probability, &mask(tokens), tokens);
                }
            }
        }
    }
}
