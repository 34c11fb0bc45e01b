//! Embeds a few texts and prints how alike they are.
//!
//! ```sh
//! ./scripts/fetch-model.sh
//! cargo run --release --example embed -- models/all-MiniLM-L6-v2
//! ```

use bertha::{Encoder, cosine_similarity};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let model = std::env::args().nth(1);
    let model = model.unwrap_or_else(|| "models/all-MiniLM-L6-v2".into());
    let texts = [
        "A cat sits on the mat.",
        "A kitten is lying on a rug.",
        "Stocks fell sharply today.",
    ];
    let encoder = Encoder::from_dir(model)?;
    let embeddings = encoder.embed(&texts)?;
    let similarity = cosine_similarity(embeddings.view(), embeddings.view());
    for (i, a) in texts.iter().enumerate() {
        for (j, b) in texts.iter().enumerate().skip(i + 1) {
            println!("{:.3}  {a}  |  {b}", similarity[[i, j]]);
        }
    }
    Ok(())
}
