//! Semantic search over the lines of a text file, held in memory.
//!
//! ```sh
//! ./scripts/fetch-model.sh
//! cargo run --release --example search -- models/all-MiniLM-L6-v2 README.md "who is it for?"
//! ```

use bertha::{Encoder, top_k};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, file, question] = arguments.as_slice() else {
        return Err("usage: search MODEL_DIR FILE QUESTION".into());
    };
    let text = std::fs::read_to_string(file)?;
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();

    let encoder = Encoder::builder(model).truncate(true).build()?;
    let corpus = encoder.embed(&lines)?;
    let query = encoder.embed(&[question])?;
    for hit in top_k(query.row(0), corpus.view(), 5) {
        println!("{:.3}  {}", hit.score, lines[hit.index]);
    }
    Ok(())
}
