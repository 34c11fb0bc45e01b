//! What is rounded, and learns all the same: each function gives the rounded value with the gradient of a surrogate.
//!
//! Signs are 1 where a value is not negative, as the packed kernels have them.

use bertha_autograd::{AutogradError, Session, Var, ops};
use bertha_kernels as kernels;
use bertha_kernels::reference::sign as sign_of;
use bertha_tensor::{DType, Tensor};

/// How a model is binarized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binarization {
    /// Signs everywhere; those of attention weights are all 1, since a softmax has no negative ones.
    Naive,
    /// BiBERT (Qin et al. 2022, <https://arxiv.org/abs/2203.06390>): a key is attended to where its score is above 0.
    BiBert,
}

impl Binarization {
    /// What a configuration calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Naive => "naive",
            Self::BiBert => "bibert",
        }
    }

    /// That of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Naive, Self::BiBert]
            .into_iter()
            .find(|of| of.name() == name)
    }
}

/// The signs of `x`; the gradient passes where `|x| ≤ 1`.
///
/// # Errors
/// When `x` is not f32.
pub fn sign(session: &Session, x: &Var) -> Result<Var, AutogradError> {
    let value = map(x, sign_of)?;
    let surrogate = ops::clamp(session, x, -1.0, 1.0)?;
    ops::straight_through(session, &surrogate, value)
}

/// 1 where `x` is above 0, else 0; the gradient passes where `|x| ≤ 1`.
///
/// # Errors
/// When `x` is not f32.
pub fn above_zero(session: &Session, x: &Var) -> Result<Var, AutogradError> {
    let value = map(x, |x| f32::from(u8::from(x > 0.0)))?;
    let surrogate = ops::clamp(session, x, -1.0, 1.0)?;
    ops::straight_through(session, &surrogate, value)
}

/// `α·sign(w − μ)` for each row of `w[N,K]`, with its mean `μ` and its mean magnitude `α`; the gradient passes where
/// `|w − μ| ≤ 1`, not multiplied by `α` (Qin et al. 2022, section 3.1).
///
/// # Errors
/// When `w` is no f32 matrix.
pub fn binarize_rows(session: &Session, w: &Var) -> Result<Var, AutogradError> {
    let latent = w.tensor().contiguous();
    let &[rows, columns] = w.shape() else {
        let shape = w.shape().to_vec();
        return Err(AutogradError::Shape {
            op: "binarize_rows",
            input: "the weight",
            found: shape,
            expected: "two dimensions".into(),
        });
    };
    let scratch = |shape: &[usize]| Tensor::scratch_in(session.pool(), DType::F32, shape);
    let (mut value, mut means) = (scratch(w.shape())?, scratch(&[rows])?);
    kernels::binarize_rows(
        session.exec(),
        latent.as_slice()?,
        columns,
        value.as_mut_slice()?,
        means.as_mut_slice()?,
    );
    ops::custom_gradient(session, w, value, move |session, dy| {
        let dy = dy.contiguous();
        let mut dw = Tensor::scratch_in(session.pool(), DType::F32, dy.shape())?;
        kernels::binarize_rows_backward(
            session.exec(),
            latent.as_slice()?,
            means.as_slice()?,
            columns,
            dy.as_slice()?,
            dw.as_mut_slice()?,
        );
        Ok(dw)
    })
}

/// The mean magnitude of each row of `w[N,K]`, and the signs of what is left when its mean is taken: those of
/// [`binarize_rows`].
///
/// # Errors
/// When `w` is not f32.
pub fn row_signs(session: &Session, w: &Tensor) -> Result<(Vec<f32>, Vec<f32>), AutogradError> {
    let w = w.contiguous();
    let columns = w.shape().last().copied().unwrap_or(0).max(1);
    let latent = w.as_slice::<f32>()?;
    let mut values = vec![0.0; latent.len()];
    let mut means = vec![0.0; latent.len() / columns];
    kernels::binarize_rows(session.exec(), latent, columns, &mut values, &mut means);
    let scales = values
        .chunks_exact(columns)
        .map(|row| row[0].abs())
        .collect();
    values.iter_mut().for_each(|value| *value = sign_of(*value));
    Ok((scales, values))
}

fn map(x: &Var, f: impl Fn(f32) -> f32) -> Result<Tensor, AutogradError> {
    let values: Vec<f32> = x.as_slice()?.iter().map(|&x| f(x)).collect();
    Ok(Tensor::from_vec(values, x.shape())?)
}
