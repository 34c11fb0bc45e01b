//! Multi-head self-attention over packed sequences, softmax streamed.

use bertha_kernels::{AttentionShape, Mask, Segments, Strided, attention as kernel};

use super::{OpInfo, forward_only};
use crate::{AutogradError, Session, Var};

pub(super) const INFO: OpInfo = forward_only("attention");

/// Attention of each sequence over itself: `qkv[T, 3·H·D]` holds a token's queries, keys and values
/// side by side; gives `[T, H·D]`, f32. `cu_seqlens` has the B+1 offsets of the sequences.
///
/// # Errors
/// When the shapes disagree, or `qkv` is tracked.
pub fn attention(
    session: &Session,
    qkv: &Var,
    cu_seqlens: &[u32],
    mask: Mask,
    shape: AttentionShape,
) -> Result<Var, AutogradError> {
    INFO.admit(&[qkv])?;
    let hidden = shape.heads * shape.head_dim;
    let tokens = INFO.rows_of("the queries, keys and values", qkv, 3 * hidden)?;
    if cu_seqlens.last().copied() != Some(tokens as u32) {
        let expected = format!("{:?} rows, as cu_seqlens ends", cu_seqlens.last());
        return Err(INFO.shape_error("the queries, keys and values", qkv.shape(), expected));
    }
    let mut out = session.scratch(&[tokens, hidden])?;
    let data = qkv.as_slice()?;
    let part = |i: usize| Strided {
        data: data.get(i * hidden..).unwrap_or(&[]),
        stride: 3 * hidden,
    };
    kernel(
        session.exec(),
        part(0),
        part(1),
        part(2),
        Segments { cu_seqlens },
        mask,
        shape,
        out.as_mut_slice()?,
    );
    Ok(Var::constant(out))
}
