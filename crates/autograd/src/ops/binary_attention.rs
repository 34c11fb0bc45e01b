//! Attention of bits, for inference: in training it is composed of operations that have gradients.

use bertha_kernels::{BinaryAttentionShape, binary_attention as kernel};

use super::OpInfo;
use crate::{AutogradError, Session, Var};

pub(super) const INFO: OpInfo = OpInfo {
    name: "binary_attention",
    has_backward: false,
};

/// Attention of the signs of queries, keys and values, `qkv[T,3·H·D]` to `[T,H·D]` f32, over each sequence: see
/// [`bertha_kernels::binary_attention`].
///
/// # Errors
/// When the shapes disagree, or a gradient is wanted.
pub fn binary_attention(
    session: &Session,
    qkv: &Var,
    cu_seqlens: &[u32],
    shape: BinaryAttentionShape,
) -> Result<Var, AutogradError> {
    INFO.admit(session, &[qkv])?;
    let hidden = shape.heads * shape.head_dim;
    let tokens = INFO.rows_of("the queries, keys and values", qkv, 3 * hidden)?;
    if cu_seqlens.last().copied() != Some(tokens as u32) {
        let expected = format!("{:?} rows, as cu_seqlens ends", cu_seqlens.last());
        return Err(INFO.shape_error("the queries, keys and values", qkv.shape(), expected));
    }
    let mut out = session.scratch(&[tokens, hidden])?;
    let (qkv, values) = (qkv.as_slice()?, out.as_mut_slice()?);
    kernel(session.exec(), qkv, cu_seqlens, shape, values);
    Ok(Var::constant(out))
}
