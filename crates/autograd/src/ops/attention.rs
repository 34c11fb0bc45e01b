//! Multi-head self-attention over packed sequences, softmax streamed. For its backward it keeps the output and a number
//! for each query and head, not the weights: those are computed again.

use std::sync::Arc;

use bertha_kernels::{
    AttentionDropout, AttentionGradients, AttentionInputs, AttentionKept, AttentionShape, Mask,
    Operands, PackedFormat, RotaryTable, Segments, Strided, attention as kernel,
    attention_backward, product_kernel, reference,
};
use bertha_tensor::{DType, Tensor};

use super::{Float, OpInfo, differentiable};
use crate::{AutogradError, Precision, Session, Var};

pub(super) const INFO: OpInfo = differentiable("attention");

/// Attention of each sequence over itself: `qkv[T, 3·H·D]` holds a token's queries, keys and values
/// side by side; gives `[T, H·D]`, f32 or f64. `cu_seqlens` has the B+1 offsets of the sequences. In a training
/// session each weight is dropped with probability `dropout`. With `rotary`, queries and keys are turned for their places as they
/// are read, as [`rope`](super::rope()) turns them.
///
/// # Errors
/// When the shapes disagree, the mask or the table of turns does not fit, or `dropout` is not from 0 to below 1.
pub fn attention(
    session: &Session,
    qkv: &Var,
    cu_seqlens: &[u32],
    (mask, rotary): (Mask, Option<&Arc<RotaryTable>>),
    shape: AttentionShape,
    dropout: f32,
) -> Result<Var, AutogradError> {
    let tracked = INFO.admit(session, &[qkv])?;
    let float = INFO.float(&[qkv])?;
    super::dropout::check(INFO, dropout)?;
    let hidden = shape.heads * shape.head_dim;
    let tokens = INFO.rows_of("the queries, keys and values", qkv, 3 * hidden)?;
    if cu_seqlens.last().copied() != Some(tokens as u32) {
        let expected = format!("{:?} rows, as cu_seqlens ends", cu_seqlens.last());
        return Err(INFO.shape_error("the queries, keys and values", qkv.shape(), expected));
    }
    if let Err(wrong) = mask.check(cu_seqlens, shape.heads) {
        return Err(INFO.shape_error("the mask", qkv.shape(), format!("a fitting mask: {wrong}")));
    }
    let longest = cu_seqlens
        .windows(2)
        .map(|ends| ends[1].saturating_sub(ends[0]));
    let longest = longest.max().unwrap_or(0) as usize;
    if let Some(table) = rotary
        && (table.head_dim() != shape.head_dim || table.places() < longest)
    {
        let expected = format!(
            "heads of {} and sequences of at most {} tokens, as the table of turns has",
            table.head_dim(),
            table.places()
        );
        return Err(INFO.shape_error("the queries, keys and values", qkv.shape(), expected));
    }
    let rotary = rotary.map(Arc::clone);
    let dropout = session.dropout(dropout).map(|dropout| AttentionDropout {
        dropout,
        rows: None,
    });
    // A pass of training that is computed again for its gradients must give what the first gave.
    let statistics = tracked || session.is_training() || session.checkpoints();
    let precision = precision(session, statistics);
    let in_unit = !statistics && mask == Mask::Full;
    INFO.tell(session, kernel_name(session, precision, in_unit), 0);
    let segments = Segments { cu_seqlens };
    if float == Float::F64 {
        let mut out = Tensor::zeros(DType::F64, &[tokens, hidden])?;
        let parts = split(qkv.tensor().as_slice::<f64>()?, hidden);
        let inputs = AttentionInputs {
            rotary: rotary.as_deref(),
            ..AttentionInputs::of_sequences(parts, segments, &mask, shape)
        };
        reference::attention(inputs, dropout.as_ref(), out.as_mut_slice::<f64>()?);
        let Some(to) = qkv.target().filter(|_| tracked) else {
            return Ok(Var::constant(out));
        };
        let (qkv, cu_seqlens) = (qkv.tensor().clone(), cu_seqlens.to_vec());
        return Ok(INFO.record(out, move |flow, dout| {
            let segments = Segments {
                cu_seqlens: &cu_seqlens,
            };
            let parts = split(qkv.as_slice::<f64>()?, hidden);
            let inputs = AttentionInputs {
                rotary: rotary.as_deref(),
                ..AttentionInputs::of_sequences(parts, segments, &mask, shape)
            };
            let dout = dout.contiguous();
            let found = reference::attention_backward(inputs, dropout.as_ref(), dout.as_slice()?);
            let parts = [found.q, found.k, found.v];
            flow.write(&to, |dqkv: &mut [f64], add| {
                for (i, part) in parts.iter().enumerate() {
                    for (to, from) in dqkv
                        .chunks_exact_mut(3 * hidden)
                        .zip(part.chunks_exact(hidden))
                    {
                        for (to, from) in to[i * hidden..][..hidden].iter_mut().zip(from) {
                            *to = if add { *to + from } else { *from };
                        }
                    }
                }
            })
        }));
    }

    let mut out = session.scratch(&[tokens, hidden])?;
    let target = qkv.target().filter(|_| tracked);
    let saved = target.is_some().then(|| session.save(qkv.tensor()));
    let saved = saved.transpose()?;
    // The backward pass computes the weights again, from what was kept: so must this.
    let values = match &saved {
        Some(saved) => saved.load(session)?,
        // So must a pass of training that is computed again for its gradients.
        None if session.is_training() || session.checkpoints() => session.operand(qkv.tensor())?,
        None => qkv.tensor().clone(),
    };
    let parts = split(values.as_slice()?, hidden);
    let inputs = AttentionInputs {
        rotary: rotary.as_deref(),
        ..AttentionInputs::of_sequences(parts, segments, &mask, shape)
    };
    // Kernels that give no statistics may be others.
    let mut lse = match statistics || dropout.is_some() {
        true => Some(session.scratch(&[tokens, shape.heads])?),
        false => None,
    };
    let sums = lse.as_mut().map(Tensor::as_mut_slice).transpose()?;
    let values = out.as_mut_slice()?;
    let exec = session.exec();
    kernel(exec, precision, inputs, dropout.as_ref(), values, sums);
    let Some(((to, saved), lse)) = target.zip(saved).zip(lse) else {
        return Ok(Var::constant(out));
    };
    let (kept, cu_seqlens) = (session.save(&out)?, cu_seqlens.to_vec());
    Ok(INFO.record(out, move |flow, dout| {
        let session = flow.session();
        let (qkv, kept) = (saved.load(session)?, kept.load(session)?);
        let mut dqkv = session.scratch(qkv.shape())?;
        let segments = Segments {
            cu_seqlens: &cu_seqlens,
        };
        let parts = split(qkv.as_slice()?, hidden);
        let inputs = AttentionInputs {
            rotary: rotary.as_deref(),
            ..AttentionInputs::of_sequences(parts, segments, &mask, shape)
        };
        let kept = AttentionKept {
            out: kept.as_slice()?,
            lse: lse.as_slice()?,
        };
        let dout = dout.contiguous();
        let gradients = AttentionGradients {
            data: dqkv.as_mut_slice()?,
            stride: 3 * hidden,
            q: 0,
            k: hidden,
            v: 2 * hidden,
        };
        let (exec, dout) = (session.exec(), dout.as_slice()?);
        attention_backward(
            exec,
            precision,
            inputs,
            dropout.as_ref(),
            kept,
            dout,
            gradients,
        );
        flow.add(&to.source, dqkv)
    }))
}

/// What attention multiplies in passes of a session. Where statistics are kept for a backward pass, or as if they were, f32 is f32
/// itself.
pub(super) fn precision(session: &Session, statistics: bool) -> PackedFormat {
    match session.precision() {
        Precision::Bf16 => PackedFormat::Bf16,
        Precision::Int8 if !statistics => PackedFormat::Bf16,
        precision if !statistics => precision.packed_format(),
        _ => PackedFormat::F32Strict,
    }
}

/// The name of the kernel that runs it, perhaps in a unit for products.
pub(super) fn kernel_name(
    session: &Session,
    precision: PackedFormat,
    in_unit: bool,
) -> &'static str {
    let isa = session.exec().isa();
    match precision {
        PackedFormat::Bf16 if isa.multiplies_halves() && !in_unit => "amx (avx512, bf16)",
        PackedFormat::Bf16 if isa.multiplies_bf16() => product_kernel(isa, Operands::Bf16),
        PackedFormat::F32 if isa.multiplies_halves() && in_unit => {
            product_kernel(isa, Operands::F32)
        }
        _ => isa.name(),
    }
}

/// The queries, keys and values of `[T, 3·hidden]`.
fn split<F>(data: &[F], hidden: usize) -> [Strided<'_, F>; 3] {
    std::array::from_fn(|i| Strided {
        data: data.get(i * hidden..).unwrap_or(&[]),
        stride: 3 * hidden,
    })
}
