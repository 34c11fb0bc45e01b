//! `y = act(x·Wᵀ + b) + residual`: a matrix product with its fused last pass, and its gradients
//! `dX = dY·W`, `dW = dYᵀ·X`, `db = Σ dY`.

use std::sync::Arc;

use bertha_kernels::{
    Activation, Epilogue, Matrix, PackedFormat, activate_backward, column_sums, gemm, gemm_chain,
    gemm_keeping, matmul_in, reference, round_to_bf16,
};
use bertha_tensor::{DType, Tensor};

use super::{Float, OpInfo, differentiable};
use crate::saved::Saved;
use crate::tape::{Flow, Source, Target};
use crate::weight::{LinearPart, LinearWeight, Packed, stacked_bias, stacked_weight};
use crate::{AutogradError, Parameter, Session, Var};

pub(super) const INFO: OpInfo = differentiable("linear");

/// `act(x[T,K] · W[N,K]ᵀ + bias[N]) + residual[T,N]` as `[T,N]` f32 (f64 where everything is f64).
///
/// # Errors
/// When shapes or dtypes disagree.
pub fn linear(
    session: &Session,
    x: &Var,
    weight: &LinearWeight,
    activation: Activation,
    residual: Option<&Var>,
) -> Result<Var, AutogradError> {
    let mut tracked = INFO.admit(session, &[x])?;
    tracked |= session.records() && weight.is_tracked();
    let (n, k) = (weight.n(), weight.k());
    let rows = INFO.rows_of("the input", x, k)?;
    if let Some(residual) = residual {
        tracked |= INFO.admit(session, &[residual])?;
        INFO.float(&[x, residual])?;
        if residual.shape() != [rows, n] {
            let expected = format!("[{rows}, {n}]");
            return Err(INFO.shape_error("the residual", residual.shape(), expected));
        }
    }
    let float = INFO.float(&[x])?;
    INFO.tell(session, weight.kernel(session), rows * n * k);
    if weight.is_quantized() {
        if tracked {
            return Err(AutogradError::NoBackward {
                op: "linear of a quantized weight",
            });
        }
        let mut y = session.scratch(&[rows, n])?;
        let residual = residual.map(Var::as_slice).transpose()?;
        let (x, out) = ((rows, x.as_slice()?), y.as_mut_slice()?);
        weight.quantized_product(session, x, activation, residual, out)?;
        return Ok(Var::constant(y));
    }
    if tracked && weight.parts().is_empty() {
        return Err(AutogradError::NoBackward {
            op: "linear of a weight packed for inference",
        });
    }
    let keeps = tracked && activation != Activation::None;
    let mut before = None;
    let (y, packed) = match float {
        Float::F64 => {
            let (y, kept) = forward_f64(session, x, weight, activation, residual)?;
            before = keeps.then_some(kept);
            (y, None)
        }
        Float::F32 => {
            let mut y = session.scratch(&[rows, n])?;
            let values = x.as_slice()?;
            let residual = residual.map(Var::as_slice).transpose()?;
            let out = y.as_mut_slice()?;
            if keeps {
                before = Some(session.scratch(&[rows, n])?);
            }
            let kept = before.as_mut().map(Tensor::as_mut_slice).transpose()?;
            let packed = weight.with_packed(session, |weight, bias, packed| {
                let epilogue = Epilogue {
                    bias,
                    activation,
                    residual,
                };
                match kept {
                    Some(kept) => {
                        gemm_keeping(session.exec(), rows, values, weight, epilogue, kept, out)
                    }
                    None => gemm(session.exec(), rows, values, weight, epilogue, out),
                }
                packed
            })?;
            (y, packed)
        }
    };
    if !tracked {
        return Ok(Var::constant(y));
    }
    let learns = weight.is_tracked();
    let kept = Kept {
        to_x: x.target(),
        to_residual: residual.and_then(Var::target),
        parts: weight.parts().to_vec(),
        x: learns.then(|| session.save(x.tensor())).transpose()?,
        packed,
        before: before.map(|before| session.save(&before)).transpose()?,
        activation,
        n,
        k,
    };
    Ok(INFO.record(y, move |flow, dy| kept.backward(flow, dy)))
}

/// `act(x[T,K] · U[I,K]ᵀ + b) · D[N,I]ᵀ + c + residual[T,N]` as `[T,N]` in one kernel, where there is one for the weights and no
/// gradient is wanted; else nothing, and it takes two calls of [`linear`], which give the same bits.
///
/// # Errors
/// When shapes or dtypes disagree.
pub fn linear_chain(
    session: &Session,
    x: &Var,
    (up, activation): (&LinearWeight, Activation),
    down: &LinearWeight,
    residual: &Var,
) -> Result<Option<Var>, AutogradError> {
    let packed = (up.for_inference(), down.for_inference());
    let (Some((first, bias)), Some((second, last_bias))) = packed else {
        return Ok(None);
    };
    let tracked = INFO.admit(session, &[x, residual])?;
    if tracked || INFO.float(&[x, residual])? == Float::F64 {
        return Ok(None);
    }
    let rows = INFO.rows_of("the input", x, up.k())?;
    if up.n() != down.k() || residual.shape() != [rows, down.n()] {
        // The two calls say what is wrong.
        return Ok(None);
    }
    let mut y = session.scratch(&[rows, down.n()])?;
    let between = Epilogue {
        bias: bias.map(Tensor::as_slice).transpose()?,
        activation,
        residual: None,
    };
    let epilogue = Epilogue {
        bias: last_bias.map(Tensor::as_slice).transpose()?,
        activation: Activation::None,
        residual: Some(residual.as_slice()?),
    };
    let (up_of, down_of) = ((first, between), (second, epilogue));
    let (x, out) = (x.as_slice()?, y.as_mut_slice()?);
    if !gemm_chain(session.exec(), rows, x, up_of, down_of, out) {
        return Ok(None);
    }
    for weight in [up, down] {
        INFO.tell(
            session,
            weight.kernel(session),
            rows * weight.n() * weight.k(),
        );
    }
    Ok(Some(Var::constant(y)))
}

/// What the backward pass needs.
struct Kept {
    to_x: Option<Target>,
    to_residual: Option<Target>,
    parts: Vec<LinearPart>,
    /// The input, where a parameter wants a gradient.
    x: Option<Saved>,
    packed: Option<Arc<Packed>>,
    /// What the activation was applied to.
    before: Option<Saved>,
    activation: Activation,
    n: usize,
    k: usize,
}

impl Kept {
    fn backward(self, flow: &mut Flow<'_>, dy: Tensor) -> Result<(), AutogradError> {
        if let Some(to) = &self.to_residual {
            flow.add(&to.source, dy.clone())?;
        }
        match dy.dtype() {
            DType::F64 => self.backward_f64(flow, dy),
            _ => self.backward_f32(flow, dy),
        }
    }

    fn backward_f32(self, flow: &mut Flow<'_>, dy: Tensor) -> Result<(), AutogradError> {
        let session = flow.session();
        let exec = session.exec();
        let mut dy = dy.contiguous();
        if let Some(before) = &self.before {
            let before = before.load(session)?;
            activate_backward(
                exec,
                self.activation,
                before.as_slice()?,
                dy.as_mut_slice()?,
            );
        }
        let format = |packed: &Arc<Packed>| packed.forward.format();
        let precision = self.packed.as_ref().map_or(PackedFormat::F32, format);
        // Products that take bf16 round it as they take it.
        if precision == PackedFormat::Bf16 && !exec.isa().multiplies_bf16() {
            round_to_bf16(exec, dy.as_mut_slice()?);
        }
        let dy = dy.as_slice::<f32>()?;
        if let Some(x) = &self.x {
            let x = x.load(session)?;
            let x = x.as_slice::<f32>()?;
            let mut first = 0;
            for part in &self.parts {
                let rows = part.weight.shape()[0];
                // The part's columns of dy, transposed.
                let left = Matrix {
                    data: dy.get(first..).unwrap_or(&[]),
                    row_stride: 1,
                    column_stride: self.n,
                };
                let shape = (rows, self.k, x.len() / self.k.max(1));
                if let Some(to) = target(&part.weight) {
                    flow.write(&to, |dw, add| {
                        let right = Matrix::row_major(x, self.k);
                        matmul_in(exec, precision, shape, left, right, add, dw);
                    })?;
                }
                first += rows;
            }
            if self.parts.iter().any(|part| part.bias.is_some()) {
                let mut sums = flow.session().scratch(&[self.n])?;
                column_sums(exec, dy, false, sums.as_mut_slice()?);
                add_bias_gradients::<f32>(flow, &self.parts, &sums)?;
            }
        }
        if let (Some(to), Some(packed)) = (&self.to_x, &self.packed) {
            let rows = dy.len() / self.n.max(1);
            let mut dx = flow.session().scratch(&to.shape)?;
            let out = dx.as_mut_slice()?;
            gemm(exec, rows, dy, &packed.transposed, Epilogue::default(), out);
            flow.add(&to.source, dx)?;
        }
        Ok(())
    }

    fn backward_f64(self, flow: &mut Flow<'_>, dy: Tensor) -> Result<(), AutogradError> {
        let mut dy = dy.contiguous();
        if let Some(before) = &self.before {
            let before = before.load(flow.session())?;
            reference::activate_backward::<f64>(
                self.activation,
                before.as_slice()?,
                dy.as_mut_slice()?,
            );
        }
        let dy = dy.as_slice::<f64>()?;
        let (n, k) = (self.n, self.k);
        let rows = dy.len() / n.max(1);
        let x = self
            .x
            .as_ref()
            .map(|x| x.load(flow.session()))
            .transpose()?;
        let mut first = 0;
        for part in &self.parts {
            let part_rows = part.weight.shape()[0];
            if let (Some(to), Some(x)) = (target(&part.weight), &x) {
                let left = (&dy[first..], (1, n));
                let x = x.as_slice::<f64>()?;
                flow.write(&to, |dw, add| {
                    reference::matmul((part_rows, k, rows), left, (x, (k, 1)), add, dw)
                })?;
            }
            first += part_rows;
        }
        let mut sums = vec![0.0; n];
        reference::column_sums(dy, false, &mut sums);
        add_bias_gradients::<f64>(flow, &self.parts, &Tensor::from_vec(sums, &[n])?)?;
        if let Some(to) = &self.to_x {
            let weight = stacked_weight::<f64>(&self.parts)?;
            flow.write(to, |dx, add| {
                reference::matmul((rows, k, n), (dy, (n, 1)), (&weight, (k, 1)), add, dx)
            })?;
        }
        Ok(())
    }
}

/// Where a parameter's gradient goes, if it wants one.
fn target(parameter: &Parameter) -> Option<Target> {
    (!parameter.is_frozen()).then(|| Target {
        source: Source::Parameter(parameter.clone()),
        shape: parameter.shape().to_vec(),
    })
}

/// Gives each part's bias its piece of the column sums.
fn add_bias_gradients<T: bertha_tensor::Element + std::ops::AddAssign>(
    flow: &mut Flow<'_>,
    parts: &[LinearPart],
    sums: &Tensor,
) -> Result<(), AutogradError> {
    let mut sums = sums.as_slice::<T>()?;
    for part in parts {
        let (piece, rest) = sums.split_at(part.weight.shape()[0]);
        sums = rest;
        if let Some(to) = part.bias.as_ref().and_then(target) {
            flow.write::<T>(&to, |db, add| match add {
                true => db.iter_mut().zip(piece).for_each(|(db, &sum)| *db += sum),
                false => db.copy_from_slice(piece),
            })?;
        }
    }
    Ok(())
}

/// The output and what the activation was applied to, by the reference.
fn forward_f64(
    session: &Session,
    x: &Var,
    weight: &LinearWeight,
    activation: Activation,
    residual: Option<&Var>,
) -> Result<(Tensor, Tensor), AutogradError> {
    if !Packed::is_f64(weight.parts()) {
        return Err(AutogradError::DType {
            op: INFO.name,
            found: vec![DType::F64, DType::F32],
        });
    }
    let (n, k, rows) = (weight.n(), weight.k(), x.shape()[0]);
    let w = stacked_weight::<f64>(weight.parts())?;
    let mut before = Tensor::zeros_in(session.pool(), DType::F64, &[rows, n])?;
    let sums = before.as_mut_slice::<f64>()?;
    let x = x.tensor().contiguous();
    reference::matmul(
        (rows, n, k),
        (x.as_slice()?, (k, 1)),
        (&w, (1, k)),
        false,
        sums,
    );
    if let Some(bias) = stacked_bias::<f64>(weight.parts())? {
        for row in sums.chunks_exact_mut(n) {
            row.iter_mut()
                .zip(&bias)
                .for_each(|(sum, bias)| *sum += bias);
        }
    }
    let mut y = before.copy();
    let values = y.as_mut_slice::<f64>()?;
    reference::activate(activation, values);
    if let Some(residual) = residual {
        let residual = residual.tensor().contiguous();
        values
            .iter_mut()
            .zip(residual.as_slice::<f64>()?)
            .for_each(|(y, residual)| *y += residual);
    }
    Ok((y, before))
}
