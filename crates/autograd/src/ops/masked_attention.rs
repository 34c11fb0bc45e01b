//! Attention with a learned bias by distance, and of queries over the keys of other projections.

use bertha_kernels::{
    AttentionDropout, AttentionInputs, AttentionKept, AttentionShape, Mask, RelativeBias, Segments,
    Strided, attention as kernel, masked_attention_backward, reference,
};
use bertha_tensor::{DType, Element, Tensor};

use super::{Float, OpInfo, attention, differentiable};
use crate::tape::{Flow, Target};
use crate::{AutogradError, Session, Var};

pub(super) const INFO: OpInfo = differentiable("masked_attention");

/// Where queries, keys and values are.
#[derive(Clone, Copy, Debug)]
pub enum Projections<'a> {
    /// `[T, 3·H·D]`: a token's own, side by side.
    Together(&'a Var),
    /// Queries that are no tokens, over all keys of their sequence.
    Crossed {
        /// `[Tq, H·D]`.
        queries: &'a Var,
        /// The offsets of the sequences' queries, B+1.
        cu_queries: &'a [u32],
        /// `[T, 2·H·D]`: keys and values side by side.
        keys_values: &'a Var,
    },
}

/// `softmax(scale·Q·Kᵀ + bias)·V` over the keys that the mask lets a query see, `[Tq, H·D]`, f32 or f64. `cu_seqlens` has
/// the B+1 offsets of the sequences of keys; `bias[H, 2·reach + 1]` is added by head and distance, that of key − query
/// cut to ±reach. In a training session each weight is dropped with probability `dropout`. A query that sees no key gives zeros.
///
/// # Errors
/// When the shapes disagree, the mask does not fit, queries that are no tokens come with a mask or a bias, or
/// `dropout` is not from 0 to below 1.
pub fn masked_attention(
    session: &Session,
    projections: Projections<'_>,
    cu_seqlens: &[u32],
    mask: Mask,
    bias: Option<&Var>,
    shape: AttentionShape,
    dropout: f32,
) -> Result<Var, AutogradError> {
    let (first, second, cu_queries) = match projections {
        Projections::Together(qkv) => (qkv, None, cu_seqlens),
        Projections::Crossed {
            queries,
            cu_queries,
            keys_values,
        } => (queries, Some(keys_values), cu_queries),
    };
    let mut all = vec![first];
    all.extend(second);
    all.extend(bias);
    let tracked = INFO.admit(session, &all)?;
    // A pass of training that is computed again for its gradients must give what the first gave.
    let statistics = tracked || session.is_training() || session.checkpoints();
    let precision = attention::precision(session, statistics);
    INFO.tell(
        session,
        attention::kernel_name(session, precision, false),
        0,
    );
    let float = INFO.float(&all)?;
    super::dropout::check(INFO, dropout)?;
    let width = shape.heads * shape.head_dim;
    let (queries, keys) = match second {
        None => {
            let rows = INFO.rows_of("the queries, keys and values", first, 3 * width)?;
            (rows, rows)
        }
        Some(second) => (
            INFO.rows_of("the queries", first, width)?,
            INFO.rows_of("the keys and values", second, 2 * width)?,
        ),
    };
    for (what, rows, of, ends) in [
        ("the queries", queries, first, cu_queries),
        ("the keys", keys, second.unwrap_or(first), cu_seqlens),
    ] {
        if ends.last().copied() != Some(rows as u32) || !ends.is_sorted() {
            let expected = format!("{:?} rows, as the offsets end", ends.last());
            return Err(INFO.shape_error(what, of.shape(), expected));
        }
    }
    if cu_queries.len() != cu_seqlens.len() {
        let expected = format!(
            "queries of {} sequences",
            cu_seqlens.len().saturating_sub(1)
        );
        return Err(INFO.shape_error("the queries", first.shape(), expected));
    }
    if second.is_some() && (mask != Mask::Full || bias.is_some()) {
        let expected = "no mask and no bias for queries that are no tokens".into();
        return Err(INFO.shape_error("the queries", first.shape(), expected));
    }
    if let Err(wrong) = mask.check(cu_seqlens, shape.heads) {
        return Err(INFO.shape_error(
            "the mask",
            first.shape(),
            format!("a fitting mask: {wrong}"),
        ));
    }
    if let Some(bias) = bias {
        let (rows, columns) = INFO.matrix("the bias", bias)?;
        if rows != shape.heads || columns.is_multiple_of(2) {
            let expected = format!("[{}, an odd number]", shape.heads);
            return Err(INFO.shape_error("the bias", bias.shape(), expected));
        }
    }
    let dropout = session.dropout(dropout).map(|dropout| AttentionDropout {
        dropout,
        rows: None,
    });
    let targets = tracked.then(|| Targets {
        first: first.target(),
        second: second.and_then(Var::target),
        bias: bias.and_then(Var::target),
    });
    let kept = Kept {
        first: session.operand(first.tensor())?,
        second: second
            .map(|second| session.operand(second.tensor()))
            .transpose()?,
        bias: bias.map(|bias| bias.tensor().contiguous()),
        cu_queries: cu_queries.to_vec(),
        cu_keys: cu_seqlens.to_vec(),
        mask,
        shape,
        dropout,
    };
    let mut out = Tensor::scratch_in(session.pool(), first.dtype(), &[queries, width])?;
    if float == Float::F64 {
        reference::attention(kept.inputs::<f64>()?, dropout.as_ref(), out.as_mut_slice()?);
        let Some(targets) = targets else {
            return Ok(Var::constant(out));
        };
        return Ok(INFO.record(out, move |flow, dout| {
            let dout = dout.contiguous();
            let found = reference::attention_backward(
                kept.inputs::<f64>()?,
                kept.dropout.as_ref(),
                dout.as_slice()?,
            );
            targets.add(flow, DType::F64, &kept, found)
        }));
    }
    let inputs = kept.inputs::<f32>()?;
    let mut lse = match statistics {
        true => Some(session.scratch(&[queries, shape.heads])?),
        false => None,
    };
    let sums = lse.as_mut().map(Tensor::as_mut_slice).transpose()?;
    let (exec, values) = (session.exec(), out.as_mut_slice()?);
    kernel(exec, precision, inputs, dropout.as_ref(), values, sums);
    let Some((targets, lse)) = targets.zip(lse) else {
        return Ok(Var::constant(out));
    };
    let context = out.clone();
    Ok(INFO.record(out, move |flow, dout| {
        let dout = dout.contiguous();
        let given = AttentionKept {
            out: context.as_slice()?,
            lse: lse.as_slice()?,
        };
        let found = masked_attention_backward(
            flow.session().exec(),
            precision,
            kept.inputs::<f32>()?,
            kept.dropout.as_ref(),
            given,
            dout.as_slice()?,
        );
        targets.add(flow, DType::F32, &kept, found)
    }))
}

/// What the backward pass reads again.
struct Kept {
    first: Tensor,
    second: Option<Tensor>,
    bias: Option<Tensor>,
    cu_queries: Vec<u32>,
    cu_keys: Vec<u32>,
    mask: Mask,
    shape: AttentionShape,
    dropout: Option<AttentionDropout<'static>>,
}

impl Kept {
    fn inputs<T: Element>(&self) -> Result<AttentionInputs<'_, T>, AutogradError> {
        let width = self.shape.heads * self.shape.head_dim;
        fn strided<T: Element>(
            of: &Tensor,
            width: usize,
            part: usize,
            parts: usize,
        ) -> Result<Strided<'_, T>, AutogradError> {
            Ok(Strided {
                data: of.as_slice::<T>()?.get(part * width..).unwrap_or(&[]),
                stride: parts * width,
            })
        }
        let [q, k, v] = match &self.second {
            None => [
                strided(&self.first, width, 0, 3)?,
                strided(&self.first, width, 1, 3)?,
                strided(&self.first, width, 2, 3)?,
            ],
            Some(second) => [
                strided(&self.first, width, 0, 1)?,
                strided(second, width, 0, 2)?,
                strided(second, width, 1, 2)?,
            ],
        };
        let bias = match &self.bias {
            None => None,
            Some(bias) => Some(RelativeBias {
                values: bias.as_slice::<T>()?,
                reach: bias.shape()[1] / 2,
            }),
        };
        Ok(AttentionInputs {
            q,
            k,
            v,
            queries: Segments {
                cu_seqlens: &self.cu_queries,
            },
            keys: Segments {
                cu_seqlens: &self.cu_keys,
            },
            mask: &self.mask,
            bias,
            rotary: None,
            shape: self.shape,
        })
    }
}

/// Where the gradients go.
struct Targets {
    first: Option<Target>,
    second: Option<Target>,
    bias: Option<Target>,
}

impl Targets {
    fn add<T: Element>(
        &self,
        flow: &mut Flow<'_>,
        dtype: DType,
        kept: &Kept,
        found: reference::MaskedGradients<T>,
    ) -> Result<(), AutogradError> {
        let width = kept.shape.heads * kept.shape.head_dim;
        let parts: [&[Vec<T>]; 2] = match kept.second {
            None => [&[found.q, found.k, found.v], &[]],
            Some(_) => [&[found.q], &[found.k, found.v]],
        };
        for (to, parts) in [&self.first, &self.second].into_iter().zip(parts) {
            let Some(to) = to else { continue };
            let rows = parts[0].len() / width.max(1);
            let shape = [rows, parts.len() * width];
            let pool = flow.session().pool();
            let mut together = Tensor::scratch_in(pool, dtype, &shape)?;
            let values = together.as_mut_slice::<T>()?;
            for (t, row) in values.chunks_exact_mut(shape[1].max(1)).enumerate() {
                for (part, to) in parts.iter().zip(row.chunks_exact_mut(width)) {
                    to.copy_from_slice(&part[t * width..][..width]);
                }
            }
            flow.add(&to.source, together)?;
        }
        if let (Some(to), Some(bias)) = (&self.bias, &kept.bias) {
            flow.add(&to.source, Tensor::from_vec(found.bias, bias.shape())?)?;
        }
        Ok(())
    }
}
