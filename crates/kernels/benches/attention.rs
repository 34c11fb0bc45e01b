//! Attention against the machine's roof: GFLOP/s of its two products (the softmax counts as time only)
//! and % of the multiply-add peak, for the heads of BERT-base and MiniLM.
//!
//! ```sh
//! cargo bench -p bertha-kernels --bench attention          # one thread, then all
//! ```

mod roof;

use bertha_kernels::{
    AttentionInputs, AttentionShape, Mask, PackedFormat, Segments, Strided, attention,
};
use roof::{for_each_budget, print_row, ramp};

/// Sequences, tokens in each, heads, head dimension.
const SHAPES: [(usize, usize, usize, usize); 6] = [
    (1, 128, 12, 64),
    (8, 128, 12, 64),
    (8, 512, 12, 64),
    (8, 128, 12, 32),
    (8, 512, 12, 32),
    (64, 16, 12, 32),
];

fn main() {
    for_each_budget(&["sequences × tokens", "heads × dimension"], |exec| {
        for (sequences, tokens, heads, head_dim) in SHAPES {
            let width = heads * head_dim;
            let qkv = ramp(sequences * tokens * 3 * width, 7);
            let part = |i: usize| Strided {
                data: &qkv[i * width..],
                stride: 3 * width,
            };
            let ends = (0..=sequences).map(|i| (i * tokens) as u32);
            let cu_seqlens: Vec<u32> = ends.collect();
            let segments = Segments {
                cu_seqlens: &cu_seqlens,
            };
            let shape = AttentionShape {
                heads,
                head_dim,
                scale: (head_dim as f32).powf(-0.5),
            };
            let mut out = vec![0.0; sequences * tokens * width];
            let cells = format!("{sequences} × {tokens} | {heads} × {head_dim}");
            let flops = 4.0 * (sequences * tokens * tokens * width) as f64;
            print_row(exec, &cells, flops, || {
                let parts = [part(0), part(1), part(2)];
                let inputs = AttentionInputs::of_sequences(parts, segments, &Mask::Full, shape);
                attention(exec, PackedFormat::F32Strict, inputs, None, &mut out, None);
            });
        }
    });
}
