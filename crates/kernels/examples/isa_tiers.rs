//! Prints the instruction sets of this machine below its best, one a line: what a test run has to
//! force through `BERTHA_ISA` to have covered all.

use bertha_kernels::Isa;

fn main() {
    let available = Isa::available();
    let lower = available.len() - 1;
    for isa in &available[..lower] {
        println!("{isa}");
    }
}
