//! Draws the records of a training run:
//! `cargo run -p bertha-train --example curve -- metrics.jsonl curve.svg`

use std::error::Error;
use std::io::Write;

use bertha_tensor::AtomicFile;
use bertha_train::{curve, record};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(from), Some(to), None) = (arguments.next(), arguments.next(), arguments.next())
    else {
        return Err("usage: curve METRICS.JSONL CURVE.SVG".into());
    };
    let records = record::read_records(&from)?;
    let mut file = AtomicFile::create(&to)?;
    file.write_all(curve::draw(&from, &curve::panels(&records)).as_bytes())?;
    file.commit()?;
    Ok(())
}
