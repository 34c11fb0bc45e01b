//! Rotary position embedding (Su et al. 2021, <https://arxiv.org/abs/2104.09864>), by halves of a head. What turns the
//! values on turns their gradients back.

use std::sync::Arc;

use bertha_kernels::{RotaryTable, Segments, reference, rope as kernel};
use bertha_tensor::{DType, Tensor};

use super::{OpInfo, differentiable};
use crate::{AutogradError, Session, Var};

pub(super) const INFO: OpInfo = differentiable("rope");

/// Turns the first `heads` heads of each row of `x[T, *]` by the row's place in its sequence, f32 or f64; the rest of a
/// row stays. Queries and keys side by side are one call with twice the heads. In place when nobody else holds `x`.
///
/// # Errors
/// When a row is shorter than the heads, a sequence longer than the table, or `cu_seqlens` does not end at `T`.
pub fn rope(
    session: &Session,
    x: Var,
    cu_seqlens: &[u32],
    heads: usize,
    table: &Arc<RotaryTable>,
) -> Result<Var, AutogradError> {
    let tracked = INFO.admit(session, &[&x])?;
    INFO.float(&[&x])?;
    let (rows, n) = INFO.matrix("the input", &x)?;
    let width = heads * table.head_dim();
    if n < width {
        return Err(INFO.shape_error("the input", x.shape(), format!("[*, {width}] or wider")));
    }
    if cu_seqlens.last().copied() != Some(rows as u32) {
        let expected = format!("{:?} rows, as cu_seqlens ends", cu_seqlens.last());
        return Err(INFO.shape_error("the input", x.shape(), expected));
    }
    let longest = cu_seqlens.windows(2).map(|ends| ends[1] - ends[0]).max();
    if longest.is_some_and(|longest| longest as usize > table.places()) {
        let expected = format!("sequences of at most {} tokens", table.places());
        return Err(INFO.shape_error("the input", x.shape(), expected));
    }
    let to = x.target().filter(|_| tracked);
    let y = turn(session, x.into_tensor(), cu_seqlens, heads, table, false)?;
    let Some(to) = to else {
        return Ok(Var::constant(y));
    };
    let (cu_seqlens, table) = (cu_seqlens.to_vec(), Arc::clone(table));
    Ok(INFO.record(y, move |flow, dy| {
        let dx = turn(flow.session(), dy, &cu_seqlens, heads, &table, true)?;
        flow.add(&to.source, dx)
    }))
}

fn turn(
    session: &Session,
    mut x: Tensor,
    cu_seqlens: &[u32],
    heads: usize,
    table: &RotaryTable,
    back: bool,
) -> Result<Tensor, AutogradError> {
    let stride = x.shape()[1];
    let segments = Segments { cu_seqlens };
    match x.dtype() {
        DType::F64 => {
            reference::rope::<f64>(x.as_mut_slice()?, stride, segments, heads, table, back)
        }
        _ => kernel(
            session.exec(),
            x.as_mut_slice()?,
            stride,
            segments,
            heads,
            table,
            back,
        ),
    }
    Ok(x)
}
