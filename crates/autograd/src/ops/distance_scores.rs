//! Scores of contents and distances.

use bertha_kernels::{
    DistanceGradients, DistanceTerms, distance_scores as kernel, distance_scores_backward,
};
use bertha_tensor::{DType, Element, Tensor};

use super::broadcast::with_float;
use super::real::Real;
use super::{Float, OpInfo, differentiable};
use crate::tape::{Flow, Target};
use crate::{AutogradError, Session, Var};

pub(super) const INFO: OpInfo = differentiable("distance_scores");

/// `scale·(x[b][i][j] + queries[b][i][c] + keys[b][j][c])`, `c = columns[S − 1 + i − j]`, of the products of queries and keys
/// `x[B,S,S]` and what each has for a distance, `[B,S,R]`; f32 or f64. `columns` has the numbers of the 2·S − 1 distances
/// query − key from −(S − 1) on. In place when nobody else holds `x`.
///
/// # Errors
/// When shapes or dtypes do not fit, there is not a column for each distance, or one is not below R.
pub fn distance_scores(
    session: &Session,
    x: Var,
    queries: Option<&Var>,
    keys: Option<&Var>,
    columns: &[u32],
    scale: f64,
) -> Result<Var, AutogradError> {
    let parts: Vec<&Var> = [queries, keys].into_iter().flatten().collect();
    let inputs: Vec<&Var> = [&x].into_iter().chain(parts.iter().copied()).collect();
    let tracked = INFO.admit(session, &inputs)?;
    let float = INFO.float(&inputs)?;
    let &[batch, len, other] = x.shape() else {
        return Err(INFO.shape_error("the scores", x.shape(), "three dimensions".into()));
    };
    if len != other || columns.len() + 1 != 2 * len {
        let expected = format!(
            "a row and a column for each of {len} places, which have 2·{len} − 1 distances"
        );
        return Err(INFO.shape_error("the scores", x.shape(), expected));
    }
    let least = columns.iter().max().map_or(0, |&most| most as usize + 1);
    let width = parts
        .first()
        .map_or(least, |part| part.shape().last().copied().unwrap_or(0));
    for part in &parts {
        if part.shape() != [batch, len, width] || width < least {
            let expected = format!("[{batch}, {len}, {}]", width.max(least));
            return Err(INFO.shape_error("what places have for distances", part.shape(), expected));
        }
    }
    let to_x = x.target().filter(|_| tracked);
    let to = [queries, keys].map(|part| part.and_then(Var::target).filter(|_| tracked));
    let mut y = x.into_tensor().contiguous();
    with_float!(float, T => {
        let [queries, keys] = [queries, keys].map(|part| part.map(|part| part.tensor().contiguous()));
        let terms = DistanceTerms {
            queries: queries.as_ref().map(Tensor::as_slice::<T>).transpose()?,
            keys: keys.as_ref().map(Tensor::as_slice::<T>).transpose()?,
            width,
            columns,
        };
        kernel(session.exec(), y.as_mut_slice()?, terms, <T as Real>::from_f64(scale));
    });
    if !tracked {
        return Ok(Var::constant(y));
    }
    let columns = columns.to_vec();
    Ok(INFO.record(y, move |flow, dy| {
        let scaled = super::mul_scalar(&flow.session().no_grad(), &Var::constant(dy), scale)?;
        let dx = scaled.into_tensor().contiguous();
        match dx.dtype() {
            DType::F64 => spread::<f64>(flow, &dx, &to, width, &columns)?,
            _ => spread::<f32>(flow, &dx, &to, width, &columns)?,
        }
        to_x.map_or(Ok(()), |to| flow.add(&to.source, dx))
    }))
}

/// Gives queries and keys their gradients.
fn spread<T: Element + std::ops::AddAssign>(
    flow: &mut Flow<'_>,
    dx: &Tensor,
    to: &[Option<Target>; 2],
    width: usize,
    columns: &[u32],
) -> Result<(), AutogradError> {
    let pool = flow.session().pool();
    let zeros = |to: &Target| Tensor::zeros_in(pool, T::DTYPE, &to.shape);
    let mut queries = to[0].as_ref().map(zeros).transpose()?;
    let mut keys = to[1].as_ref().map(zeros).transpose()?;
    let gradients = DistanceGradients {
        queries: queries.as_mut().map(Tensor::as_mut_slice).transpose()?,
        keys: keys.as_mut().map(Tensor::as_mut_slice).transpose()?,
    };
    let exec = flow.session().exec();
    distance_scores_backward(exec, dx.as_slice::<T>()?, width, columns, gradients);
    for (to, gradient) in to.iter().zip([queries, keys]) {
        if let (Some(to), Some(gradient)) = (to, gradient) {
            flow.add(&to.source, gradient)?;
        }
    }
    Ok(())
}
