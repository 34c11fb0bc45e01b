//! Writes a BERT-base of random weights into a folder, as f32 or packed as a binarized model is, for measuring sizes and
//! speeds:
//!
//! ```sh
//! cargo run --release -p bertha-compress --example random_bert -- DIR [binary]
//! ```

use std::error::Error;
use std::fs;
use std::path::PathBuf;

use bertha_autograd::Session;
use bertha_compress::{binarized_config, pack_binarized};
use bertha_models::{Config, Head, TrainableModel};
use bertha_nn::Binarization;

fn main() -> Result<(), Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    let dir = PathBuf::from(words.next().ok_or("usage: random_bert DIR [binary]")?);
    let binary = words.next().as_deref() == Some("binary");
    fs::create_dir_all(&dir)?;
    let session = Session::new(None)?;
    let base = br#"{"model_type":"bert","vocab_size":30522,"hidden_size":768,"num_hidden_layers":12,
        "num_attention_heads":12,"intermediate_size":3072,"max_position_embeddings":512,"type_vocab_size":2}"#;
    let mut config = Config::from_json(base, dir.join("config.json"))?;
    if binary {
        config = binarized_config(&config, Binarization::BiBert);
    }
    let model = TrainableModel::new(config, Head::Base, &session, 1)?;
    if !binary {
        model.save(&dir)?;
        return Ok(());
    }
    let packed = pack_binarized(&session, &model)?;
    packed.save(&dir)?;
    let bits: usize = packed.layers.iter().map(|layer| layer.bytes).sum();
    let mib = |bytes: usize| bytes as f64 / f64::from(1 << 20);
    println!(
        "{:.2} MiB of bits and scales, {:.2} MiB in all, of {:.2} MiB as f32",
        mib(bits),
        mib(packed.bytes()),
        mib(model.numel() * 4)
    );
    Ok(())
}
