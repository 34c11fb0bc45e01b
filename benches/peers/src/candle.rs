//! candle's `BertModel` as a worker of the benchmark: f32 on the CPU, the last hidden states of a
//! padded batch, with an attention mask where the lengths differ.

#[path = "../../../examples/bench_encoder/protocol.rs"]
mod protocol;

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::bert::{BertModel, Config};
use protocol::{Arguments, Engine, Result};
use serde_json::{Value, json};

struct Candle {
    model: BertModel,
    config: Config,
    threads: usize,
}

struct Padded {
    ids: Tensor,
    type_ids: Tensor,
    mask: Option<Tensor>,
}

impl Engine for Candle {
    type Input = Padded;
    type Output = Tensor;

    fn about(&self) -> Value {
        json!({
            "engine": "candle",
            "version": version_of("candle-core"),
            "threads": self.threads,
            "gemm": version_of("gemm"),
            "gemm_avx512": cfg!(feature = "avx512"),
            "compiled_for_avx512": cfg!(target_feature = "avx512f"),
            "compiled_for_avx2": cfg!(target_feature = "avx2"),
        })
    }

    fn vocabulary(&self) -> u64 {
        self.config.vocab_size as u64
    }

    fn prepare(&self, sequences: &[&[u32]]) -> Result<Padded> {
        let longest = sequences.iter().map(|ids| ids.len()).max().unwrap_or(0);
        let shape = (sequences.len(), longest);
        let mut ids = vec![0u32; shape.0 * shape.1];
        let mut mask = vec![0u32; shape.0 * shape.1];
        for (row, sequence) in sequences.iter().enumerate() {
            let columns = row * longest..row * longest + sequence.len();
            ids[columns.clone()].copy_from_slice(sequence);
            mask[columns].fill(1);
        }
        let padded = mask.contains(&0);
        let ids = Tensor::from_vec(ids, shape, &Device::Cpu)?;
        let mask = Tensor::from_vec(mask, shape, &Device::Cpu)?;
        Ok(Padded {
            type_ids: ids.zeros_like()?,
            ids,
            mask: padded.then_some(mask),
        })
    }

    fn forward(&self, input: &Padded) -> Result<Tensor> {
        let Padded {
            ids,
            type_ids,
            mask,
        } = input;
        Ok(self.model.forward(ids, type_ids, mask.as_ref())?)
    }

    fn vectors(&self, output: &Tensor, lengths: &[usize]) -> Result<Vec<Vec<f32>>> {
        let sequence = |(row, &length): (usize, &usize)| {
            let vectors = output.get(row)?.narrow(0, 0, length)?;
            Ok(vectors.flatten_all()?.to_vec1()?)
        };
        lengths.iter().enumerate().map(sequence).collect()
    }
}

/// The version of a crate in the lock file.
fn version_of(name: &str) -> Option<&'static str> {
    let lock = include_str!("../Cargo.lock");
    let (_, after) = lock.split_once(&format!("name = \"{name}\"\nversion = \""))?;
    after.split('"').next()
}

fn main() -> Result<()> {
    let arguments = Arguments::parse()?;
    if arguments.precision != "f32" {
        return Err("candle's encoders run in f32 here".into());
    }
    let threads = candle_core::utils::get_num_threads();
    if threads != arguments.threads {
        let wanted = arguments.threads;
        return Err(format!(
            "candle runs {threads} threads, expected {wanted}: set RAYON_NUM_THREADS={wanted}"
        )
        .into());
    }
    let config = std::fs::read(arguments.model.join("config.json"))?;
    let config: Config = serde_json::from_slice(&config)?;
    let weights =
        candle_core::safetensors::load(arguments.model.join("model.safetensors"), &Device::Cpu)?;
    let weights = VarBuilder::from_tensors(weights, DType::F32, &Device::Cpu);
    let engine = Candle {
        model: BertModel::load(weights, &config)?,
        config,
        threads,
    };
    protocol::serve(&engine, &arguments.cases)
}
