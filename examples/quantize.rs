//! Makes a model folder's weights 8 bits, and tells what became of them:
//!
//! ```sh
//! cargo run --release --features compress --example quantize -- MODEL_DIR OUTPUT_DIR
//! ```
//!
//! The tokenizer's files are not copied: `bertha quantize` does that too.

use std::error::Error;

use bertha::autograd::Session;
use bertha::compress::{Settings, quantize};
use bertha::models::{Config, load_checkpoint};
use bertha::nn::WeightFormat;
use bertha::tensor::Checkpoint;

fn main() -> Result<(), Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    let usage = "usage: quantize MODEL_DIR OUTPUT_DIR";
    let (dir, output) = (words.next().ok_or(usage)?, words.next().ok_or(usage)?);
    let session = Session::new(None)?;
    let config = Config::from_file(format!("{dir}/config.json"))?;
    let checkpoint = Checkpoint::open_dir(&dir)?;
    let model = load_checkpoint(&checkpoint, &config, config.head(), &session)?;
    let settings = Settings::new(WeightFormat::Int8);
    let quantized = quantize(&session, &*model, &checkpoint, &config, &settings, None)?;
    for layer in &quantized.layers {
        println!("{}: relative error {:.4}", layer.weight, layer.weight_error);
    }
    println!(
        "{} of {} bytes",
        quantized.bytes(),
        checkpoint.total_bytes()
    );
    std::fs::create_dir_all(&output)?;
    quantized.save(&output)?;
    Ok(())
}
