//! Times a model's forward pass over texts of random tokens, one or several, and tells the memory that it takes beside the weights:
//!
//! ```sh
//! cargo run --release --example time_forward -- MODEL_DIR TOKENS [ROUNDS] [TEXTS] [PRECISION]
//! ```

use std::error::Error;
use std::time::Instant;

use bertha::autograd::{Precision, Session};
use bertha::models::{ForwardOptions, load};
use bertha::nn::Batch;

fn main() -> Result<(), Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    let usage = "usage: time_forward MODEL_DIR TOKENS [ROUNDS] [TEXTS] [f32|f32-strict|bf16|int8]";
    let (dir, tokens) = (words.next().ok_or(usage)?, words.next().ok_or(usage)?);
    let tokens: usize = tokens.parse()?;
    let rounds: usize = words.next().map_or(Ok(3), |rounds| rounds.parse())?;
    let texts: usize = words.next().map_or(Ok(1), |texts| texts.parse())?;
    let name = words.next().unwrap_or_else(|| "f32".into());
    let precision = Precision::ALL.into_iter().find(|one| one.name() == name);
    let session = Session::new(None)?
        .no_grad()
        .with_precision(precision.ok_or(usage)?);
    let model = load(&dir, &session)?;
    let vocabulary = model.info().vocab_size as u64;
    // Knuth's generator (MMIX); ids below 5 are left to special tokens.
    let mut state = 1u64;
    let ids: Vec<u32> = (0..tokens * texts)
        .map(|_| {
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            (5 + (state >> 33) % (vocabulary - 5)) as u32
        })
        .collect();
    let batch = Batch::from_sequences(&ids.chunks(tokens.max(1)).collect::<Vec<_>>())?;
    let before = memory("VmRSS")?;
    let mut seconds = Vec::new();
    for _ in 0..rounds {
        let started = Instant::now();
        let outputs = model.forward(&session, &batch, &ForwardOptions::default())?;
        let last = outputs.last_hidden_state.as_slice()?;
        assert!(
            last.iter().all(|value| value.is_finite()),
            "NaN or infinity"
        );
        seconds.push(started.elapsed().as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    let median = seconds[rounds / 2];
    let beside = memory("VmHWM")?.saturating_sub(before) / 1024;
    println!(
        "{{\"tokens\":{tokens},\"seconds\":{median:.4},\"tokens_per_second\":{:.1},\"mib_beside_weights\":{beside}}}",
        (tokens * texts) as f64 / median
    );
    Ok(())
}

/// A line of Linux's /proc/self/status, in KiB; 0 elsewhere.
fn memory(key: &str) -> Result<u64, Box<dyn Error>> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with(key));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    Ok(number.map_or(Ok(0), str::parse)?)
}
