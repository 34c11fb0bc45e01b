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
    /// BiT (Liu et al. 2022, <https://arxiv.org/abs/2205.13016>): inputs on levels that learn, and a key is attended to where its
    /// softmax is.
    Bit {
        /// Bits of inputs; with more than one it is a step on the way, which runs as floats.
        bits: u32,
    },
}

impl Binarization {
    /// What a configuration calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Naive => "naive",
            Self::BiBert => "bibert",
            Self::Bit { .. } => "bit",
        }
    }

    /// Bits of the inputs of layers.
    pub fn activation_bits(self) -> u32 {
        match self {
            Self::Naive | Self::BiBert => 1,
            Self::Bit { bits } => bits,
        }
    }

    /// That of a name, and of the bits of inputs, 1 to 8.
    pub fn from_name(name: &str, bits: u32) -> Option<Self> {
        [Self::Naive, Self::BiBert, Self::Bit { bits }]
            .into_iter()
            .find(|of| of.name() == name && of.activation_bits() == bits && (1..=8).contains(&bits))
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

/// `α·sign(w − μ)` with the mean `μ` of all of `w[N,K]` and its mean magnitude `α`; the gradient passes everywhere (Liu et al. 2022,
/// <https://arxiv.org/abs/2205.13016>).
///
/// # Errors
/// When `w` is not f32.
pub fn binarize_matrix(session: &Session, w: &Var) -> Result<Var, AutogradError> {
    let (scales, mut values) = matrix_signs(w.tensor())?;
    let columns = w.shape().last().copied().unwrap_or(0).max(1);
    for (row, scale) in values.chunks_mut(columns).zip(scales) {
        row.iter_mut().for_each(|value| *value *= scale);
    }
    ops::straight_through(session, w, Tensor::from_vec(values, w.shape())?)
}

/// The mean magnitude of `w[N,K]`, for each row, and the signs of what is left when its mean is taken: those of
/// [`binarize_matrix`].
///
/// # Errors
/// When `w` is not f32.
pub fn matrix_signs(w: &Tensor) -> Result<(Vec<f32>, Vec<f32>), AutogradError> {
    let w = w.contiguous();
    let values = w.as_slice::<f32>()?;
    let mean = mean_of(values.iter().copied());
    let scale = mean_of(values.iter().map(|w| w.abs()));
    let rows = w.shape().first().copied().unwrap_or(0);
    let signs = values.iter().map(|&w| sign_of(w - mean)).collect();
    Ok((vec![scale; rows], signs))
}

/// The rows of a table that `ids` name as [`binarize_matrix`] has them, but each with its own mean magnitude.
///
/// # Errors
/// When the table is no f32 matrix, or an id is beyond it.
pub fn binarize_table(session: &Session, table: &Var, ids: &[u32]) -> Result<Var, AutogradError> {
    let rows = ops::embedding(session, table, ids)?;
    let mean = mean_of(table.as_slice()?.iter().copied());
    let columns = rows.shape().last().copied().unwrap_or(0).max(1);
    let mut values = rows.as_slice()?.to_vec();
    for row in values.chunks_mut(columns) {
        let scale = mean_of(row.iter().map(|w| w.abs()));
        row.iter_mut().for_each(|w| *w = scale * sign_of(*w - mean));
    }
    let values = Tensor::from_vec(values, rows.shape())?;
    ops::straight_through(session, &rows, values)
}

/// The scale of each row of a table and its signs: those of [`binarize_table`].
///
/// # Errors
/// When the table is not f32.
pub fn table_signs(table: &Tensor) -> Result<(Vec<f32>, Vec<f32>), AutogradError> {
    let table = table.contiguous();
    let columns = table.shape().last().copied().unwrap_or(0).max(1);
    let values = table.as_slice::<f32>()?;
    let mean = mean_of(values.iter().copied());
    let rows = values.chunks(columns);
    let scales = rows.map(|row| mean_of(row.iter().map(|w| w.abs())));
    let signs = values.iter().map(|&w| sign_of(w - mean));
    Ok((scales.collect(), signs.collect()))
}

fn mean_of(values: impl ExactSizeIterator<Item = f32>) -> f32 {
    let count = values.len().max(1) as f64;
    (values.map(f64::from).sum::<f64>() / count) as f32
}

fn map(x: &Var, f: impl Fn(f32) -> f32) -> Result<Tensor, AutogradError> {
    let values: Vec<f32> = x.as_slice()?.iter().map(|&x| f(x)).collect();
    Ok(Tensor::from_vec(values, x.shape())?)
}
