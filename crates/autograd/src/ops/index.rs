//! Selecting by index and by condition.
//!
//! Indices are i64 or i32 tensors, from 0; a negative one is out of range.

use bertha_tensor::{DType, Tensor};

use super::broadcast::{broadcast_shape, sum_to, with_float};
use super::real::Real;
use super::{Float, OpInfo, differentiable};
use crate::{AutogradError, Session, Var};

pub(super) const INDEX_SELECT: OpInfo = differentiable("index_select");
pub(super) const GATHER: OpInfo = differentiable("gather");
pub(super) const SCATTER_ADD: OpInfo = differentiable("scatter_add");
pub(super) const WHERE: OpInfo = differentiable("where_");
const ONE_HOT: &str = "one_hot";

/// The values of an index tensor, row-major, each below `len`.
pub(super) fn indices(
    op: &'static str,
    what: &'static str,
    tensor: &Tensor,
    len: usize,
) -> Result<Vec<usize>, AutogradError> {
    let check = |index: i64| {
        let found = usize::try_from(index).ok().filter(|&index| index < len);
        found.ok_or(AutogradError::OutOfRange {
            op,
            what,
            index,
            len,
        })
    };
    integers(op, tensor)?.into_iter().map(check).collect()
}

/// The values of an i64 or i32 tensor, row-major.
pub(super) fn integers(op: &'static str, tensor: &Tensor) -> Result<Vec<i64>, AutogradError> {
    match tensor.dtype() {
        DType::I64 => Ok(tensor.to_vec()?),
        DType::I32 => Ok(tensor.to_dtype(DType::I64)?.to_vec()?),
        found => Err(AutogradError::SelectorDType {
            op,
            input: "an index tensor",
            found,
            expected: "i64 or i32",
        }),
    }
}

/// The indices `index[I]` of dimension `dim` of `x`, in their order, f32 or f64.
///
/// # Errors
/// When `dim` does not exist, `index` is no vector of i64 or i32, or an index is out of range.
pub fn index_select(
    session: &Session,
    x: &Var,
    dim: usize,
    index: &Tensor,
) -> Result<Var, AutogradError> {
    let float = INDEX_SELECT.float(&[x])?;
    let size = dimension(INDEX_SELECT, x, dim)?;
    if index.rank() != 1 {
        let expected = "one dimension".into();
        return Err(INDEX_SELECT.shape_error("the index", index.shape(), expected));
    }
    let rows = indices(INDEX_SELECT.name, "index", index, size)?;
    let inner: usize = x.shape()[dim + 1..].iter().product();
    let mut shape = x.shape().to_vec();
    shape[dim] = rows.len();
    let mut y = Tensor::scratch_in(session.pool(), x.dtype(), &shape)?;
    if y.numel() > 0 {
        with_float!(float, T => {
            let x = x.tensor().contiguous();
            let blocks = x.as_slice::<T>()?.chunks_exact(size * inner);
            let selected = y.as_mut_slice::<T>()?.chunks_exact_mut(rows.len() * inner);
            for (block, selected) in blocks.zip(selected) {
                for (&row, to) in rows.iter().zip(selected.chunks_exact_mut(inner)) {
                    to.copy_from_slice(&block[row * inner..][..inner]);
                }
            }
        });
    }
    let Some(to) = x.target().filter(|_| session.records()) else {
        return Ok(Var::constant(y));
    };
    Ok(INDEX_SELECT.record(y, move |flow, dy| {
        let mut dx = Tensor::zeros_in(flow.session().pool(), dy.dtype(), &to.shape)?;
        if dy.numel() > 0 {
            with_float!(float, T => {
                let dy = dy.contiguous();
                let selected = dy.as_slice::<T>()?.chunks_exact(rows.len() * inner);
                let blocks = dx.as_mut_slice::<T>()?.chunks_exact_mut(size * inner);
                for (block, selected) in blocks.zip(selected) {
                    for (&row, from) in rows.iter().zip(selected.chunks_exact(inner)) {
                        let to = &mut block[row * inner..][..inner];
                        to.iter_mut().zip(from).for_each(|(to, &from)| *to += from);
                    }
                }
            });
        }
        flow.add(&to.source, dx)
    }))
}

/// `y[i][j][k] = x[index[i][j][k]][j][k]` for `dim` 0, and likewise for others: PyTorch's `gather`. The result has
/// the shape of `index`, which has as many dimensions as `x` and is nowhere longer, but along `dim`.
///
/// # Errors
/// When `dim` does not exist, `index` is not i64 or i32 or does not fit, or an index is out of range.
pub fn gather(
    session: &Session,
    x: &Var,
    dim: usize,
    index: &Tensor,
) -> Result<Var, AutogradError> {
    let float = GATHER.float(&[x])?;
    let places = Places::new(GATHER, x, dim, index)?;
    let mut y = Tensor::scratch_in(session.pool(), x.dtype(), index.shape())?;
    with_float!(float, T => {
        let x = x.tensor().contiguous();
        gather_values(x.as_slice::<T>()?, &places.0, y.as_mut_slice()?);
    });
    let Some(to) = x.target().filter(|_| session.records()) else {
        return Ok(Var::constant(y));
    };
    Ok(GATHER.record(y, move |flow, dy| {
        let mut dx = Tensor::zeros_in(flow.session().pool(), dy.dtype(), &to.shape)?;
        with_float!(float, T => {
            let dy = dy.contiguous();
            scatter_values(dy.as_slice::<T>()?, &places.0, dx.as_mut_slice()?);
        });
        flow.add(&to.source, dx)
    }))
}

/// `x` with `x[index[i][j][k]][j][k] += source[i][j][k]` for `dim` 0, and likewise for others: PyTorch's `scatter_add`.
/// `index` and `source` are of one shape, with as many dimensions as `x` and nowhere longer, but along `dim`.
///
/// # Errors
/// When `dim` does not exist, shapes do not fit, dtypes differ, `index` is not i64 or i32, or an index is out of range.
pub fn scatter_add(
    session: &Session,
    x: &Var,
    dim: usize,
    index: &Tensor,
    source: &Var,
) -> Result<Var, AutogradError> {
    let inputs = [x, source];
    let (tracked, float) = (
        SCATTER_ADD.admit(session, &inputs)?,
        SCATTER_ADD.float(&inputs)?,
    );
    let places = Places::new(SCATTER_ADD, x, dim, index)?;
    if source.shape() != index.shape() {
        let expected = format!("{:?}, as the index", index.shape());
        return Err(SCATTER_ADD.shape_error("the source", source.shape(), expected));
    }
    let mut y = Tensor::scratch_in(session.pool(), x.dtype(), x.shape())?;
    with_float!(float, T => {
        let (x, source) = (x.tensor().contiguous(), source.tensor().contiguous());
        let values = y.as_mut_slice::<T>()?;
        values.copy_from_slice(x.as_slice()?);
        scatter_values(source.as_slice()?, &places.0, values);
    });
    if !tracked {
        return Ok(Var::constant(y));
    }
    let (to_x, to_source) = (x.target(), source.target());
    Ok(SCATTER_ADD.record(y, move |flow, dy| {
        if let Some(to) = to_source {
            let mut ds = Tensor::scratch_in(flow.session().pool(), dy.dtype(), &to.shape)?;
            with_float!(float, T => {
                let dy = dy.contiguous();
                gather_values(dy.as_slice::<T>()?, &places.0, ds.as_mut_slice()?);
            });
            flow.add(&to.source, ds)?;
        }
        to_x.map_or(Ok(()), |to| flow.add(&to.source, dy))
    }))
}

/// `a` where the condition (bool) holds and `b` elsewhere, f32 or f64; all three broadcast.
///
/// # Errors
/// When the condition is not bool, the shapes do not broadcast, or the dtypes of `a` and `b` differ.
pub fn where_(
    session: &Session,
    condition: &Tensor,
    a: &Var,
    b: &Var,
) -> Result<Var, AutogradError> {
    let (tracked, float) = (WHERE.admit(session, &[a, b])?, WHERE.float(&[a, b])?);
    if condition.dtype() != DType::Bool {
        return Err(AutogradError::SelectorDType {
            op: WHERE.name,
            input: "the condition",
            found: condition.dtype(),
            expected: "bool",
        });
    }
    let shape = broadcast_shape(WHERE, a.shape(), b.shape())?;
    let shape = broadcast_shape(WHERE, &shape, condition.shape())?;
    let condition = condition.broadcast_to(&shape)?;
    let y = with_float!(float, T => {
        let (a, b) = (a.tensor().broadcast_to(&shape)?, b.tensor().broadcast_to(&shape)?);
        choose::<T>(session, &condition, Some(&a), Some(&b))?
    });
    if !tracked {
        return Ok(Var::constant(y));
    }
    let (to_a, to_b) = (a.target(), b.target());
    Ok(WHERE.record(y, move |flow, dy| {
        let session = flow.session();
        if let Some(to) = to_a {
            let da = with_float!(float, T => choose::<T>(session, &condition, Some(&dy), None)?);
            flow.add(&to.source, sum_to(session, da, &to.shape)?)?;
        }
        if let Some(to) = to_b {
            let db = with_float!(float, T => choose::<T>(session, &condition, None, Some(&dy))?);
            flow.add(&to.source, sum_to(session, db, &to.shape)?)?;
        }
        Ok(())
    }))
}

/// Values of `a` where the condition holds and of `b` elsewhere, all of one shape; 0 where one is missing.
fn choose<T: Real>(
    session: &Session,
    condition: &Tensor,
    a: Option<&Tensor>,
    b: Option<&Tensor>,
) -> Result<Tensor, AutogradError> {
    let mut y = Tensor::zeros_in(session.pool(), T::DTYPE, condition.shape())?;
    let condition = condition.contiguous();
    let holds = condition.as_slice::<bool>()?;
    let values = y.as_mut_slice::<T>()?;
    for (wanted, source) in [(true, a), (false, b)] {
        let Some(source) = source else { continue };
        let source = source.contiguous();
        let pairs = holds.iter().zip(source.as_slice::<T>()?);
        for (to, (&holds, &value)) in values.iter_mut().zip(pairs) {
            if holds == wanted {
                *to = value;
            }
        }
    }
    Ok(y)
}

/// A 1 at each index of `index[…]` and 0 elsewhere, as `[…, classes]` of a float dtype.
///
/// # Errors
/// When `index` is not i64 or i32, an index is not below `classes`, or `dtype` is neither f32 nor f64.
pub fn one_hot(
    session: &Session,
    index: &Tensor,
    classes: usize,
    dtype: DType,
) -> Result<Var, AutogradError> {
    let float = match dtype {
        DType::F32 => Float::F32,
        DType::F64 => Float::F64,
        other => {
            return Err(AutogradError::DType {
                op: ONE_HOT,
                found: vec![other],
            });
        }
    };
    let hot = indices(ONE_HOT, "class", index, classes)?;
    let shape = [index.shape(), &[classes]].concat();
    let mut y = Tensor::zeros_in(session.pool(), dtype, &shape)?;
    with_float!(float, T => {
        let rows = y.as_mut_slice::<T>()?.chunks_exact_mut(classes.max(1));
        rows.zip(hot).for_each(|(row, class)| row[class] = T::ONE);
    });
    Ok(Var::constant(y))
}

/// The size of a dimension that must exist.
fn dimension(info: OpInfo, x: &Var, dim: usize) -> Result<usize, AutogradError> {
    let size = x.shape().get(dim).copied();
    size.ok_or_else(|| {
        let expected = format!("{} dimensions or more", dim + 1);
        info.shape_error("the input", x.shape(), expected)
    })
}

/// Where each value that an index tensor names lies in a contiguous `x`.
struct Places(Vec<usize>);

impl Places {
    fn new(info: OpInfo, x: &Var, dim: usize, index: &Tensor) -> Result<Self, AutogradError> {
        let size = dimension(info, x, dim)?;
        let (shape, from) = (index.shape(), x.shape());
        let fits = shape.len() == from.len()
            && (0..shape.len()).all(|axis| axis == dim || shape[axis] <= from[axis]);
        if !fits {
            let expected = format!("no more than {from:?} in each dimension but {dim}");
            return Err(info.shape_error("the index", shape, expected));
        }
        let mut strides = vec![1; from.len()];
        for axis in (1..from.len()).rev() {
            strides[axis - 1] = strides[axis] * from[axis];
        }
        let mut places = indices(info.name, "index", index, size)?;
        let inner: usize = shape[dim + 1..].iter().product();
        // What the axes before `dim` contribute changes from block to block; those behind it make the same pattern
        // in each.
        let offset = |mut at: usize, axes: std::ops::Range<usize>| {
            axes.rev().fold(0, |sum, axis| {
                let i = at % shape[axis];
                at /= shape[axis];
                sum + i * strides[axis]
            })
        };
        let pattern: Vec<usize> = (0..inner)
            .map(|at| offset(at, dim + 1..shape.len()))
            .collect();
        if !places.is_empty() {
            for (block, values) in places.chunks_exact_mut(shape[dim] * inner).enumerate() {
                let start = offset(block, 0..dim);
                for row in values.chunks_exact_mut(inner) {
                    for (place, &inside) in row.iter_mut().zip(&pattern) {
                        *place = start + *place * strides[dim] + inside;
                    }
                }
            }
        }
        Ok(Self(places))
    }
}

fn gather_values<T: Copy>(from: &[T], places: &[usize], to: &mut [T]) {
    to.iter_mut()
        .zip(places)
        .for_each(|(to, &place)| *to = from[place]);
}

fn scatter_values<T: Real>(from: &[T], places: &[usize], to: &mut [T]) {
    from.iter()
        .zip(places)
        .for_each(|(&value, &place)| to[place] += value);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> Session {
        Session::new(Some(1)).unwrap()
    }

    fn numbers(shape: &[usize]) -> Var {
        let len: usize = shape.iter().product();
        Var::constant(Tensor::from_vec((0..len).map(|i| i as f32).collect(), shape).unwrap())
    }

    #[test]
    fn gather_follows_its_definition() {
        let x = numbers(&[2, 3, 4]);
        for (dim, shape) in [(0, [3, 2, 4]), (1, [2, 5, 3]), (2, [1, 3, 6])] {
            let len: usize = shape.iter().product();
            let size = x.shape()[dim];
            let index: Vec<i64> = (0..len).map(|i| (i * 5 % size) as i64).collect();
            let index = Tensor::from_vec(index, &shape).unwrap();
            let y = gather(&session(), &x, dim, &index).unwrap();
            let (x, y) = (
                x.tensor().view::<f32>().unwrap(),
                y.tensor().view::<f32>().unwrap().to_owned(),
            );
            for (at, &chosen) in index.view::<i64>().unwrap().indexed_iter() {
                let mut from = at.clone();
                from[dim] = chosen as usize;
                assert_eq!(y[at], x[from]);
            }
        }
    }

    #[test]
    fn scatter_add_adds_up_repeated_indices() {
        let x = numbers(&[2, 3]);
        let index = Tensor::from_vec(vec![2_i32, 2, 0, 1], &[2, 2]).unwrap();
        let y = scatter_add(&session(), &x, 1, &index, &numbers(&[2, 2])).unwrap();
        assert_eq!(y.as_slice().unwrap(), [0.0, 1.0, 3.0, 5.0, 7.0, 5.0]);
    }

    #[test]
    fn rows_are_selected_in_their_order() {
        let index = Tensor::from_vec(vec![2_i64, 0, 2], &[3]).unwrap();
        let y = index_select(&session(), &numbers(&[2, 3]), 1, &index).unwrap();
        assert_eq!(y.as_slice().unwrap(), [2.0, 0.0, 2.0, 5.0, 3.0, 5.0]);
    }

    #[test]
    fn conditions_choose() {
        let condition = Tensor::from_vec(vec![true, false], &[2, 1]).unwrap();
        let y = where_(&session(), &condition, &numbers(&[3]), &numbers(&[2, 3])).unwrap();
        assert_eq!(y.as_slice().unwrap(), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        let hot = Tensor::from_vec(vec![1_i64, 0], &[2]).unwrap();
        let y = one_hot(&session(), &hot, 2, DType::F32).unwrap();
        assert_eq!(y.as_slice().unwrap(), [0.0, 1.0, 1.0, 0.0]);
    }

    #[test]
    fn what_is_out_of_range_is_named() {
        let x = numbers(&[2, 3]);
        for bad in [-1_i64, 3] {
            let index = Tensor::from_vec(vec![bad], &[1]).unwrap();
            let error = index_select(&session(), &x, 1, &index).unwrap_err();
            let error = error.to_string();
            assert!(
                error.contains("`index_select`") && error.contains(&bad.to_string()),
                "{error}"
            );
        }
        let floats = Tensor::from_vec(vec![0.0_f32], &[1]).unwrap();
        assert!(index_select(&session(), &x, 0, &floats).is_err());
        let long = Tensor::zeros(DType::I64, &[3, 1]).unwrap();
        assert!(gather(&session(), &x, 1, &long).is_err());
        assert!(gather(&session(), &x, 0, &long).is_ok());
    }
}
