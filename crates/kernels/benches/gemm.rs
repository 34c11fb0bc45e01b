//! The f32 product against the machine's roof: GFLOP/s and % of the multiply-add peak, for the shapes
//! of BERT-base and MiniLM.
//!
//! ```sh
//! cargo bench -p bertha-kernels --bench gemm               # one thread, then all
//! BERTHA_ISA=avx2 cargo bench -p bertha-kernels --bench gemm
//! cargo bench -p bertha-kernels --bench gemm -- "512 × 768 × 3072"    # lines with these words
//! ```

mod roof;

use bertha_kernels::{Activation, Epilogue, PackedWeights, WeightSource, gemm};
use roof::{for_each_budget, print_row, ramp};

/// Rows, N, K.
const SHAPES: [(usize, usize, usize); 10] = [
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

fn main() {
    for_each_budget(&["rows × N × K", "epilogue"], |exec| {
        for (rows, n, k) in SHAPES {
            let (x, w, bias) = (ramp(rows * k, 7), ramp(n * k, 13), ramp(n, 3));
            let weights = PackedWeights::pack(exec, WeightSource::F32(&w), n, k);
            let mut y = vec![0.0; rows * n];
            let gelu = Activation::GeluErf;
            for (name, activation) in [("bias", Activation::None), ("bias, GELU", gelu)] {
                let epilogue = Epilogue {
                    bias: Some(&bias),
                    activation,
                    residual: None,
                };
                let cells = format!("{rows} × {n} × {k} | {name}");
                let flops = 2.0 * (rows * n * k) as f64;
                print_row(exec, &cells, flops, || {
                    gemm(exec, rows, &x, &weights, epilogue, &mut y);
                });
            }
        }
    });
}
