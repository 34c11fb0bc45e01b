//! Layer normalisation over the last dimension (Ba et al. 2016, <https://arxiv.org/abs/1607.06450>).

use bertha_kernels::{layer_norm_backward, layer_norm_in_place, layer_norm_keeping, reference};
use bertha_tensor::{DType, Tensor};

use super::{Float, OpInfo, differentiable};
use crate::saved::Saved;
use crate::tape::{Flow, Target};
use crate::{AutogradError, Session, Var};

pub(super) const INFO: OpInfo = differentiable("layer_norm");

/// `(x − mean)/√(var + eps)·gamma + beta` for each row of `x[T,N]`, f32 or f64.
///
/// In place when nothing is recorded and nobody else holds `x`.
///
/// # Errors
/// When shapes or dtypes disagree.
pub fn layer_norm(
    session: &Session,
    x: Var,
    gamma: &Var,
    beta: &Var,
    eps: f32,
) -> Result<Var, AutogradError> {
    let tracked = INFO.admit(session, &[&x, gamma, beta])?;
    let float = INFO.float(&[&x, gamma, beta])?;
    let &[n] = gamma.shape() else {
        return Err(INFO.shape_error("gamma", gamma.shape(), "one dimension".into()));
    };
    let rows = INFO.rows_of("the input", &x, n)?;
    if beta.shape() != [n] {
        return Err(INFO.shape_error("beta", beta.shape(), format!("[{n}]")));
    }
    if float == Float::F64 {
        let to = [x.target(), gamma.target(), beta.target()];
        let (x, gamma) = (x.into_tensor(), gamma.tensor().clone());
        let mut y = x.copy();
        reference::layer_norm::<f64>(
            y.as_mut_slice()?,
            gamma.as_slice()?,
            beta.tensor().as_slice()?,
            eps,
        );
        return Ok(match tracked {
            false => Var::constant(y),
            true => INFO.record(y, move |flow, dy| {
                backward_f64(flow, dy, &to, &x, &gamma, eps)
            }),
        });
    }
    if !tracked {
        let mut x = x.into_tensor();
        layer_norm_in_place(
            session.exec(),
            x.as_mut_slice()?,
            gamma.as_slice()?,
            beta.as_slice()?,
            eps,
        );
        return Ok(Var::constant(x));
    }
    let to = [x.target(), gamma.target(), beta.target()];
    let (x, gamma) = (x.into_tensor().contiguous(), gamma.tensor().clone());
    let (y, normalized) = Normalized::new(session, &x, gamma, beta.as_slice()?, eps, rows)?;
    Ok(INFO.record(y, move |flow, dy| normalized.backward(flow, dy, &to)))
}

/// What was normalised, and its rows' statistics, as the backward pass needs them.
pub(super) struct Normalized {
    x: Saved,
    gamma: Tensor,
    mean: Tensor,
    /// `1/√(var + eps)`.
    r: Tensor,
}

impl Normalized {
    /// The normalised rows of `x`, and what the backward pass needs.
    pub(super) fn new(
        session: &Session,
        x: &Tensor,
        gamma: Tensor,
        beta: &[f32],
        eps: f32,
        rows: usize,
    ) -> Result<(Tensor, Self), AutogradError> {
        let mut y = session.scratch(x.shape())?;
        let (mut mean, mut r) = (session.scratch(&[rows])?, session.scratch(&[rows])?);
        layer_norm_keeping(
            session.exec(),
            x.as_slice()?,
            gamma.as_slice()?,
            beta,
            eps,
            y.as_mut_slice()?,
            mean.as_mut_slice()?,
            r.as_mut_slice()?,
        );
        let x = session.save(x)?;
        let normalized = Self { x, gamma, mean, r };
        Ok((y, normalized))
    }

    /// Adds the gradients of gamma and beta, and gives that of what was normalised.
    pub(super) fn gradient(
        &self,
        flow: &mut Flow<'_>,
        dy: Tensor,
        [to_gamma, to_beta]: [Option<&Target>; 2],
    ) -> Result<Tensor, AutogradError> {
        let session = flow.session();
        let mut dx = dy.contiguous();
        let x = self.x.load(session)?;
        let n = self.gamma.numel();
        let (mut dgamma, mut dbeta) = (session.scratch(&[n])?, session.scratch(&[n])?);
        layer_norm_backward(
            session.exec(),
            x.as_slice()?,
            self.mean.as_slice()?,
            self.r.as_slice()?,
            self.gamma.as_slice()?,
            dx.as_mut_slice()?,
            false,
            dgamma.as_mut_slice()?,
            dbeta.as_mut_slice()?,
        );
        for (to, gradient) in [(to_gamma, dgamma), (to_beta, dbeta)] {
            if let Some(to) = to {
                flow.add(&to.source, gradient)?;
            }
        }
        Ok(dx)
    }

    fn backward(
        self,
        flow: &mut Flow<'_>,
        dy: Tensor,
        [to_x, to_gamma, to_beta]: &[Option<Target>; 3],
    ) -> Result<(), AutogradError> {
        let dx = self.gradient(flow, dy, [to_gamma.as_ref(), to_beta.as_ref()])?;
        match to_x {
            Some(to) => flow.add(&to.source, dx),
            None => Ok(()),
        }
    }
}

fn backward_f64(
    flow: &mut Flow<'_>,
    dy: Tensor,
    to: &[Option<Target>; 3],
    x: &Tensor,
    gamma: &Tensor,
    eps: f32,
) -> Result<(), AutogradError> {
    let mut dx = dy.contiguous();
    let zeros = || Tensor::zeros(DType::F64, gamma.shape());
    let (mut dgamma, mut dbeta) = (zeros()?, zeros()?);
    reference::layer_norm_backward::<f64>(
        x.as_slice()?,
        gamma.as_slice()?,
        eps,
        dx.as_mut_slice()?,
        dgamma.as_mut_slice()?,
        dbeta.as_mut_slice()?,
    );
    for (to, gradient) in to.iter().zip([dx, dgamma, dbeta]) {
        if let Some(to) = to {
            flow.add(&to.source, gradient)?;
        }
    }
    Ok(())
}
