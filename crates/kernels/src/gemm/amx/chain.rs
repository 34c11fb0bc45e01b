//! Two products in a row, `act(x·Uᵀ + b)·Dᵀ`, of which the first writes the second's inputs in their tiles: rounded, a half or
//! less of the memory that f32 would take, and read once less.

use std::sync::atomic::AtomicBool;

use super::Inputs;
use super::driver::{Packed, Strips, Sums, To, Weights, depth, gemm, multiply, pack, strips_words};
use super::rows::{Rows, plain};
use crate::Exec;
use crate::amx::{Amx, BLOCK, ROW_BYTES, TILE_BYTES, TILE_ROWS};
use crate::exec::SharedMut;
use crate::gemm::epilogue::{Epilogue, Finish};
use crate::gemm::{CHUNK, with_words};

/// Whether the first product's sums are whole after one block of K, as its strips need them.
pub(in crate::gemm) fn chains<O: Rows + Sums>(up: Weights<'_>, down: Weights<'_>) -> bool {
    let steps = up.k.div_ceil(O::STEP);
    depth::<O>(steps) == steps && O::STEP == BLOCK && up.n == down.k
}

/// `y = act(x·Downᵀ …)` of what the first product's epilogue, which has no residual, makes of `x·Upᵀ`.
pub(in crate::gemm) fn gemm_chain<O: Rows + Sums>(
    exec: &Exec,
    amx: Amx,
    x: &[f32],
    (up, between): (Weights<'_>, Epilogue<'_>),
    (down, epilogue): (Weights<'_>, Epilogue<'_>),
    y: &mut [f32],
) {
    let (k, n) = (up.k, down.n);
    let chunks = x.chunks(CHUNK * k).zip(y.chunks_mut(CHUNK * n));
    for (chunk, (x, y)) in chunks.enumerate() {
        let rows = y.len() / n;
        let epilogue = Epilogue {
            residual: epilogue
                .residual
                .map(|all| &all[chunk * CHUNK * n..][..y.len()]),
            ..epilogue
        };
        let inputs = strips_words::<O>(rows, k);
        let inner = strips_words::<O>(rows, up.n);
        with_words(inputs + inner + 2 * rows, |room| {
            let (packed, room) = room.split_at_mut(inputs);
            let (strips, room) = room.split_at_mut(inner);
            let (notes, no_notes) = room.split_at_mut(rows);
            pack::<O>(exec, amx, x, k, packed, notes);
            let beyond = AtomicBool::new(false);
            let first = Packed { x, packed, notes };
            let shared = SharedMut::new(strips);
            let to = To::Strips(Strips {
                epilogue: between,
                packed: &shared,
                panels: up.n.div_ceil(BLOCK),
                beyond: &beyond,
            });
            multiply::<O>(exec, amx, first, up, to);
            no_notes.fill(0.0);
            let second = Packed {
                x: &[],
                packed: strips,
                notes: no_notes,
            };
            let shared = SharedMut::new(y);
            let to = To::Rows(Finish {
                epilogue,
                exactness: O::EXACTNESS,
                earlier: false,
                before: None,
                y: &shared,
            });
            multiply::<O>(exec, amx, second, down, to);
            // Rows of which values do not fit go the way of two products.
            let mut again = Vec::new();
            if beyond.into_inner() {
                again.extend((0..rows).filter(|&row| !plain(largest::<O>(strips, row, up.n))));
            }
            again
        })
        .into_iter()
        .for_each(|row| {
            let mut inner = vec![0.0; up.n];
            let input = Inputs {
                rows: 1,
                x: &x[row * k..][..k],
            };
            gemm::<O>(exec, amx, input, up, between, None, &mut inner);
            let input = Inputs { rows: 1, x: &inner };
            let epilogue = Epilogue {
                residual: epilogue.residual.map(|all| &all[row * n..][..n]),
                ..epilogue
            };
            gemm::<O>(
                exec,
                amx,
                input,
                down,
                epilogue,
                None,
                &mut y[row * n..][..n],
            );
        });
    }
}

/// The largest magnitude of a packed row of `k` values; NaN where one is.
fn largest<O: Rows>(strips: &[f32], row: usize, k: usize) -> f32 {
    let (strip, r) = (row / BLOCK, row % BLOCK);
    let steps = k.div_ceil(O::STEP);
    let mut most = 0.0f32;
    for step in 0..steps {
        let at = (strip * steps + step) * O::STEP_BYTES
            + r / TILE_ROWS * TILE_BYTES
            + r % TILE_ROWS * ROW_BYTES;
        let words = &strips[at / size_of::<f32>()..][..ROW_BYTES / size_of::<f32>()];
        for bits in words.iter().map(|word| word.to_bits()) {
            for half in [bits << 16, bits & 0xFFFF_0000] {
                let value = f32::from_bits(half).abs();
                if value.is_nan() {
                    return f32::NAN;
                }
                most = most.max(value);
            }
        }
    }
    most
}
