//! Matrix products of any two values, batched, with broadcasting.

use bertha_tensor::Tensor;
use ndarray::{ArrayView2, ArrayViewMut2, ShapeBuilder, linalg::general_mat_mul};

use super::broadcast::{broadcast_shape, with_float};
use super::real::Real;
use super::{Float, OpInfo, differentiable};
use crate::{AutogradError, Session, Var};

pub(super) const MATMUL: OpInfo = differentiable("matmul");

/// `a[…,M,K] · b[…,K,N]` as `[…,M,N]`, f32 or f64; the dimensions before the last two broadcast. As in NumPy a vector
/// `a[K]` counts as a row and `b[K]` as a column, and that dimension is missing from the result. Transposed and
/// broadcast views are multiplied as they are, without a copy.
///
/// # Errors
/// When an input has no dimension, the shapes do not fit, or the dtypes differ.
pub fn matmul(session: &Session, a: &Var, b: &Var) -> Result<Var, AutogradError> {
    let (tracked, float) = (MATMUL.admit(session, &[a, b])?, MATMUL.float(&[a, b])?);
    let product = Batched::new(a, b)?;
    let (left, right) = (
        product.left.reshaped(a.tensor())?,
        product.right.reshaped(b.tensor())?,
    );
    let mut y = Tensor::scratch_in(session.pool(), a.dtype(), &product.shape)?;
    with_float!(float, T => {
        let Batched { m, n, k, .. } = product;
        let (left, right) = (Operand::<T>::of(&left, &product.batch)?, Operand::of(&right, &product.batch)?);
        let values = y.as_mut_slice::<T>()?;
        for (batch, c) in product.places().zip(values.chunks_exact_mut((m * n).max(1))) {
            multiply(session, [m, k, n], left.at(&batch), right.at(&batch), false, c);
        }
    });
    if !tracked {
        return Ok(Var::constant(y));
    }
    let (to_a, to_b) = (a.target(), b.target());
    Ok(MATMUL.record(y, move |flow, dy| {
        let session = flow.session();
        let Batched { m, n, k, .. } = product;
        let dy = dy.reshape(&[&product.batch[..], &[m, n]].concat())?;
        if let Some(to) = to_a {
            let mut da = Tensor::zeros_in(session.pool(), dy.dtype(), &product.left.shape)?;
            with_float!(float, T => {
                let (dy, right) = (Operand::<T>::of(&dy, &product.batch)?, Operand::of(&right, &product.batch)?);
                let offsets = Offsets::of(&product.left.shape, &product.batch);
                let values = da.as_mut_slice::<T>()?;
                for batch in product.places().take_while(|_| m * k > 0) {
                    let c = &mut values[offsets.at(&batch)..][..m * k];
                    multiply(session, [m, n, k], dy.at(&batch), right.at(&batch).transposed(), true, c);
                }
            });
            flow.add(&to.source, da.reshape(&to.shape)?)?;
        }
        if let Some(to) = to_b {
            let mut db = Tensor::zeros_in(session.pool(), dy.dtype(), &product.right.shape)?;
            with_float!(float, T => {
                let (dy, left) = (Operand::<T>::of(&dy, &product.batch)?, Operand::of(&left, &product.batch)?);
                let offsets = Offsets::of(&product.right.shape, &product.batch);
                let values = db.as_mut_slice::<T>()?;
                for batch in product.places().take_while(|_| k * n > 0) {
                    let c = &mut values[offsets.at(&batch)..][..k * n];
                    multiply(session, [k, m, n], left.at(&batch).transposed(), dy.at(&batch), true, c);
                }
            });
            flow.add(&to.source, db.reshape(&to.shape)?)?;
        }
        Ok(())
    }))
}

/// A matrix inside a slice: value `(i, j)` is at `i·row_stride + j·column_stride`.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a, T> {
    pub(super) data: &'a [T],
    pub(super) row_stride: usize,
    pub(super) column_stride: usize,
}

impl<'a, T> Matrix<'a, T> {
    /// A matrix whose rows of `columns` values lie end to end.
    pub(super) fn row_major(data: &'a [T], columns: usize) -> Self {
        Self {
            data,
            row_stride: columns,
            column_stride: 1,
        }
    }

    /// As ndarray sees it.
    fn view(self, rows: usize, columns: usize) -> ArrayView2<'a, T> {
        let shape = (rows, columns).strides((self.row_stride, self.column_stride));
        ArrayView2::from_shape(shape, self.data).expect("an operand holds the values of its shape")
    }

    pub(super) fn transposed(self) -> Self {
        Self {
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }
}

/// `c[m,n] (+)= a[m,k] · b[k,n]`, with `c` row-major: added to when `accumulate`, else overwritten. The one place that
/// the general operations' products run through.
pub(super) fn multiply<T: Real>(
    session: &Session,
    [m, k, n]: [usize; 3],
    a: Matrix<'_, T>,
    b: Matrix<'_, T>,
    accumulate: bool,
    c: &mut [T],
) {
    if m * n == 0 {
        return;
    }
    if k == 0 {
        if !accumulate {
            c.fill(T::ZERO);
        }
        return;
    }
    T::multiply(session, [m, k, n], a, b, accumulate, c);
}

/// What multiplies matrices of a float type: the kernels in f32, and in f64, which only checks and small studies use,
/// ndarray.
pub(super) trait Product: Sized {
    fn multiply(
        session: &Session,
        shape: [usize; 3],
        a: Matrix<'_, Self>,
        b: Matrix<'_, Self>,
        accumulate: bool,
        c: &mut [Self],
    );
}

impl Product for f32 {
    fn multiply(
        session: &Session,
        [m, k, n]: [usize; 3],
        a: Matrix<'_, Self>,
        b: Matrix<'_, Self>,
        accumulate: bool,
        c: &mut [Self],
    ) {
        let [a, b] = [a, b].map(|matrix| bertha_kernels::Matrix {
            data: matrix.data,
            row_stride: matrix.row_stride,
            column_stride: matrix.column_stride,
        });
        bertha_kernels::matmul(session.exec(), (m, n, k), a, b, accumulate, c);
    }
}

impl Product for f64 {
    fn multiply(
        _session: &Session,
        [m, k, n]: [usize; 3],
        a: Matrix<'_, Self>,
        b: Matrix<'_, Self>,
        accumulate: bool,
        c: &mut [Self],
    ) {
        let beta = f64::from(u8::from(accumulate));
        let mut c = ArrayViewMut2::from_shape((m, n), c).expect("a value for every sum");
        general_mat_mul(1.0, &a.view(m, k), &b.view(k, n), beta, &mut c);
    }
}

/// How an input enters the product.
struct Side {
    /// The input's shape as matrices, of two dimensions or more.
    shape: Vec<usize>,
}

impl Side {
    fn reshaped(&self, x: &Tensor) -> Result<Tensor, AutogradError> {
        if x.shape() == self.shape {
            return Ok(x.clone());
        }
        Ok(x.reshape(&self.shape)?)
    }
}

/// The shapes of a product.
struct Batched {
    left: Side,
    right: Side,
    /// What the dimensions before the last two broadcast to.
    batch: Vec<usize>,
    m: usize,
    k: usize,
    n: usize,
    /// The shape of the result.
    shape: Vec<usize>,
}

impl Batched {
    fn new(a: &Var, b: &Var) -> Result<Self, AutogradError> {
        let (mut left, mut right) = (a.shape().to_vec(), b.shape().to_vec());
        let (row, column) = (left.len() == 1, right.len() == 1);
        if row {
            left.insert(0, 1);
        }
        if column {
            right.push(1);
        }
        let expected = || "one dimension or more".to_owned();
        let (&[ref a_batch @ .., m, k], &[ref b_batch @ .., rows, n]) = (&left[..], &right[..])
        else {
            let input = if a.shape().is_empty() {
                "the first input"
            } else {
                "the second input"
            };
            return Err(MATMUL.shape_error(input, &[], expected()));
        };
        if k != rows {
            let expected = format!("{k} rows, as the first input {:?} has columns", a.shape());
            return Err(MATMUL.shape_error("the second input", b.shape(), expected));
        }
        let mut batch = broadcast_shape(MATMUL, a_batch, b_batch)?;
        let mut shape = batch.clone();
        shape.extend((!row).then_some(m));
        shape.extend((!column).then_some(n));
        let mut rows = m;
        // One matrix on the right for all on the left: one product, of all rows.
        if b_batch.is_empty() && !a_batch.is_empty() && a.tensor().is_contiguous() {
            rows = a_batch.iter().product::<usize>() * m;
            left = vec![rows, k];
            batch.clear();
        }
        Ok(Self {
            left: Side { shape: left },
            right: Side { shape: right },
            batch,
            m: rows,
            k,
            n,
            shape,
        })
    }

    /// The indices of the matrices of the batch, in order.
    fn places(&self) -> impl Iterator<Item = Vec<usize>> {
        let batch = &self.batch;
        (0..batch.iter().product()).map(move |mut place: usize| {
            let mut index = vec![0; batch.len()];
            for (index, &size) in index.iter_mut().zip(batch).rev() {
                *index = place % size;
                place /= size;
            }
            index
        })
    }
}

/// Where the matrices of an input lie: the step along each dimension of the batch, 0 where the input repeats.
struct Offsets(Vec<usize>);

impl Offsets {
    /// Of a row-major buffer of `shape`.
    fn of(shape: &[usize], batch: &[usize]) -> Self {
        let mut strides = vec![1; shape.len()];
        for axis in (1..shape.len()).rev() {
            strides[axis - 1] = strides[axis] * shape[axis];
        }
        Self::strided(shape, &strides, batch)
    }

    fn strided(shape: &[usize], strides: &[usize], batch: &[usize]) -> Self {
        let own = shape.len() - 2;
        let mut steps = vec![0; batch.len() - own];
        let pairs = shape[..own].iter().zip(strides);
        steps.extend(pairs.map(|(&size, &stride)| if size == 1 { 0 } else { stride }));
        Self(steps)
    }

    fn at(&self, index: &[usize]) -> usize {
        self.0.iter().zip(index).map(|(step, i)| step * i).sum()
    }
}

/// The matrices of an input.
struct Operand<'a, T> {
    all: Matrix<'a, T>,
    offsets: Offsets,
}

impl<'a, T: Real> Operand<'a, T> {
    fn of(x: &'a Tensor, batch: &[usize]) -> Result<Self, AutogradError> {
        let (shape, strides) = (x.shape(), x.strides());
        Ok(Self {
            all: Matrix {
                data: x.elements_from_offset::<T>()?,
                row_stride: strides[shape.len() - 2],
                column_stride: strides[shape.len() - 1],
            },
            offsets: Offsets::strided(shape, strides, batch),
        })
    }

    fn at(&self, index: &[usize]) -> Matrix<'a, T> {
        Matrix {
            data: self.all.data.get(self.offsets.at(index)..).unwrap_or(&[]),
            ..self.all
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(shape: &[usize]) -> Tensor {
        let len: usize = shape.iter().product();
        let values = (0..len).map(|i| (i * 37 % 19) as f32 - 9.0).collect();
        Tensor::from_vec(values, shape).unwrap()
    }

    fn product(a: Tensor, b: Tensor) -> Result<(Vec<usize>, Vec<f32>), AutogradError> {
        let session = Session::new(Some(1)).unwrap();
        let y = matmul(&session, &Var::constant(a), &Var::constant(b))?;
        Ok((y.shape().to_vec(), y.as_slice()?.to_vec()))
    }

    #[test]
    fn batches_broadcast() {
        let (a, b) = (numbers(&[2, 1, 3, 4]), numbers(&[5, 4, 6]));
        let (shape, y) = product(a.clone(), b.clone()).unwrap();
        assert_eq!(shape, [2, 5, 3, 6]);
        let (a, b) = (a.view::<f32>().unwrap(), b.view::<f32>().unwrap());
        let mut values = y.iter();
        for i in 0..2 {
            for j in 0..5 {
                for row in 0..3 {
                    for column in 0..6 {
                        let expected: f32 =
                            (0..4).map(|k| a[[i, 0, row, k]] * b[[j, k, column]]).sum();
                        assert_eq!(values.next(), Some(&expected));
                    }
                }
            }
        }
    }

    #[test]
    fn views_are_multiplied_as_they_lie() {
        let (a, b) = (numbers(&[4, 3]), numbers(&[6, 4]));
        let (a, b) = (a.transpose(0, 1).unwrap(), b.transpose(0, 1).unwrap());
        let strided = product(a.clone(), b.clone()).unwrap();
        assert_eq!(strided, product(a.contiguous(), b.contiguous()).unwrap());
        let repeated = numbers(&[4]).broadcast_to(&[3, 4]).unwrap();
        let strided = product(repeated.clone(), b.clone()).unwrap();
        assert_eq!(strided, product(repeated.copy(), b).unwrap());
    }

    #[test]
    fn vectors_are_rows_and_columns() {
        let (v, w) = (numbers(&[4]), numbers(&[4, 3]));
        assert_eq!(product(v.clone(), w.clone()).unwrap().0, [3]);
        let transposed = w.transpose(0, 1).unwrap();
        assert_eq!(product(transposed, v.clone()).unwrap().0, [3]);
        let (shape, y) = product(v.clone(), v.clone()).unwrap();
        let squares: f32 = v.as_slice::<f32>().unwrap().iter().map(|v| v * v).sum();
        assert_eq!((shape, y), (vec![], vec![squares]));
    }

    #[test]
    fn empty_and_misfit_shapes() {
        let (shape, y) = product(numbers(&[2, 0]), numbers(&[0, 3])).unwrap();
        assert_eq!((shape, y), (vec![2, 3], vec![0.0; 6]));
        assert_eq!(
            product(numbers(&[0, 2]), numbers(&[2, 3])).unwrap().0,
            [0, 3]
        );
        let error = product(numbers(&[2, 3]), numbers(&[2, 3]))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("`matmul`") && error.contains("3 rows"),
            "{error}"
        );
        assert!(product(numbers(&[]), numbers(&[2])).is_err());
    }
}
