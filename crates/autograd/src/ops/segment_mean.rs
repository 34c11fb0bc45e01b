//! The mean of the rows of each sequence.

use bertha_kernels::Float as Real;
use bertha_tensor::{DType, Element, Tensor};

use super::broadcast::with_float;
use super::{Float, OpInfo, differentiable};
use crate::{AutogradError, Session, Var};

pub(super) const INFO: OpInfo = differentiable("segment_mean");

/// The mean of each sequence's rows: `x[T,N]` to `[B,N]`, f32 or f64; `cu_seqlens` has the B+1 offsets. Sums run in f64,
/// in the order of the rows.
///
/// # Errors
/// When a sequence has no rows, or `cu_seqlens` does not end at `T`.
pub fn segment_mean(session: &Session, x: &Var, cu_seqlens: &[u32]) -> Result<Var, AutogradError> {
    let tracked = INFO.admit(session, &[x])?;
    let float = INFO.float(&[x])?;
    let (rows, n) = INFO.matrix("the input", x)?;
    let ends = cu_seqlens.windows(2);
    if cu_seqlens.last().copied().unwrap_or(0) as usize != rows
        || ends.clone().any(|ends| ends[0] >= ends[1])
    {
        let expected =
            format!("rows for the sequences that {cu_seqlens:?} bounds, at least one each");
        return Err(INFO.shape_error("the input", x.shape(), expected));
    }
    let mut y = Tensor::scratch_in(session.pool(), x.dtype(), &[ends.len(), n])?;
    with_float!(float, T => forward::<T>(&x.tensor().contiguous(), cu_seqlens, n, &mut y)?);
    let Some(to) = x.target().filter(|_| tracked) else {
        return Ok(Var::constant(y));
    };
    let cu_seqlens = cu_seqlens.to_vec();
    Ok(INFO.record(y, move |flow, dy| {
        let dy = dy.contiguous();
        match dy.dtype() {
            DType::F64 => {
                let dy = dy.as_slice::<f64>()?;
                flow.write(&to, |dx, add| backward(dx, add, &cu_seqlens, n, dy))
            }
            _ => {
                let dy = dy.as_slice::<f32>()?;
                flow.write(&to, |dx, add| backward(dx, add, &cu_seqlens, n, dy))
            }
        }
    }))
}

fn forward<T: Element + Real>(
    x: &Tensor,
    cu_seqlens: &[u32],
    n: usize,
    y: &mut Tensor,
) -> Result<(), AutogradError> {
    let x = x.as_slice::<T>()?;
    let mut sums = vec![0.0f64; n];
    for (ends, y) in cu_seqlens
        .windows(2)
        .zip(y.as_mut_slice::<T>()?.chunks_exact_mut(n.max(1)))
    {
        let rows = ends[0] as usize..ends[1] as usize;
        sums.fill(0.0);
        for row in x[rows.start * n..rows.end * n].chunks_exact(n) {
            for (sum, &value) in sums.iter_mut().zip(row) {
                *sum += value.to_f64();
            }
        }
        for (y, sum) in y.iter_mut().zip(&sums) {
            *y = T::from_f64(sum / rows.len() as f64);
        }
    }
    Ok(())
}

fn backward<T: Element + Real>(dx: &mut [T], add: bool, cu_seqlens: &[u32], n: usize, dy: &[T]) {
    for (ends, dy) in cu_seqlens.windows(2).zip(dy.chunks_exact(n.max(1))) {
        let rows = ends[0] as usize..ends[1] as usize;
        let share = 1.0 / rows.len() as f64;
        for dx in dx[rows.start * n..rows.end * n].chunks_exact_mut(n) {
            for (dx, &dy) in dx.iter_mut().zip(dy) {
                let own: f64 = dy.to_f64() * share;
                let before: f64 = if add { dx.to_f64() } else { 0.0 };
                *dx = T::from_f64(before + own);
            }
        }
    }
}
