//! Times updates of a masked LM by AdamW over random tokens: forward pass, backward pass, clipping and optimizer.
//!
//! ```sh
//! cargo run --release --features train --example time_training -- CONFIG_JSON LENGTHS PRECISION [SECONDS]
//! ```
//!
//! LENGTHS are the tokens of each sequence, as in `8x128` or `30,12,77`; PRECISION is f32 or bf16. Prints a JSON object.

use std::error::Error;
use std::fs;
use std::time::{Duration, Instant};

use bertha::autograd::{Gradients, Precision, Session};
use bertha::kernels::peak_flops;
use bertha::models::{Config, Head, TrainableModel};
use bertha::nn::Batch;
use bertha::train::collate::{Targets, TrainingBatch};
use bertha::train::optim::{
    GroupOptions, Optimizer, OptimizerConfig, ParameterGroups, clip_factor, global_norm,
};
use bertha::train::trainer::{batch_loss, loss_terms};

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [config, lengths, precision, rest @ ..] = words.as_slice() else {
        return Err("usage: time_training CONFIG_JSON LENGTHS PRECISION [SECONDS]".into());
    };
    let budget = Duration::from_secs_f64(rest.first().map_or(Ok(10.0), |word| word.parse())?);
    let precision = Precision::from_name(precision).ok_or("the precision is f32 or bf16")?;
    let session = Session::new(None)?.with_precision(precision);
    let config = Config::from_json(&fs::read(config)?, config)?;
    let model = TrainableModel::new(config, Head::MaskedLm, &session, 1)?;
    let batch = batch(&parse(lengths)?, model.model.info().vocab_size as u32)?;

    let shapes = model.parameters.iter().map(|p| (p.name(), p.shape()));
    let groups = ParameterGroups::new(shapes, &GroupOptions::default())?;
    let mut optimizer = Optimizer::new(OptimizerConfig::adamw(), groups)?;
    let mut gradients = Gradients::new();
    let over = loss_terms(&batch) as f64;
    let mut updates = Vec::new();
    let started = Instant::now();
    let mut step = 0;
    // The first two make buffers.
    while updates.len() < 3 || started.elapsed() < budget {
        let pass = session.training(1, step);
        step += 1;
        gradients.clear();
        let begun = Instant::now();
        let loss = batch_loss(&pass, model.model.as_ref(), &batch, over, 0.0)?;
        let loss = loss.ok_or("no token is masked")?;
        let forward = begun.elapsed();
        loss.backward(&pass, &mut gradients)?;
        let backward = begun.elapsed() - forward;
        let mut found = Vec::new();
        for (parameter, gradient) in gradients.iter() {
            found.push((parameter.name(), gradient.as_slice::<f32>()?));
        }
        let exec = session.exec();
        let scale = clip_factor(global_norm(exec, found)?, 1.0);
        optimizer.step_parameters(exec, &model.parameters, &gradients, 1e-4, scale)?;
        if !loss.value.is_finite() {
            return Err("the loss is no number".into());
        }
        if step > 2 {
            let all = begun.elapsed();
            let parts = [all, forward, backward, all - forward - backward];
            updates.push(parts.map(|part| part.as_secs_f64()));
        }
    }
    let median = |part: usize| {
        let mut values: Vec<f64> = updates.iter().map(|update| update[part]).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    println!(
        "{}",
        serde_json::json!({
            "seconds": median(0),
            "forward": median(1),
            "backward": median(2),
            "optimizer": median(3),
            "tokens": batch.batch.tokens(),
            "updates": updates.len(),
            "peak_flops": peak_flops(session.exec()),
            "mib": peak_mib()?,
        })
    );
    Ok(())
}

/// `8x128` or `30,12,77`.
fn parse(lengths: &str) -> Result<Vec<usize>, Box<dyn Error>> {
    Ok(match lengths.split_once('x') {
        Some((count, length)) => vec![length.parse()?; count.parse()?],
        None => lengths
            .split(',')
            .map(str::parse)
            .collect::<Result<_, _>>()?,
    })
}

/// Random ids, of which 3 in 20 are to be guessed.
fn batch(lengths: &[usize], vocabulary: u32) -> Result<TrainingBatch, Box<dyn Error>> {
    // Knuth's generator (MMIX); ids below 5 are left to special tokens.
    let mut state = 1u64;
    let mut id = || {
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        5 + ((state >> 33) % u64::from(vocabulary - 5)) as u32
    };
    let sequences: Vec<Vec<u32>> = lengths
        .iter()
        .map(|&length| (0..length).map(|_| id()).collect())
        .collect();
    let batch = Batch::from_sequences(&sequences)?;
    let rows: Vec<u32> = (0..batch.tokens() as u32)
        .filter(|row| row * 3 % 20 < 3)
        .collect();
    let targets = Targets::Masked {
        ids: rows.iter().map(|_| id()).collect(),
        rows,
        classes: None,
    };
    Ok(TrainingBatch {
        batch,
        targets,
        examples: (0..lengths.len() as u32).collect(),
    })
}

/// The most memory that the process had, by Linux's /proc/self/status; 0 elsewhere.
fn peak_mib() -> Result<u64, Box<dyn Error>> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM"));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    Ok(number.map_or(Ok(0), str::parse::<u64>)? / 1024)
}
