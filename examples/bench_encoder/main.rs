//! bertha as a worker of the benchmark beside other engines: answers `CASE ITERATIONS` lines of
//! standard input with the seconds of forward passes. `benches/peers/run.sh` starts it.
//!
//! ```sh
//! echo "8x128 5" | cargo run --release --example bench_encoder -- \
//!     --model target/peers/models/minilm --cases benches/peers/cases.json --threads 2
//! ```

mod protocol;

use bertha::Precision;
use bertha::autograd::Session;
use bertha::kernels::peak_flops;
use bertha::models::{ForwardOptions, Model, Outputs, load};
use bertha::nn::Batch;
use protocol::{Arguments, Engine, Result};
use serde_json::{Value, json};

struct Bertha {
    session: Session,
    model: Box<dyn Model>,
}

impl Engine for Bertha {
    type Input = Batch;
    type Output = Outputs;

    fn about(&self) -> Value {
        let exec = self.session.exec();
        json!({
            "engine": "bertha",
            "version": env!("CARGO_PKG_VERSION"),
            "threads": exec.threads(),
            "isa": exec.isa().name(),
            "precision": self.session.precision().name(),
            "peak_gflops": (peak_flops(exec) / 1e9).round(),
        })
    }

    fn vocabulary(&self) -> u64 {
        self.model.info().vocab_size as u64
    }

    fn prepare(&self, sequences: &[&[u32]]) -> Result<Batch> {
        Ok(Batch::from_sequences(sequences)?)
    }

    fn forward(&self, batch: &Batch) -> Result<Outputs> {
        let options = ForwardOptions::default();
        Ok(self.model.forward(&self.session, batch, &options)?)
    }

    fn vectors(&self, outputs: &Outputs, lengths: &[usize]) -> Result<Vec<Vec<f32>>> {
        let width = self.model.info().hidden_size;
        let mut rest = outputs.last_hidden_state.as_slice()?;
        let mut take = |length: &usize| {
            let (vectors, after) = rest.split_at(length * width);
            rest = after;
            vectors.to_vec()
        };
        Ok(lengths.iter().map(&mut take).collect())
    }
}

fn main() -> Result<()> {
    let arguments = Arguments::parse()?;
    let precision = Precision::from_name(&arguments.precision).ok_or("f32, bf16 or int8")?;
    let session = Session::new(Some(arguments.threads))?.with_precision(precision);
    let model = load(&arguments.model, &session)?;
    protocol::serve(&Bertha { session, model }, &arguments.cases)
}
