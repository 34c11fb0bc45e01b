//! Matrix product with a prepacked weight and a fused last pass: `Y = act(X·Wᵀ + bias) + residual`.
//!
//! The idea (Goto & van de Geijn 2008, <https://doi.org/10.1145/1356052.1356053>): a *tile* of `Y`, a
//! few rows by three vectors of columns, stays in registers while the product runs along K.
//!
//! - `weights`: `W[N,K]` is packed once, at load, into panels of as many columns as a tile has;
//! - `pack`: the transposition that both operands go through;
//! - `tile`: the register tile, written once over the SIMD trait;
//! - `int8`: the product with weights of 8 bits, with exact sums;
//! - `low_bit`: weights in codes of 1 to 4 bits, expanded as they are read;
//! - `driver`: blocks that fit the caches, and their division among threads;
//! - `epilogue`: bias, activation and residual, while a finished tile is still in L1;
//! - `matmul`: the product of two matrices of any strides, packed as it runs, hence the gradient of a weight;
//! - `column_sums`: the gradient of a bias;
//! - `portable`: the tier for any CPU, on `matrixmultiply`;
//! - `reference`: three loops.

#[cfg(target_arch = "x86_64")]
pub(crate) mod amx;
mod column_sums;
pub(crate) mod driver;
mod epilogue;
mod int8;
mod low_bit;
mod matmul;
pub(crate) mod pack;
mod portable;
pub(crate) mod reference;
#[cfg(test)]
mod tests;
pub(crate) mod tile;
#[cfg(test)]
mod training_tests;
mod weights;

pub use column_sums::column_sums;
pub use epilogue::Epilogue;
pub(crate) use epilogue::{Exactness, Finish, Place};
pub use int8::{Int8Weights, gemm_int8, quantize_row_int8, quantize_rows_int8};
pub use low_bit::{LowBitSource, LowBitWeights};
pub use matmul::{Matrix, batched_matmul, gemm_tn, matmul, matmul_in};
pub use weights::{PackedFormat, PackedWeights, WeightSource};

use std::cell::RefCell;

use crate::Exec;
#[cfg(target_arch = "x86_64")]
use crate::amx::{Bf16, Halves};
use crate::bf16::PairRows;
use crate::buffer::AlignedFloats;
use crate::isa::Tier;
#[cfg(target_arch = "x86_64")]
use driver::Output;

/// `y[T,N] = act(x[T,K] · W[N,K]ᵀ + bias[N]) + residual[T,N]`, all row-major f32.
///
/// Runs on the instruction set that the weights were packed for. A row of `y` has the same bits
/// whatever other rows there are and however many threads run.
///
/// # Panics
/// When a slice has another length than the shapes say.
pub fn gemm(
    exec: &Exec,
    rows: usize,
    x: &[f32],
    weights: &PackedWeights,
    epilogue: Epilogue<'_>,
    y: &mut [f32],
) {
    run(exec, rows, x, weights, epilogue, None, y);
}

/// [`gemm`] that also writes `before[T,N] = x·Wᵀ + bias`, what the activation was applied to: its gradient
/// needs that.
///
/// # Panics
/// As [`gemm`], and when `before` is not as long as `y`.
pub fn gemm_keeping(
    exec: &Exec,
    rows: usize,
    x: &[f32],
    weights: &PackedWeights,
    epilogue: Epilogue<'_>,
    before: &mut [f32],
    y: &mut [f32],
) {
    assert_eq!(
        before.len(),
        y.len(),
        "room for every value before activation"
    );
    run(exec, rows, x, weights, epilogue, Some(before), y);
}

fn run(
    exec: &Exec,
    rows: usize,
    x: &[f32],
    weights: &PackedWeights,
    epilogue: Epilogue<'_>,
    before: Option<&mut [f32]>,
    y: &mut [f32],
) {
    let (n, k) = (weights.n(), weights.k());
    if gemm_is_empty((rows, n, k), x, epilogue, y) {
        return;
    }
    #[cfg(target_arch = "x86_64")]
    if let Some((amx, format, tiles)) = weights.tiles() {
        let inputs = amx::Inputs { rows, x };
        return match format {
            PackedFormat::Bf16 => {
                amx::gemm::<Bf16>(exec, amx, inputs, tiles, epilogue, before, y);
            }
            PackedFormat::F32 | PackedFormat::F32Strict => {
                amx::gemm::<Halves>(exec, amx, inputs, tiles, epilogue, before, y);
            }
        };
    }
    match weights.isa().0 {
        Tier::Portable(_) => portable::gemm(exec, rows, x, weights, epilogue, before, y),
        #[cfg(target_arch = "x86_64")]
        _ => on_tiles(
            exec,
            rows,
            (x, k),
            driver::Panels::Stored(weights),
            epilogue,
            before,
            y,
        ),
    }
}

/// By the driver, with inputs in the words that it takes.
#[cfg(target_arch = "x86_64")]
fn on_tiles(
    exec: &Exec,
    rows: usize,
    (x, k): (&[f32], usize),
    panels: driver::Panels<'_>,
    epilogue: Epilogue<'_>,
    before: Option<&mut [f32]>,
    y: &mut [f32],
) {
    if !panels.are_pairs() {
        return driver::gemm(exec, rows, x, panels, epilogue, before, Output::Values(y));
    }
    with_words(rows * k.div_ceil(2), |room| {
        pair_inputs(exec, panels.isa(), (x, k), room);
        driver::gemm(
            exec,
            rows,
            room,
            panels,
            epilogue,
            before,
            Output::Values(y),
        );
    });
}

/// Rounds rows of `k` values into words of two.
#[cfg(target_arch = "x86_64")]
fn pair_inputs(exec: &Exec, isa: crate::Isa, (x, k): (&[f32], usize), to: &mut [f32]) {
    exec.for_rows(to, k.div_ceil(2), k, |rows, to| {
        let from = &x[rows.start * k..rows.end * k];
        isa.run_bf16(PairRows { from, k, to });
    });
}

/// Rows at a time: what lies between two products stays near.
#[cfg(target_arch = "x86_64")]
const CHUNK: usize = 1024;

/// [`gemm_chain`] on pairs of bf16, of which the first product writes what the second reads.
#[cfg(target_arch = "x86_64")]
fn chain_of_pairs(
    exec: &Exec,
    x: &[f32],
    (up, between): (&PackedWeights, Epilogue<'_>),
    (down, epilogue): (&PackedWeights, Epilogue<'_>),
    y: &mut [f32],
) {
    let (k, n) = (up.k(), down.n());
    let (first, second) = (driver::Panels::Stored(up), driver::Panels::Stored(down));
    let chunks = x.chunks(CHUNK * k).zip(y.chunks_mut(CHUNK * n));
    for (chunk, (x, y)) in chunks.enumerate() {
        let rows = y.len() / n;
        let residual = epilogue.residual;
        let residual = residual.map(|all| &all[chunk * CHUNK * n..][..y.len()]);
        let epilogue = Epilogue {
            residual,
            ..epilogue
        };
        let inputs = rows * k.div_ceil(2);
        with_words(inputs + rows * up.n() / 2, |room| {
            let (inputs, inner) = room.split_at_mut(inputs);
            pair_inputs(exec, up.isa(), (x, k), inputs);
            let to = Output::Pairs(inner);
            driver::gemm(exec, rows, inputs, first, between, None, to);
            let to = Output::Values(y);
            driver::gemm(exec, rows, inner, second, epilogue, None, to);
        });
    }
}

/// `y = act₂(act₁(x·Uᵀ + b₁)·Dᵀ + b₂) + residual` for `x[T,K]`, `U[I,K]` and `D[N,I]`, without what lies between ever being
/// written as f32; whether it was computed. Where it was not, for the machine or the weights do not suit, it takes two calls of
/// [`gemm`]. The first epilogue has no residual.
///
/// # Panics
/// When a slice has another length than the shapes say, or the first epilogue has a residual.
pub fn gemm_chain(
    exec: &Exec,
    rows: usize,
    x: &[f32],
    (up, between): (&PackedWeights, Epilogue<'_>),
    (down, epilogue): (&PackedWeights, Epilogue<'_>),
    y: &mut [f32],
) -> bool {
    assert!(
        between.residual.is_none(),
        "no residual between the products"
    );
    assert_eq!(x.len(), rows * up.k(), "x is [{rows}, {}]", up.k());
    if up.k() == 0 || gemm_is_empty((rows, down.n(), 0), &[], epilogue, y) {
        return false;
    }
    #[cfg(target_arch = "x86_64")]
    if let (Some((amx, format, first)), Some((_, second_format, second))) =
        (up.tiles(), down.tiles())
        && format == second_format
    {
        let (first, second) = ((first, between), (second, epilogue));
        match format {
            PackedFormat::Bf16 if amx::chains::<Bf16>(first.0, second.0) => {
                amx::gemm_chain::<Bf16>(exec, amx, x, first, second, y);
                return true;
            }
            PackedFormat::F32 if amx::chains::<Halves>(first.0, second.0) => {
                amx::gemm_chain::<Halves>(exec, amx, x, first, second, y);
                return true;
            }
            _ => {}
        }
    }
    #[cfg(target_arch = "x86_64")]
    if driver::gives_pairs(driver::Panels::Stored(up))
        && driver::Panels::Stored(down).are_pairs()
        && up.n() == down.k()
    {
        chain_of_pairs(exec, x, (up, between), (down, epilogue), y);
        return true;
    }
    false
}

thread_local! {
    static WORDS: RefCell<AlignedFloats> = RefCell::new(AlignedFloats::zeroed(0));
}

/// Room for the inputs of a product as words of 32 bits, their contents unspecified.
pub(crate) fn with_words<R>(len: usize, with: impl FnOnce(&mut [f32]) -> R) -> R {
    WORDS.with_borrow_mut(|room| with(room.at_least(len)))
}

/// [`gemm`] with weights of 1 to 4 bits. The values that codes stand for are multiplied as f32.
///
/// # Panics
/// As [`gemm`].
pub fn gemm_low_bit(
    exec: &Exec,
    rows: usize,
    x: &[f32],
    weights: &LowBitWeights,
    epilogue: Epilogue<'_>,
    y: &mut [f32],
) {
    if gemm_is_empty((rows, weights.n(), weights.k()), x, epilogue, y) {
        return;
    }
    match weights.isa().0 {
        Tier::Portable(_) => portable::gemm_low_bit(exec, rows, x, weights, epilogue, y),
        #[cfg(target_arch = "x86_64")]
        _ => {
            let panels = driver::Panels::LowBit(weights);
            on_tiles(exec, rows, (x, weights.k()), panels, epilogue, None, y);
        }
    }
}

/// Whether there is nothing to compute, once the slices have been found to have the lengths of the shapes.
pub(crate) fn gemm_is_empty(
    (rows, n, k): (usize, usize, usize),
    x: &[f32],
    epilogue: Epilogue<'_>,
    y: &[f32],
) -> bool {
    assert_eq!(x.len(), rows * k, "x is [{rows}, {k}]");
    assert_eq!(y.len(), rows * n, "y is [{rows}, {n}]");
    if let Some(bias) = epilogue.bias {
        assert_eq!(bias.len(), n, "a bias for each of {n} columns");
    }
    if let Some(residual) = epilogue.residual {
        assert_eq!(residual.len(), y.len(), "a residual for every value");
    }
    y.is_empty()
}
