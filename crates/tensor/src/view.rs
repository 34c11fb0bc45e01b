//! Views: other shapes and orders of the same elements. None copies, except [`Tensor::reshape`] where it says so.

use std::ops::Range;
use std::sync::Arc;

use crate::{Layout, Tensor, TensorError};

impl Tensor {
    fn with_layout(&self, layout: Layout) -> Tensor {
        Tensor {
            storage: Arc::clone(&self.storage),
            dtype: self.dtype,
            layout,
        }
    }

    /// The same elements in row-major order under another shape. Copies only if they do not lie in that order.
    ///
    /// # Errors
    /// [`TensorError::Reshape`] if the number of elements would change.
    pub fn reshape(&self, shape: &[usize]) -> Result<Tensor, TensorError> {
        match self.layout.reshape(shape, self.dtype)? {
            Some(layout) => Ok(self.with_layout(layout)),
            None => {
                let copy = self.copy();
                Ok(Tensor {
                    layout: Layout::row_major(shape),
                    ..copy
                })
            }
        }
    }

    /// `len` indices of dimension `dim` from `start` on.
    ///
    /// # Errors
    /// [`TensorError::Dimension`] or [`TensorError::Range`] if there are no such.
    pub fn narrow(&self, dim: usize, start: usize, len: usize) -> Result<Tensor, TensorError> {
        self.layout
            .narrow(dim, start, len)
            .map(|layout| self.with_layout(layout))
    }

    /// The indices `range` of dimension `dim`. A range that ends before it starts is an error.
    ///
    /// # Errors
    /// [`TensorError::Dimension`] or [`TensorError::Range`] if there are no such.
    pub fn slice(&self, dim: usize, range: Range<usize>) -> Result<Tensor, TensorError> {
        let Range { start, end } = range;
        match end.checked_sub(start) {
            Some(len) => self.narrow(dim, start, len),
            None => {
                let shape = self.shape().to_vec();
                let size = shape.get(dim).copied().unwrap_or(0);
                Err(TensorError::Range {
                    start,
                    end,
                    dim,
                    shape,
                    size,
                })
            }
        }
    }

    /// Index `index` of dimension `dim`, which disappears.
    ///
    /// # Errors
    /// [`TensorError::Dimension`] or [`TensorError::Range`] if there is no such.
    pub fn select(&self, dim: usize, index: usize) -> Result<Tensor, TensorError> {
        self.layout
            .select(dim, index)
            .map(|layout| self.with_layout(layout))
    }

    /// Dimensions `a` and `b` exchanged.
    ///
    /// # Errors
    /// [`TensorError::Dimension`] if one does not exist.
    pub fn transpose(&self, a: usize, b: usize) -> Result<Tensor, TensorError> {
        self.layout
            .transpose(a, b)
            .map(|layout| self.with_layout(layout))
    }

    /// Dimensions in the order of `axes`: dimension `i` of the result is dimension `axes[i]` of this tensor.
    ///
    /// # Errors
    /// [`TensorError::Permutation`] if `axes` does not name each dimension once.
    pub fn permute(&self, axes: &[usize]) -> Result<Tensor, TensorError> {
        self.layout
            .permute(axes)
            .map(|layout| self.with_layout(layout))
    }

    /// A new dimension of size 1 before dimension `dim` (after the last one if `dim` is the rank).
    ///
    /// # Errors
    /// [`TensorError::Dimension`] if `dim` is above the rank.
    pub fn unsqueeze(&self, dim: usize) -> Result<Tensor, TensorError> {
        self.layout
            .unsqueeze(dim)
            .map(|layout| self.with_layout(layout))
    }

    /// Without dimension `dim`, which must be of size 1.
    ///
    /// # Errors
    /// [`TensorError::Squeeze`] if it is not of size 1, [`TensorError::Dimension`] if it does not exist.
    pub fn squeeze(&self, dim: usize) -> Result<Tensor, TensorError> {
        self.layout
            .squeeze(dim)
            .map(|layout| self.with_layout(layout))
    }

    /// Repeated along dimensions of size 1 and along new leading ones, as NumPy does, with stride 0.
    ///
    /// # Errors
    /// [`TensorError::Broadcast`] if the shapes do not fit, [`TensorError::TooLarge`] if the result could not be
    /// addressed if it were copied.
    pub fn broadcast_to(&self, shape: &[usize]) -> Result<Tensor, TensorError> {
        self.layout
            .broadcast_to(shape, self.dtype)
            .map(|layout| self.with_layout(layout))
    }
}
