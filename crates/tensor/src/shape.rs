//! Shape, strides and offset of a tensor: which element of the storage is which element of the tensor.
//!
//! All numbers count elements, not bytes. Strides are never negative; a broadcast dimension has stride 0. A layout made
//! here keeps every reachable element inside the storage it was first made for.

use std::fmt;
use std::ops::{Deref, Range};

use crate::{DType, TensorError};

/// Sizes or strides of a few dimensions, kept inline up to six, so that a view allocates nothing.
#[derive(Clone)]
pub(crate) enum Dims {
    Inline(u8, [usize; Dims::INLINE]),
    Heap(Box<[usize]>),
}

impl Dims {
    const INLINE: usize = 6;
}

impl From<&[usize]> for Dims {
    fn from(dims: &[usize]) -> Dims {
        if dims.len() > Dims::INLINE {
            return Dims::Heap(dims.into());
        }
        let mut inline = [0; Dims::INLINE];
        inline[..dims.len()].copy_from_slice(dims);
        Dims::Inline(dims.len() as u8, inline)
    }
}

impl Deref for Dims {
    type Target = [usize];
    fn deref(&self) -> &[usize] {
        match self {
            Dims::Inline(len, dims) => &dims[..usize::from(*len)],
            Dims::Heap(dims) => dims,
        }
    }
}

impl fmt::Debug for Dims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self[..].fmt(f)
    }
}

/// Number of elements of `shape`, or an error if `dtype` elements of it would exceed the address space.
///
/// Zero sizes are left out of the overflow check's product, so that strides of an empty shape cannot overflow either.
pub(crate) fn checked_numel(shape: &[usize], dtype: DType) -> Result<usize, TensorError> {
    let product =
        shape
            .iter()
            .filter(|&&size| size > 0)
            .try_fold(dtype.size(), |product, &size| {
                product
                    .checked_mul(size)
                    .filter(|&bytes| bytes <= isize::MAX as usize)
            });
    match product {
        None => Err(TensorError::TooLarge {
            shape: shape.to_vec(),
            dtype,
        }),
        Some(_) if shape.contains(&0) => Ok(0),
        Some(bytes) => Ok(bytes / dtype.size()),
    }
}

/// Where the elements of a tensor lie in its storage: shape, strides and offset, in elements.
#[derive(Clone, Debug)]
pub struct Layout {
    shape: Dims,
    strides: Dims,
    offset: usize,
}

impl Layout {
    /// Row-major layout of `shape` from the start of the storage. The caller has passed `shape` by [`checked_numel`].
    pub(crate) fn row_major(shape: &[usize]) -> Layout {
        let mut strides = Dims::from(shape);
        let mut stride = 1;
        let out: &mut [usize] = match &mut strides {
            Dims::Inline(len, dims) => &mut dims[..usize::from(*len)],
            Dims::Heap(dims) => dims,
        };
        for value in out.iter_mut().rev() {
            let size = *value;
            *value = stride;
            stride *= size.max(1);
        }
        Layout {
            shape: shape.into(),
            strides,
            offset: 0,
        }
    }

    /// The caller vouches that every element lies inside the storage.
    pub(crate) fn new(shape: &[usize], strides: &[usize], offset: usize) -> Layout {
        Layout {
            shape: shape.into(),
            strides: strides.into(),
            offset,
        }
    }

    /// Size of each dimension.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Distance of neighbours along each dimension, in elements.
    pub fn strides(&self) -> &[usize] {
        &self.strides
    }

    /// Position of the first element in the storage, in elements.
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// Number of elements.
    pub fn numel(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether the elements lie in one run, in row-major order. Dimensions of size 1 may have any stride.
    /// So does no element at all.
    pub fn is_contiguous(&self) -> bool {
        if self.shape.contains(&0) {
            return true;
        }
        let mut expected = 1;
        for (&size, &stride) in self.shape.iter().zip(&*self.strides).rev() {
            if size > 1 && stride != expected {
                return false;
            }
            expected *= size;
        }
        true
    }

    /// From the first to the last element that the layout reaches, in the storage's elements.
    pub(crate) fn span(&self) -> Range<usize> {
        if self.shape.contains(&0) {
            return self.offset..self.offset;
        }
        let dims = self.shape.iter().zip(&*self.strides);
        let last: usize = dims.map(|(&size, &stride)| (size - 1) * stride).sum();
        self.offset..self.offset + last + 1
    }

    fn check_dim(&self, dim: usize) -> Result<(), TensorError> {
        self.check_dim_below(dim, self.shape.len())
    }

    fn check_dim_below(&self, dim: usize, limit: usize) -> Result<(), TensorError> {
        if dim < limit {
            return Ok(());
        }
        Err(TensorError::Dimension {
            dim,
            shape: self.shape.to_vec(),
            limit,
        })
    }

    pub(crate) fn narrow(
        &self,
        dim: usize,
        start: usize,
        len: usize,
    ) -> Result<Layout, TensorError> {
        self.check_dim(dim)?;
        let size = self.shape[dim];
        let end = start.saturating_add(len);
        if end > size {
            return Err(TensorError::Range {
                start,
                end,
                dim,
                shape: self.shape.to_vec(),
                size,
            });
        }
        let mut shape = self.shape.to_vec();
        shape[dim] = len;
        Ok(Layout::new(
            &shape,
            &self.strides,
            self.offset + start * self.strides[dim],
        ))
    }

    pub(crate) fn select(&self, dim: usize, index: usize) -> Result<Layout, TensorError> {
        self.narrow(dim, index, 1)?.squeeze(dim)
    }

    pub(crate) fn permute(&self, axes: &[usize]) -> Result<Layout, TensorError> {
        let mut sorted = axes.to_vec();
        sorted.sort_unstable();
        if !sorted.into_iter().eq(0..self.shape.len()) {
            return Err(TensorError::Permutation {
                axes: axes.to_vec(),
                shape: self.shape.to_vec(),
            });
        }
        let shape: Vec<usize> = axes.iter().map(|&axis| self.shape[axis]).collect();
        let strides: Vec<usize> = axes.iter().map(|&axis| self.strides[axis]).collect();
        Ok(Layout::new(&shape, &strides, self.offset))
    }

    pub(crate) fn transpose(&self, a: usize, b: usize) -> Result<Layout, TensorError> {
        self.check_dim(a)?;
        self.check_dim(b)?;
        let (mut shape, mut strides) = (self.shape.to_vec(), self.strides.to_vec());
        shape.swap(a, b);
        strides.swap(a, b);
        Ok(Layout::new(&shape, &strides, self.offset))
    }

    pub(crate) fn unsqueeze(&self, dim: usize) -> Result<Layout, TensorError> {
        self.check_dim_below(dim, self.shape.len() + 1)?;
        let (mut shape, mut strides) = (self.shape.to_vec(), self.strides.to_vec());
        shape.insert(dim, 1);
        strides.insert(dim, 1);
        Ok(Layout::new(&shape, &strides, self.offset))
    }

    pub(crate) fn squeeze(&self, dim: usize) -> Result<Layout, TensorError> {
        self.check_dim(dim)?;
        if self.shape[dim] != 1 {
            return Err(TensorError::Squeeze {
                dim,
                shape: self.shape.to_vec(),
                size: self.shape[dim],
            });
        }
        let (mut shape, mut strides) = (self.shape.to_vec(), self.strides.to_vec());
        shape.remove(dim);
        strides.remove(dim);
        Ok(Layout::new(&shape, &strides, self.offset))
    }

    pub(crate) fn broadcast_to(&self, to: &[usize], dtype: DType) -> Result<Layout, TensorError> {
        let mismatch = || TensorError::Broadcast {
            from: self.shape.to_vec(),
            to: to.to_vec(),
        };
        checked_numel(to, dtype)?;
        let new_dims = to
            .len()
            .checked_sub(self.shape.len())
            .ok_or_else(mismatch)?;
        let mut strides = vec![0; to.len()];
        for (dim, (&size, &stride)) in self.shape.iter().zip(&*self.strides).enumerate() {
            let wanted = to[new_dims + dim];
            if size == wanted {
                strides[new_dims + dim] = stride;
            } else if size != 1 {
                return Err(mismatch());
            }
        }
        Ok(Layout::new(to, &strides, self.offset))
    }

    /// Row-major layout of `to` on the same elements; `None` if they do not lie in order.
    pub(crate) fn reshape(
        &self,
        to: &[usize],
        dtype: DType,
    ) -> Result<Option<Layout>, TensorError> {
        let (from_count, to_count) = (self.numel(), checked_numel(to, dtype)?);
        if from_count != to_count {
            return Err(TensorError::Reshape {
                from: self.shape.to_vec(),
                from_count,
                to: to.to_vec(),
                to_count,
            });
        }
        Ok(self.is_contiguous().then(|| Layout {
            offset: self.offset,
            ..Layout::row_major(to)
        }))
    }

    /// Position in the storage of the element that comes `index`-th in row-major order. The caller keeps
    /// `index < numel()`.
    pub(crate) fn position(&self, mut index: usize) -> usize {
        let mut position = self.offset;
        for (&size, &stride) in self.shape.iter().zip(&*self.strides).rev() {
            position += index % size * stride;
            index /= size;
        }
        position
    }

    /// Copies the elements of `src` (the storage, in units of one element) in row-major order to `dst`.
    pub(crate) fn gather<E: Copy>(&self, src: &[E], dst: &mut [E]) {
        if self.numel() == 0 {
            return;
        }
        // Neighbouring dimensions that one stride describes become one, so that runs are as long as they can be.
        let mut dims: Vec<(usize, usize)> = Vec::with_capacity(self.shape.len());
        for (&size, &stride) in self
            .shape
            .iter()
            .zip(&*self.strides)
            .filter(|&(&size, _)| size != 1)
        {
            match dims.last_mut() {
                Some((outer_size, outer_stride)) if *outer_stride == size * stride => {
                    (*outer_size, *outer_stride) = (*outer_size * size, stride);
                }
                _ => dims.push((size, stride)),
            }
        }
        let (run, stride) = dims.pop().unwrap_or((1, 1));
        let mut index = vec![0; dims.len()];
        let mut start = self.offset;
        for out in dst.chunks_exact_mut(run) {
            match stride {
                1 => out.copy_from_slice(&src[start..start + run]),
                0 => out.fill(src[start]),
                _ => out
                    .iter_mut()
                    .zip(src[start..].iter().step_by(stride))
                    .for_each(|(to, &from)| *to = from),
            }
            for (count, &(size, stride)) in index.iter_mut().zip(&dims).rev() {
                *count += 1;
                start += stride;
                if *count < size {
                    break;
                }
                *count = 0;
                start -= size * stride;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_beyond_the_address_space_are_errors() {
        assert_eq!(checked_numel(&[3, 4], DType::F32), Ok(12));
        assert_eq!(checked_numel(&[], DType::F32), Ok(1));
        assert_eq!(checked_numel(&[7, 0, 9], DType::F32), Ok(0));
        for shape in [
            &[usize::MAX, 2][..],
            &[0, usize::MAX, usize::MAX],
            &[usize::MAX / 2 + 1],
        ] {
            assert!(matches!(
                checked_numel(shape, DType::U8),
                Err(TensorError::TooLarge { .. })
            ));
        }
        assert!(checked_numel(&[isize::MAX as usize], DType::U8).is_ok());
        assert!(checked_numel(&[isize::MAX as usize], DType::F32).is_err());
    }

    #[test]
    fn more_than_six_dimensions_go_to_the_heap() {
        let shape = [1, 2, 1, 3, 1, 2, 1, 2];
        let layout = Layout::row_major(&shape);
        assert_eq!(layout.shape(), shape);
        assert_eq!(layout.strides(), [24, 12, 12, 4, 4, 2, 2, 1]);
        assert_eq!(layout.numel(), 24);
    }

    #[test]
    fn size_one_dimensions_do_not_break_contiguity() {
        let layout = Layout::row_major(&[2, 3]).unsqueeze(1).unwrap();
        assert!(layout.is_contiguous());
        assert!(layout.transpose(0, 1).unwrap().is_contiguous());
        assert!(!layout.transpose(0, 2).unwrap().is_contiguous());
    }

    #[test]
    fn nothing_is_contiguous_whatever_its_strides() {
        let layout = Layout::row_major(&[4, 3]);
        let empty = layout.narrow(1, 3, 0).unwrap();
        for layout in [&empty, &empty.transpose(0, 1).unwrap()] {
            assert!(layout.is_contiguous() && layout.span().is_empty());
        }
        let column = layout.narrow(1, 1, 1).unwrap();
        assert!(!column.is_contiguous());
        assert_eq!(column.span(), 1..11);
    }
}
