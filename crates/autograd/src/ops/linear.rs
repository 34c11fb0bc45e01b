//! `y = act(x·Wᵀ + b) + residual`: a matrix product with its fused last pass.

use bertha_kernels::{Activation, Epilogue, PackedWeights, gemm};

use super::{OpInfo, forward_only};
use crate::{AutogradError, Session, Var};

pub(super) const INFO: OpInfo = forward_only("linear");

/// `act(x[T,K] · W[N,K]ᵀ + bias[N]) + residual[T,N]` as `[T,N]` f32.
///
/// # Errors
/// When the shapes disagree, or an input is tracked.
pub fn linear(
    session: &Session,
    x: &Var,
    weight: &PackedWeights,
    bias: Option<&[f32]>,
    activation: Activation,
    residual: Option<&Var>,
) -> Result<Var, AutogradError> {
    INFO.admit(&[x])?;
    let (n, k) = (weight.n(), weight.k());
    let rows = INFO.rows_of("the input", x, k)?;
    if let Some(bias) = bias {
        INFO.vector("the bias", bias, n)?;
    }
    if let Some(residual) = residual {
        INFO.admit(&[residual])?;
        if residual.shape() != [rows, n] {
            let expected = format!("[{rows}, {n}]");
            return Err(INFO.shape_error("the residual", residual.shape(), expected));
        }
    }
    let mut y = session.scratch(&[rows, n])?;
    let epilogue = Epilogue {
        bias,
        activation,
        residual: residual.map(Var::as_slice).transpose()?,
    };
    gemm(
        session.exec(),
        rows,
        x.as_slice()?,
        weight,
        epilogue,
        y.as_mut_slice()?,
    );
    Ok(Var::constant(y))
}
