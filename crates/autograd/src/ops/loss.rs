//! Losses: a number to minimise, with its gradient computed in the same pass over the logits.

use bertha_kernels::{
    CrossEntropy, Labels, binary_cross_entropy as binary_kernel,
    cross_entropy as cross_entropy_kernel, mean_squared_error as squared_kernel, reference,
};
use bertha_tensor::{DType, Tensor};

use super::{Float, OpInfo, differentiable};
use crate::{AutogradError, Session, Var};

pub(super) const CROSS_ENTROPY: OpInfo = differentiable("cross_entropy");
pub(super) const BINARY_CROSS_ENTROPY: OpInfo = differentiable("binary_cross_entropy");
pub(super) const MEAN_SQUARED_ERROR: OpInfo = differentiable("mean_squared_error");

/// Rows of this label have no loss.
pub const IGNORE_INDEX: i64 = -100;

/// How the losses of rows or values become one number.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub enum Reduction {
    /// Their mean: over labelled rows (by their classes' weights), or over all values. Of none it is 0.
    #[default]
    Mean,
    /// Their sum divided by a number: that of all labels of a step, when a step is several batches.
    SumOver(f64),
}

/// The settings of [`cross_entropy`].
#[derive(Clone, Debug, PartialEq, Default)]
pub struct CrossEntropyOptions {
    /// The share of the target that is spread evenly over all classes, from 0 to below 1.
    pub label_smoothing: f32,
    /// What a class's part of the loss is multiplied by, `[V]`.
    pub class_weights: Option<Vec<f32>>,
    /// How rows' losses become one number.
    pub reduction: Reduction,
}

/// `−ln softmax(logits)[label]` of each row of `logits[T,V]`, reduced to a single number; rows labelled −100
/// ([`IGNORE_INDEX`]) do not count. As `torch.nn.functional.cross_entropy`. f32 or f64.
///
/// # Errors
/// When shapes disagree or a label is no class.
pub fn cross_entropy(
    session: &Session,
    logits: Var,
    labels: &[i64],
    options: &CrossEntropyOptions,
) -> Result<Var, AutogradError> {
    let tracked = CROSS_ENTROPY.admit(session, &[&logits])?;
    let float = CROSS_ENTROPY.float(&[&logits])?;
    let (rows, classes) = CROSS_ENTROPY.matrix("the logits", &logits)?;
    if labels.len() != rows {
        return Err(CROSS_ENTROPY.shape_error("the labels", &[labels.len()], format!("[{rows}]")));
    }
    if let Some(weights) = &options.class_weights
        && weights.len() != classes
    {
        return Err(CROSS_ENTROPY.shape_error(
            "the class weights",
            &[weights.len()],
            format!("[{classes}]"),
        ));
    }
    super::dropout::check(CROSS_ENTROPY, options.label_smoothing)?;
    let mut total = 0.0;
    for (row, &label) in labels
        .iter()
        .enumerate()
        .filter(|(_, label)| **label != IGNORE_INDEX)
    {
        let class = usize::try_from(label).ok().filter(|&class| class < classes);
        let class = class.ok_or(AutogradError::Label {
            op: CROSS_ENTROPY.name,
            label,
            row,
            classes,
        })?;
        total += options
            .class_weights
            .as_ref()
            .map_or(1.0, |weights| f64::from(weights[class]));
    }
    let settings = CrossEntropy {
        ignore_index: IGNORE_INDEX,
        label_smoothing: options.label_smoothing,
        class_weights: options.class_weights.as_deref(),
    };
    let to = logits.target().filter(|_| tracked);
    let scale = options.reduction.scale(total);
    let mut logits = logits.into_tensor();
    let labels = Labels::I64(labels);
    let mut losses = Tensor::scratch_in(session.pool(), logits.dtype(), &[rows])?;
    if logits.numel() > 0 {
        match float {
            Float::F32 => {
                let (logits, losses) = (logits.as_mut_slice()?, losses.as_mut_slice()?);
                cross_entropy_kernel(
                    session.exec(),
                    logits,
                    classes,
                    labels,
                    &settings,
                    scale as f32,
                    losses,
                );
            }
            Float::F64 => {
                let (logits, losses) = (logits.as_mut_slice::<f64>()?, losses.as_mut_slice()?);
                reference::cross_entropy(logits, classes, labels, &settings, scale, losses);
            }
        }
    }
    finish(CROSS_ENTROPY, losses, scale, logits, to)
}

/// The binary cross-entropy of each value of `logits` with its target, from 0 to 1, reduced to a single number: as
/// `torch.nn.functional.binary_cross_entropy_with_logits`. f32 or f64, any shape.
///
/// # Errors
/// When there is not a target for each value.
pub fn binary_cross_entropy(
    session: &Session,
    logits: Var,
    targets: &[f32],
    reduction: Reduction,
) -> Result<Var, AutogradError> {
    pointwise(BINARY_CROSS_ENTROPY, session, logits, targets, reduction)
}

/// The squared difference of each value and its target, reduced to a single number: as
/// `torch.nn.functional.mse_loss`. f32 or f64, any shape.
///
/// # Errors
/// When there is not a target for each value.
pub fn mean_squared_error(
    session: &Session,
    values: Var,
    targets: &[f32],
    reduction: Reduction,
) -> Result<Var, AutogradError> {
    pointwise(MEAN_SQUARED_ERROR, session, values, targets, reduction)
}

fn pointwise(
    op: OpInfo,
    session: &Session,
    x: Var,
    targets: &[f32],
    reduction: Reduction,
) -> Result<Var, AutogradError> {
    let tracked = op.admit(session, &[&x])?;
    let float = op.float(&[&x])?;
    let count = x.tensor().numel();
    if targets.len() != count {
        return Err(op.shape_error("the targets", &[targets.len()], format!("[{count}]")));
    }
    let to = x.target().filter(|_| tracked);
    let scale = reduction.scale(count as f64);
    let mut x = x.into_tensor();
    let mut losses = Tensor::scratch_in(session.pool(), x.dtype(), &[count])?;
    match float {
        Float::F32 => {
            let (x, losses) = (x.as_mut_slice()?, losses.as_mut_slice()?);
            let kernel = match op == BINARY_CROSS_ENTROPY {
                true => binary_kernel,
                false => squared_kernel,
            };
            kernel(session.exec(), x, targets, scale as f32, losses);
        }
        Float::F64 => {
            let targets: Vec<f64> = targets.iter().copied().map(f64::from).collect();
            let (x, losses) = (x.as_mut_slice::<f64>()?, losses.as_mut_slice()?);
            let kernel = match op == BINARY_CROSS_ENTROPY {
                true => reference::binary_cross_entropy::<f64>,
                false => reference::mean_squared_error::<f64>,
            };
            kernel(x, &targets, scale, losses);
        }
    }
    finish(op, losses, scale, x, to)
}

impl Reduction {
    /// What each loss is multiplied by before they are summed.
    fn scale(self, count: f64) -> f64 {
        let over = match self {
            Self::Mean => count,
            Self::SumOver(count) => count,
        };
        if over > 0.0 { 1.0 / over } else { 0.0 }
    }
}

/// The reduced loss, recorded with the gradient that the kernel has computed.
fn finish(
    op: OpInfo,
    losses: Tensor,
    scale: f64,
    gradient: Tensor,
    to: Option<crate::tape::Target>,
) -> Result<Var, AutogradError> {
    // Summed in f64, in the rows' order.
    let loss = match losses.dtype() {
        DType::F64 => Tensor::full(losses.as_slice::<f64>()?.iter().sum::<f64>() * scale, &[])?,
        _ => {
            let sum: f64 = losses
                .as_slice::<f32>()?
                .iter()
                .copied()
                .map(f64::from)
                .sum();
            Tensor::full((sum * scale) as f32, &[])?
        }
    };
    let Some(to) = to else {
        return Ok(Var::constant(loss));
    };
    Ok(op.record(loss, move |flow, dy| {
        let mut gradient = gradient;
        match dy.dtype() {
            DType::F64 => {
                let by = dy.item::<f64>()?;
                gradient
                    .as_mut_slice::<f64>()?
                    .iter_mut()
                    .for_each(|value| *value *= by);
            }
            _ => {
                let by = dy.item::<f32>()?;
                // Nearly always the loss is where the backward pass begins.
                if by != 1.0 {
                    gradient
                        .as_mut_slice::<f32>()?
                        .iter_mut()
                        .for_each(|value| *value *= by);
                }
            }
        }
        flow.add(&to.source, gradient)
    }))
}
