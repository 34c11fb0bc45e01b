//! Multi-head self-attention over packed sequences, softmax streamed. For its backward it keeps the output and a number
//! for each query and head, not the weights: those are computed again.

use bertha_kernels::{
    AttentionDropout, AttentionGradients, AttentionShape, Mask, Operands, PackedFormat, Segments,
    Strided, attention_backward, attention_in, attention_keeping, product_kernel, reference,
};
use bertha_tensor::{DType, Tensor};

use super::{Float, OpInfo, differentiable};
use crate::{AutogradError, Precision, Session, Var};

pub(super) const INFO: OpInfo = differentiable("attention");

/// Attention of each sequence over itself: `qkv[T, 3·H·D]` holds a token's queries, keys and values
/// side by side; gives `[T, H·D]`, f32 or f64. `cu_seqlens` has the B+1 offsets of the sequences. In a training
/// session each weight is dropped with probability `dropout`.
///
/// # Errors
/// When the shapes disagree, the mask does not fit, or `dropout` is not from 0 to below 1.
pub fn attention(
    session: &Session,
    qkv: &Var,
    cu_seqlens: &[u32],
    mask: Mask,
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
    let dropout = session.dropout(dropout).map(|dropout| AttentionDropout {
        dropout,
        rows: None,
    });
    let isa = session.exec().isa();
    // A pass of training that is computed again for its gradients must give what the first gave.
    let again = session.is_training() || session.checkpoints();
    let precision = match session.precision() {
        _ if tracked || again || mask != Mask::Full => PackedFormat::F32Strict,
        Precision::Int8 => PackedFormat::Bf16,
        precision => precision.packed_format(),
    };
    let kernel_name = match precision {
        PackedFormat::Bf16 if isa.multiplies_bf16() => product_kernel(isa, Operands::Bf16),
        PackedFormat::F32 if isa.multiplies_halves() => product_kernel(isa, Operands::F32),
        _ => isa.name(),
    };
    INFO.tell(session, kernel_name, 0);
    let segments = Segments { cu_seqlens };
    if float == Float::F64 {
        let mut out = Tensor::zeros(DType::F64, &[tokens, hidden])?;
        let [q, k, v] = split(qkv.tensor().as_slice::<f64>()?, hidden);
        let values = out.as_mut_slice::<f64>()?;
        reference::attention_with_dropout(
            q,
            k,
            v,
            segments,
            mask.clone(),
            shape,
            dropout.as_ref(),
            values,
        );
        let Some(to) = qkv.target().filter(|_| tracked) else {
            return Ok(Var::constant(out));
        };
        let (qkv, cu_seqlens) = (qkv.tensor().clone(), cu_seqlens.to_vec());
        return Ok(INFO.record(out, move |flow, dout| {
            let [q, k, v] = split(qkv.as_slice::<f64>()?, hidden);
            let segments = Segments {
                cu_seqlens: &cu_seqlens,
            };
            let dout = dout.contiguous();
            let dout = dout.as_slice::<f64>()?;
            let parts = reference::attention_backward(
                q,
                k,
                v,
                segments,
                mask,
                shape,
                dropout.as_ref(),
                dout,
            );
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
    let [q, k, v] = split(values.as_slice()?, hidden);
    let Some((to, saved)) = target.zip(saved) else {
        let values = out.as_mut_slice()?;
        match &dropout {
            None => attention_in(
                session.exec(),
                precision,
                q,
                k,
                v,
                segments,
                mask,
                shape,
                values,
            ),
            // Dropout without a gradient: the statistics go unused.
            Some(_) => {
                let mut lse = session.scratch(&[tokens, shape.heads])?;
                let lse = lse.as_mut_slice()?;
                attention_keeping(
                    session.exec(),
                    q,
                    k,
                    v,
                    segments,
                    mask,
                    shape,
                    dropout.as_ref(),
                    values,
                    lse,
                );
            }
        }
        return Ok(Var::constant(out));
    };
    let mut lse = session.scratch(&[tokens, shape.heads])?;
    attention_keeping(
        session.exec(),
        q,
        k,
        v,
        segments,
        mask.clone(),
        shape,
        dropout.as_ref(),
        out.as_mut_slice()?,
        lse.as_mut_slice()?,
    );
    let (kept, cu_seqlens) = (session.save(&out)?, cu_seqlens.to_vec());
    Ok(INFO.record(out, move |flow, dout| {
        let session = flow.session();
        let (qkv, kept) = (saved.load(session)?, kept.load(session)?);
        let mut dqkv = session.scratch(qkv.shape())?;
        let [q, k, v] = split(qkv.as_slice()?, hidden);
        attention_backward(
            session.exec(),
            q,
            k,
            v,
            Segments {
                cu_seqlens: &cu_seqlens,
            },
            mask,
            shape,
            dropout.as_ref(),
            kept.as_slice()?,
            lse.as_slice()?,
            dout.contiguous().as_slice()?,
            AttentionGradients {
                data: dqkv.as_mut_slice()?,
                stride: 3 * hidden,
                q: 0,
                k: hidden,
                v: 2 * hidden,
            },
        );
        flow.add(&to.source, dqkv)
    }))
}

/// The queries, keys and values of `[T, 3·hidden]`.
fn split<F>(data: &[F], hidden: usize) -> [Strided<'_, F>; 3] {
    std::array::from_fn(|i| Strided {
        data: data.get(i * hidden..).unwrap_or(&[]),
        stride: 3 * hidden,
    })
}
