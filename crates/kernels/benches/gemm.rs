//! The product against the machine's roof: GFLOP/s (of bytes GOP/s) and % of the peak of what multiplies, for the shapes of
//! BERT-base and MiniLM, in each precision.
//!
//! ```sh
//! cargo bench -p bertha-kernels --bench gemm               # one thread, then all
//! BERTHA_ISA=avx2 cargo bench -p bertha-kernels --bench gemm
//! cargo bench -p bertha-kernels --bench gemm -- "512 × 768 × 3072" "| f32 |"    # lines with these words
//! ```

mod roof;

use bertha_kernels::{
    Activation, Epilogue, Exec, Int8Weights, Operands, PackedFormat, PackedWeights, WeightSource,
    gemm, gemm_int8, peak_operations, quantize_rows_int8,
};
use roof::{for_each_budget, print_row_of, ramp};

/// Rows, N, K.
const SHAPES: [(usize, usize, usize); 12] = [
    (1024, 3072, 768),
    (1024, 768, 3072),
    (512, 3072, 768),
    (512, 768, 3072),
    (512, 2304, 768),
    (512, 768, 768),
    (128, 3072, 768),
    (128, 1536, 384),
    (128, 384, 1536),
    (128, 1152, 384),
    (16, 1536, 384),
    (1, 384, 384),
];

const PRECISIONS: [(&str, Operands); 4] = [
    ("f32", Operands::F32),
    ("f32-strict", Operands::F32Strict),
    ("bf16", Operands::Bf16),
    ("int8", Operands::Int8),
];

enum Weights {
    Float(PackedWeights),
    Int8(Int8Weights),
}

fn pack(exec: &Exec, operands: Operands, w: &[f32], (n, k): (usize, usize)) -> Weights {
    let format = match operands {
        Operands::F32 => PackedFormat::F32,
        Operands::Bf16 => PackedFormat::Bf16,
        Operands::Int8 => {
            let mut q = vec![0; n * k];
            let scales = quantize_rows_int8(exec, w, k, &mut q);
            return Weights::Int8(Int8Weights::pack_stacked(exec, &[(&q, &scales)], k));
        }
        _ => PackedFormat::F32Strict,
    };
    let sources = [(WeightSource::F32(w), n)];
    Weights::Float(PackedWeights::pack_stacked(exec, &sources, k, format))
}

fn main() {
    for_each_budget(&["rows × N × K", "precision", "epilogue"], |exec| {
        for ((rows, n, k), (precision, operands)) in SHAPES
            .into_iter()
            .flat_map(|shape| PRECISIONS.map(|precision| (shape, precision)))
        {
            let (x, w, bias) = (ramp(rows * k, 7), ramp(n * k, 13), ramp(n, 3));
            let weights = pack(exec, operands, &w, (n, k));
            // Where bytes have no instruction, their rate is told beside that of f32.
            let peak = |exec: &Exec| {
                let peak = peak_operations(exec, operands);
                peak.unwrap_or_else(|| bertha_kernels::peak_flops(exec))
            };
            let mut y = vec![0.0; rows * n];
            let gelu = Activation::GeluErf;
            for (name, activation) in [("bias", Activation::None), ("bias, GELU", gelu)] {
                let epilogue = Epilogue {
                    bias: Some(&bias),
                    activation,
                    residual: None,
                };
                let cells = format!("{rows} × {n} × {k} | {precision} | {name}");
                let flops = 2.0 * (rows * n * k) as f64;
                print_row_of(exec, &cells, flops, peak, || match &weights {
                    Weights::Float(weights) => gemm(exec, rows, &x, weights, epilogue, &mut y),
                    Weights::Int8(weights) => gemm_int8(exec, rows, &x, weights, epilogue, &mut y),
                });
            }
        }
    });
}
