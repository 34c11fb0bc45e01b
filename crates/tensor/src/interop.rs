//! `ndarray` arrays and views, without a copy where the layout allows.

use std::sync::Arc;

use ndarray::{ArrayBase, ArrayD, ArrayView, ArrayViewD, Data, Dimension, IxDyn, ShapeBuilder};

use crate::shape::{Layout, checked_numel};
use crate::storage::Storage;
use crate::{Element, Tensor, TensorError};

impl Tensor {
    /// A tensor with the elements of an array.
    ///
    /// An owned array is moved, without a copy, and keeps its strides: one in column-major order gives a tensor that is
    /// not [contiguous](Tensor::is_contiguous). The tensor then has the alignment of the array's allocation. An
    /// `ArcArray` is moved if it is the only owner. A view is copied, and so is an array with an axis that runs
    /// backwards.
    ///
    /// # Errors
    /// [`TensorError::TooLarge`] if a broadcast view's copy would exceed the address space.
    pub fn from_ndarray<T: Element, S, D>(array: ArrayBase<S, D>) -> Result<Tensor, TensorError>
    where
        S: Data<Elem = T>,
        D: Dimension,
    {
        let shape = array.shape().to_vec();
        let numel = checked_numel(&shape, T::DTYPE)?;
        if numel == 0 {
            return Tensor::from_vec(Vec::<T>::new(), &shape);
        }
        let array = array.into_owned();
        let strides: Option<Vec<usize>> = array
            .strides()
            .iter()
            .map(|&stride| usize::try_from(stride).ok())
            .collect();
        let Some(strides) = strides else {
            return Tensor::from_vec(array.iter().copied().collect(), &shape);
        };
        // A sliced array keeps its whole allocation; the offset finds its part again.
        let (vec, offset) = array.into_raw_vec_and_offset();
        let len = vec.len();
        Ok(Tensor {
            layout: Layout::new(&shape, &strides, offset.unwrap_or(0)),
            ..Tensor::from_vec(vec, &[len])?
        })
    }

    /// The elements as an `ndarray` view, for any layout, without copying (with the one exception of
    /// [`as_slice`](Tensor::as_slice)).
    ///
    /// # Errors
    /// [`TensorError::DType`] if the tensor holds another type.
    pub fn view<T: Element>(&self) -> Result<ArrayViewD<'_, T>, TensorError> {
        let elements = self.elements_from_offset::<T>()?;
        let shape = IxDyn(self.shape());
        let view = if self.numel() == 0 {
            ArrayView::from_shape(shape, elements)
        } else {
            ArrayView::from_shape(shape.strides(IxDyn(self.strides())), elements)
        };
        Ok(view.expect("a layout keeps its elements inside the storage"))
    }

    /// The elements copied to an array in standard layout.
    ///
    /// # Errors
    /// [`TensorError::DType`] if the tensor holds another type.
    pub fn to_ndarray<T: Element>(&self) -> Result<ArrayD<T>, TensorError> {
        Ok(array_of(self.to_vec()?, self.shape()))
    }

    /// The elements as an array in standard layout: moved without a copy if the tensor came from a `Vec` or an array,
    /// is its only owner and covers all of it in order; copied otherwise.
    ///
    /// # Errors
    /// [`TensorError::DType`] if the tensor holds another type.
    pub fn into_ndarray<T: Element>(self) -> Result<ArrayD<T>, TensorError> {
        self.expect_dtype(T::DTYPE)?;
        let shape = self.shape().to_vec();
        self.into_vec().map(|values| array_of(values, &shape))
    }

    /// The elements in row-major order: moved without a copy if the tensor came from a `Vec` or an array, is its only
    /// owner and covers all of it in order; copied otherwise.
    ///
    /// # Errors
    /// [`TensorError::DType`] if the tensor holds another type.
    pub fn into_vec<T: Element>(mut self) -> Result<Vec<T>, TensorError> {
        self.expect_dtype(T::DTYPE)?;
        let whole = self.is_contiguous() && self.layout.offset() == 0;
        let numel = self.numel();
        if let (true, Some(Storage::Vec(vec))) = (whole, Arc::get_mut(&mut self.storage))
            && let Some(vec) = T::vec_mut(vec)
            && vec.len() == numel
        {
            return Ok(std::mem::take(vec));
        }
        self.to_vec()
    }
}

fn array_of<T: Element>(values: Vec<T>, shape: &[usize]) -> ArrayD<T> {
    ArrayD::from_shape_vec(IxDyn(shape), values)
        .expect("a tensor has as many elements as its shape says")
}
